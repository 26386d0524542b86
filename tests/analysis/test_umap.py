"""UMAP with a fixed seed. The only tests that import it, which takes seconds."""

from __future__ import annotations

import numpy as np
import pytest

from common.analysis.umap import umap_2d

pytestmark = pytest.mark.slow


def clusters(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (10 * (np.arange(n) % 2)[:, None] + rng.normal(size=(n, 8))).astype(np.float32)


def test_the_same_seed_gives_the_same_map() -> None:
    first, again, other = (umap_2d(clusters(40), seed) for seed in (0, 0, 1))
    assert first.shape == (40, 2)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_clusters_stay_apart() -> None:
    xy = umap_2d(clusters(60), 0)
    even, odd = xy[::2], xy[1::2]
    between = np.linalg.norm(even.mean(axis=0) - odd.mean(axis=0))
    within = max(np.linalg.norm(part - part.mean(axis=0), axis=1).max() for part in (even, odd))
    assert between > within


@pytest.mark.parametrize("n", [3, 4, 5, 10])
def test_a_handful_of_images_can_be_mapped(n: int) -> None:
    xy = umap_2d(clusters(n), 0)
    assert xy.shape == (n, 2)
    assert np.isfinite(xy).all()
