"""Simulated populations whose truth is known: every network adds its own noise to an image's mean
logits and predicts the class with the largest sum."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator


class World(NamedTuple):
    """The truth about N images: mean logits [N,C] of dense and pruned networks."""

    dense: np.ndarray
    pruned: np.ndarray
    noise: tuple[float, float] = (1.0, 1.0)  # sd of the logits of dense and pruned networks
    pair: float = 0.5  # correlation between a dense network and the one pruned from it
    shared: float = 0.0  # sd of what a network does to groups of images at once

    def sample(self, k: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        """Labels dense [K,N] and pruned [K,N] of k networks, row i of both a pair."""
        own, other, together = (self._noise(k, rng) for _ in range(3))
        own = self.pair**0.5 * together + (1 - self.pair) ** 0.5 * own
        other = self.pair**0.5 * together + (1 - self.pair) ** 0.5 * other
        dense, pruned = self.dense.astype(np.float32), self.pruned.astype(np.float32)
        return (
            (dense + np.float32(self.noise[0]) * own).argmax(axis=2),
            (pruned + np.float32(self.noise[1]) * other).argmax(axis=2),
        )

    def _noise(self, k: int, rng: Generator) -> np.ndarray:
        n, n_classes = self.dense.shape
        found = rng.standard_normal((k, n, n_classes), dtype=np.float32)
        if self.shared:
            # Four directions in which networks differ; the images' loadings are part of the world.
            loading = np.random.default_rng(n).standard_normal((4, n * n_classes))
            found += self.shared * (rng.standard_normal((k, 4)) @ loading).reshape(found.shape)
        return found


def logits(n: int, n_classes: int, rng: Generator, margin: float = 3.5) -> np.ndarray:
    """Mean logits [N,C]: the right class ahead of one rival by a margin of sd 1.5, the others
    behind; with a margin of 3.5 about 1 % of the images have another mode."""
    found = -rng.exponential(2.0, (n, n_classes))
    right = rng.integers(n_classes, size=n)
    rival = (right + rng.integers(1, n_classes, size=n)) % n_classes
    found[np.arange(n), rival] = 0
    found[np.arange(n), right] = rng.normal(margin, 1.5, n)
    return found


def lose(mean: np.ndarray, amount: float, rng: Generator) -> np.ndarray:
    """Logits [N,C] after pruning: the leading class of every image loses |normal(0, amount)|."""
    pruned = mean.copy()
    pruned[np.arange(len(mean)), mean.argmax(axis=1)] -= np.abs(rng.normal(0, amount, len(mean)))
    return pruned


# Systematic loss by image, and noise of the pruned networks. `few` and `many` PIEs; `noisy`: only
# the noise rises, so modes of large populations agree.
LOSS = {"few": (0.1, 1.1), "many": (1.2, 1.4), "noisy": (0.0, 1.6)}


def world(name: str, n: int, n_classes: int, seed: int, shared: float = 0.0) -> World:
    """One of LOSS."""
    rng = np.random.default_rng(seed)
    mean = logits(n, n_classes, rng)
    amount, noise = LOSS[name]
    return World(mean, lose(mean, amount, rng), (1.0, noise), shared=shared)
