"""How much of a PIE count is real: permutation null, interval, and the count by population size.

Arrays in, numbers out. Populations are resampled by network: the votes of many resampled
populations at once are one matrix product of 0/1 choices [R,K] with one-hot predictions [K,N·C].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

POPULATIONS_AT_ONCE = 64  # 64 x 10,000 images x 10 classes x 4 bytes = 26 MB a product


class Null(NamedTuple):
    """PIE counts [R] of populations whose networks were exchanged at random between dense and
    pruned, and how the observed count compares with them."""

    counts: np.ndarray
    mean: float
    interval: tuple[float, float]  # the central 95 % of the counts
    p_value: float  # (1 + counts as large as the observed one) / (1 + R)
    paired: bool  # exchanged within pairs of equal id


def permutation_null(
    dense: np.ndarray,
    pruned: np.ndarray,
    n_classes: int,
    paired: bool,
    n_permutations: int,
    rng: Generator,
) -> Null:
    """The PIE counts to expect if pruning did nothing, from labels dense [K,N], pruned [K',N].

    paired: row i of both comes from the same dense network, so only these two are exchanged, each
    pair with probability 1/2; else all networks are dealt out anew. The p-value counts the
    observed arrangement too (the add-one rule, Phipson & Smyth 2010), so it is never 0.
    Raises ValueError for paired populations of different size.
    """
    if paired and len(dense) != len(pruned):
        raise ValueError(f"{len(dense)} dense and {len(pruned)} pruned networks are not pairs")
    observed = _count(dense, pruned, n_classes)
    both = np.concatenate([dense, pruned])
    k, n_all = len(dense), len(both)
    if paired:
        swapped = rng.random((n_permutations, k)) < 0.5
        first = np.concatenate([~swapped, swapped], axis=1)
    else:
        first = rng.random((n_permutations, n_all)).argsort(axis=1) < k
    counts = _count_many(both, first, ~first, n_classes)
    p_value = (1 + (counts >= observed).sum()) / (1 + n_permutations)
    low, high = np.quantile(counts, [0.025, 0.975])
    return Null(counts, float(counts.mean()), (float(low), float(high)), float(p_value), paired)


def count_interval(
    dense: np.ndarray,
    pruned: np.ndarray,
    n_classes: int,
    paired: bool,
    n_resamples: int,
    rng: Generator,
) -> tuple[float, float] | None:
    """A 95 % interval for the PIE count to expect of fresh populations of the same size.

    Delete-half jackknife on the square-root scale: the standard deviation of sqrt(count) over
    random halves of the networks, drawn without replacement (the same rows of both populations if
    paired), times Student's t with K-1 degrees of freedom. The bootstrap is wrong here: it repeats
    networks, which makes modal labels noisier and the count larger. None for fewer than 4 networks.
    """
    from scipy.stats import t

    k = min(len(dense), len(pruned))
    if k < 4:
        return None
    centre = np.sqrt(_count(dense, pruned, n_classes))
    half_dense = _random_subsets(len(dense), len(dense) // 2, n_resamples, rng)
    half_pruned = (
        half_dense if paired else _random_subsets(len(pruned), len(pruned) // 2, n_resamples, rng)
    )
    counts = _count_subsets(dense, half_dense, pruned, half_pruned, n_classes)
    # (K-d)/d of the delete-d jackknife: 1 for even K, a little less for odd.
    kept = k // 2
    spread = np.sqrt(kept / (k - kept) * ((np.sqrt(counts) - np.sqrt(counts).mean()) ** 2).mean())
    half_width = t.ppf(0.975, k - 1) * spread
    return max(0.0, centre - half_width) ** 2, (centre + half_width) ** 2


def counts_by_population_size(
    dense: np.ndarray,
    pruned: np.ndarray,
    n_classes: int,
    paired: bool,
    sizes: list[int],
    n_resamples: int,
    rng: Generator,
) -> np.ndarray:
    """PIE counts [2,len(sizes),n_resamples] of random subsets of each size, drawn without
    replacement; first as they are, then with their dense and pruned networks exchanged."""
    both = np.concatenate([dense, pruned])
    observed, null = [], []
    for size in sizes:
        of_dense = _random_subsets(len(dense), size, n_resamples, rng)
        of_pruned = of_dense if paired else _random_subsets(len(pruned), size, n_resamples, rng)
        observed.append(_count_subsets(dense, of_dense, pruned, of_pruned, n_classes))
        chosen = np.concatenate([of_dense, of_pruned], axis=1)
        if paired:
            swapped = rng.random(of_dense.shape) < 0.5
            first = chosen & np.concatenate([~swapped, swapped], axis=1)
        else:  # of the 2·size chosen networks, those with the smallest random numbers
            rank = (
                np.where(chosen, rng.random(chosen.shape), np.inf).argsort(axis=1).argsort(axis=1)
            )
            first = rank < size
        null.append(_count_many(both, first, chosen & ~first, n_classes))
    return np.array([observed, null])


def _random_subsets(n: int, size: int, n_subsets: int, rng: Generator) -> np.ndarray:
    """bool [n_subsets,n], `size` true in each row."""
    return rng.random((n_subsets, n)).argsort(axis=1) < size


def _count(dense: np.ndarray, pruned: np.ndarray, n_classes: int) -> int:
    both = np.concatenate([dense, pruned])
    is_dense = (np.arange(len(both)) < len(dense))[None]
    return int(_count_many(both, is_dense, ~is_dense, n_classes)[0])


def _count_subsets(
    dense: np.ndarray,
    of_dense: np.ndarray,
    pruned: np.ndarray,
    of_pruned: np.ndarray,
    n_classes: int,
) -> np.ndarray:
    none_of = np.zeros_like
    first = np.concatenate([of_dense, none_of(of_pruned)], axis=1)
    second = np.concatenate([none_of(of_dense), of_pruned], axis=1)
    return _count_many(np.concatenate([dense, pruned]), first, second, n_classes)


def _count_many(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, n_classes: int
) -> np.ndarray:
    """PIE counts [R] between populations first[r] and second[r], bool [R,K], of labels [K,N]."""
    # An image on which all networks agree is a PIE of no two populations.
    labels = labels[:, (labels != labels[0]).any(axis=0)]
    if labels.size == 0:
        return np.zeros(len(first), dtype=np.int64)
    one_hot = (labels[:, None, :] == np.arange(n_classes)[None, :, None]).astype(np.float32)
    counts = []
    for rows in _chunks(len(first)):
        modal = [_modal(choice[rows], one_hot) for choice in (first, second)]
        counts.append((modal[0] != modal[1]).sum(axis=1))
    return np.concatenate(counts)


def _modal(choice: np.ndarray, one_hot: np.ndarray) -> np.ndarray:
    """Modal labels [R,N] of populations [R,K] of networks one_hot [K,C,N]; ties to the lowest."""
    n_networks, n_classes, n_examples = one_hot.shape
    votes = choice.astype(np.float32) @ one_hot.reshape(n_networks, -1)
    votes = votes.reshape(-1, n_classes, n_examples)
    most = votes[:, 0].copy()
    modal = np.zeros(most.shape, dtype=np.int16)
    for c in range(1, n_classes):  # far faster than argmax over a short axis
        more = votes[:, c] > most
        modal[more] = c
        np.maximum(most, votes[:, c], out=most)
    return modal


def _chunks(n: int) -> Iterator[slice]:
    for start in range(0, n, POPULATIONS_AT_ONCE):
        yield slice(start, start + POPULATIONS_AT_ONCE)
