"""Means over the networks of a population, and 95 % intervals. Pure: numpy in, numbers out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Mean(NamedTuple):
    """A mean over n values, their standard deviation (n - 1), and the 95 % interval of the mean.
    For a single value, `sd` and `interval` are None."""

    mean: float
    n: int
    sd: float | None = None
    interval: tuple[float, float] | None = None


def mean_over_networks(values: ArrayLike) -> Mean:
    """Mean of values [K], one for each network, with Student's t interval for the mean over
    networks trained with other seeds. Raises ValueError if there are no values."""
    values = _of_networks(values)
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Mean(mean, n)
    from scipy.stats import t

    sd = float(values.std(ddof=1))
    half = float(t.ppf(0.975, n - 1)) * sd / n**0.5
    return Mean(mean, n, sd, (mean - half, mean + half))


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


def share_interval(values: ArrayLike) -> Estimate:
    """Mean of shares [K], one for each network, in [0, 1], with a 95 % interval within [0, 1].

    Student's t on the logit scale (delta method): far from 0 and 1 as narrow as on the plain scale.
    If all shares are 0, or all are 1, their spread says nothing; then Wilson's interval for K
    trials treats each share as all-or-nothing, the most that shares can vary. The interval is nan
    for a single network. Raises ValueError without values or for values outside [0, 1].
    """
    from scipy import stats

    values = _of_networks(values)
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


def _of_networks(values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values must be [K] with K >= 1, not {list(values.shape)}")
    return values


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of independent estimates, with the interval of MOVER (Zou & Donner, Statistics in
    Medicine 27, 2008), which keeps the skewness of intervals of counts."""
    value = a.value - b.value
    return Estimate(
        value,
        value - float(np.hypot(a.value - a.low, b.high - b.value)),
        value + float(np.hypot(a.high - a.value, b.value - b.low)),
    )


def ratio(a: ArrayLike, b: ArrayLike) -> Estimate | None:
    """Mean of a divided by mean of b, both [K] for the same networks, with the interval of Fieller
    (Journal of the Royal Statistical Society B 16, 1954), exact for normal values. None for K = 1
    or if the interval is unbounded, because the mean of b may be 0."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(a) < 2 or not np.isfinite([a, b]).all():
        return None
    from scipy.stats import t

    means, factor = np.array([a.mean(), b.mean()]), t.ppf(0.975, len(a) - 1) ** 2 / len(a)
    (aa, ab), (_, bb) = np.outer(means, means) - factor * np.cov(a, b)
    if bb <= 0:
        return None
    half = max(0.0, ab**2 - aa * bb) ** 0.5 / bb
    return Estimate(float(a.mean() / b.mean()), float(ab / bb - half), float(ab / bb + half))


def half_width(
    parts: np.ndarray, n_alike: np.ndarray | float = 1.0, n_models: int | None = None
) -> float:
    """Half the 95 % interval of the sum of parts[0], which varies with fresh images and networks.

    parts [1+K,M]: what each image adds to the sum, with all ids, then without each of the K ids;
    n_alike [M]: the number of images that each column stands for; n_models: how many of the K
    networks the sum varies with, if not with all.
    Two-way clustering (Cameron, Gelbach & Miller, Journal of Business & Economic Statistics 29,
    2011): the variance over images, plus the delete-one jackknife's variance over ids, minus the
    part that both contain, a network's effect on a single image. The last two terms together are a
    sum of products of different images, which also rids the jackknife of the noise from modal
    labels that jump. Degrees of freedom by Satterthwaite, with n_models-1 for the networks' part.
    """
    from scipy.stats import t

    k, n = len(parts) - 1, np.sum(n_alike * np.ones(parts.shape[1]))
    of_images = float((n_alike * (parts[0] - (n_alike * parts[0]).sum() / n) ** 2).sum())
    mean = parts[1:].mean(axis=0)
    deviations = (part - mean for part in parts[1:])  # one at a time: images may be many
    sums = np.array([((n_alike * d).sum(), (n_alike * d**2).sum()) for d in deviations])
    squares = sums[:, 0] ** 2 - sums[:, 1]
    of_networks = max(0.0, float((k - 1) / k * squares.sum()))
    variance = of_images + of_networks
    df = ((n_models or k) - 1) * (variance / of_networks) ** 2 if of_networks > 0 else np.inf
    return float(t.ppf(0.975, df)) * variance**0.5
