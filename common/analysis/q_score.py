"""Q-Score: how good an embedding is, without labels. Arrays in, arrays out."""

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


class Detection(NamedTuple):
    """How well a score tells positives from the rest: chance is 0.5, and their share."""

    auroc: float
    average_precision: float


def low_score_detects(score: np.ndarray, positive: np.ndarray) -> Detection | None:
    """A low score [N] as the detector of `positive` [N] (a PIE, a misclassified image). Undefined
    scores are left out; None unless both positives and others are left."""
    defined = ~np.isnan(score)
    score, positive = -score[defined], positive[defined]
    if positive.all() or not positive.any():
        return None
    from sklearn.metrics import average_precision_score, roc_auc_score

    return Detection(roc_auc_score(positive, score), average_precision_score(positive, score))
