"""Intervals of shares that stay between 0 and 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from common.analysis.statistics import Estimate


def share_interval(values: ArrayLike) -> Estimate:
    """Mean of shares [K], one for each network, in [0, 1], with a 95 % interval within [0, 1].

    Student's t on the logit scale (delta method): far from 0 and 1 as narrow as on the plain scale.
    If all shares are 0, or all are 1, their spread says nothing; then Wilson's interval for K
    trials treats each share as all-or-nothing, the most that shares can vary. The interval is nan
    for a single network. Raises ValueError without values or for values outside [0, 1].
    """
    from scipy import stats

    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values must be [K] with K >= 1, not {list(values.shape)}")
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError("a share must be in [0, 1]")
    mean, k = float(values.mean()), len(values)
    if k == 1:
        return Estimate(mean, float("nan"), float("nan"))
    if mean in (0.0, 1.0):
        width = stats.norm.ppf(0.975) ** 2
        width = float(width / (k + width))
        return Estimate(mean, max(0.0, mean - width), min(1.0, mean + width))
    error = values.std(ddof=1) / k**0.5 / (mean * (1 - mean))
    half = stats.t.ppf(0.975, k - 1) * error
    centre = np.log(mean / (1 - mean))
    low, high = (1 / (1 + np.exp(-np.clip(x, -700, 700))) for x in (centre - half, centre + half))
    return Estimate(mean, float(low), float(high))
