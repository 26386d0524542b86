"""Which classes pay, against scipy's Welch test and tables made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from common.analysis.class_impact import class_impact

TARGET = np.arange(90) % 3


def random_labels(seed: int, k: int, accuracy: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wrong = rng.integers(3, size=(k, len(TARGET)))
    return np.where(rng.random(wrong.shape) < accuracy, TARGET, wrong)


def test_class_impact_is_welchs_test_of_recall_minus_mean_accuracy() -> None:
    dense, pruned = random_labels(0, 8, 0.9), random_labels(1, 6, 0.6)
    found = class_impact(dense, pruned, TARGET, 3)
    for c in range(3):
        of_pruned, of_dense = (
            [np.mean(row[c == TARGET] == c) - np.mean(row == TARGET) for row in labels]
            for labels in (pruned, dense)
        )
        oracle = stats.ttest_ind(of_pruned, of_dense, equal_var=False)
        assert found.p_value[c] == pytest.approx(oracle.pvalue)
        assert found.effect[c] == pytest.approx(np.mean(of_pruned) - np.mean(of_dense))
        interval = oracle.confidence_interval(0.95)
        assert (found.low[c], found.high[c]) == pytest.approx((interval.low, interval.high))


def test_a_class_that_all_pruned_networks_lose_is_found() -> None:
    pruned = random_labels(2, 10, 0.95)
    pruned[:, TARGET == 2] = 0
    found = class_impact(random_labels(3, 10, 0.95), pruned, TARGET, 3)
    assert found.effect[2] < -0.5
    assert found.p_value[2] < 1e-6


def test_populations_without_spread() -> None:
    """Equal networks: no effect and p = 1; or, where all pruned ones lose a class, p = 0."""
    right = np.tile(TARGET, (4, 1))
    same = class_impact(right, right, TARGET, 3)
    lost = class_impact(right, np.where(right == 2, 0, right), TARGET, 3)
    assert (same.effect.tolist(), same.p_value.tolist()) == ([0] * 3, [1] * 3)
    assert lost.effect == pytest.approx([1 / 3, 1 / 3, -2 / 3])
    assert lost.p_value.tolist() == [0] * 3
    assert lost.low.tolist() == lost.high.tolist() == lost.effect.tolist()


def test_class_impact_needs_two_networks() -> None:
    with pytest.raises(ValueError, match="two networks"):
        class_impact(np.zeros((1, 3), int), np.zeros((2, 3), int), np.zeros(3, int), 1)
