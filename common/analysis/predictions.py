"""What the networks of a population say about the test images.

Networks are run one at a time and reduced at once, so memory does not grow with their number.
Column n is the same example in every array.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from common.analysis import probes
from common.analysis.q_score import q_score
from common.data.arrays import Arrays
from common.data.datasets import Dataset
from common.model import evaluation
from common.model.wide_resnet import WideResNet
from common.paths import Cell


class Population(NamedTuple):
    """K networks on N test images: predicted labels and embedding scores, all [K,N], and the
    silhouette [K] of the true classes in each network's embeddings."""

    cell: Cell
    ids: list[int]
    labels: np.ndarray
    q: np.ndarray
    z: np.ndarray
    l1: np.ndarray
    silhouette: np.ndarray

    def select(self, ids: list[int]) -> Population:
        """The networks with these ids, in this order."""
        rows = [self.ids.index(network_id) for network_id in ids]
        return Population(self.cell, ids, *(values[rows] for values in self[2:]))

    def mean_score(self, name: str) -> np.ndarray:
        """`q`, `z` or `l1` of each image [N], the mean over the networks where it is defined."""
        score = getattr(self, name).astype(np.float64)
        n_defined = (~np.isnan(score)).sum(axis=0)
        return np.where(n_defined, np.nansum(score, axis=0) / np.maximum(n_defined, 1), np.nan)


def predict(network: WideResNet, data: Dataset, batch_size: int) -> Arrays:
    """One network on the test images: labels, q, z, l1, each [N], and the silhouette."""
    labels, embedding = evaluation.classify(network, data, data.test, batch_size)
    scores = {
        name: score.astype(np.float32) for name, score in q_score(embedding)._asdict().items()
    }
    silhouette = probes.silhouette(embedding, data.test.labels.cpu().numpy())
    return {"labels": labels.astype(np.int16), "silhouette": np.array(silhouette)} | scores


def stack(cell: Cell, ids: list[int], predicted: list[Arrays]) -> Population:
    """The population of these networks."""
    return Population(
        cell, ids, *(np.stack([p[name] for p in predicted]) for name in Population._fields[2:])
    )
