"""UMAP of one network's embeddings (McInnes et al., arXiv 1802.03426)."""

from __future__ import annotations

import warnings

import numpy as np


def umap_2d(embedding: np.ndarray, seed: int) -> np.ndarray:
    """[N,D], N >= 3 -> [N,2] float32, the same for the same seed; UMAP's defaults (15 neighbours,
    minimal distance 0.1). Importing UMAP compiles for seconds, so only this function does it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about parts of UMAP that are not used here
        from umap import UMAP

        reducer = UMAP(
            n_neighbors=max(2, min(15, len(embedding) - 1)),
            init="spectral" if len(embedding) > 10 else "random",  # undefined for a handful
            min_dist=0.1,
            random_state=seed,
            n_jobs=1,  # a fixed random state implies one job anyway
        )
        return np.asarray(reducer.fit_transform(embedding), dtype=np.float32)
