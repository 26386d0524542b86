"""How much of a PIE count is real: the corrected count, the count if exchanged, counts of fresh
networks, intervals, and the count by population size.

Arrays in, numbers out: labels [K,N] are what K networks predict for N images. Populations are
resampled by network. The votes of many resampled populations are computed in one matrix product,
of 0/1 choices [R,K] and one-hot predictions [K,C·N]. Every function accepts a single network,
K = 1, and says what it then returns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from common.analysis.subsets import blocks, modal, modal_labels, modes_differ

POPULATIONS_AT_ONCE = 64  # 64 x 10,000 images x 10 classes x 4 bytes = 26 MB a product


class Corrected(NamedTuple):
    """A PIE count, in images, without the part due to the networks' variance, and the population
    size that the count refers to."""

    value: float  # nan for K = 1
    ci_low: float | None  # the 95 % interval; None for K < 4
    ci_high: float | None
    half: int  # networks in each of the four populations that are compared, K // 2


def corrected_pies(
    dense: np.ndarray, pruned: np.ndarray, n_classes: int, n_splits: int, rng: Generator
) -> Corrected:
    """How many PIEs remain after subtracting the changes that fresh networks of the same kind would
    cause.

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
        return Corrected(math.nan, None, None, 0)
    complete = _n_splits(k) <= n_splits
    first, second = _all_splits(k) if complete else _random_splits(k, n_splits, rng)
    values, changes = _correct_splits(dense, pruned, first, second, n_classes)
    value = float(values.mean())
    if k < 4:
        return Corrected(value, None, None, half)
    from scipy.stats import t

    # A change that is the same for all networks does not count in the jackknife.
    changes -= changes.mean(axis=1, keepdims=True)
    variance = (k - 1) / k * (changes.mean(axis=0) ** 2).sum()
    if not complete:  # the choice of splits adds noise to the jackknife, and to the value itself
        variance -= (k - 1) / k * changes.var(axis=0, ddof=1).sum() / n_splits
        variance = max(variance, 0.0) + values.var(ddof=1) / n_splits
    half_width = float(t.ppf(0.975, k - 1) * variance**0.5)
    return Corrected(value, value - half_width, value + half_width, half)


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
        rank = np.where(subsets, rng.random(subsets.shape), 2).argsort(axis=1).argsort(axis=1)
        first, second = rank < half, (rank >= half) & (rank < 2 * half)
        d, other_d, p, other_p = (
            modal_labels(labels, part, n_classes)
            for labels in (dense, pruned)
            for part in (first, second)
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
    paired: bool  # whether networks were exchanged within pairs of equal id
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
    counts = _count_many(both, first, ~first, n_classes)
    as_many = int((counts >= _count(dense, pruned, n_classes)).sum())
    if complete:  # the observed arrangement is one of them
        p_value, floor = as_many / len(counts), 1 / len(counts)
    else:
        p_value, floor = (1 + as_many) / (1 + n_permutations), 1 / (1 + n_permutations)
    low, high = np.quantile(counts, [0.025, 0.975])
    return Null(counts, float(counts.mean()), (float(low), float(high)), p_value, paired, floor)


class Replicates(NamedTuple):
    """How many images have modal labels that differ between two populations of `size` networks
    each, without a common id; and 95 % intervals of the expected numbers. None where fresh networks
    are missing."""

    size: int
    dense_dense: int | None
    pruned_pruned: int | None
    unpaired: float | None  # dense against pruned networks of other ids
    dense_dense_interval: tuple[float, float] | None = None
    pruned_pruned_interval: tuple[float, float] | None = None
    unpaired_interval: tuple[float, float] | None = None


def replicate_counts(
    dense: np.ndarray,
    fresh_dense: np.ndarray | None,
    pruned: np.ndarray,
    fresh_pruned: np.ndarray | None,
    n_classes: int,
    n_resamples: int = 0,
    rng: Generator | None = None,
) -> Replicates:
    """Counts between two populations of one recipe: labels [K,N] of networks and of fresh ones.

    Only next to these does a count of PIEs say something about pruning: modal labels of two
    populations of pruned networks differ too. `unpaired` is the mean of n(dense, fresh_pruned) and
    n(fresh_dense, pruned), or the one that exists. Counts depend on the population size, so all use
    the first K rows, where K is the size of the smallest population. With n_resamples, rng and
    K >= 4 there are intervals like those of count_interval, not paired. For K = 1 the counts are
    disagreements of two networks.
    """
    given = [labels for labels in (dense, fresh_dense, pruned, fresh_pruned) if labels is not None]
    size = min(len(labels) for labels in given)
    compared = (
        [(dense, fresh_dense)],
        [(pruned, fresh_pruned)],
        [(dense, fresh_pruned), (fresh_dense, pruned)],
    )
    counts, intervals = [], []
    for pairs in compared:
        there = [(a[:size], b[:size]) for a, b in pairs if a is not None and b is not None]
        of_pairs = [_count(a, b, n_classes) for a, b in there]
        counts.append(sum(of_pairs) / len(there) if there else None)
        wanted = there and size >= 4 and rng is not None and n_resamples
        intervals.append(_mean_interval(there, n_classes, n_resamples, rng) if wanted else None)
    of_dense, of_pruned = (None if n is None else int(n) for n in counts[:2])
    return Replicates(size, of_dense, of_pruned, counts[2], *intervals)


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
    return _delete_half(_count(dense, pruned, n_classes), counts, k)


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
        null.append(_count_many(both, first, chosen & ~first, n_classes))
    return np.array([observed, null])


def _pairs(dense: np.ndarray, pruned: np.ndarray) -> int:
    if len(dense) != len(pruned):
        raise ValueError(f"{len(dense)} dense and {len(pruned)} pruned networks are not pairs")
    return len(dense)


def _n_splits(k: int) -> int:
    """The number of unordered pairs of disjoint halves of k networks."""
    half = k // 2
    return math.comb(k, half) * math.comb(k - half, half) // 2


def _all_splits(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Both halves of every split, bool [S,k] each; the first half contains the lowest network. If k
    is odd, one network is left out."""
    halves = []
    for left_out in range(k) if k % 2 else [k]:
        lowest, *others = (i for i in range(k) if i != left_out)
        for chosen in itertools.combinations(others, k // 2 - 1):
            first = {lowest, *chosen}
            halves.append([[i in first, i not in first and i != left_out] for i in range(k)])
    first, second = np.moveaxis(np.array(halves), 2, 0)
    return first, second


def _random_splits(k: int, n_splits: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    rank = rng.random((n_splits, k)).argsort(axis=1)
    half = k // 2
    return rank < half, (rank >= half) & (rank < 2 * half)


def _all_exchanges(k: int) -> np.ndarray:
    """bool [2^(k-1),k]: which of k pairs are exchanged. The first pair never is, since exchanging
    some pairs gives the same count as exchanging all others; row 0 is the observed arrangement."""
    bits = np.arange(2 ** (k - 1))[:, None] >> np.arange(k - 1)
    return np.concatenate([np.zeros((len(bits), 1), dtype=bool), bits % 2 == 1], axis=1)


def _correct_splits(
    dense: np.ndarray, pruned: np.ndarray, first: np.ndarray, second: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The corrected count [S] of each split, and the change [S,K] of that count when each network
    is deleted, from halves bool [S,K]."""
    of_blocks = [
        _correct_block(*labels, first, second, n_classes) for labels in _disputed(dense, pruned)
    ]
    values, changes = zip(*of_blocks, strict=True)
    return sum(values), sum(changes)


def _correct_block(
    dense: np.ndarray, pruned: np.ndarray, first: np.ndarray, second: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """What a block of images adds to the counts and changes of `_correct_splits`."""
    of_dense, of_pruned = _one_hot(dense, n_classes), _one_hot(pruned, n_classes)
    values, changes = [], []
    for rows in _chunks(len(first)):
        halves = [
            (half, _modal_and_next(half, of_dense), _modal_and_next(half, of_pruned))
            for half in (first[rows], second[rows])
        ]
        change = np.zeros(first[rows].shape)
        for (half, in_dense, in_pruned), (_, other_dense, other_pruned) in (halves, halves[::-1]):
            other = other_dense[0], other_pruned[0]
            gain = _gain(in_dense[0], *other) - _gain(in_pruned[0], *other)
            by_network = _change(dense, *in_dense, *other) - _change(pruned, *in_pruned, *other)
            change += np.where(half, by_network / 2, 0)
        values.append(gain.sum(axis=1) / 2)  # the same for both halves
        changes.append(change)
    return np.concatenate(values), np.concatenate(changes)


def _gain(labels: np.ndarray, dense: np.ndarray, pruned: np.ndarray) -> np.ndarray:
    """+1 where a label equals the modal label of the other half's dense networks but not that of
    its pruned ones, -1 in the reverse case, else 0. Summed over images, (gain(d) - gain(p)) / 2 is
    the corrected count of a split, written with agreements in place of differences."""
    return (labels == dense).astype(np.int8) - (labels == pruned)


def _change(
    labels: np.ndarray,
    modal: np.ndarray,
    without: np.ndarray,
    other_dense: np.ndarray,
    other_pruned: np.ndarray,
) -> np.ndarray:
    """How the gain of modal labels [S,N] changes if one network of labels [K,N] is deleted, [S,K]:
    the modal label becomes `without` where the network voted for it, and is the same elsewhere."""
    change = _gain(without, other_dense, other_pruned) - _gain(modal, other_dense, other_pruned)
    by_network = np.empty((len(modal), len(labels)))
    for s, of_split in enumerate(change):
        (at,) = of_split.nonzero()  # few images
        by_network[s] = (labels[:, at] == modal[s, at]) @ of_split[at].astype(np.float64)
    return by_network


def _mean_interval(
    pairs: list[tuple[np.ndarray, np.ndarray]], n_classes: int, n_resamples: int, rng: Generator
) -> tuple[float, float]:
    """The interval of count_interval for the mean count of one or two pairs of populations [K,N].

    Two pairs are (dense, fresh pruned) and (fresh dense, pruned): the networks of the second pair
    are the partners of the first pair's, in reverse order, and are deleted together with them.
    """
    k = len(pairs[0][0])
    halves = [_random_subsets(k, k // 2, n_resamples, rng) for _ in range(2)]
    observed = np.mean([_count(a, b, n_classes) for a, b in pairs])
    counts = [
        _count_subsets(a, in_a, b, in_b, n_classes)
        for (a, b), (in_a, in_b) in zip(pairs, (halves, halves[::-1]), strict=False)
    ]
    return _delete_half(observed, np.mean(counts, axis=0), k)


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
    return sum(
        modes_differ(a, of_dense, b, of_pruned, n_classes).sum(axis=1)
        for a, b in _disputed(dense, pruned)
    )


def _count_many(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, n_classes: int
) -> np.ndarray:
    """PIE counts [R] between populations first[r] and second[r], bool [R,K], of labels [K,N]."""
    return sum(
        modes_differ(block, first, block, second, n_classes).sum(axis=1)
        for (block,) in _disputed(labels)
    )


def _disputed(*populations: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Labels [K,N], a block of images at a time (at least one block, which may be empty), without
    the images on which all networks agree: these are never PIEs."""
    disputed = np.any([(p != populations[0][0]).any(axis=0) for p in populations], axis=0)
    (images,) = disputed.nonzero()
    for block in blocks(len(images)):
        yield [p[:, images[block]] for p in populations]


def _one_hot(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """[K,N] -> float32 [K,C,N]"""
    return (labels[:, None, :] == np.arange(n_classes)[None, :, None]).astype(np.float32)


def _votes(choice: np.ndarray, one_hot: np.ndarray) -> np.ndarray:
    """Votes [R,C,N] of populations bool [R,K] of networks one_hot [K,C,N]."""
    n_networks, n_classes, n_examples = one_hot.shape
    votes = choice.astype(np.float32) @ one_hot.reshape(n_networks, n_classes * n_examples)
    return votes.reshape(len(choice), n_classes, n_examples)


def _modal_and_next(choice: np.ndarray, one_hot: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Modal labels [R,N], and the modal labels when each of them loses one vote."""
    votes = _votes(choice, one_hot)
    most = modal(votes)
    at = most[:, None].astype(np.intp)
    np.put_along_axis(votes, at, np.take_along_axis(votes, at, axis=1) - 1, axis=1)
    return most, modal(votes)


def _chunks(n: int) -> Iterator[slice]:
    for start in range(0, n, POPULATIONS_AT_ONCE):
        yield slice(start, start + POPULATIONS_AT_ONCE)
