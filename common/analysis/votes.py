"""The spread of a population's votes over the classes, and how far pruning moved them. Pure
numpy and scipy: votes [N,C] count the networks that predict each class."""

from __future__ import annotations

import numpy as np


def vote_margin(votes: np.ndarray) -> np.ndarray:
    """votes [N,C] -> [N] in [0, 1]: share of votes by which the most frequent class leads."""
    second, first = np.sort(votes, axis=1)[:, -2:].T
    return (first - second) / votes.sum(axis=1)


def vote_entropy(votes: np.ndarray) -> np.ndarray:
    """votes [N,C] -> [N] in bits: 0 where all networks agree."""
    share = votes / votes.sum(axis=1, keepdims=True)
    return -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1) + 0.0  # no -0.0


def vote_distance(dense: np.ndarray, pruned: np.ndarray) -> np.ndarray:
    """Jensen-Shannon distance (base 2) between votes [N,C] -> [N] in [0, 1]: 0 for equal shares, 1
    if no class has both dense and pruned votes. So a PIE by one vote differs from one by all."""
    from scipy.spatial.distance import jensenshannon

    return np.nan_to_num(jensenshannon(dense, pruned, base=2, axis=1))
