"""The softmax margin: how far the first class leads in a network's probabilities."""

from __future__ import annotations

import numpy as np


def softmax_margin(logits: np.ndarray) -> np.ndarray:
    """logits [N,C], C >= 2 -> [N] float64 in [0, 1]: the probability of the first class minus that
    of the second (Scheffer et al., 2001, take it as a measure of confidence)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    probability = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    second, first = np.sort(probability, axis=1)[:, -2:].T
    return first - second
