"""Nearest-neighbour probes against scikit-learn, prediction depth against a naive loop."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.neighbors import KNeighborsClassifier

from common.analysis import probes
from common.analysis.probes import knn_predict, prediction_depth, released_depth

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
    ),
]


def points(seed: int, n: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def naive_knn(bank: np.ndarray, bank_labels: np.ndarray, queries: np.ndarray, k: int) -> list[int]:
    """Sort all distances in double precision; of the most frequent labels the lowest."""
    predicted = []
    for query in queries.astype(np.float64):
        distance = ((bank.astype(np.float64) - query) ** 2).sum(axis=1)
        votes = Counter(int(bank_labels[i]) for i in np.argsort(distance, kind="stable")[:k])
        predicted.append(min(c for c, count in votes.items() if count == max(votes.values())))
    return predicted


def naive_depth(probe_labels: np.ndarray, target: np.ndarray) -> list[int]:
    """The definition, word by word."""
    n_layers, n_images = probe_labels.shape
    depths = []
    for n in range(n_images):
        agrees = [bool(probe_labels[layer, n] == target[n]) for layer in range(n_layers)]
        depths.append(
            next(
                depth
                for depth in range(n_layers + 1)
                if all(agrees[depth:]) and (depth == 0 or not agrees[depth - 1])
            )
        )
    return depths


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [1, 2, 5, 30, 60])
@pytest.mark.parametrize("n_classes", [2, 10])
def test_knn_agrees_with_scikit_learn_and_a_loop(device: str, k: int, n_classes: int) -> None:
    bank, queries = points(0, 60, 7), points(1, 40, 7)
    labels = np.random.default_rng(2).integers(n_classes, size=60)
    found = knn_predict(
        torch.from_numpy(bank).to(device), labels, torch.from_numpy(queries).to(device),
        k, n_classes,
    )  # fmt: skip
    reference = KNeighborsClassifier(k, algorithm="brute").fit(bank, labels)
    assert found.tolist() == reference.predict(queries).tolist()
    assert found.tolist() == naive_knn(bank, labels, queries, k)


@pytest.mark.parametrize("device", DEVICES)
def test_a_tied_vote_goes_to_the_lowest_class(device: str) -> None:
    """k = 4 with two neighbours each of classes 3 and 1, in all orders of distance."""
    bank = torch.tensor([[1.0], [1.1], [1.2], [1.3], [9.0], [9.1]], device=device)
    query = torch.tensor([[0.0]], device=device)
    for labels in ([3, 3, 1, 1, 0, 0], [1, 1, 3, 3, 0, 0], [3, 1, 1, 3, 0, 0], [1, 3, 3, 1, 0, 0]):
        assert knn_predict(bank, np.array(labels), query, 4, 4).tolist() == [1]
        reference = KNeighborsClassifier(4).fit(bank.cpu(), labels)
        assert reference.predict(query.cpu()).tolist() == [1]


@pytest.mark.parametrize("device", DEVICES)
def test_distances_do_not_cancel_far_from_the_origin(device: str) -> None:
    """In float32, |a|² - 2ab + |b|² of points near 1,000 keeps no digit of distances near 0.1."""
    bank, queries = 1000 + 0.1 * points(6, 80, 16), 1000 + 0.1 * points(7, 50, 16)
    labels = np.random.default_rng(8).integers(10, size=80)
    found = knn_predict(
        torch.from_numpy(bank).to(device), labels, torch.from_numpy(queries).to(device), 3, 10
    )
    assert found.tolist() == naive_knn(bank, labels, queries, 3)


@pytest.mark.parametrize("device", DEVICES)
def test_more_queries_than_go_at_once(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "DISTANCES_AT_ONCE", 500)
    bank, queries = points(9, 30, 2), points(10, 37, 2)
    labels = np.random.default_rng(11).integers(3, size=30)
    found = knn_predict(
        torch.from_numpy(bank).to(device), labels, torch.from_numpy(queries).to(device), 5, 3
    )
    assert found.tolist() == naive_knn(bank, labels, queries, 5)


@pytest.mark.parametrize("n_bank", [1, 2, 63, 64, 65, 128, 200, 1000])
@pytest.mark.parametrize("k", [1, 2, 3, 30, 64, 65, 200])
def test_the_nearest_are_those_of_an_exhaustive_search(n_bank: int, k: int) -> None:
    """More and fewer neighbours than blocks of the bank, and blocks that are not full."""
    if k > n_bank:
        return
    bank, queries = points(n_bank, n_bank, 6), points(k, 20, 6)
    distance = ((queries[:, None] - bank[None]) ** 2).sum(axis=2)
    expected = np.sort(np.argsort(distance, axis=1)[:, :k], axis=1)
    found = probes._neighbours(torch.from_numpy(bank), torch.from_numpy(queries), k)
    assert np.array_equal(found.sort(dim=1).values.numpy(), expected)


@pytest.mark.parametrize("radius", [1e-1, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("device", DEVICES)
def test_neighbours_in_tight_clusters_are_exact(device: str, radius: float) -> None:
    """Products of vectors of length 1 err by more than such distances differ."""
    centres = np.eye(16, dtype=np.float32)[:2]
    bank, queries = (
        (centres[np.arange(n) % 2] + radius * points(seed, n, 16)).astype(np.float32)
        for seed, n in ((1, 500), (2, 40))
    )
    # the distances that float32 inputs have, without rounding any further
    distance = ((queries[:, None].astype(float) - bank[None].astype(float)) ** 2).sum(axis=2)
    found = probes._neighbours(
        torch.from_numpy(bank).to(device), torch.from_numpy(queries).to(device), 5
    )
    reached = np.take_along_axis(distance, found.cpu().numpy(), axis=1).max(axis=1)
    assert reached == pytest.approx(np.sort(distance, axis=1)[:, 4], rel=1e-5)


@pytest.mark.parametrize(("k", "leave_one_out"), [(0, False), (-1, False), (13, False), (12, True)])
def test_an_impossible_number_of_neighbours_is_refused(k: int, leave_one_out: bool) -> None:
    bank = torch.from_numpy(points(16, 12, 4))
    with pytest.raises(ValueError, match=f"k = {k} neighbours of a bank of 12"):
        knn_predict(bank, np.zeros(12, int), None if leave_one_out else bank, k, 3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [1, 4, 39])
def test_without_queries_every_image_is_predicted_from_the_others(device: str, k: int) -> None:
    bank, labels = points(17, 40, 5), np.random.default_rng(18).integers(4, size=40)
    found = knn_predict(torch.from_numpy(bank).to(device), labels, None, k, 4)
    for n in range(40):
        others = np.arange(40) != n
        assert found[n] == naive_knn(bank[others], labels[others], bank[n : n + 1], k)[0]


@pytest.mark.parametrize("device", DEVICES)
def test_equal_images_do_not_vote_for_themselves(device: str) -> None:
    """Of four copies each asks the other three: itself is left out, whichever copy comes first. Of
    ten, an image need not be among its own two nearest."""
    bank = torch.zeros(10, 2, device=device)
    assert knn_predict(bank[:4], np.array([0, 0, 1, 1]), None, 3, 2).tolist() == [1, 1, 0, 0]
    assert knn_predict(bank, np.full(10, 3), None, 2, 5).tolist() == [3] * 10


# Four layers; by column: all agree, each single layer disagrees, several, none agrees.
PROBES = np.array(
    [
        [5, 0, 5, 5, 5, 0, 0],
        [5, 5, 0, 5, 5, 0, 0],
        [5, 5, 5, 0, 5, 5, 0],
        [5, 5, 5, 5, 0, 5, 0],
    ]
)


@given(
    hnp.arrays(
        np.int16,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
        elements=st.integers(0, 2),
    ),
    st.integers(0, 2**32 - 1),
)
def test_depth_agrees_with_the_definition(probe_labels: np.ndarray, seed: int) -> None:
    target = np.random.default_rng(seed).integers(3, size=probe_labels.shape[1])
    depth = prediction_depth(probe_labels, target)
    assert depth.tolist() == naive_depth(probe_labels, target)
    agrees = probe_labels == target
    assert (depth == 0).tolist() == agrees.all(axis=0).tolist()
    assert (depth == len(probe_labels)).tolist() == (~agrees[-1]).tolist()


@pytest.mark.parametrize(
    ("probe_labels", "shape"), [(PROBES, 6), (PROBES, (4, 7)), (PROBES, ()), (PROBES[0], 7)]
)
def test_a_target_of_other_images_is_refused(
    probe_labels: np.ndarray, shape: int | tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        prediction_depth(probe_labels, np.zeros(shape, int))


def test_the_released_depth_merges_zero_and_one() -> None:
    assert released_depth(PROBES, np.full(7, 5)).tolist() == [0, 0, 1, 2, 3, 1, 3]
