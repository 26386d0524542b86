"""Prediction depth: at which layer a nearest-neighbour probe settles on the network's answer."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

DISTANCES_AT_ONCE = 2**24  # 64 MB in float32, whatever the bank and the queries
BLOCK = 64  # bank images a block; only the nearest image of each block is looked at first
SPARE = 16  # extra candidates beyond k, for distances that rounding puts out of order


def knn_predict(
    bank: Tensor,
    bank_labels: np.ndarray,
    queries: Tensor | None,
    k: int,
    n_classes: int,
) -> np.ndarray:
    """Labels [N] of queries [N,D] by a uniform vote of their k nearest images in bank [M,D], by
    Euclidean distance.

    queries None: the queries are the bank, and no image is its own neighbour (leave-one-out).
    The search is exhaustive, in float32 after centring (which limits cancellation). Among bank
    images at the same distance any may be chosen; a tied vote goes to the lowest class, as in
    scikit-learn. Raises ValueError unless there are k possible neighbours.
    """
    leave_one_out = queries is None
    if not 1 <= k <= len(bank) - leave_one_out:
        raise ValueError(f"k = {k} neighbours of a bank of {len(bank)}")
    centre = bank.mean(0)
    bank = (bank - centre).float()
    queries = bank if queries is None else (queries - centre).float()
    neighbours = _neighbours(bank, queries, k + leave_one_out).cpu().numpy()
    if leave_one_out:
        neighbours = _without_itself(neighbours)
    votes_of = np.asarray(bank_labels)[neighbours]  # [N,k]
    votes = np.stack([(votes_of == c).sum(axis=1) for c in range(n_classes)], axis=1)
    return votes.argmax(axis=1)


def _without_itself(neighbours: np.ndarray) -> np.ndarray:
    """[N,k+1] -> [N,k]: row i without image i itself, or without the last neighbour if image i is
    not in the row (where k+1 other images have the same embedding)."""
    itself = neighbours == np.arange(len(neighbours))[:, None]
    itself[:, -1] |= ~itself.any(axis=1)
    return neighbours[~itself].reshape(len(neighbours), -1)


def _neighbours(bank: Tensor, queries: Tensor, k: int) -> Tensor:
    """Indices [N,k] of the k nearest images in bank [M,D], in any order.

    Selection takes the time, not multiplication. The m nearest images lie in the m blocks of the
    bank whose minimal distances are smallest: for any image elsewhere, these m blocks hold m nearer
    ones. So the search selects among M/64 minima and then among 64 m distances, instead of M.
    """
    n_blocks = -(-len(bank) // BLOCK)
    missing = n_blocks * BLOCK - len(bank)
    norms = (bank * bank).sum(1)
    squared = F.pad(norms, (0, missing), value=torch.inf)  # never among the nearest
    columns = F.pad(bank, (0, 0, 0, missing)).T
    m = min(k + SPARE, len(bank))
    nearest = []
    for chunk in queries.split(max(1, DISTANCES_AT_ONCE // len(squared))):
        # squared distance minus |query|², which is the same for all of the bank
        distance = torch.addmm(squared, chunk, columns, alpha=-2).unflatten(1, (n_blocks, BLOCK))
        blocks = distance.amin(2).topk(min(m, n_blocks), dim=1, largest=False).indices
        candidates = distance.take_along_dim(blocks[:, :, None], dim=1).flatten(1)
        rounded, best = candidates.topk(m, dim=1, largest=False)
        found = blocks.gather(1, best // BLOCK) * BLOCK + best % BLOCK
        if m > k:
            error = _rounding(bank.shape[1], norms.max(), (chunk * chunk).sum(1))
            unsure = (rounded[:, k] - rounded[:, k - 1] <= error).nonzero().squeeze(1)
            found[unsure, :k] = _decide(
                bank, chunk[unsure], found[unsure], (rounded[:, -1] - error)[unsure], k
            )
        nearest.append(found[:, :k])
    return torch.cat(nearest)


def _rounding(width: int, largest: Tensor, norms: Tensor) -> Tensor:
    """Twice the largest error [N] of a squared distance |b|² - 2 qb + |q|² in float32, from the
    largest |b|² and the |q|² [N]: a sum of D products errs by at most D/2^24 of the sum of their
    sizes (Higham, 2002, section 3.1)."""
    return 2 * (width + 4) * 2.0**-24 * (largest.sqrt() + norms.sqrt()) ** 2


def _decide(bank: Tensor, queries: Tensor, candidates: Tensor, beyond: Tensor, k: int) -> Tensor:
    """The k nearest [N,k] of the candidates [N,m], by differences of coordinates, which do not
    cancel. Where another image may be nearer (their squared distances are at least `beyond` [N] +
    |q|²), the whole bank is searched."""
    exact = (bank[candidates] - queries[:, None]).square().sum(2)
    exact, order = exact.topk(k, dim=1, largest=False)
    nearest = candidates.gather(1, order)
    if candidates.shape[1] < len(bank):
        limit = beyond + (queries * queries).sum(1)
        unsure = (exact[:, -1] > limit).nonzero().squeeze(1)
        nearest[unsure] = _search_all(bank, queries[unsure], k)
    return nearest


def _search_all(bank: Tensor, queries: Tensor, k: int) -> Tensor:
    """The k nearest [N,k] by exact distances to the whole bank: slow, and rarely needed."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(queries, bank, compute_mode=mode).topk(k, dim=1, largest=False).indices


def prediction_depth(probe_labels: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Depth [N] in 0 … L, from probe labels [L,N] and the target [N] (Baldock et al., 2106.09647).

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


def released_depth(probe_labels: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The depth [N] that the released code of arXiv 2207.00200 computes: for the true label, and
    with depths 0 and 1 merged, so 0 … L-1."""
    return np.maximum(prediction_depth(probe_labels, label) - 1, 0)
