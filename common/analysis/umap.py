"""UMAP of one network's embeddings (McInnes et al., arXiv 1802.03426)."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
from sklearn.neighbors import NearestNeighbors


def umap_2d(embedding: np.ndarray, seed: int) -> np.ndarray:
    """[N,D], N >= 3 -> [N,2] float32, the same for the same seed; UMAP's defaults (15 neighbours,
    minimal distance 0.1) with exact neighbours. Importing UMAP takes seconds, so only this function
    does it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about parts of UMAP that are not used here
        from umap import UMAP

        _keep_compiled()
        k = max(2, min(15, len(embedding) - 1))
        # UMAP's own search for neighbours compiles for 10 s
        distances, neighbours = NearestNeighbors(n_neighbors=k).fit(embedding).kneighbors(embedding)
        reducer = UMAP(
            n_neighbors=k,
            precomputed_knn=(neighbours, distances),
            init="spectral" if len(embedding) > 10 else "random",  # undefined for a handful
            min_dist=0.1,
            random_state=seed,
            n_jobs=1,  # a fixed random state implies one job anyway
        )
        return np.asarray(reducer.fit_transform(embedding), dtype=np.float32)


def _keep_compiled() -> None:
    """Let numba keep what it compiles of UMAP for the next process, which saves that 10 s."""
    from umap import umap_

    for function in (umap_.smooth_knn_dist, umap_.compute_membership_strengths):
        with contextlib.suppress(RuntimeError):  # numba finds no folder to write to
            function.enable_caching()
