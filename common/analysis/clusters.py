"""How sharply an embedding separates the classes. Arrays in, numbers out."""

from __future__ import annotations

import numpy as np


def silhouette(embedding: np.ndarray, label: np.ndarray) -> float:
    """Mean silhouette of the true classes in an embedding [N,D] (Rousseeuw 1987): 1 for sharp
    clusters, 0 for classes that merge. Of 2,000 images, evenly spaced, where there are more; NaN
    where there are too few for it to exist."""
    from sklearn.metrics import silhouette_score

    sample = np.linspace(0, len(label) - 1, min(len(label), 2000)).round().astype(int)
    if not 2 <= len(np.unique(label[sample])) < len(sample):
        return float("nan")
    return float(silhouette_score(embedding[sample], label[sample]))
