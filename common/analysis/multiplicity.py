"""One verdict for each of a family of claims, of which each says that several numbers are above 0.

A claim is as sure as the least sure of its numbers (an intersection-union test: Berger,
Technometrics 24, 1982), and one number below 0 contradicts it, corrected for as many numbers as
there are (Bonferroni). Over the claims Holm's step-down correction (Scandinavian Journal of
Statistics 6, 1979) holds whatever their dependence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.05


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjusted p-values [M] of p_values [M] in [0, 1], in the same order; nan is no test: it stays
    nan and does not enlarge the family.

    The i-th smallest of M is multiplied by M - i + 1; none gets smaller than one before it.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[p[tested].argsort(kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return adjusted


def p_from_interval(value: float, low: float, high: float, df: float | None = None) -> float:
    """Two-sided p-value of "it is 0" from a number and its 95 % interval; nan if one is missing.

    The standard error is that of the side on which 0 lies, so a skewed interval keeps its skewness
    and p < 0.05 says the same as "0 is outside". df: the degrees of freedom of the Student interval
    that it was; without, the interval is taken for a normal one (approximate where it was not: the
    p-values of Student intervals with 9 degrees of freedom then are too small far from 0.05).
    """
    from scipy import stats

    if not np.isfinite([value, low, high]).all():
        return float("nan")
    half = value - low if value > 0 else high - value
    if half <= 0:  # an interval of no width on this side
        return 1.0 if value == 0 else 0.0
    shape = stats.norm if df is None else stats.t(df)
    return float(2 * shape.sf(abs(value) / half * shape.ppf(0.975)))


class Verdict(NamedTuple):
    """What its numbers say to a claim."""

    verdict: str
    p_value: float  # corrected over the family; nan if not tested


def combine(
    values: Sequence[float], p_values: Sequence[float], n_planned: int
) -> tuple[bool, float]:
    """Whether the numbers speak for their claim, and the p-value of what they say; nan without
    numbers. n_planned counts also those that could not be had, so that these change nothing."""
    if not values:
        return False, float("nan")
    if min(values) > 0:
        return True, max(p_values)
    against = [p for value, p in zip(values, p_values, strict=True) if value <= 0]
    return False, min(1.0, n_planned * min(against))


def verdicts(family: Sequence[tuple[bool, float]]) -> list[Verdict]:
    """One verdict for each claim of a family, from what `combine` says of it.

    `supported` and `contradicted` hold for all of the family at once with 95 % confidence,
    `marginal` is what only the correction undecides, `undecided` what is so without it. What was
    `not tested` counts in the family as undecided, so that no verdict depends on what was tested.
    """
    alone = np.array([p for _, p in family])
    corrected = holm(np.where(np.isnan(alone), 1.0, alone))
    return [
        Verdict(_verdict(speaks_for, p, adjusted), float("nan") if np.isnan(p) else float(adjusted))
        for (speaks_for, p), adjusted in zip(family, corrected, strict=True)
    ]


def _verdict(speaks_for: bool, p: float, corrected: float) -> str:
    if np.isnan(p):
        return "not tested"
    if p >= LEVEL:
        return "undecided"
    if corrected >= LEVEL:
        return "marginal"
    return "supported" if speaks_for else "contradicted"
