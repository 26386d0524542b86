"""Pruning-identified exemplars: images whose most frequent prediction changes when the networks
are pruned (Hooker et al., arXiv 1911.05248). Pure numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


def count_votes(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """labels [K,N], what K networks predict for N images -> votes [N,C].

    Raises ValueError unless labels is [K,N] with K >= 1 and values in 0 … C-1.
    """
    if labels.ndim != 2 or len(labels) == 0:
        raise ValueError(f"labels must be [K,N] with K >= 1, not {list(labels.shape)}")
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(f"labels must be in 0 … {n_classes - 1}")
    n_examples = labels.shape[1]
    cells = labels.astype(np.int64) + n_classes * np.arange(n_examples)
    votes = np.bincount(cells.ravel(), minlength=n_examples * n_classes)
    return votes.reshape(n_examples, n_classes)


def modal_labels(labels: np.ndarray, n_classes: int, ties: str = "lowest") -> np.ndarray:
    """The class that most of K networks predict: labels [K,N] -> [N].

    Of equally frequent classes the `lowest` wins, as in the released code of arXiv 2207.00200, or
    the `highest`, as in Hooker's.
    """
    if ties not in ("lowest", "highest"):
        raise ValueError(f"ties must go to the lowest or the highest class, not {ties!r}")
    votes = count_votes(labels, n_classes)
    if ties == "lowest":
        return votes.argmax(axis=1)
    return n_classes - 1 - votes[:, ::-1].argmax(axis=1)


def find_pies(
    dense: np.ndarray, pruned: np.ndarray, n_classes: int, ties: str = "lowest"
) -> np.ndarray:
    """Mark the PIEs among N images: labels of dense [K,N] and pruned [K',N] networks -> bool [N].

    Raises ValueError if the populations did not see the same number of images.
    """
    if dense.shape[1:] != pruned.shape[1:]:
        raise ValueError(f"dense saw {dense.shape[1]} images, pruned {pruned.shape[1]}")
    return modal_labels(dense, n_classes, ties) != modal_labels(pruned, n_classes, ties)


def is_tied(votes: np.ndarray) -> np.ndarray:
    """votes [N,C] -> bool [N]: more than one class has the most votes."""
    return (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1


class Directions(NamedTuple):
    """PIEs by direction: whether the dense and the pruned modal label equal the true label."""

    right_to_wrong: int
    wrong_to_right: int
    wrong_to_wrong: int


def directions(modal_dense: np.ndarray, modal_pruned: np.ndarray, target: np.ndarray) -> Directions:
    """Count the PIEs of each direction; all arguments [N]."""
    is_pie = modal_dense != modal_pruned
    was_right, is_right = modal_dense == target, modal_pruned == target
    return Directions(
        int((is_pie & was_right).sum()),
        int((is_pie & is_right).sum()),
        int((is_pie & ~was_right & ~is_right).sum()),
    )


class Overlap(NamedTuple):
    """The Jaccard overlap of two sets of images, and its value by chance."""

    common: int
    jaccard: float  # common / union; 0 where both are empty
    expected_jaccard: float  # of random sets of these sizes
    p_value: float  # of at least this many in common, by chance (hypergeometric)


def overlap(a: np.ndarray, b: np.ndarray) -> Overlap:
    """Overlap of the sets a and b, bool [N]. Raises ValueError if they differ in shape."""
    if a.shape != b.shape:
        raise ValueError(f"sets of {a.shape} and {b.shape} images")
    from scipy.stats import hypergeom

    n, n_a, n_b = len(a), int(a.sum()), int(b.sum())
    n_common = int((a & b).sum())
    n_union = n_a + n_b - n_common
    if n_union == 0:
        return Overlap(0, 0.0, 0.0, 1.0)
    chance = hypergeom(n, n_a, n_b)
    possible = np.arange(max(0, n_a + n_b - n), min(n_a, n_b) + 1)
    expected = float((chance.pmf(possible) * possible / (n_a + n_b - possible)).sum())
    return Overlap(n_common, n_common / n_union, expected, float(chance.sf(n_common - 1)))
