"""Do two cells lose the same images? The overlap of their PIEs, corrected for how unreliably K
networks tell which images a cell loses.

Even two populations of one cell share only about half of their PIEs, so the PIEs of any two cells
look unique. Here halves of the ids are compared: halves of two cells against halves of one cell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from common.analysis.statistics import Estimate
from common.analysis.subsets import blocks, modes_differ


class Halves(NamedTuple):
    """R random splits of K ids into two halves of K // 2."""

    of: np.ndarray  # bool [R,2,K]
    without: np.ndarray  # bool [R,K,K]: row i is the half that contains id i, without i
    other: np.ndarray  # int [R,K]: the index, 0 or 1, of the half that does not contain id i


class Lost(NamedTuple):
    """PIEs of both halves of R splits, then of the halves without each of K ids."""

    bits: np.ndarray  # uint8 [R,2+K,N/8], one bit an image: 0.2 GB at K = 30 and N = 1,000,000
    n: int  # images

    def in_split(self, i: int) -> np.ndarray:
        """bool [2+K,N]"""
        return np.unpackbits(self.bits[i], axis=1, count=self.n).view(bool)

    def ever(self) -> np.ndarray:
        """bool [N]: whether an image is lost in any split."""
        return np.unpackbits(np.bitwise_or.reduce(self.bits, axis=(0, 1)), count=self.n).view(bool)


class CorrectedOverlap(NamedTuple):
    """How far two cells lose the same images, in populations of K // 2 networks."""

    # Correlation, over images, of the two cells' probabilities of losing an image. Like any
    # correlation corrected for reliability (Spearman 1904), it can exceed 1.
    r: Estimate
    uniqueness: Estimate  # 1 - r^2; 1 if r < 0, and 0 if r > 1
    reliability: tuple[float, float]  # correlation of each cell's PIEs with those of fresh ids


def split_ids(k: int, n_splits: int, rng: Generator) -> Halves:
    """Splits of the ids 0 ... K-1; the cells that are compared share them."""
    place = rng.random((n_splits, k)).argsort(axis=1).argsort(axis=1)
    return without_each(
        np.stack([place < k // 2, (place >= k // 2) & (place < k // 2 * 2)], axis=1)
    )


def without_each(of: np.ndarray) -> Halves:
    """Two disjoint parts of the ids, bool [R,2,K], together with each part that lacks one id."""
    side = of[:, 1].astype(np.int64)
    own = np.take_along_axis(of, side[..., None], axis=1)
    return Halves(of, own & ~np.eye(of.shape[2], dtype=bool), 1 - side)


def lost_by_half(dense: np.ndarray, pruned: np.ndarray, halves: Halves, n_classes: int) -> Lost:
    """The PIEs of these halves; dense, pruned [K,N]."""
    chosen = np.concatenate([halves.of, halves.without], axis=1)
    subsets = chosen.reshape(-1, len(dense))
    n = dense.shape[1]
    found = [
        np.packbits(
            modes_differ(dense[:, block], subsets, pruned[:, block], subsets, n_classes), axis=1
        )
        for block in blocks(n)
    ]
    return Lost(np.concatenate(found, axis=1).reshape(*chosen.shape[:2], -1), n)


def corrected_overlap(lost_x: Lost, lost_y: Lost, halves: Halves) -> CorrectedOverlap | None:
    """Reliability-corrected overlap of the cells X and Y, from the `lost_by_half` of each.

    r = cov(X_A, Y_B) / sqrt(cov(X_A, X_B) cov(Y_A, Y_B)). Each covariance runs over the N images
    and is averaged over the splits, with A and B in either order, before the ratio is taken. No
    half is compared with networks of its own ids, so shared seeds and shared dense networks cannot
    raise r.

    Interval: delta method for r, with the variance over fresh ids and fresh images (two_way). A
    claim about lost images is about images of this kind, and if PIEs are few, most of the variance
    comes from the images. Student's t on the plain scale.
    None for K < 4, or if one of the cells loses no image repeatably (reliability <= 0).
    """
    k = halves.of.shape[2]
    if k < 4:
        return None
    products, n_alike = _products(lost_x, lost_y, halves)
    n = lost_x.n
    xx, yy, xy = (products[0] @ n_alike) / n
    if not (xx > 0 and yy > 0):
        return None
    scale = (xx * yy) ** 0.5
    gradient = np.array([-xy / (2 * xx), -xy / (2 * yy), 1]) / scale
    spread = two_way(np.tensordot(gradient, products, axes=(0, 1)) / n, n_alike)
    reliability = tuple(
        float(value / np.mean([lost.in_split(i)[:2].var(axis=1) for i in range(len(halves.of))]))
        for value, lost in ((xx, lost_x), (yy, lost_y))
    )
    half = spread.error * spread.quantile
    r = float(xy / scale)
    unique = Estimate(*(1 - min(1.0, max(0.0, x)) ** 2 for x in (r, r + half, r - half)))
    return CorrectedOverlap(Estimate(r, r - half, r + half), unique, reliability)


def _products(lost_x: Lost, lost_y: Lost, halves: Halves) -> tuple[np.ndarray, np.ndarray]:
    """What each image adds to N times cov(X,X), cov(Y,Y) and cov(X,Y) between the halves, averaged
    over splits: [1+K,3,M], with all ids, then without each. Also how many images each of the M
    entries stands for: all images that neither cell ever loses share one entry."""
    n_splits, _, k = halves.of.shape
    n, ever = lost_x.n, lost_x.ever() | lost_y.ever()
    first = np.concatenate([np.zeros(1, int), 2 + np.arange(k)])
    total = np.zeros((1 + k, 3, ever.sum() + 1), dtype=np.float32)
    for i in range(n_splits):
        second = np.concatenate([np.ones(1, int), halves.other[i]])
        x, y = (_centred(lost.in_split(i)[:, ever], n) for lost in (lost_x, lost_y))
        for j, (a, b) in enumerate(((x, x), (y, y), (x, y))):
            total[:, j] += a[first] * b[second] + a[second] * b[first]
    return total / (2 * n_splits), np.append(np.ones(ever.sum()), n - ever.sum())


def _centred(lost: np.ndarray, n: int) -> np.ndarray:
    """Indicators [R,M] of the images that are ever lost -> [R,M+1], minus the mean over all n
    images; the last column stands for the images that are never lost."""
    mean = lost.sum(axis=1, keepdims=True, dtype=np.float32) / n
    return np.concatenate([lost - mean, -mean], axis=1)


class Spread(NamedTuple):
    """Standard error of a sum over images whose terms depend on networks, and the quantile of
    Student's t for a 95 % interval."""

    error: float
    quantile: float


def two_way(
    parts: np.ndarray, n_alike: np.ndarray | float = 1.0, n_models: int | None = None
) -> Spread:
    """How the sum of parts[0] varies with fresh images and fresh networks.

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
    return Spread(variance**0.5, float(t.ppf(0.975, df)))
