"""What is forgotten beyond a count: which classes pay, whether the same images are lost, and how
far the votes moved. Pure numpy and scipy."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np


class ClassImpact(NamedTuple):
    """By class [C]: how much more (or less) than the average a class lost, in recall."""

    effect: np.ndarray  # mean normalised recall, pruned minus dense, as fractions
    low: np.ndarray  # 95 % interval of the effect (Welch)
    high: np.ndarray
    p_value: np.ndarray  # two-sided Welch t-test


def class_impact(
    dense: np.ndarray, pruned: np.ndarray, target: np.ndarray, n_classes: int
) -> ClassImpact:
    """Which classes pay for pruning (Hooker et al., arXiv 1911.05248, section 2.1).

    For labels dense [K,N], pruned [K',N] and true classes [N]: a network's recall of a class minus
    its own accuracy, compared between the populations by Welch's t-test over networks. (Hooker
    subtracts the population's mean accuracy as if it were known without error.) Where no network
    differs from another the p-value is 1 without an effect, else 0.
    Raises ValueError for fewer than two networks.
    """
    if min(len(dense), len(pruned)) < 2:
        raise ValueError("class impact needs at least two networks in each population")
    from scipy.stats import ttest_ind

    normalised = []
    for labels in (dense, pruned):
        correct = labels == target
        recall = np.stack([correct[:, target == c].mean(axis=1) for c in range(n_classes)], axis=1)
        normalised.append(recall - correct.mean(axis=1, keepdims=True))
    effect = normalised[1].mean(axis=0) - normalised[0].mean(axis=0)
    constant = (normalised[0].std(axis=0) < 1e-12) & (normalised[1].std(axis=0) < 1e-12)
    low, high, p_value = effect.copy(), effect.copy(), np.where(np.abs(effect) < 1e-12, 1.0, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of one population without any spread
        test = ttest_ind(normalised[1][:, ~constant], normalised[0][:, ~constant], equal_var=False)
    interval = test.confidence_interval(0.95)
    p_value[~constant] = test.pvalue
    low[~constant], high[~constant] = interval.low, interval.high
    return ClassImpact(effect, low, high, p_value)


def false_discovery_rate(p_values: np.ndarray) -> np.ndarray:
    """Benjamini & Hochberg's q-values (1995) of p-values of any shape, over all of them."""
    from scipy.stats import false_discovery_control

    return false_discovery_control(p_values.ravel()).reshape(p_values.shape)


class Overlap(NamedTuple):
    """How much two sets of images have in common, and what chance would give."""

    common: int
    jaccard: float  # common / union; 0 where both are empty
    expected_jaccard: float  # of random sets of these sizes
    p_value: float  # of at least so much in common (hypergeometric)


def overlap(a: np.ndarray, b: np.ndarray) -> Overlap:
    """Overlap of the sets a and b, bool [N]. Raises ValueError for sets of other images."""
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


def vote_margin(votes: np.ndarray) -> np.ndarray:
    """votes [N,C] -> [N] in [0, 1]: share of the networks by which the first class leads."""
    second, first = np.sort(votes, axis=1)[:, -2:].T
    return (first - second) / votes.sum(axis=1)


def vote_entropy(votes: np.ndarray) -> np.ndarray:
    """votes [N,C] -> [N] in bits: 0 where all networks agree."""
    share = votes / votes.sum(axis=1, keepdims=True)
    return -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1) + 0.0  # no -0.0


def vote_distance(dense: np.ndarray, pruned: np.ndarray) -> np.ndarray:
    """Jensen-Shannon distance (base 2) between votes [N,C] -> [N] in [0, 1]: 0 for equal shares, 1
    if no network kept its class. Tells a PIE by one vote from one by all."""
    from scipy.spatial.distance import jensenshannon

    return np.nan_to_num(jensenshannon(dense, pruned, base=2, axis=1))
