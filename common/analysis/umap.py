"""UMAP of one network's embeddings (McInnes et al., arXiv 1802.03426)."""

from __future__ import annotations

import warnings

import numpy as np


def umap_2d(embedding: np.ndarray, seed: int) -> np.ndarray:
    """[N,D], N >= 3 -> [N,2] float32, the same for the same seed; UMAP's defaults (15 neighbours,
    minimal distance 0.1). Importing UMAP compiles for seconds, so it happens only here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts of UMAP that are not used here
        from umap import UMAP

        reducer = UMAP(
            n_neighbors=max(2, min(15, len(embedding) - 1)),
            init="spectral" if len(embedding) > 10 else "random",  # of a handful it is undefined
            min_dist=0.1,
            random_state=seed,
            n_jobs=1,  # what a fixed random state means anyway
        )
        return np.asarray(reducer.fit_transform(embedding), dtype=np.float32)
