"""Do two cells lose the same images? The overlap of their PIEs, corrected for how unreliably K
networks tell which images a cell loses.

Even two populations of one cell share only about half of their PIEs, so the PIEs of any two cells
look unique. Here halves of the ids are compared: halves of two cells against halves of one cell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from common.analysis.statistics import Estimate, half_width
from common.analysis.subsets import Halves, blocks, modes_differ, two_parts, without_each


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
    """The overlap of the images that two cells lose, in populations of K // 2 networks."""

    # Correlation, over images, of the two cells' probabilities of losing an image. Like any
    # correlation corrected for reliability (Spearman 1904), it can exceed 1.
    r: Estimate
    uniqueness: Estimate  # 1 - r^2; 1 if r < 0, and 0 if r > 1
    reliability: tuple[float, float]  # correlation of each cell's PIEs with those of fresh ids


def split_ids(k: int, n_splits: int, rng: Generator) -> Halves:
    """Splits of the ids 0 ... K-1; the cells that are compared share them."""
    return without_each(two_parts(rng.random((n_splits, k)), k // 2))


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

    Interval: delta method for r, with the variance over fresh ids and fresh images (`half_width`).
    A claim about lost images is about images of this kind, and if PIEs are few, most of the
    variance comes from the images. Student's t on the plain scale.
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
    half = half_width(np.tensordot(gradient, products, axes=(0, 1)) / n, n_alike)
    reliability = tuple(
        float(value / np.mean([lost.in_split(i)[:2].var(axis=1) for i in range(len(halves.of))]))
        for value, lost in ((xx, lost_x), (yy, lost_y))
    )
    r = float(xy / scale)
    unique = Estimate(*(1 - min(1.0, max(0.0, x)) ** 2 for x in (r, r + half, r - half)))
    return CorrectedOverlap(Estimate(r, r - half, r + half), unique, reliability)


def _products(lost_x: Lost, lost_y: Lost, halves: Halves) -> tuple[np.ndarray, np.ndarray]:
    """The terms of N times cov(X,X), cov(Y,Y) and cov(X,Y) between the halves, averaged over
    splits: [1+K,3,M], with all ids, then without each. Also the number of images that each of the M
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
