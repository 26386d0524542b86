"""The probability, image by image, that pruning changed the modal label.

A count of PIEs includes images whose modal labels differ only because K networks are few. Here the
predictions of dense networks for an image are draws from a distribution p_D over classes, those of
pruned networks from p_P, and the question is whether argmax p_D != argmax p_P, as infinitely many
networks would show. The prior of both distributions is fitted to all images (empirical Bayes),
since votes alone cannot tell 6:4 from 4:6.

Other priors were tried and abandoned; the numbers are sums of probabilities. p_P ~ Dirichlet(s p_D)
expects large changes of all images or of none: 17 where 96 images were lost (K = 10). A Dirichlet
for p_D, symmetric or with one class leading, gives all classes but two too little probability for a
vote: 60 where 14 were lost, with ten classes.

At K = 5 votes do not tell noise from a change. Where only the noise rises and 12 images are lost,
the sum is 48, and 34 with CHANGE = 0 in place of 0.1; but where a change loses as few, the sum is
10, and 5 with CHANGE = 0. Fitting the prior to votes of whole populations, besides those of halves,
did not help either.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from common.analysis import resampling
from common.analysis.pie import count_votes

# The prior is a mixture over this grid, with fitted weights. Dense logits are normal with sd
# BEHIND, except that one class leads the largest of the others by normal(LEAD, 1). Pruned logits
# are STEEPNESS * dense + CHANGE * standard normal. Distributions are the softmax of the logits.
LEAD = (0.0, 2.0, 4.0, 6.0, 8.0)
BEHIND = (1.5, 3.0)
STEEPNESS = (1.0, 0.85, 0.7, 0.55, 0.4)  # below 1, pruned networks disagree more
CHANGE = (0.1, 0.4, 1.0, 2.0)
COMPONENTS = np.array(list(product(LEAD, BEHIND, STEEPNESS, CHANGE)))
DRAWS = 400  # from each component: 80,000 in all, the same for every image. With 100, sums of
# probabilities varied by a third from one set of draws to the next.
N_SPLITS, N_FITTED = 8, 20_000  # N_FITTED / K images a split: larger K gives more patterns
N_CORRECTED = 126  # splits behind a corrected count: all that exist at K = 10
MOST = 50  # at most so many networks behind a corrected count: 25 can vote in 3,276 ways
NEGLIGIBLE = 0.1  # images: a component that explains fewer of the N images is left out
N_NAMED = 3  # classes kept apart in each image; its other classes are merged into one
AT_ONCE = 8  # 8 patterns x 80,000 draws x 6 orders x 4 bytes = 15 MB


class Patterns(NamedTuple):
    """The distinct patterns of votes, whichever classes the votes are for."""

    votes: np.ndarray  # [U,8]: dense votes for the N_NAMED classes with most votes, then for the
    # others; then pruned votes for the same
    of: np.ndarray  # [N], the pattern of every image
    count: np.ndarray  # [U], images with each pattern


class Draws(NamedTuple):
    """DRAWS draws from each component of the prior, M in all."""

    log_p: np.ndarray  # [8,M], in the order of Patterns.votes
    differ: np.ndarray  # bool [M]: whether the draw is a PIE


def pie_probability(
    dense: np.ndarray, pruned: np.ndarray, n_classes: int, rng: Generator
) -> np.ndarray | None:
    """Probability [N] that the modal labels of unlimited dense and pruned populations differ, from
    labels dense [K,N] and pruned [K,N]; row i of both has the same id. None for K < 4.

    Votes are multinomial given p_D and p_P. EM fits the weights of the prior's components to votes
    of dense and pruned networks from disjoint halves of the ids (pairs err together, which looks as
    if pruning did nothing); the weights are then tilted to match the corrected count.
    Calibration (`python -m tests.benchmarks.calibration`, 4 worlds each of 2,000 images) compares
    the sum of probabilities with the number of images that populations of 300 lose, in worlds where
    few are lost, where many are lost, and where only the noise rises: 11 of 12, 141 of 132, 43 of
    12 at K = 5; 8 of 11, 116 of 133, 22 of 11 at K = 10 (PIEs: 59, 253, 95); 6 of 10, 95 of 132, 6
    of 9.5 at K = 30.
    Raises ValueError unless both are [K,N].
    """
    if dense.shape != pruned.shape:
        raise ValueError(f"{dense.shape} dense and {pruned.shape} pruned labels are not pairs")
    if len(dense) < 4:
        return None
    draws = _draw(n_classes, rng)
    weights = fit_prior(dense, pruned, n_classes, draws, rng)
    used = weights > NEGLIGIBLE / dense.shape[1]
    kept, weights = used.repeat(DRAWS), weights[used]
    draws = Draws(draws.log_p[:, kept], draws.differ[kept])
    found = vote_patterns(count_votes(dense, n_classes), count_votes(pruned, n_classes))
    evidence, of_pies = (weights @ part for part in _evidence(found.votes, draws))
    return (of_pies / evidence)[found.of]


def fit_prior(
    dense: np.ndarray, pruned: np.ndarray, n_classes: int, draws: Draws, rng: Generator
) -> np.ndarray:
    """Weights of COMPONENTS that make the votes of disjoint halves most likely (by EM), then tilted
    until they imply the observed corrected count. A few votes do not tell how far an image moved:
    where few images are lost, the untilted weights imply 3 to 10 times the corrected count.
    """
    k, votes = len(dense), []
    for _ in range(N_SPLITS):
        order = rng.permutation(k)
        images = rng.permutation(dense.shape[1])[: N_FITTED // k]
        halves = ((dense, order[: k // 2]), (pruned, order[k // 2 :]))
        votes.append([count_votes(labels[of][:, images], n_classes) for labels, of in halves])
    found = vote_patterns(*(np.concatenate(side) for side in zip(*votes, strict=True)))
    evidence, _ = _evidence(found.votes, draws)
    weights = np.full(len(COMPONENTS), 1 / len(COMPONENTS))
    for _ in range(300):
        share = evidence * weights[:, None]
        weights = (share / share.sum(axis=0)) @ (found.count / found.count.sum())
    first = (dense[:MOST], pruned[:MOST])
    corrected = resampling.corrected_pies(*first, n_classes, N_CORRECTED, rng)
    target = max(corrected.value, 0.5) / dense.shape[1]
    used = np.flatnonzero(weights > NEGLIGIBLE / dense.shape[1])
    value = corrected_by_component(draws.log_p.reshape(8, -1, DRAWS)[:, used], corrected.half)
    tilted = np.zeros_like(weights)
    tilted[used] = tilt(weights[used], value, target)
    return tilted


def corrected_by_component(log_p: np.ndarray, half: int) -> np.ndarray:
    """The expected corrected count of one image under each component, from log_p [8,components,
    draws]: half the squared distance between the distributions of the modal label of `half` dense
    and of `half` pruned networks, summed over all possible votes."""
    from scipy.special import gammaln

    split = product(range(half + 1), repeat=N_NAMED)
    votes = np.array([(*part, half - sum(part)) for part in split if sum(part) <= half])
    ways = gammaln(half + 1) - gammaln(votes + 1).sum(axis=1)
    wins = votes == votes.max(axis=1, keepdims=True)
    wins = wins / wins.sum(axis=1, keepdims=True)  # tied classes win equally often
    found = []
    for of_component in log_p.swapaxes(0, 1).astype(np.float64):
        dense, pruned = (
            np.exp(logs.T @ votes.T + ways) @ wins for logs in np.split(of_component, 2)
        )
        found.append(((dense - pruned) ** 2).sum(axis=1).mean() / 2)
    return np.array(found)


def tilt(weights: np.ndarray, value: np.ndarray, target: float) -> np.ndarray:
    """Weights proportional to weights * exp(-rate * value), with the rate, between -200 and 2,000,
    that brings their mean value closest to the target."""
    low, high = -200.0, 2000.0
    for _ in range(60):
        rate = (low + high) / 2
        exponent = -rate * value
        tilted = weights * np.exp(exponent - exponent.max())
        tilted /= tilted.sum()
        low, high = (rate, high) if tilted @ value > target else (low, rate)
    return tilted


def vote_patterns(dense: np.ndarray, pruned: np.ndarray) -> Patterns:
    """The patterns of votes dense, pruned [N,C]: under a prior that treats classes alike, images
    with equal patterns have equal probabilities."""
    order = np.lexsort((-dense, -(dense + pruned)), axis=1)
    parts = [_name(votes, order) for votes in (dense, pruned)]
    unique, of, count = np.unique(
        np.concatenate(parts, axis=1), axis=0, return_inverse=True, return_counts=True
    )
    return Patterns(unique, of.ravel(), count)


def _name(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """values [N,C] -> [N,4]: those of the first N_NAMED classes in `order` [N,C], and the sum of
    the others."""
    sorted_ = np.take_along_axis(values, order, axis=1)
    found = np.zeros((len(values), N_NAMED + 1), dtype=values.dtype)
    found[:, : min(N_NAMED, values.shape[1])] = sorted_[:, :N_NAMED]
    found[:, -1] = sorted_[:, N_NAMED:].sum(axis=1)
    return found


def _draw(n_classes: int, rng: Generator) -> Draws:
    lead, behind, steepness, change = np.repeat(COMPONENTS, DRAWS, axis=0).T
    dense = behind[:, None] * rng.standard_normal((len(lead), n_classes))
    dense[:, 0] = dense[:, 1:].max(axis=1) + rng.normal(lead)
    pruned = steepness[:, None] * dense + change[:, None] * rng.standard_normal(dense.shape)
    p = [np.exp(x - x.max(axis=1, keepdims=True)) for x in (dense, pruned)]
    p = [x / x.sum(axis=1, keepdims=True) for x in p]
    order = (-p[0] - p[1]).argsort(axis=1)
    log_p = np.concatenate([np.log(_name(x, order) + 1e-12) for x in p], axis=1)
    return Draws(log_p.T.astype(np.float32), p[0].argmax(axis=1) != p[1].argmax(axis=1))


def _evidence(votes: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Likelihood [components,U] of votes [U,8] under every component, up to a factor for each u;
    and the part of the likelihood that comes from draws that are PIEs. Which class of a draw is
    which class of an image is unknown, so both sum over all permutations of the named classes."""
    orders, found = list(_orders()), []
    memory = np.empty((len(orders), AT_ONCE, draws.log_p.shape[1]), dtype=np.float32)
    for start in range(0, len(votes), AT_ONCE):
        chunk = votes[start : start + AT_ONCE].astype(np.float32)
        each = memory[:, : len(chunk)]
        for order, of_order in zip(orders, each, strict=True):
            np.matmul(chunk[:, order], draws.log_p, out=of_order)
        each -= each.max(axis=(0, 2))[None, :, None]
        np.maximum(each, -80, out=each)  # np.exp takes twice as long where it underflows
        each = np.exp(each, out=each).sum(axis=0)
        parts = (each, each * draws.differ)
        found.append([part.reshape(len(chunk), -1, DRAWS).mean(axis=2).T for part in parts])
    evidence, of_pies = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
    return evidence, of_pies


def _orders() -> Iterator[list[int]]:
    """Orders of the columns of votes: the named classes permuted alike for dense and pruned."""
    for order in permutations(range(N_NAMED)):
        whole = [*order, N_NAMED]
        yield whole + [N_NAMED + 1 + column for column in whole]
