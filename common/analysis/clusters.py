"""How sharply an embedding separates the classes. Arrays in, numbers out."""

from __future__ import annotations

import numpy as np
import torch

from common.analysis import probes

N_NEIGHBOURS = 10


def silhouette(embedding: np.ndarray, label: np.ndarray, metric: str = "euclidean") -> float:
    """Mean silhouette of the true classes in an embedding [N,D] (Rousseeuw 1987): 1 for sharp
    clusters, 0 for classes that merge. Of 2,000 images, evenly spaced, where there are more; NaN
    where there are too few for it to exist. Distances are `euclidean` or `cosine`."""
    from sklearn.metrics import silhouette_score

    sample = np.linspace(0, len(label) - 1, min(len(label), 2000)).round().astype(int)
    if not 2 <= len(np.unique(label[sample])) < len(sample):
        return float("nan")
    return float(silhouette_score(embedding[sample], label[sample], metric=metric))


def knn_accuracy(embedding: np.ndarray, label: np.ndarray, n_classes: int) -> float:
    """Share of the images of an embedding [N,D] whose N_NEIGHBOURS nearest others vote for their
    class; NaN for fewer images."""
    if len(label) <= N_NEIGHBOURS:
        return float("nan")
    bank = torch.from_numpy(embedding)
    return float((probes.knn_predict(bank, label, None, N_NEIGHBOURS, n_classes) == label).mean())
