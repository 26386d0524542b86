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
    """Adjusted p-values [M] of p_values [M] in [0, 1], in the same order. The i-th smallest of M is
    multiplied by M - i + 1, and then raised to the one before if smaller."""
    p = np.asarray(p_values, dtype=np.float64)
    order = p.argsort(kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def p_from_interval(value: float, low: float, high: float, df: float | None = None) -> float:
    """Two-sided p-value of "the number is 0" from a number and its 95 % interval. nan if either is
    missing, or if the interval has no width on the side of 0.

    The standard error comes from the side on which 0 lies, so a skewed interval keeps its skewness
    and p < 0.05 means the same as "0 is outside". df: the degrees of freedom, if it is a Student
    interval; otherwise the interval is taken as normal. (Taking a Student interval with 9 degrees
    of freedom as normal makes p-values far below 0.05 too small.)
    """
    from scipy import stats

    if not np.isfinite([value, low, high]).all():
        return float("nan")
    half = value - low if value > 0 else high - value
    if half <= 0:  # an interval without width: that two networks agree by chance proves nothing
        return 1.0 if value == 0 else float("nan")
    shape = stats.norm if df is None else stats.t(df)
    return float(2 * shape.sf(abs(value) / half * shape.ppf(0.975)))


class Verdict(NamedTuple):
    """The answer to a claim, after the correction over the family."""

    verdict: str
    p_value: float  # corrected over the family; nan if not tested or incomplete


class Answer(NamedTuple):
    """The answer to one claim, before the correction over the family."""

    supports: bool
    p_value: float  # nan without numbers
    is_complete: bool  # whether no planned number is missing


def combine(numbers: Sequence[tuple[float, float]], n_planned: int) -> Answer:
    """The answer of the available ones of n_planned numbers, each a value and its p-value. A number
    without a p-value (nan) counts as missing.

    To support a claim all numbers must be above 0; the claim is as certain as the least certain of
    them. One number below 0 contradicts it (Bonferroni over n_planned), whatever is missing.
    """
    tested = [(value, p) for value, p in numbers if not np.isnan(p)]
    if not tested:
        return Answer(False, float("nan"), False)
    against = [p for value, p in tested if value <= 0]
    if not against:
        return Answer(True, max(p for _, p in tested), len(tested) == n_planned)
    return Answer(False, min(1.0, n_planned * min(against)), True)


def verdicts(family: Sequence[Answer]) -> list[Verdict]:
    """One verdict for each claim of a family.

    `supported` and `contradicted` hold for the whole family at once with 95 % confidence. A claim
    is `marginal` if it is decided only without the correction, and `undecided` if not even then. A
    claim is `incomplete` if its numbers support it without the correction but some planned ones are
    missing: otherwise the fewer numbers were tested, the more easily a claim would be supported.
    Claims that are incomplete or `not tested` count as undecided in the correction, so no other
    verdict depends on them.
    """
    corrected = holm([answer.p_value if answer.is_complete else 1.0 for answer in family])
    return [_verdict(*pair) for pair in zip(family, corrected.tolist(), strict=True)]


def _verdict(answer: Answer, corrected: float) -> Verdict:
    if np.isnan(answer.p_value):
        return Verdict("not tested", answer.p_value)
    if answer.p_value >= LEVEL:
        return Verdict("undecided", corrected)
    if not answer.is_complete:
        return Verdict("incomplete", float("nan"))
    if corrected >= LEVEL:
        return Verdict("marginal", corrected)
    return Verdict("supported" if answer.supports else "contradicted", corrected)
