"""Counts compared at equal error, in worlds where errors alone make PIEs, where one learner loses
more images, and where it loses more at low error and fewer at high error."""

from functools import partial

import numpy as np
import pytest
from numpy.random import Generator
from pie_worlds import World, logits, lose

from common.analysis import pie, resampling
from common.analysis.matched import Count, Curve, Level, Matched, matched_difference
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
) -> Matched | None:
    return compare([world(s) for s in SUPERVISED], other, k, seed, n_resamples, count)


def compare(
    of_a: list[World], of_b: list[World], k: int, seed: int, n_resamples: int, count: Count
) -> Matched | None:
    rng = np.random.default_rng(seed)
    a, b = (cells(worlds, k, rng) for worlds in (of_a, of_b))
    return matched_difference(a, b, count, rng, n_resamples, 1 if count is raw else 8)


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
    assert not found.changes_sign()
    for one in (found.lowest, found.average, found.highest):
        assert one.low < 0 < one.high
        assert abs(one.value) < 12


def less_stable(count: Count, k: int, seed: int) -> Matched | None:
    """Equal forgetting. Of 100 images beside, one learner's networks are all wrong on 50; the
    other's are each wrong on a random half."""
    of_a, of_b = (
        [with_errors(world(s), wrong) for s in severities]
        for severities, wrong in ((SUPERVISED, (-50, 50)), (SUPCON, (0, 0)))
    )
    return compare(of_a, of_b, k, seed, 40, count)


def changing(count: Count, k: int, seed: int) -> Matched | None:
    """The more errors, the fewer images are lost by one learner, and the more by the other."""
    of_a = [with_confused(world(s), round(60 * s)) for s in SUPERVISED]
    of_b = [with_confused(world(s), round(100 * (1 - s))) for s in SUPCON]
    return compare(of_a, of_b, k, seed, 40, count)


def with_confused(made: World, n_lost: int) -> World:
    """The world and 100 images that every network gets wrong: as class 1, but pruned networks take
    n_lost of them for class 2. So images are lost without an error more."""
    dense = np.full((100, C), -99.0)
    dense[:, 1] = 0
    pruned = dense.copy()
    pruned[:n_lost, 2] = 99
    return made._replace(
        dense=np.concatenate([made.dense, dense]), pruned=np.concatenate([made.pruned, pruned])
    )


def test_equal_forgetting_with_less_stable_votes_is_equal_if_corrected() -> None:
    assert less_stable(raw, 10, 0).highest.low > 5  # the earlier verdict
    found = less_stable(corrected, 10, 0).highest
    assert found.low < 0 < found.high
    assert abs(found.value) < 5


def test_a_learner_that_loses_more_at_equal_error_is_found() -> None:
    found = study([more_lost(s) for s in SUPCON], 30, 0)
    for one in (found.lowest, found.average, found.highest):
        assert one.low > 0
        assert one.value < 60  # at equal sparsity over 80
    assert not found.changes_sign()


def test_an_average_that_hides_a_change_of_sign() -> None:
    """At the lowest common severity, .35, SupCon loses 65 images besides and supervised 21; at the
    highest, .8, 20 and 48."""
    found = changing(corrected, 10, 0)
    assert found.changes_sign()
    assert found.average.low > 0  # the earlier verdict: SupCon loses more
    assert found.lowest.value == pytest.approx(44, abs=10)
    assert found.highest.value == pytest.approx(-28, abs=10)
    reverse = Matched(found.errors, found.highest, found.lowest, found.average)
    assert reverse.changes_sign()


@pytest.mark.slow
@pytest.mark.parametrize("count", [raw, corrected])
def test_intervals_cover(count: Count) -> None:
    """200 studies of networks that differ in errors alone: 0 is covered, at both ends and on
    average."""
    other = [world(s) for s in SUPCON]
    found = [study(other, 10, seed, 30, count) for seed in range(200)]
    for name in ("lowest", "highest", "average"):
        value, low, high = np.array([getattr(of_study, name) for of_study in found]).T
        assert abs(value.mean()) < 1.5
        assert np.mean((low <= 0) & (high >= 0)) >= 0.9
    assert not any(of_study.changes_sign() for of_study in found)


def share(found: list[Matched], name: str, sign: int) -> float:
    """How often an interval lies above (sign 1) or below 0 (sign -1)."""
    of_name = [getattr(one, name) for one in found]
    return float(np.mean([min(sign * one.low, sign * one.high) > 0 for one in of_name]))


@pytest.mark.slow
@pytest.mark.parametrize("k", [5, 10, 30])
def test_the_corrected_count_at_the_highest_error_is_right(k: int) -> None:
    """20 studies each of equal forgetting, of unequal, and of a difference that changes sign."""
    more = [more_lost(s) for s in SUPCON]
    equal, equal_raw, unequal, changed = (
        [make(seed) for seed in range(20)]
        for make in (
            lambda seed: less_stable(corrected, k, seed),
            lambda seed: less_stable(raw, k, seed),
            lambda seed: study(more, k, seed, 40, corrected),
            lambda seed: changing(corrected, k, seed),
        )
    )
    assert share(equal_raw, "highest", 1) > 0.9  # an earlier verdict
    assert share(equal, "highest", 1) <= 0.1
    assert share(equal, "highest", -1) <= 0.1
    assert share(unequal, "highest", 1) >= (0.9 if k >= 10 else 0.2)
    assert share(changed, "average", 1) > 0.8  # an earlier verdict
    assert share(changed, "highest", -1) > 0.9
    signs = [np.mean([one.changes_sign() for one in of]) for of in (equal, unequal, changed)]
    assert signs[:2] == [0, 0]
    assert signs[2] > 0.9


def test_a_corrected_count_may_be_below_zero() -> None:
    rng = np.random.default_rng(0)
    a, b = (cells([world(s) for s in by], 6, rng) for by in (SUPERVISED, SUPCON))
    found = matched_difference(a, b, lambda *of: np.full(len(of[2]), -3.0), rng, 10)
    assert found[1:] == (Estimate(0, 0, 0),) * 3


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
