"""The softmax margin: how far the likeliest class leads in a network's probabilities."""

from __future__ import annotations

import numpy as np


def softmax_margin(logits: np.ndarray) -> np.ndarray:
    """logits [N,C], C >= 2 -> [N] float64 in [0, 1]: the probability of the likeliest class minus
    that of the second likeliest (a measure of confidence: Scheffer et al., 2001)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    probability = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    second, first = np.sort(probability, axis=1)[:, -2:].T
    return first - second
