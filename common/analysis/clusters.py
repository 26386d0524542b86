"""Silhouettes: how sharply an embedding separates the classes. Arrays in, numbers out."""

from __future__ import annotations

import numpy as np
import torch

from common.analysis import probes

N_NEIGHBOURS = 10
# At most so many images are compared, evenly spaced: the work grows with the square of the number.
SILHOUETTE_OF, NEIGHBOURS_OF = 2_000, 50_000


def _evenly_spaced(n_images: int, at_most: int) -> np.ndarray:
    return np.linspace(0, n_images - 1, min(n_images, at_most)).round().astype(int)


def silhouette(embedding: np.ndarray, label: np.ndarray, metric: str = "euclidean") -> float:
    """Mean silhouette of the true classes in an embedding [N,D] (Rousseeuw 1987): 1 for sharp
    clusters, 0 for classes that merge. At most SILHOUETTE_OF images are used; NaN if there are too
    few to define a silhouette. Distances are `euclidean` or `cosine`."""
    from sklearn.metrics import silhouette_score

    sample = _evenly_spaced(len(label), SILHOUETTE_OF)
    if not 2 <= len(np.unique(label[sample])) < len(sample):
        return float("nan")
    return float(silhouette_score(embedding[sample], label[sample], metric=metric))


def knn_accuracy(embedding: np.ndarray, label: np.ndarray, n_classes: int) -> float:
    """Share of the images of an embedding [N,D] whose N_NEIGHBOURS nearest neighbours vote for the
    image's own class. At most NEIGHBOURS_OF images are used; NaN if there are too few."""
    if len(label) <= N_NEIGHBOURS:
        return float("nan")
    sample = _evenly_spaced(len(label), NEIGHBOURS_OF)
    bank, label = torch.from_numpy(embedding[sample]), label[sample]
    return float((probes.knn_predict(bank, label, None, N_NEIGHBOURS, n_classes) == label).mean())
