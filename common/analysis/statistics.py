"""Statistics over the networks of a population. Pure: numpy in, numbers out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Mean(NamedTuple):
    """A mean over n values, their standard deviation (n - 1), and the 95 % interval of the mean;
    a single value has neither."""

    mean: float
    n: int
    sd: float | None = None
    interval: tuple[float, float] | None = None


def mean_over_networks(values: ArrayLike) -> Mean:
    """Mean of values [K], one a network, with Student's t interval: what is estimated is the mean
    over networks trained with other seeds. Raises ValueError if there are no values."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values must be [K] with K >= 1, not {list(values.shape)}")
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Mean(mean, n)
    from scipy.stats import t

    sd = float(values.std(ddof=1))
    half = float(t.ppf(0.975, n - 1)) * sd / n**0.5
    return Mean(mean, n, sd, (mean - half, mean + half))
