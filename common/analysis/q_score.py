"""Q-Score: how good an embedding is, without labels. Pure numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class QScore(NamedTuple):
    """Scores of N embeddings, each [N] float64; NaN where undefined."""

    q: np.ndarray
    z: np.ndarray
    l1: np.ndarray


def q_score(embedding: np.ndarray) -> QScore:
    """Q = Z / L1 of embeddings [N,D] (Kalibhat et al., arXiv 2203.01881, version 1).

    Each embedding h (encoder output after average pooling, before any projection) is first
    scaled to unit length; Z = (max h - mean h) / std h, population std; L1 = sum |h|. Undefined,
    thus NaN, where h is zero or constant. For k equal active features of D, Q = sqrt(D - k) / k.
    Raises ValueError unless embedding is [N,D].
    """
    if embedding.ndim != 2:
        raise ValueError(f"embedding must be [N,D], not {list(embedding.shape)}")
    h = embedding.astype(np.float64)
    norm = np.linalg.norm(h, axis=1, keepdims=True)
    h = h / np.where(norm > 0, norm, 1)
    std = h.std(axis=1)
    # The std of a constant unit vector is rounding noise, about 1e-17.
    defined = (norm[:, 0] > 0) & (std > 1e-12)
    z = np.full(len(h), np.nan)
    l1 = np.full(len(h), np.nan)
    z[defined] = (h.max(axis=1) - h.mean(axis=1))[defined] / std[defined]
    l1[defined] = np.abs(h).sum(axis=1)[defined]
    return QScore(z / l1, z, l1)
