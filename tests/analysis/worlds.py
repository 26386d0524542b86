"""Simulated worlds: what K dense and K pruned networks predict, fresh ones as often as wanted.

The images are fixed, the networks random, so that the expected value of a count is known from many
fresh populations, and an interval can be asked how often it covers it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

N_CLASSES = 10
N_IMAGES = 1000


class World(NamedTuple):
    """The effect of pruning on the logits, and what a network's images and its pair have in
    common."""

    drop: float  # spread of what the true class's logit loses by pruning
    together: float = 0.0  # weight of a network's own bias, shared by images and by its pair
    pair: float = 0.7  # correlation of the noise of a dense network and its pruned one


# PIEs at K = 10, of 1,000 images: 17, 19, 108, 43, 531. Dense networks are right on 93 % of the
# images (correlated: 87), pruned ones on 93, 92, 81, 82, 42 %.
WORLDS = {
    "null": World(0.0),
    "few": World(0.1),
    "many": World(1.0),
    "correlated": World(0.5, together=0.7, pair=0.9),
    "steep": World(4.0),
}

Study = Callable[[int, Generator], tuple[np.ndarray, np.ndarray]]


def make(world: World, n: int = N_IMAGES, seed: int = 1) -> Study:
    """A function of K and a generator that draws labels of dense and pruned networks, [K,n] each.

    Three classes compete for an image: the true one and two rivals, of which one is likelier.
    """
    images = np.random.default_rng(seed)
    target, away = images.integers(N_CLASSES, size=n), images.integers(1, 5, size=n)
    candidates = np.stack([target, target + away, target + 2 * away]) % N_CLASSES  # [3,n]
    base = np.stack([images.normal(2.4, 1.2, n), np.zeros(n), -images.exponential(1.0, n)])
    lost = np.abs(images.normal(0, world.drop, n))
    loading = images.normal(size=(4, n))

    def study(k: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        bias = world.together * rng.normal(size=(k, 4)) @ loading
        noise = 0.7 * rng.normal(size=(k, 3, n))
        other = 0.7 * rng.normal(size=(k, 3, n))
        logits = np.stack([base + noise, base + world.pair * noise + own(world.pair) * other])
        logits[:, :, 0] += bias
        logits[1, :, 0] -= lost
        choice = logits.argmax(axis=2)  # [2,K,n]
        dense, pruned = candidates[choice, np.arange(n)]
        return dense, pruned

    return study


def own(correlation: float) -> float:
    """The weight of a variable's own noise that keeps its variance at this correlation."""
    return (1 - correlation**2) ** 0.5
