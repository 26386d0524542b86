"""Modal labels of many subsets of K networks at once, by matrix products of 0/1 choices [R,K] with
one-hot predictions; and halves of the networks, with and without each network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

AT_ONCE = 64  # subsets: 64 x 10,000 images x 3 classes x 4 bytes = 8 MB a product
# Modal labels of 1,000 subsets then take 16 MB, whatever the number of images. A multiple of 8.
IMAGES_AT_ONCE = 8192


def blocks(n: int) -> list[slice]:
    """Slices of at most IMAGES_AT_ONCE of n images."""
    return [slice(start, start + IMAGES_AT_ONCE) for start in range(0, max(n, 1), IMAGES_AT_ONCE)]


def modal(votes: np.ndarray) -> np.ndarray:
    """Modal labels [R,N] of votes [R,C,N]; ties go to the lowest class."""
    most = votes[:, 0].copy()
    found = np.zeros(most.shape, dtype=np.int16)
    for c in range(1, votes.shape[1]):  # far faster than argmax over a short axis
        more = votes[:, c] > most
        found[more] = c
        np.maximum(most, votes[:, c], out=most)
    return found


def modal_labels(labels: np.ndarray, subsets: np.ndarray, n_classes: int) -> np.ndarray:
    """Modal labels [R,N] of the networks subsets[r] (bool [R,K]) with labels [K,N]."""
    return _modal_labels(labels, subsets, n_classes, 0)[0]


def modal_and_next(labels: np.ndarray, subsets: np.ndarray, n_classes: int) -> np.ndarray:
    """[2,R,N]: the modal labels, and what they become if each of them loses one vote."""
    return _modal_labels(labels, subsets, n_classes, 1)


def _modal_labels(
    labels: np.ndarray, subsets: np.ndarray, n_classes: int, n_lost: int
) -> np.ndarray:
    """Modal labels [1+n_lost,R,N]: of all votes, then after every modal label has lost one vote.

    Images are grouped by the number of classes that any network votes for. The number is small; for
    most images it is one, and nothing is computed.
    """
    labels = labels.astype(np.int16)
    k, n = labels.shape
    voted = np.zeros((n, n_classes), dtype=bool)
    for row in labels:
        voted[np.arange(n), row] = True
    rank, n_voted = voted.cumsum(axis=1) - 1, voted.sum(axis=1)
    found = np.tile(labels[0], (1 + n_lost, len(subsets), 1))
    chosen = subsets.astype(np.float32)
    for m in np.unique(n_voted[n_voted > 1]):
        images = np.flatnonzero(n_voted == m)
        of_class = rank[images, labels[:, images]][:, None] == np.arange(m)[:, None]
        one_hot = of_class.reshape(k, -1).astype(np.float32)
        classes, first = voted[images].nonzero()[1].astype(np.int16), m * np.arange(len(images))
        for start in range(0, len(subsets), AT_ONCE):
            votes = chosen[start : start + AT_ONCE] @ one_hot
            votes = votes.reshape(len(votes), m, -1)
            for of_time in found:
                ranks = modal(votes)
                of_time[start : start + AT_ONCE, images] = classes.take(first + ranks)
                if n_lost:
                    votes -= ranks[:, None] == np.arange(m)[:, None]
    return found


def modes_differ(
    a: np.ndarray, of_a: np.ndarray, b: np.ndarray, of_b: np.ndarray, n_classes: int
) -> np.ndarray:
    """bool [R,N]: where the modal label of labels a [K,N] over the networks of_a[r] differs from
    that of labels b over the networks of_b[r]."""
    return modal_labels(a, of_a, n_classes) != modal_labels(b, of_b, n_classes)


def two_parts(numbers: np.ndarray, size: np.ndarray | int) -> np.ndarray:
    """bool [R,2,K]: for each row of numbers [R,K], the `size` networks with the smallest numbers
    and the `size` that follow."""
    rank = numbers.argsort(axis=1).argsort(axis=1)
    return np.stack([rank < size, (rank >= size) & (rank < 2 * size)], axis=1)


class Halves(NamedTuple):
    """R times two disjoint parts of K ids, usually halves. An id may be in neither part."""

    of: np.ndarray  # bool [R,2,K]
    without: np.ndarray  # bool [R,K,K]: row i is the part that contains id i, without i
    other: np.ndarray  # int [R,K]: the index, 0 or 1, of the part that does not contain id i


def without_each(of: np.ndarray) -> Halves:
    """Two disjoint parts of the ids, bool [R,2,K], together with the parts that lack one id each.
    For an id in neither part, these are the whole first part and the second."""
    side = of[:, 1].astype(np.int64)
    own = np.take_along_axis(of, side[..., None], axis=1)
    return Halves(of, own & ~np.eye(of.shape[2], dtype=bool), 1 - side)
