"""How much of a PIE count is real: the corrected count, the count if exchanged, counts of fresh
networks, intervals, and the count by population size.

Arrays in, numbers out: labels [K,N] are what K networks predict for N images. Populations are
resampled by network. Every function accepts a single network, K = 1, and says what it then returns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from common.analysis.pie import find_pies
from common.analysis.subsets import blocks, modal_and_next, modal_labels, modes_differ, two_parts


class Corrected(NamedTuple):
    """A PIE count, in images, without the part due to the networks' variance, and the population
    size that the count refers to."""

    value: float  # nan for K = 1
    interval: tuple[float, float] | None  # 95 %; None for K < 4
    half: int  # networks in each of the four populations that are compared, K // 2


def corrected_pies(
    dense: np.ndarray, pruned: np.ndarray, n_classes: int, n_splits: int, rng: Generator
) -> Corrected:
    """The number of PIEs that remain after subtracting the changes that fresh networks of the same
    kind would cause.

    dense, pruned: labels [K,N]; row i of both comes from the same dense network. Let n(a,b) be the
    number of images whose modal labels differ, and A, B disjoint halves of the K rows. The
    corrected count is the mean of 1/2 [n(D_A,P_B) + n(D_B,P_A) - n(D_A,D_B) - n(P_A,P_B)] over all
    splits if there are at most n_splits, else over n_splits random ones. It estimates, summed over
    images, half the squared distance between the distributions of the dense and the pruned modal
    label, which is 0 if pruning did nothing; the estimate may be negative. No network is compared
    with its own partner, so pairing causes no bias.

    Interval: jackknife over networks, Student's t with K-1 degrees of freedom. Network i is deleted
    from the half that contains it, so the same splits serve all i. The interval is conservative, as
    a jackknife is where networks act jointly (Efron & Stein 1981): docs/statistics.md says how
    often it covers the expected value for this K.
    n_splits must be at least 2; 200 leave a standard error of 1 part in 20 of half the interval.
    Raises ValueError for populations of different size.
    """
    k, half = _pairs(dense, pruned), len(dense) // 2
    if half == 0:
        return Corrected(math.nan, None, 0)
    complete = _n_splits(k) <= n_splits
    if complete:
        halves = _all_splits(k)
    else:
        halves = two_parts(rng.random((n_splits, k)).argsort(axis=1), half)
    values, changes = _correct_splits(dense, pruned, halves, n_classes)
    value = float(values.mean())
    if k < 4:
        return Corrected(value, None, half)
    from scipy.stats import t

    # A change that is the same for all networks does not count in the jackknife.
    changes -= changes.mean(axis=1, keepdims=True)
    variance = (k - 1) / k * (changes.mean(axis=0) ** 2).sum()
    if not complete:  # the choice of splits adds noise to the jackknife, and to the value itself
        variance -= (k - 1) / k * changes.var(axis=0, ddof=1).sum() / n_splits
        variance = max(variance, 0.0) + values.var(ddof=1) / n_splits
    half_width = float(t.ppf(0.975, k - 1) * variance**0.5)
    return Corrected(value, (value - half_width, value + half_width), half)


def corrected_counts(
    dense: np.ndarray,
    pruned: np.ndarray,
    subsets: np.ndarray,
    n_classes: int,
    n_splits: int,
    rng: Generator,
) -> np.ndarray:
    """The corrected count [R] of the networks that each row of subsets, bool [R,K], chooses, from
    n_splits random splits each."""
    half, total = subsets.sum(axis=1, keepdims=True) // 2, np.zeros(len(subsets))
    for _ in range(n_splits):
        parts = two_parts(np.where(subsets, rng.random(subsets.shape), 2), half)
        d, other_d, p, other_p = (
            modal_labels(labels, part, n_classes)
            for labels in (dense, pruned)
            for part in parts.swapaxes(0, 1)
        )
        between = (d != other_p).sum(axis=1) + (other_d != p).sum(axis=1)
        total += (between - (d != other_d).sum(axis=1) - (p != other_p).sum(axis=1)) / 2
    return total / n_splits


class Null(NamedTuple):
    """PIE counts [R] after exchanging networks between the dense and the pruned population, and how
    the observed count compares with them."""

    counts: np.ndarray
    mean: float
    interval: tuple[float, float]  # the central 95 % of the counts
    p_value: float  # share of arrangements, the observed one included, with as many PIEs or more
    floor: float  # the smallest p-value there can be; 1 if a single pair was exchanged


EXCHANGE_ALL_UP_TO = 12  # pairs: 2,048 exchanges


def permutation_null(
    dense: np.ndarray,
    pruned: np.ndarray,
    n_classes: int,
    paired: bool,
    n_permutations: int,
    rng: Generator,
) -> Null:
    """The PIE counts of labels dense [K,N], pruned [K',N] if their networks are exchanged.

    The hypothesis tested, that the votes of dense and pruned networks are exchangeable, claims more
    than "pruning did nothing". The counts grow with the effect: they are not PIEs "by chance".

    paired: row i of both comes from the same dense network, and only these two are exchanged. Up to
    K = 12 all 2^(K-1) exchanges are counted (exchanging all pairs changes no count), so the p-value
    is exact and at least 2^(1-K): 1 for K = 1. Beyond, n_permutations random exchanges are counted;
    each exchanges a pair with probability 1/2. Not paired: all networks are dealt out anew,
    n_permutations times. For random exchanges the p-value includes the observed arrangement (the
    add-one rule, Phipson & Smyth 2010) and is at least 1 / (1 + n_permutations).
    Raises ValueError for paired populations of different size.
    """
    k = _pairs(dense, pruned) if paired else len(dense)
    both = np.concatenate([dense, pruned])
    complete = paired and k <= EXCHANGE_ALL_UP_TO
    if paired:
        swapped = _all_exchanges(k) if complete else rng.random((n_permutations, k)) < 0.5
        first = np.concatenate([~swapped, swapped], axis=1)
    else:
        first = rng.random((n_permutations, len(both))).argsort(axis=1) < k
    counts = _count_subsets(both, first, both, ~first, n_classes)
    as_many = int((counts >= find_pies(dense, pruned, n_classes).sum()).sum())
    if complete:  # the observed arrangement is one of them
        p_value, floor = as_many / len(counts), 1 / len(counts)
    else:
        p_value, floor = (1 + as_many) / (1 + n_permutations), 1 / (1 + n_permutations)
    low, high = np.quantile(counts, [0.025, 0.975])
    return Null(counts, float(counts.mean()), (float(low), float(high)), p_value, floor)


def count_interval(
    dense: np.ndarray,
    pruned: np.ndarray,
    n_classes: int,
    paired: bool,
    n_resamples: int,
    rng: Generator,
) -> tuple[float, float] | None:
    """A 95 % interval for the expected PIE count of fresh populations of the same size, K >= 10.

    Callers should warn for K < 10: docs/statistics.md says how often the interval covers.

    Delete-half jackknife on the square-root scale: the standard deviation of sqrt(count) over
    random halves of the networks, drawn without replacement (the same rows of both populations if
    paired), times Student's t with K-1 degrees of freedom. The bootstrap is wrong here: it repeats
    networks, which makes modal labels noisier and the count larger. None for fewer than 4 networks.
    """
    k = min(len(dense), len(pruned))
    if k < 4:
        return None
    half_dense = _random_subsets(len(dense), len(dense) // 2, n_resamples, rng)
    half_pruned = (
        half_dense if paired else _random_subsets(len(pruned), len(pruned) // 2, n_resamples, rng)
    )
    counts = _count_subsets(dense, half_dense, pruned, half_pruned, n_classes)
    return _delete_half(find_pies(dense, pruned, n_classes).sum(), counts, k)


def replicate_count(
    pairs: list[tuple[np.ndarray, np.ndarray]], n_classes: int, n_resamples: int, rng: Generator
) -> tuple[float, tuple[float, float] | None]:
    """The number of images whose modal labels differ between two populations without a common id,
    labels [K,N] each, and the 95 % interval of the expected number as in count_interval.

    Only next to this does a count of PIEs say something about pruning: modal labels of two
    populations of pruned networks differ too. Two pairs are (dense, fresh pruned) and (fresh dense,
    pruned); their mean is taken. The networks of the second pair are the partners of the first
    pair's, in reverse order, and are deleted together with them. For K = 1 the count is that of the
    disagreements of two networks. No interval for fewer than 4 networks.
    """
    k = len(pairs[0][0])
    observed = float(np.mean([find_pies(a, b, n_classes).sum() for a, b in pairs]))
    if k < 4:
        return observed, None
    halves = [_random_subsets(k, k // 2, n_resamples, rng) for _ in range(2)]
    counts = [
        _count_subsets(a, in_a, b, in_b, n_classes)
        for (a, b), (in_a, in_b) in zip(pairs, (halves, halves[::-1]), strict=False)
    ]
    return observed, _delete_half(observed, np.mean(counts, axis=0), k)


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
    replacement: first the counts as they are, then after exchanging dense and pruned networks."""
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
        else:  # the `size` of the 2·size chosen networks with the smallest random numbers
            rank = (
                np.where(chosen, rng.random(chosen.shape), np.inf).argsort(axis=1).argsort(axis=1)
            )
            first = rank < size
        null.append(_count_subsets(both, first, both, chosen & ~first, n_classes))
    return np.array([observed, null])


def _pairs(dense: np.ndarray, pruned: np.ndarray) -> int:
    if len(dense) != len(pruned):
        raise ValueError(f"{len(dense)} dense and {len(pruned)} pruned networks are not pairs")
    return len(dense)


def _n_splits(k: int) -> int:
    """The number of unordered pairs of disjoint halves of k networks."""
    half = k // 2
    return math.comb(k, half) * math.comb(k - half, half) // 2


def _all_splits(k: int) -> np.ndarray:
    """Both halves of every split, bool [S,2,k]; the first half contains the lowest network. If k
    is odd, one network is left out."""
    halves = []
    for left_out in range(k) if k % 2 else [k]:
        lowest, *others = (i for i in range(k) if i != left_out)
        for chosen in itertools.combinations(others, k // 2 - 1):
            first = {lowest, *chosen}
            halves.append([[i in first, i not in first and i != left_out] for i in range(k)])
    return np.array(halves).swapaxes(1, 2)


def _all_exchanges(k: int) -> np.ndarray:
    """bool [2^(k-1),k]: which of k pairs are exchanged. The first pair never is, since exchanging
    some pairs gives the same count as exchanging all others; row 0 is the observed arrangement."""
    bits = np.arange(2 ** (k - 1))[:, None] >> np.arange(k - 1)
    return np.concatenate([np.zeros((len(bits), 1), dtype=bool), bits % 2 == 1], axis=1)


def _correct_splits(
    dense: np.ndarray, pruned: np.ndarray, halves: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The corrected count [S] of each split, and the change [S,K] of that count when each network
    is deleted, from halves bool [S,2,K].

    The count is written with a(.,.), on how many images modal labels agree, in place of n(.,.):
    1/2 [a(D_A,D_B) + a(P_A,P_B) - a(D_A,P_B) - a(D_B,P_A)]. A
    deletion changes the modal label of one half, and only where the deleted network voted for it.
    """
    n_splits, _, k = halves.shape
    values, changes = np.zeros(n_splits), np.zeros((n_splits, k))
    for block in _disputed(dense, pruned):
        modes = [
            [modal_and_next(labels, half, n_classes) for labels in block]
            for half in halves.swapaxes(0, 1)
        ]
        for half, own, other in zip(halves.swapaxes(0, 1), modes, modes[::-1], strict=True):
            (other_dense, _), (other_pruned, _) = other
            # `now` are modal labels, `then` what they become if a network that voted so is deleted.
            for labels, sign, (now, then) in zip(block, (0.5, -0.5), own, strict=True):
                agree, agree_then = (
                    (mode == other_dense).astype(np.int8) - (mode == other_pruned)
                    for mode in (now, then)
                )
                values += sign * agree.sum(axis=1) / 2  # either half gives the same
                for s, change in enumerate(agree_then - agree):
                    (at,) = change.nonzero()  # few images
                    voted = labels[:, at] == now[s, at]
                    changes[s] += np.where(half[s], sign * (voted @ change[at].astype(float)), 0)
    return values, changes


def _delete_half(observed: float, counts: np.ndarray, k: int) -> tuple[float, float]:
    """The delete-half jackknife's 95 % interval of a count, from the counts [R] of halves."""
    from scipy.stats import t

    # The factor (K-d)/d of the delete-d jackknife: 1 for even K, a little less for odd K.
    kept = k // 2
    spread = np.sqrt(kept / (k - kept) * np.sqrt(counts).var())
    centre, half_width = np.sqrt(observed), t.ppf(0.975, k - 1) * spread
    return float(max(0.0, centre - half_width) ** 2), float((centre + half_width) ** 2)


def _random_subsets(n: int, size: int, n_subsets: int, rng: Generator) -> np.ndarray:
    """bool [n_subsets,n], `size` true in each row."""
    return rng.random((n_subsets, n)).argsort(axis=1) < size


def _count_subsets(
    dense: np.ndarray,
    of_dense: np.ndarray,
    pruned: np.ndarray,
    of_pruned: np.ndarray,
    n_classes: int,
) -> np.ndarray:
    """PIE counts [R] of dense networks of_dense[r] and pruned networks of_pruned[r], bool [R,K]."""
    return sum(
        modes_differ(a, of_dense, b, of_pruned, n_classes).sum(axis=1)
        for a, b in _disputed(dense, pruned)
    )


def _disputed(*populations: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Labels [K,N], a block of images at a time (at least one block, which may be empty), without
    the images on which all networks agree: these are never PIEs."""
    disputed = np.any([(p != populations[0][0]).any(axis=0) for p in populations], axis=0)
    (images,) = disputed.nonzero()
    for block in blocks(len(images)):
        yield [p[:, images[block]] for p in populations]
