"""The predictions of K networks on N test images. Column n is the same image in every array."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from common.study import Cell


class Population(NamedTuple):
    """K networks on N test images: predicted labels [K,N]; and, by name, scores [K,N] of each
    image in each network and numbers [K] about each network's embedding."""

    cell: Cell
    ids: list[int]
    labels: np.ndarray
    scores: dict[str, np.ndarray]
    numbers: dict[str, np.ndarray]

    def select(self, ids: list[int]) -> Population:
        """The networks with these ids, in this order."""
        if ids == self.ids:  # copies of a large population would not fit into memory
            return self
        rows = [self.ids.index(network_id) for network_id in ids]
        scores, numbers = (
            {name: values[rows] for name, values in of.items()}
            for of in (self.scores, self.numbers)
        )
        return Population(self.cell, ids, self.labels[rows], scores, numbers)

    def mean_score(self, name: str) -> np.ndarray:
        """The mean of a score for each image [N], over the networks in which it is defined."""
        return nan_mean(self.scores[name], axis=0)


def stack(cell: Cell, ids: list[int], predicted: Iterable[dict[str, np.ndarray]]) -> Population:
    """The population of these networks, each with its labels, scores [N] and numbers []. Networks
    are taken one at a time, so that a large population is in memory only once."""
    arrays: dict[str, np.ndarray] = {}
    for i, one in enumerate(predicted):
        for name, values in one.items():
            if i == 0:
                arrays[name] = np.empty((len(ids), *values.shape), values.dtype)
            arrays[name][i] = values
    labels = arrays.pop("labels")
    scores = {name: values for name, values in arrays.items() if values.ndim == 2}
    numbers = {name: values for name, values in arrays.items() if values.ndim == 1}
    return Population(cell, ids, labels, scores, numbers)


def nan_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean, in float64, of the defined values along an axis; NaN where no value is defined."""
    defined = ~np.isnan(values)
    n_defined = defined.sum(axis=axis)
    total = np.where(defined, values.astype(np.float64), 0).sum(axis=axis)
    return np.where(n_defined > 0, total / np.maximum(n_defined, 1), np.nan)
