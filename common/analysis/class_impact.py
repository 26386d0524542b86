"""The classes that pay for pruning. Pure numpy and scipy."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np


class ClassImpact(NamedTuple):
    """By class [C]: the change of recall under pruning, beyond the change of accuracy."""

    effect: np.ndarray  # mean normalised recall, pruned minus dense, as fractions
    low: np.ndarray  # 95 % interval of the effect (Welch)
    high: np.ndarray
    p_value: np.ndarray  # two-sided Welch t-test


def class_impact(
    dense: np.ndarray, pruned: np.ndarray, target: np.ndarray, n_classes: int
) -> ClassImpact:
    """Test which classes pay for pruning (Hooker et al., arXiv 1911.05248, section 2.1).

    For labels dense [K,N], pruned [K',N] and true classes [N]: a network's recall of a class minus
    its own accuracy is compared between the populations by Welch's t-test over networks. (Hooker et
    al. subtract the population's mean accuracy as if it were known without error.) Where this does
    not vary within either population, the p-value is 1 if there is no effect, else 0.
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
        warnings.simplefilter("ignore", RuntimeWarning)  # raised where one population has no spread
        test = ttest_ind(normalised[1][:, ~constant], normalised[0][:, ~constant], equal_var=False)
    interval = test.confidence_interval(0.95)
    p_value[~constant] = test.pvalue
    low[~constant], high[~constant] = interval.low, interval.high
    return ClassImpact(effect, low, high, p_value)
