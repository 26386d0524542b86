"""Q-Score: how good an embedding is, without labels. Arrays in, arrays out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ROWS = 1024  # embeddings at once: with 128 features 1 MB, which fits into the cache of a core


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
    chunks = [_scores(embedding[i : i + ROWS]) for i in range(0, len(embedding), ROWS)]
    z, l1 = np.concatenate(chunks, axis=1) if chunks else np.empty((2, 0))
    return QScore(z / l1, z, l1)


def _scores(embedding: np.ndarray) -> np.ndarray:
    """Z and L1 [2,N] of a chunk. Z does not depend on the scale of h; for L1 the sum is divided by
    the norm, instead of every feature. Row sums are products with ones, which BLAS does fastest."""
    h = embedding.astype(np.float64)
    ones = np.ones(h.shape[1])
    mean = h @ ones / len(ones)
    centred = h - mean[:, None]
    variance = np.einsum("nd,nd->n", centred, centred) / len(ones)
    norm = np.sqrt(len(ones) * (variance + mean**2))
    scores = np.stack([embedding.max(axis=1) - mean, np.abs(h) @ ones])
    # The variance of a constant vector is rounding noise, about 1e-34 of its squared norm.
    defined = variance > (1e-12 * norm) ** 2
    scores[:, ~defined] = np.nan
    scale = np.stack([np.sqrt(variance), norm])
    return np.divide(scores, scale, out=scores, where=defined)


class Detection(NamedTuple):
    """Measures of a score as a detector; by chance 0.5 and the share of positives."""

    auroc: float
    average_precision: float


def low_score_detects(score: np.ndarray, positive: np.ndarray) -> Detection | None:
    """Measure how well a low score [N] detects `positive` images [N] (PIEs, or misclassified ones).
    Undefined scores are left out; None unless both positives and others remain."""
    defined = ~np.isnan(score)
    score, positive = -score[defined], positive[defined]
    if positive.all() or not positive.any():
        return None
    from sklearn.metrics import average_precision_score, roc_auc_score

    return Detection(roc_auc_score(positive, score), average_precision_score(positive, score))
