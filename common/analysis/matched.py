"""Does one learner lose more images than the other at equal error?

At equal sparsity the learner that suffers more from pruning makes more errors, and errors alone
make PIEs. So each learner's count is expressed as a function of its error over the sparsities, and
the two functions are compared at errors that both learners reach: at the lowest, at the highest,
and between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from common.analysis.statistics import Estimate
from common.analysis.subsets import blocks

N_ERRORS = 50  # points of the common range at which curves are compared

Count = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Level(NamedTuple):
    """One learner at one sparsity; row i of every array has the same id."""

    errors: np.ndarray  # [K], shares of wrong predictions of the pruned networks
    dense: np.ndarray  # [K,N] labels
    pruned: np.ndarray  # [K,N] labels


class Matched(NamedTuple):
    """Count of learner b minus that of learner a at equal error, where both learners reach it."""

    errors: tuple[float, float]  # the lowest and the highest error that both reach
    lowest: Estimate  # difference at the lowest
    highest: Estimate  # difference at the highest
    average: Estimate  # over all errors between, evenly in log error; it can hide a change of sign

    def changes_sign(self) -> bool:
        """True if the intervals at both ends exclude 0, on opposite sides (each at 95 %)."""
        low, high = self.lowest, self.highest
        return low.high < 0 < high.low or high.high < 0 < low.low


def matched_difference(
    a: Sequence[Level],
    b: Sequence[Level],
    count: Count,
    rng: Generator,
    n_resamples: int = 200,
    n_repeats: int = 1,
) -> Matched | None:
    """Count of learner b minus that of a at equal error; a and b hold one level for each sparsity.

    count(dense, pruned, subsets) counts, [R], the images whose modal labels differ, raw or
    corrected, of R populations: the networks that each row of subsets, bool [R,K], chooses. Counts
    add up over images, which come in blocks. Images on which all networks of a level agree are left
    out beforehand: they are PIEs of no two halves. A count that varies with random splits is
    repeated n_repeats times for the whole population. The curve of a learner is monotone in error
    (isotonic regression over the sparsities); between sparsities log(count + 1) is linear in log
    error, since counts grow about as a power of error.

    Intervals: a delete-half jackknife over the ids of each learner takes the same half at all
    sparsities, for errors and counts alike. Counts of halves are larger, so their spread is taken
    on the square-root scale, where it hardly depends on the count, and moved to the observed count.
    Student's t has K-1 degrees of freedom, with the K of the smaller learner.
    None if a learner has fewer than two sparsities or 4 networks, or if the ranges of error do not
    overlap.
    """
    from scipy.stats import t

    k = min((len(level.errors) for level in (*a, *b)), default=0)
    if min(len(a), len(b)) < 2 or k < 4:
        return None
    (curve_a, halves_a), (curve_b, halves_b) = (
        _resample(levels, count, n_resamples, n_repeats, rng) for levels in (a, b)
    )
    errors = _common(curve_a, curve_b)
    if errors is None:
        return None
    pairs = [(curve_a, curve_b), *zip(halves_a, halves_b, strict=True)]
    differences = np.array([in_b.at(errors) - in_a.at(errors) for in_a, in_b in pairs])
    quantile = float(t.ppf(0.975, k - 1))
    estimates = []
    for value, *found in (differences[:, 0], differences[:, -1], differences.mean(axis=1)):
        half = quantile * float(np.std(found))
        estimates.append(Estimate(float(value), float(value - half), float(value + half)))
    low, high = np.exp(errors[[0, -1]]).tolist()
    return Matched((low, high), *estimates)


class Curve(NamedTuple):
    """The points of one learner, one for each of S sparsities: both arrays are [S]."""

    log_error: np.ndarray
    n_lost: np.ndarray

    def at(self, log_errors: np.ndarray) -> np.ndarray:
        """Counts [E] at log errors [E]; the curve is constant beyond its first and last point."""
        from scipy.optimize import isotonic_regression

        order = self.log_error.argsort()
        log_counts = isotonic_regression(np.log1p(self.n_lost[order])).x
        return np.expm1(np.interp(log_errors, self.log_error[order], log_counts))


def _resample(
    levels: Sequence[Level], count: Count, n_resamples: int, n_repeats: int, rng: Generator
) -> tuple[Curve, list[Curve]]:
    """The curve of all networks, and curves that vary around it as those of fresh networks would.

    Raises ValueError if the levels do not have the same number of networks.
    """
    sizes = {len(part) for level in levels for part in level}
    if len(sizes) > 1:
        raise ValueError(f"levels of one learner have {sorted(sizes)} networks")
    k = sizes.pop()
    levels = [_disputed(level) for level in levels]
    everyone = np.ones((n_repeats, k), dtype=bool)
    centre = _root(_points(levels, everyone, count).mean(axis=0))
    of_half = rng.random((n_resamples, k)).argsort(axis=1) < k // 2
    halves = _root(_points(levels, of_half, count))
    # The factor (K-d)/d of the delete-d jackknife: 1 for even K, a little less for odd K.
    moved = (halves - halves.mean(axis=0)) * (k // 2 / (k - k // 2)) ** 0.5 + centre
    return _curve(centre), [_curve(points) for points in moved]


def _disputed(level: Level) -> Level:
    first = level.dense[0]
    keep = (level.dense != first).any(axis=0) | (level.pruned != first).any(axis=0)
    return Level(level.errors, level.dense[:, keep], level.pruned[:, keep])


def _points(levels: Sequence[Level], subsets: np.ndarray, count: Count) -> np.ndarray:
    """Log error and count, [R,2,S], of subsets bool [R,K] of the networks. An error of 0 is taken
    as 1 in a million."""
    share = subsets / subsets.sum(axis=1, keepdims=True)
    errors = [np.maximum(1e-6, share @ level.errors) for level in levels]
    counts = [
        sum(
            count(level.dense[:, block], level.pruned[:, block], subsets)
            for block in blocks(level.dense.shape[1])
        )
        for level in levels
    ]
    return np.stack([np.log(errors).T, np.array(counts).T], axis=1)


def _root(points: np.ndarray) -> np.ndarray:
    """The square root of each count, [...,2,S]; a corrected count below 0 is taken as 0."""
    log_errors, counts = np.moveaxis(points, -2, 0)
    return np.stack([log_errors, np.sqrt(np.maximum(0.0, counts))], axis=-2)


def _curve(points: np.ndarray) -> Curve:
    return Curve(points[0], np.maximum(points[1], 0) ** 2)


def _common(a: Curve, b: Curve) -> np.ndarray | None:
    """Log errors that both curves reach, evenly spaced; None if there are none."""
    low = max(a.log_error.min(), b.log_error.min())
    high = min(a.log_error.max(), b.log_error.max())
    return np.linspace(low, high, N_ERRORS) if low < high else None
