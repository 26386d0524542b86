"""The predictions of K networks on N test images. Column n is the same image in every array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.study import Cell


class Population(NamedTuple):
    """K networks on N test images: predicted labels [K,N], scores [K,N] by name, and the silhouette
    [K] of the true classes in each network's embeddings."""

    cell: Cell
    ids: list[int]
    labels: np.ndarray
    scores: dict[str, np.ndarray]
    silhouette: np.ndarray

    def select(self, ids: list[int]) -> Population:
        """The networks with these ids, in this order."""
        rows = [self.ids.index(network_id) for network_id in ids]
        scores = {name: score[rows] for name, score in self.scores.items()}
        return Population(self.cell, ids, self.labels[rows], scores, self.silhouette[rows])

    def mean_score(self, name: str) -> np.ndarray:
        """A score of each image [N], the mean over the networks where it is defined."""
        return nan_mean(self.scores[name], axis=0)


def stack(cell: Cell, ids: list[int], predicted: Sequence[dict[str, np.ndarray]]) -> Population:
    """The population of these networks; all their arrays but labels and silhouette are scores."""
    arrays = {name: np.stack([one[name] for one in predicted]) for name in predicted[0]}
    labels, silhouette = arrays.pop("labels"), arrays.pop("silhouette")
    return Population(cell, ids, labels, arrays, silhouette)


def nan_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean over an axis of the values that are defined, float64; NaN where none is."""
    defined = ~np.isnan(values)
    n_defined = defined.sum(axis=axis)
    total = np.where(defined, values.astype(np.float64), 0).sum(axis=axis)
    return np.where(n_defined > 0, total / np.maximum(n_defined, 1), np.nan)
