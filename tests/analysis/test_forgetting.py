import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from common.analysis import forgetting


def random_labels(rng: np.random.Generator, k: int, n: int, accuracy: float) -> np.ndarray:
    target = np.arange(n) % 3
    wrong = rng.integers(3, size=(k, n))
    return np.where(rng.random((k, n)) < accuracy, target, wrong)


def test_class_impact_is_welchs_test_of_recall_minus_mean_accuracy() -> None:
    rng = np.random.default_rng(0)
    dense, pruned = random_labels(rng, 8, 90, 0.9), random_labels(rng, 6, 90, 0.6)
    target = np.arange(90) % 3
    found = forgetting.class_impact(dense, pruned, target, 3)
    for c in range(3):
        values = []
        for labels in (dense, pruned):
            values.append(
                [np.mean(row[target == c] == c) - np.mean(row == target) for row in labels]
            )
        oracle = stats.ttest_ind(values[1], values[0], equal_var=False)
        assert found.p_value[c] == pytest.approx(oracle.pvalue)
        assert found.effect[c] == pytest.approx(np.mean(values[1]) - np.mean(values[0]))
        assert found.low[c] < found.effect[c] < found.high[c]


def test_a_class_that_all_pruned_networks_lose_is_found() -> None:
    rng = np.random.default_rng(1)
    dense = random_labels(rng, 10, 300, 0.95)
    target = np.arange(300) % 3
    pruned = random_labels(rng, 10, 300, 0.95)
    pruned[:, target == 2] = 0
    found = forgetting.class_impact(dense, pruned, target, 3)
    assert found.effect[2] < -0.5
    assert found.p_value[2] < 1e-6


def test_constant_populations_have_no_impact() -> None:
    target = np.arange(30) % 3
    same = np.tile(target, (4, 1))
    found = forgetting.class_impact(same, same, target, 3)
    np.testing.assert_array_equal(found.p_value, 1)
    np.testing.assert_array_equal(found.effect, 0)


def test_class_impact_needs_two_networks() -> None:
    with pytest.raises(ValueError, match="two networks"):
        forgetting.class_impact(np.zeros((1, 3), int), np.zeros((2, 3), int), np.zeros(3, int), 1)


def test_q_values_by_hand() -> None:
    p = np.array([[0.01, 0.04], [0.03, 0.5]])  # ranks 1, 3, 2, 4 of 4
    q = forgetting.false_discovery_rate(p)
    np.testing.assert_allclose(q, [[0.04, 0.16 / 3], [0.16 / 3, 0.5]])


def test_overlap_by_hand() -> None:
    a = np.array([1, 1, 1, 0, 0, 0], bool)
    b = np.array([1, 1, 0, 1, 0, 0], bool)
    found = forgetting.overlap(a, b)
    assert (found.common, found.jaccard) == (2, 0.5)
    # of the 20 sets of 3 in 6, 1 has three in common with a, 9 two, 9 one, 1 none
    assert found.expected_jaccard == pytest.approx((1 * 1 + 9 * 2 / 4 + 9 * 1 / 5) / 20)
    assert found.p_value == pytest.approx(10 / 20)


def test_overlap_of_random_sets_is_as_expected() -> None:
    rng = np.random.default_rng(0)
    a = np.arange(50) < 10
    jaccards = []
    for _ in range(4000):
        b = np.zeros(50, bool)
        b[rng.choice(50, 15, replace=False)] = True
        jaccards.append(forgetting.overlap(a, b).jaccard)
    error = np.std(jaccards) / len(jaccards) ** 0.5
    assert forgetting.overlap(a, b).expected_jaccard == pytest.approx(
        np.mean(jaccards), abs=4 * error
    )


def test_empty_sets_overlap_in_nothing() -> None:
    nothing = np.zeros(5, bool)
    assert forgetting.overlap(nothing, nothing) == (0, 0.0, 0.0, 1.0)


def test_margin_entropy_and_distance_by_hand() -> None:
    dense = np.array([[4, 0, 0], [2, 2, 0], [3, 1, 0]])
    pruned = np.array([[0, 4, 0], [2, 2, 0], [1, 3, 0]])
    np.testing.assert_allclose(forgetting.vote_margin(dense), [1, 0, 0.5])
    np.testing.assert_allclose(forgetting.vote_entropy(dense), [0, 1, 0.8112781])
    distance = forgetting.vote_distance(dense, pruned)
    np.testing.assert_allclose(distance[:2], [1, 0], atol=1e-7)
    p, q = np.array([0.75, 0.25]), np.array([0.25, 0.75])
    divergence = (stats.entropy(p, [0.5, 0.5], base=2) + stats.entropy(q, [0.5, 0.5], base=2)) / 2
    assert distance[2] == pytest.approx(divergence**0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(2, 6), st.integers(0, 10**6))
def test_vote_measures_stay_in_their_range(k: int, n_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense, pruned = rng.multinomial(k, np.ones(n_classes) / n_classes, size=(2, 20))
    distance = forgetting.vote_distance(dense, pruned)
    assert ((distance >= 0) & (distance <= 1 + 1e-9)).all()
    np.testing.assert_allclose(distance, forgetting.vote_distance(pruned, dense))
    assert (forgetting.vote_entropy(dense) <= np.log2(n_classes) + 1e-9).all()
    assert ((forgetting.vote_margin(dense) == 1) == (dense.max(axis=1) == k)).all()
