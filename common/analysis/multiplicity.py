"""Verdicts of a family of claims, by Holm's step-down correction (Scandinavian Journal of
Statistics 6, 1979), which holds whatever the dependence between the claims."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from common.analysis.statistics import Estimate

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


def verdicts(family: Sequence[Estimate | None], df: float | None = None) -> list[str]:
    """One verdict for each statistic of a family, each above 0 if its claim is true.

    `supported` and `contradicted` hold for all of the family at once with 95 % confidence,
    `marginal` is what the interval alone would decide, `undecided` what not even that does, and
    `not tested` a statistic that is None or lacks an interval (it does not count in the family).
    """
    estimates = [Estimate(*[float("nan")] * 3) if found is None else found for found in family]
    alone = np.array([p_from_interval(*found, df) for found in estimates])
    return [
        _verdict(found.value, p, adjusted)
        for found, p, adjusted in zip(estimates, alone, holm(alone), strict=True)
    ]


def _verdict(value: float, p: float, adjusted: float) -> str:
    if np.isnan(p):
        return "not tested"
    if p >= LEVEL:
        return "undecided"
    if adjusted >= LEVEL:
        return "marginal"
    return "supported" if value > 0 else "contradicted"
