"""Modal labels of many subsets of networks, and everything that computes them block by block."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from common.analysis import held_out, pie, reliability, resampling, subsets

C, K, N = 5, 9, 200


def two_populations() -> np.ndarray:
    """Labels [2,K,N]; pruning changes the first 40 images."""
    rng = np.random.default_rng(0)
    labels = rng.integers(C, size=(2, K, N)) * (rng.random((2, K, N)) < 0.6)
    labels[1, :, :40] = C - 1
    return labels


def test_modal_labels_of_many_subsets_are_those_of_each() -> None:
    dense, pruned = two_populations()
    chosen = np.random.default_rng(1).random((150, K)) < 0.5
    chosen[:, 0] = True
    found = subsets.modes_differ(dense, chosen, pruned, chosen, C)
    for row, is_pie in zip(chosen, found, strict=True):
        np.testing.assert_array_equal(is_pie, pie.find_pies(dense[row], pruned[row], C))


def overlap(dense: np.ndarray, pruned: np.ndarray, rng: np.random.Generator) -> Any:
    halves = reliability.split_ids(K, 20, rng)
    x = reliability.lost_by_half(dense, pruned, halves, C)
    return reliability.corrected_overlap(x, x, halves)


def effect(dense: np.ndarray, pruned: np.ndarray, rng: np.random.Generator) -> Any:
    scores = rng.random((2, K, N)) + (dense[0] == pruned[0])
    return held_out.referenced_effect(dense, pruned, *scores, C, rng)


@pytest.mark.parametrize(
    "compute",
    [
        overlap,
        effect,
        lambda *labels: resampling.corrected_pies(*labels[:2], C, 30, labels[2]),
        lambda *labels: resampling.permutation_null(*labels[:2], C, False, 50, labels[2])[1:],
        lambda *labels: resampling.count_interval(*labels[:2], C, True, 50, labels[2]),
    ],
)
def test_numbers_do_not_depend_on_how_many_images_are_computed_at_once(
    compute: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal bit for bit, although a block of 8 images and one split at a time are 25 blocks."""
    whole = compute(*two_populations(), np.random.default_rng(2))
    monkeypatch.setattr(subsets, "IMAGES_AT_ONCE", 8)
    monkeypatch.setattr(held_out, "LABELS_AT_ONCE", 1)
    assert whole is not None
    assert compute(*two_populations(), np.random.default_rng(2)) == whole


def test_populations_that_agree_on_every_image_have_no_pies() -> None:
    labels = np.ones((K, N), dtype=int)
    rng = np.random.default_rng(0)
    assert resampling.count_interval(labels, labels, C, True, 10, rng) == (0, 0)
    assert resampling.corrected_pies(labels, labels, C, 10, rng).value == 0
