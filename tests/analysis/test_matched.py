"""Counts compared at equal error, in worlds where errors alone make PIEs and in one where pruning
makes more."""

from functools import partial

import numpy as np
import pytest
from numpy.random import Generator
from pie_worlds import World, logits, lose

from common.analysis import pie
from common.analysis.matched import Curve, Level, matched_difference
from common.analysis.statistics import Estimate

C, N = 5, 500
SUPERVISED, SUPCON = (0.2, 0.4, 0.6, 0.8), (0.35, 0.55, 0.75, 0.95)  # severity by sparsity


def world(severity: float) -> World:
    """The same images for both learners, pruned by so much."""
    rng = np.random.default_rng(3)
    mean = logits(N, C, rng)
    return World(mean, lose(mean, 2.5 * severity, rng), (1, 1 + severity))


def more_lost(severity: float) -> World:
    """Some images are lost altogether besides: many PIEs for few errors."""
    made = world(severity)
    hit = np.random.default_rng(9).random(N) < 0.25 * severity
    pruned = made.pruned.copy()
    pruned[np.arange(N), made.dense.argmax(axis=1)] -= np.where(hit, 5, 0)
    return made._replace(pruned=pruned)


def cells(worlds: list[World], k: int, rng: Generator) -> list[Level]:
    target = world(0).dense.argmax(axis=1)
    labels = [made.sample(k, rng) for made in worlds]
    return [Level((pruned != target).mean(axis=1), dense, pruned) for dense, pruned in labels]


def count(dense: np.ndarray, pruned: np.ndarray) -> int:
    return int(pie.find_pies(dense, pruned, C).sum())


def study(other: list[World], k: int, seed: int, n_resamples: int = 100) -> Estimate | None:
    rng = np.random.default_rng(seed)
    a, b = (cells(worlds, k, rng) for worlds in ([world(s) for s in SUPERVISED], other))
    return matched_difference(a, b, count, rng, n_resamples)


def test_the_curve_is_a_power_between_points_and_monotone() -> None:
    errors = np.array([0.4, 0.1, 0.2])
    curve = Curve(np.log(errors), np.array([15.0, 3.0, 7.0]))
    assert curve.at(np.log(errors)) == pytest.approx([15, 3, 7])
    assert curve.at(np.log([0.01, 0.9])) == pytest.approx([3, 15])
    assert curve.at(np.log([(0.1 * 0.2) ** 0.5])) == pytest.approx([32**0.5 - 1])
    pooled = Curve(np.log(errors), np.array([15.0, 7.0, 3.0]))
    assert pooled.at(np.log([0.1, 0.2])) == pytest.approx([32**0.5 - 1] * 2)


def test_errors_alone_make_no_difference_though_counts_differ_at_equal_sparsity() -> None:
    found = study([world(s) for s in SUPCON], 10, 0)
    rng = np.random.default_rng(0)
    plain = [count(*world(severity).sample(10, rng)) for severity in (0.95, 0.8)]
    assert plain[0] - plain[1] > 15
    assert found.low < 0 < found.high
    assert abs(found.value) < 12


def test_a_learner_that_loses_more_at_equal_error_is_found() -> None:
    found = study([more_lost(s) for s in SUPCON], 30, 0)
    assert found.low > 0
    assert found.value < 60  # at equal sparsity over 80


@pytest.mark.slow
def test_interval_covers() -> None:
    """200 studies of networks that differ in errors alone: 0 is covered."""
    other = [world(s) for s in SUPCON]
    found = np.array([study(other, 10, seed, 60) for seed in range(200)])
    assert abs(found[:, 0].mean()) < 1.5
    assert 0.9 <= np.mean((found[:, 1] <= 0) & (found[:, 2] >= 0)) <= 0.99


def test_a_corrected_count_may_be_below_zero() -> None:
    rng = np.random.default_rng(0)
    a, b = (cells([world(s) for s in by], 6, rng) for by in (SUPERVISED, SUPCON))
    found = matched_difference(a, b, lambda dense, pruned: -3.0, rng, 10)
    assert found == Estimate(0, 0, 0)


def test_not_tested() -> None:
    """One sparsity, too few networks, errors that are not common, or no cells at all."""
    rng = np.random.default_rng(0)
    make = partial(cells, rng=rng)
    a = make([world(0.2), world(0.4)], 6)
    for other in (a[:1], [], make([world(0.9), world(0.95)], 6), make([world(0.2)] * 2, 1)):
        assert matched_difference(a, other, count, rng, 10) is None
        assert matched_difference(other, a, count, rng, 10) is None


def test_cells_of_one_learner_have_the_same_ids() -> None:
    rng = np.random.default_rng(0)
    uneven = cells([world(0.2)], 6, rng) + cells([world(0.4)], 5, rng)
    with pytest.raises(ValueError, match="networks"):
        matched_difference(uneven, uneven, count, rng, 10)
