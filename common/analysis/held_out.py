"""Are PIEs special, or only unstable? A score of images measured on networks that did not choose
the PIEs, against images that flip between two populations of one kind.

Every choice of images by modal labels that differ prefers images near a decision boundary, and
those are deep and of low quality whatever pruning does. What is left of an effect when the same
choice is made among dense and among pruned networks alone is not of pruning.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from common.analysis.reliability import two_way, without_each
from common.analysis.statistics import Estimate
from common.analysis.subsets import modal_labels


class Referenced(NamedTuple):
    """Differences of a score's means, in the score's unit, each with its interval."""

    effect: Estimate  # PIEs minus other images
    reference: Estimate  # images that flip between networks of one kind minus other images
    excess: Estimate  # effect minus reference
    within_bins: Estimate  # effect among images of about the same score in dense networks


def referenced_effect(
    dense: np.ndarray,
    pruned: np.ndarray,
    scores: np.ndarray,
    dense_scores: np.ndarray,
    n_classes: int,
    rng: Generator,
    n_splits: int = 30,
    n_bins: int = 10,
) -> Referenced | None:
    """How much a score differs between PIEs and other images, held out and referenced.

    dense, pruned: labels [K,N]; scores [K,N] of each network for each image, whichever population
    it was measured in; dense_scores [K,N] of the dense networks; row i of all is the same id. nan
    where there is none: of all images, where only some networks were measured.

    Each split has three disjoint parts of the ids, A, A' (about 2/5 of K each) and B. The modal
    labels of dense A against pruned A' make the PIEs, and of dense A' against pruned A, of half
    weight each; dense A against dense A' and pruned A against pruned A', also of half weight each,
    the reference: as in the corrected count, which is the number of the one minus the other. The
    score is the mean over B, which had no part in the choice; bins are quantiles of the mean dense
    score over A and A'. Within bins, the means of others are weighted by the number of PIEs there.

    The reference is exact if pruned networks vote like dense ones, and nearly so if only their
    noise rises: in simulation (noise times 1.3 to 2) that left an excess within 3 % of the effect.
    Flips among pruned networks alone are spread wider than PIEs, and left 4 to 12 %, which in 9 of
    10 studies had an interval above 0.

    Sums are averaged over splits before ratios are taken. Intervals: fresh images and fresh
    networks, by linearised ratios and reliability.two_way.
    None for K < 6, for fewer than 4 networks with scores, or without PIEs or flips.
    """
    scored = np.isfinite(scores).any(axis=1) & np.isfinite(dense_scores).any(axis=1)
    if len(dense) < 6 or scored.sum() < 4:
        return None
    parts, held_out = _split(scored, n_splits, rng)
    modes = _modes(dense, pruned, parts, n_classes)
    total = np.zeros((3, 2, 1 + len(dense), dense.shape[1]))
    for split in range(n_splits):
        chosen = _choose(modes[:, :, split])
        score = _mean_score(scores, _leave_out(held_out[split]))
        bins = _bins(_mean_score(dense_scores, parts[split].any(axis=0)[None])[0], n_bins)
        none = np.zeros_like(bins)
        for i, (weight, of_bin) in enumerate(
            zip(chosen[[0, 1, 0]], (none, none, bins), strict=True)
        ):
            total[i] += _compare(weight, score, of_bin)
    if not (total[:, 1, 0].sum(axis=1) > 0).all():
        return None
    values, parts_of = zip(*(_ratio(*sums) for sums in total), strict=True)
    excess = _estimate(values[0] - values[1], parts_of[0] - parts_of[1])
    effect, reference, within = map(_estimate, values, parts_of)
    return Referenced(effect, reference, excess, within)


def _split(scored: np.ndarray, n_splits: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """A and A' bool [R,2,K], and B bool [R,K], at least two networks with scores, but not more than
    half of those there are."""
    k = len(scored)
    n_held_out = max(2, min(k - 2 * (2 * k // 5), int(scored.sum()) // 2))
    n = (k - n_held_out) // 2
    order = rng.random((n_splits, k)) + ~scored  # those with scores first
    place = order.argsort(axis=1).argsort(axis=1)
    held_out = place < n_held_out
    place = np.where(held_out, np.inf, rng.random((n_splits, k))).argsort(axis=1).argsort(axis=1)
    return np.stack([place < n, (place >= n) & (place < 2 * n)], axis=1), held_out


def _modes(dense: np.ndarray, pruned: np.ndarray, parts: np.ndarray, n_classes: int) -> np.ndarray:
    """Modal labels [2,2,R,1+K,N] of dense and pruned networks, in the part of the ids that gets
    smaller and in the other: from all ids of A and A' (bool [R,2,K]), then without each, which is
    taken from the first part."""
    n_splits, _, k = parts.shape
    halves = without_each(parts)
    others = np.take_along_axis(parts, halves.other[..., None], axis=1)
    subsets = np.stack([
        np.concatenate([parts[:, :1], halves.without], axis=1),
        np.concatenate([parts[:, 1:], others], axis=1),
    ])  # fmt: skip
    shape = (2, n_splits, 1 + k, -1)
    return np.stack([
        modal_labels(labels, subsets.reshape(-1, k), n_classes).reshape(shape)
        for labels in (dense, pruned)
    ])  # fmt: skip


def _choose(modes: np.ndarray) -> np.ndarray:
    """Weights in 0 ... 1 of the PIEs and of the reference, [2,1+K,N], from the `_modes` of a split,
    [2,2,1+K,N]."""
    (dense, other_dense), (pruned, other_pruned) = modes
    pies = (dense != other_pruned).astype(np.float32) + (pruned != other_dense)
    flips = (dense != other_dense).astype(np.float32) + (pruned != other_pruned)
    return np.stack([pies, flips]) / 2


def _leave_out(part: np.ndarray) -> np.ndarray:
    """bool [K] -> [1+K,K]: all of them, then without each."""
    return np.concatenate([part[None], part & ~np.eye(len(part), dtype=bool)])


def _mean_score(scores: np.ndarray, networks: np.ndarray) -> np.ndarray:
    """Mean of scores [K,N] over networks bool [R,K] -> [R,N]; nan if none of them has one."""
    known = np.isfinite(scores)
    n = networks.astype(np.float64) @ known
    total = networks.astype(np.float64) @ np.where(known, scores, 0)
    return np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)


def _bins(score: np.ndarray, n_bins: int) -> np.ndarray:
    """The bin [N] of each image, of about equal numbers; -1 without a score."""
    known = np.isfinite(score)
    if not known.any():
        return np.full(len(score), -1)
    edges = np.unique(np.quantile(score[known], np.linspace(0, 1, n_bins + 1)[1:-1]))
    return np.where(known, np.searchsorted(edges, score, side="right"), -1)


def _compare(weight: np.ndarray, score: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """The share of each image in the sum over chosen images of their score minus the mean of
    others in their bin, and in the number of chosen images: [2,1+K,N]. weight and score are
    [1+K,N], bins [N].

    The others add 0 in sum, but vary: their deviation from their mean times the chosen per other.
    """
    known = np.isfinite(score) & (bins >= 0)
    of_bin = (bins[:, None] == np.arange(bins.max() + 1)).astype(np.float64)
    others = np.where(known, 1.0 - weight, 0)
    score = np.where(known, score, 0)
    n_others = others @ of_bin
    has_others = n_others > 0
    means = np.divide((others * score) @ of_bin, n_others, where=has_others, out=0 * n_others)
    chosen = np.where(known & has_others[:, bins], weight, 0)
    per_other = np.divide(chosen @ of_bin, n_others, where=has_others, out=0 * n_others)
    deviation = score - means[:, bins]
    return np.stack([(chosen - others * per_other[:, bins]) * deviation, chosen])


def _ratio(top: np.ndarray, bottom: np.ndarray) -> tuple[float, np.ndarray]:
    """The ratio of the sums of top[0] and bottom[0] (both [1+K,N]), and what each image adds to it
    with all ids and without each, to first order."""
    n = bottom[0].sum()
    value = float(top[0].sum() / n)
    return value, (top - value * bottom) / n


def _estimate(value: float, parts: np.ndarray) -> Estimate:
    error, quantile = two_way(parts)
    return Estimate(value, value - quantile * error, value + quantile * error)
