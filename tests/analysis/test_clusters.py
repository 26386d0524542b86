"""Silhouettes against scikit-learn and against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import silhouette_score

from common.analysis import clusters
from common.analysis.clusters import knn_accuracy, silhouette


def noise(seed: int, n: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def naive(h: np.ndarray, target: np.ndarray) -> float:
    """For each image, (b - a) / max(a, b): its mean distance to its own class and to the nearest
    other one."""
    scores = []
    for n in range(len(target)):
        distance = np.sqrt(((h - h[n]).astype(float) ** 2).sum(axis=1))
        own = distance[(target == target[n]) & (np.arange(len(target)) != n)].mean()
        other = min(distance[target == c].mean() for c in set(target.tolist()) - {target[n]})
        scores.append((other - own) / max(own, other))
    return float(np.mean(scores))


def test_silhouettes() -> None:
    label, mixed = np.arange(60) % 3, noise(0, 60, 8)
    embedding = label[:, None].astype(np.float32) + mixed
    assert silhouette(embedding, label) == pytest.approx(silhouette_score(embedding, label))
    assert silhouette(embedding, label) == pytest.approx(naive(embedding, label), abs=1e-5)
    cosine = silhouette_score(embedding, label, metric="cosine")
    assert silhouette(embedding, label, "cosine") == pytest.approx(cosine)
    assert silhouette(100 * np.eye(3, dtype=np.float32)[label], label) == 1
    assert abs(silhouette(mixed, label)) < 0.1


def test_silhouettes_of_many_images_take_2000_evenly_spaced() -> None:
    label = np.arange(3999) % 3
    embedding = (label[:, None] + noise(1, 3999, 2)).astype(np.float32)
    sample = np.arange(0, 3999, 2)
    expected = silhouette_score(embedding[sample], label[sample])
    assert silhouette(embedding, label) == pytest.approx(expected)


@pytest.mark.parametrize("label", [[0, 0, 0], [0, 1, 2], [1]])
def test_a_silhouette_needs_two_classes_and_more_images_than_classes(label: list[int]) -> None:
    assert np.isnan(silhouette(noise(2, len(label), 4), np.array(label)))


def test_nearest_neighbours_vote_for_the_class() -> None:
    """Two clusters of 20 images; three images of the one class lie in the other's cluster."""
    label = np.arange(40) % 2
    where = label.copy()
    where[[0, 2, 4]] = 1
    embedding = (100 * where[:, None] + noise(3, 40, 2)).astype(np.float32)
    assert knn_accuracy(embedding, label, 2) == pytest.approx(37 / 40)
    assert np.isnan(knn_accuracy(embedding[:10], label[:10], 2))


def test_neighbours_of_many_images_are_sought_among_evenly_spaced_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    label = np.arange(199) // 2 % 2
    embedding = (label[:, None] + noise(4, 199, 3)).astype(np.float32)
    expected = knn_accuracy(embedding[::2], label[::2], 2)
    assert expected != knn_accuracy(embedding, label, 2)
    monkeypatch.setattr(clusters, "NEIGHBOURS_OF", 100)
    assert knn_accuracy(embedding, label, 2) == expected
