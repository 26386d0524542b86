"""Pruning: exact-count masks by a criterion, and the sparsity of gradual pruning at each step.

Masks are plain tensors beside the network (True = kept). Weights are ranked as they are at the
moment of pruning; after every optimizer step weights and momentum are masked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from common import runtime

Masks = dict[str, Tensor]


def magnitude_masks(
    tensors: Mapping[str, Tensor], sparsity: float, allocation: str = "global"
) -> Masks:
    """Masks that prune exactly round(sparsity · n) of n weights, those of smallest magnitude.

    allocation "global" ranks all weights together; "uniform" gives every tensor the same sparsity
    (to within one weight) and an exact total. Equal magnitudes are pruned in order of position.
    Raises ValueError unless 0 <= sparsity < 1.
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity {sparsity} is not in [0, 1)")
    magnitudes = {name: tensor.detach().abs().flatten() for name, tensor in tensors.items()}
    if allocation == "global":
        of_all = torch.cat(list(magnitudes.values()))
        kept = _keep_all_but(of_all, round(sparsity * len(of_all)))
        parts = kept.split([len(magnitude) for magnitude in magnitudes.values()])
    else:
        counts = _uniform_counts([len(m) for m in magnitudes.values()], sparsity)
        parts = tuple(map(_keep_all_but, magnitudes.values(), counts))
    return {
        name: part.view_as(tensor)
        for (name, tensor), part in zip(tensors.items(), parts, strict=True)
    }


def random_masks(
    tensors: Mapping[str, Tensor], sparsity: float, allocation: str = "global", *seed: int | str
) -> Masks:
    """Masks that prune as many weights of each tensor as `magnitude_masks` would, but random ones.
    The draw depends only on (seed, name of the tensor), so a higher sparsity prunes a superset."""
    masks = {}
    for name, mask in magnitude_masks(tensors, sparsity, allocation).items():
        draws = torch.rand(mask.numel(), generator=runtime.generator(*seed, "criterion", name))
        draws = draws.to(mask.device)
        masks[name] = _keep_all_but(draws, int((~mask).sum())).view_as(mask)
    return masks


# By the words of study.CRITERIA: (tensors, sparsity, allocation, *seed) -> masks.
CRITERIA: dict[str, Callable[..., Masks]] = {
    "magnitude": lambda tensors, sparsity, allocation, *seed: magnitude_masks(
        tensors, sparsity, allocation
    ),
    "random": random_masks,
}


def _uniform_counts(sizes: list[int], sparsity: float) -> list[int]:
    """The number of weights to prune in each tensor: rounded down, then one more for the tensors
    with the largest remainders, until the total is round(sparsity · n)."""
    exact = [sparsity * size for size in sizes]
    counts = [math.floor(share) for share in exact]
    missing = round(sparsity * sum(sizes)) - sum(counts)
    by_remainder = sorted(range(len(sizes)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[:missing]:
        counts[i] += 1
    return counts


def _keep_all_but(magnitude: Tensor, n_pruned: int) -> Tensor:
    if n_pruned == 0:
        return torch.ones_like(magnitude, dtype=torch.bool)
    threshold = magnitude.kthvalue(n_pruned).values
    pruned = magnitude < threshold
    tied = (magnitude == threshold).nonzero().squeeze(1)
    pruned[tied[: n_pruned - int(pruned.sum())]] = True
    return ~pruned


@torch.no_grad()
def apply_masks(
    masks: Masks, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Set pruned weights to zero, and their momentum too, which would revive the weights."""
    for name, tensor in tensors.items():
        if name not in masks:
            continue
        tensor.mul_(masks[name])
        if optimizer is not None:
            momentum = optimizer.state[tensor].get("momentum_buffer")
            if momentum is not None:
                momentum.mul_(masks[name])


def reached(weights: Mapping[str, Tensor], masks: Masks, sparsity: float) -> dict[str, Any]:
    """The share of weights that are exactly zero: `sparsity_reached` over all tensors, and
    `sparsity_by_layer`. Raises RuntimeError unless the masks prune as many weights as asked, to
    within one, and every pruned weight is zero."""
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    total = sum(weight.numel() for weight in weights.values())
    if abs(pruned - sparsity * total) > 1:
        raise RuntimeError(f"{pruned} of {total} weights are pruned, not a share of {sparsity}")
    revived = [name for name, mask in masks.items() if weights[name][~mask].any()]
    if revived:
        raise RuntimeError(f"pruned weights are not zero in {', '.join(revived)}")
    zeros = {name: int((weight == 0).sum()) for name, weight in weights.items()}
    return {
        "sparsity_reached": sum(zeros.values()) / total,
        "sparsity_by_layer": {name: zeros[name] / weights[name].numel() for name in weights},
    }


def gmp_sparsity(
    step: int, begin_step: int, end_step: int, final: float, initial: float = 0.0
) -> float:
    """Cubic schedule of Zhu & Gupta, arXiv 1710.01878, eq. 1: `initial` up to begin_step, `final`
    from end_step on."""
    progress = min(max((step - begin_step) / (end_step - begin_step), 0.0), 1.0)
    return final + (initial - final) * (1 - progress) ** 3
