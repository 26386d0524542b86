"""Statistics over the networks of a population. Pure: numpy in, numbers out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    """A mean over n values, their standard deviation (n - 1), and the 95 % interval of the mean."""

    mean: float
    sd: float
    interval: tuple[float, float]
    n: int


def mean_over_networks(values: np.ndarray) -> Mean:
    """Mean of values [K], one a network, with Student's t interval: what is estimated is the mean
    over networks trained with other seeds. NaN where K is too small to tell."""
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if n == 0:
        return Mean(np.nan, np.nan, (np.nan, np.nan), 0)
    mean = values.mean()
    if n == 1:
        return Mean(mean, np.nan, (np.nan, np.nan), 1)
    from scipy.stats import t

    sd = values.std(ddof=1)
    half = t.ppf(0.975, n - 1) * sd / np.sqrt(n)
    return Mean(mean, sd, (mean - half, mean + half), n)
