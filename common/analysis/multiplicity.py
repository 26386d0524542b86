"""One verdict for each claim of a family, where each claim says that several numbers are above 0.

A claim is as certain as the least certain of its numbers (an intersection-union test: Berger,
Technometrics 24, 1982). A single number below 0 contradicts the claim, after a correction for the
number of numbers (Bonferroni). Across claims, Holm's step-down correction (Scandinavian Journal of
Statistics 6, 1979) holds whatever the dependence between claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.05


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjusted p-values [M] of p_values [M] in [0, 1], in the same order. A nan is not a test: it
    stays nan and does not enlarge the family.

    The i-th smallest of M is multiplied by M - i + 1, and then raised to the one before if smaller.
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

    The standard error comes from the side on which 0 lies, so a skewed interval keeps its skewness
    and p < 0.05 means the same as "0 is outside". df: the degrees of freedom, if it is a Student
    interval; otherwise the interval is taken as normal. (Taking a Student interval with 9 degrees
    of freedom as normal makes p-values far below 0.05 too small.)
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
    """What the numbers behind a claim say about it."""

    verdict: str
    p_value: float  # corrected over the family; nan if not tested


def combine(
    values: Sequence[float], p_values: Sequence[float], n_planned: int
) -> tuple[bool, float]:
    """Whether the numbers speak for their claim, and the p-value of that answer; nan without
    numbers. n_planned also counts numbers that are missing, so a missing one changes nothing."""
    if not values:
        return False, float("nan")
    if min(values) > 0:
        return True, max(p_values)
    against = [p for value, p in zip(values, p_values, strict=True) if value <= 0]
    return False, min(1.0, n_planned * min(against))


def verdicts(family: Sequence[tuple[bool, float]]) -> list[Verdict]:
    """One verdict for each claim of a family, from what `combine` returns for the claim.

    `supported` and `contradicted` hold for the whole family at once with 95 % confidence. A claim
    is `marginal` if it is decided only without the correction, and `undecided` if not even then. A
    claim that was `not tested` counts as undecided in the correction, so that the other verdicts do
    not depend on which claims were tested.
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
