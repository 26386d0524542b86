"""Prediction depth: at which layer a nearest-neighbour probe settles on the network's answer."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

QUERIES_AT_ONCE = 1024  # on a GPU: 1,024 x 50,000 distances in float32 are 200 MB


def knn_predict(
    bank: Tensor, bank_labels: np.ndarray, queries: Tensor, k: int, n_classes: int
) -> np.ndarray:
    """Labels [N] of queries [N,D] by a uniform vote of the k nearest of bank [M,D], Euclidean.

    Exact, float32, centred first (which keeps distances from cancelling); a tied vote goes to the
    lowest class, as in scikit-learn. Raises ValueError unless 1 <= k <= M.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(f"k = {k} neighbours of a bank of {len(bank)}")
    centre = bank.mean(0)
    bank, queries = (bank - centre).float(), (queries - centre).float()
    find = _neighbours_gpu if bank.is_cuda else _neighbours_cpu
    votes_of = np.asarray(bank_labels)[find(bank, queries, k)]  # [N,k]
    votes = np.stack([(votes_of == c).sum(axis=1) for c in range(n_classes)], axis=1)
    return votes.argmax(axis=1)


def _neighbours_cpu(bank: Tensor, queries: Tensor, k: int) -> np.ndarray:
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank.numpy())
    return search.kneighbors(queries.numpy(), return_distance=False)


def _neighbours_gpu(bank: Tensor, queries: Tensor, k: int) -> np.ndarray:
    squared = (bank * bank).sum(1)
    nearest = []
    for chunk in queries.split(QUERIES_AT_ONCE):
        distance = torch.addmm(squared, chunk, bank.T, alpha=-2)  # up to a constant of the query
        nearest.append(distance.topk(k, dim=1, largest=False).indices)
    return torch.cat(nearest).cpu().numpy()


def prediction_depth(probe_labels: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Depth [N] in 0 … L of probe labels [L,N] for the target [N] (Baldock et al., 2106.09647).

    Depth l: the probe before layer l disagrees with the target and every probe from l on agrees;
    0 if all agree, L if the last one disagrees. The target is the network's own prediction (the
    paper's rule) or the true label (the released code of arXiv 2207.00200). Raises ValueError for
    other shapes.
    """
    if probe_labels.ndim != 2 or target.shape != probe_labels.shape[1:]:
        raise ValueError(f"probe labels {probe_labels.shape} do not fit target {target.shape}")
    agrees = probe_labels == target
    n_agreeing_at_the_end = np.logical_and.accumulate(agrees[::-1]).sum(axis=0)
    return len(probe_labels) - n_agreeing_at_the_end
