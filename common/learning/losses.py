"""Losses as functions of tensors, without state."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def supcon_loss(
    features: Tensor,
    labels: Tensor | None,
    temperature: float = 0.5,
    base_temperature: float = 0.07,
) -> Tensor:
    """Supervised contrastive loss, the L_out form of Khosla et al., arXiv 2004.11362, eq. 2.

    features [B,V,D]: V views of B images, L2-normalised here; labels [B], or None for SimCLR,
    where each image is its own class. Returns the mean over anchors that have a positive (0 if
    there are none), times temperature / base_temperature as in the authors' code, which acts as a
    factor on the learning rate. Computed in float32 or better, even under autocast.
    Raises ValueError for features that are not [B,V,D] or labels that are not [B].
    """
    if features.ndim != 3:
        raise ValueError(f"features must be [B,V,D], not {list(features.shape)}")
    n_images, n_views, _ = features.shape
    if labels is None:
        labels = torch.arange(n_images, device=features.device)
    if labels.shape != (n_images,):
        raise ValueError(f"labels must be [{n_images}], not {list(labels.shape)}")
    with torch.autocast(features.device.type, enabled=False):
        if features.dtype in (torch.bfloat16, torch.float16):
            features = features.float()
        z = F.normalize(features.flatten(0, 1), dim=1)  # [B*V,D]
        if len(z) == 1:  # nothing to compare with
            return 0 * features.sum()
        similarity = z @ z.T / temperature
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        log_denominator = similarity.masked_fill(itself, -torch.inf).logsumexp(1)
        views = labels.repeat_interleave(n_views)
        positives = (views[:, None] == views[None, :]) & ~itself
        n_positives = positives.sum(1)
        # mean over positives of (similarity - log_denominator), for each anchor
        log_probability = (similarity * positives).sum(1) / n_positives.clamp(min=1)
        per_anchor = (log_denominator - log_probability) * (n_positives > 0)
        mean = per_anchor.sum() / (n_positives > 0).sum().clamp(min=1)
        return mean * (temperature / base_temperature)


def collapse_value(n_views: int, temperature: float, base_temperature: float) -> float:
    """The loss if all n_views embeddings are equal; a loss that stays here means a collapse."""
    return math.log(n_views - 1) * temperature / base_temperature
