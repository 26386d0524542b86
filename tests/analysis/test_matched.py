"""Counts compared at equal error, in worlds where errors alone make PIEs and in one where pruning
makes more."""

from functools import partial

import numpy as np
import pytest
from numpy.random import Generator
from pie_worlds import World, logits, lose

from common.analysis import pie, resampling
from common.analysis.matched import Count, Curve, Level, matched_difference
from common.analysis.statistics import Estimate
from common.analysis.subsets import modes_differ

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
    target = np.zeros(len(worlds[0].dense))
    target[:N] = world(0).dense.argmax(axis=1)
    labels = [made.sample(k, rng) for made in worlds]
    return [Level((pruned != target).mean(axis=1), dense, pruned) for dense, pruned in labels]


def raw(dense: np.ndarray, pruned: np.ndarray, subsets: np.ndarray) -> np.ndarray:
    return modes_differ(dense, subsets, pruned, subsets, C).sum(axis=1)


def corrected(dense: np.ndarray, pruned: np.ndarray, subsets: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return resampling.corrected_counts(dense, pruned, subsets, C, 5, rng)


def study(
    other: list[World], k: int, seed: int, n_resamples: int = 100, count: Count = raw
) -> Estimate | None:
    rng = np.random.default_rng(seed)
    a, b = (cells(worlds, k, rng) for worlds in ([world(s) for s in SUPERVISED], other))
    return matched_difference(a, b, count, rng, n_resamples)


def with_errors(made: World, wrong: tuple[float, float]) -> World:
    """The world and 100 images, dense and pruned alike: 50 are sooner wrong by wrong[0], and 50 by
    wrong[1], in a logit of class 1 against the right class 0."""
    other = np.full((100, C), -99.0)
    other[:, 0], other[:, 1] = 0, np.repeat(wrong, 50)
    return made._replace(
        dense=np.concatenate([made.dense, other]), pruned=np.concatenate([made.pruned, other])
    )


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
    samples = [world(severity).sample(10, rng) for severity in (0.95, 0.8)]
    plain = [int(pie.find_pies(*labels, C).sum()) for labels in samples]
    assert plain[0] - plain[1] > 15
    assert found.low < 0 < found.high
    assert abs(found.value) < 12


def less_stable(count: Count, k: int, seed: int) -> Estimate | None:
    """Equal forgetting. Of 100 images beside, one learner's networks are all wrong on 50; the
    other's are each wrong on a random half."""
    rng = np.random.default_rng(seed)
    a, b = (
        cells([with_errors(world(s), wrong) for s in severities], k, rng)
        for severities, wrong in ((SUPERVISED, (-50, 50)), (SUPCON, (0, 0)))
    )
    return matched_difference(a, b, count, rng, 40)


def test_equal_forgetting_with_less_stable_votes_is_equal_if_corrected() -> None:
    assert less_stable(raw, 10, 0).low > 10  # the earlier verdict
    found = less_stable(corrected, 10, 0)
    assert found.low < 0 < found.high
    assert abs(found.value) < 5


def test_a_learner_that_loses_more_at_equal_error_is_found() -> None:
    found = study([more_lost(s) for s in SUPCON], 30, 0)
    assert found.low > 0
    assert found.value < 60  # at equal sparsity over 80


@pytest.mark.slow
@pytest.mark.parametrize("count", [raw, corrected])
def test_interval_covers(count: Count) -> None:
    """200 studies of networks that differ in errors alone: 0 is covered."""
    other = [world(s) for s in SUPCON]
    found = np.array([study(other, 10, seed, 30, count) for seed in range(200)])
    assert abs(found[:, 0].mean()) < 1.5
    assert 0.9 <= np.mean((found[:, 1] <= 0) & (found[:, 2] >= 0)) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("k", [5, 10, 30])
def test_the_corrected_count_is_right_more_often_than_the_raw_one(k: int) -> None:
    """How often each is above 0, in 20 studies: of equal forgetting, and of unequal."""
    more = [more_lost(s) for s in SUPCON]
    above = np.array([
        [[found.low > 0 for found in (less_stable(count, k, seed), study(more, k, seed, 40, count))]
         for seed in range(20)]
        for count in (raw, corrected)
    ]).mean(axis=1)  # fmt: skip
    (raw_false, raw_true), (false, true) = above
    assert raw_false > 0.9
    assert false <= 0.1
    assert true >= raw_true - 0.1


def test_a_corrected_count_may_be_below_zero() -> None:
    rng = np.random.default_rng(0)
    a, b = (cells([world(s) for s in by], 6, rng) for by in (SUPERVISED, SUPCON))
    found = matched_difference(a, b, lambda *of: np.full(len(of[2]), -3.0), rng, 10)
    assert found == Estimate(0, 0, 0)


def test_not_tested() -> None:
    """One sparsity, too few networks, errors that are not common, or no cells at all."""
    rng = np.random.default_rng(0)
    make = partial(cells, rng=rng)
    a = make([world(0.2), world(0.4)], 6)
    for other in (a[:1], [], make([world(0.9), world(0.95)], 6), make([world(0.2)] * 2, 1)):
        assert matched_difference(a, other, raw, rng, 10) is None
        assert matched_difference(other, a, raw, rng, 10) is None


def test_cells_of_one_learner_have_the_same_ids() -> None:
    rng = np.random.default_rng(0)
    uneven = cells([world(0.2)], 6, rng) + cells([world(0.4)], 5, rng)
    with pytest.raises(ValueError, match="networks"):
        matched_difference(uneven, uneven, raw, rng, 10)
