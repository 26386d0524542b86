"""Are PIEs special, or only unstable? Scores of PIEs, measured on networks that did not choose the
PIEs, against scores of images that flip between two populations of one kind.

Whenever images are chosen because their modal labels differ, images near a decision boundary are
preferred, and those are deep and have low Q-Scores whatever pruning does. The part of an effect
that also appears among dense networks alone and among pruned networks alone is not due to pruning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from common.analysis.statistics import Estimate, half_width
from common.analysis.subsets import modal_labels, two_parts, without_each

LABELS_AT_ONCE = 250_000_000  # modal labels: 500 MB, two splits of 30 networks on 1,000,000 images


class Referenced(NamedTuple):
    """Differences of a score's means, in the score's unit, each with its interval."""

    effect: Estimate  # PIEs minus other images
    reference: Estimate  # images that flip between networks of one kind minus other images
    excess: Estimate  # effect minus reference
    within_bins: Estimate  # effect among images that have about the same score in dense networks


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
    """The difference of a score between PIEs and other images, held out and referenced.

    dense, pruned: labels [K,N]; scores: [K,N], of each network for each image, measured in either
    population; dense_scores: [K,N], of the dense networks. Row i of all four has the same id. A
    score is nan where it was not measured; a network that was not measured has nan for all images.

    Each split divides the ids into disjoint parts A, A' (about 2/5 of K each) and B. PIEs are the
    images whose modal labels differ between dense A and pruned A', or between dense A' and pruned
    A; each comparison has weight 1/2. Reference images differ between dense A and dense A', or
    between pruned A and pruned A', again with weight 1/2 each. (As in the corrected count, which is
    the number of PIEs minus that of reference images.) The score is the mean over B, which had no
    part in the choice; bins are quantiles of the mean dense score over A and A'. Within bins, the
    means of the other images are weighted by the number of PIEs in each bin.

    The reference is exact if pruned networks vote like dense ones, and nearly so if only their
    noise rises: in simulation (noise times 1.3 to 2) the excess stayed within 3 % of the effect.
    A reference from pruned networks alone would spread wider than PIEs: it left an excess of 4 to
    12 %, whose interval lay above 0 in 9 of 10 studies.

    Sums are averaged over splits before ratios are taken. Intervals: fresh images and fresh
    networks, by linearised ratios and `half_width`. Its degrees of freedom are those of the
    networks with scores, since most of the sums vary with these networks.
    None for K < 6, for fewer than 4 networks with scores, or without PIEs or flips.
    """
    scored = np.isfinite(scores).any(axis=1) & np.isfinite(dense_scores).any(axis=1)
    if len(dense) < 6 or scored.sum() < 4:
        return None
    parts, held_out = _split(scored, n_splits, rng)
    total = np.zeros((3, 2, 1 + len(dense), dense.shape[1]))
    modes = _modes(dense, pruned, parts, n_classes)
    for of_split, part, part_b in zip(modes, parts, held_out, strict=True):
        pies, flips = _choose(of_split)
        score = _mean_score(scores, _leave_out(part_b))
        bins = _bins(_mean_score(dense_scores, part.any(axis=0)[None])[0], n_bins)
        one_bin = np.zeros_like(bins)
        compared = ((pies, one_bin), (flips, one_bin), (pies, bins))
        for (top, bottom), (weight, of_image) in zip(total, compared, strict=True):
            deviation, chosen = _compare(weight, score, of_image)
            top += deviation
            bottom += chosen
    if not (total[:, 1, 0].sum(axis=1) > 0).all():
        return None
    values, parts_of = zip(*(_ratio(*sums) for sums in total), strict=True)
    n = int(scored.sum())
    effect, reference, within = (_estimate(*one, n) for one in zip(values, parts_of, strict=True))
    excess = _estimate(values[0] - values[1], parts_of[0] - parts_of[1], n)
    return Referenced(effect, reference, excess, within)


def _split(scored: np.ndarray, n_splits: int, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """A and A', bool [R,2,K], and B, bool [R,K]. B holds at least two networks with scores, but at
    most half of them."""
    k = len(scored)
    n_held_out = max(2, min(k - 2 * (2 * k // 5), int(scored.sum()) // 2))
    scored_first = rng.random((n_splits, k)) + ~scored
    held_out = two_parts(scored_first, n_held_out)[:, 0]
    others_first = np.where(held_out, np.inf, rng.random((n_splits, k)))
    return two_parts(others_first, (k - n_held_out) // 2), held_out


def _modes(
    dense: np.ndarray, pruned: np.ndarray, parts: np.ndarray, n_classes: int
) -> Iterator[np.ndarray]:
    """Modal labels [2,2,1+K,N] for each split: of dense and pruned networks; in two parts of the
    ids; with all ids of A and A' (parts is bool [R,2,K]), then without each id. The first part is
    the one that the id is deleted from."""
    k, n = dense.shape
    halves = without_each(parts)
    others = np.take_along_axis(parts, halves.other[..., None], axis=1)
    first = np.concatenate([parts[:, :1], halves.without], axis=1)
    subsets = np.stack([first, np.concatenate([parts[:, 1:], others], axis=1)], axis=1)
    at_once = max(1, LABELS_AT_ONCE // (4 * (1 + k) * n))
    for start in range(0, len(parts), at_once):
        some = subsets[start : start + at_once]
        shape = (len(some), 2, 1 + k, n)
        of_some = [
            modal_labels(labels, some.reshape(-1, k), n_classes).reshape(shape)
            for labels in (dense, pruned)
        ]
        for of_split in zip(*of_some, strict=True):
            yield np.stack(of_split)


def _choose(modes: np.ndarray) -> np.ndarray:
    """Weights from 0 to 1 of each image as a PIE and as a reference image, [2,1+K,N], from the
    `_modes` [2,2,1+K,N] of one split."""
    (dense, other_dense), (pruned, other_pruned) = modes
    pies = (dense != other_pruned).astype(np.float32) + (pruned != other_dense)
    flips = (dense != other_dense).astype(np.float32) + (pruned != other_pruned)
    return np.stack([pies, flips]) / 2


def _leave_out(part: np.ndarray) -> np.ndarray:
    """bool [K] -> [1+K,K]: the whole part, then the part without each id."""
    return np.concatenate([part[None], part & ~np.eye(len(part), dtype=bool)])


def _mean_score(scores: np.ndarray, networks: np.ndarray) -> np.ndarray:
    """Mean of scores [K,N] over networks bool [R,K] -> [R,N]; nan where no network has a score."""
    known = np.isfinite(scores)
    n = networks.astype(np.float64) @ known
    total = networks.astype(np.float64) @ np.where(known, scores, 0)
    return np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)


def _bins(score: np.ndarray, n_bins: int) -> np.ndarray:
    """The bin [N] of each image; bins hold about equally many images. -1 without a score."""
    known = np.isfinite(score)
    if not known.any():
        return np.full(len(score), -1)
    edges = np.unique(np.quantile(score[known], np.linspace(0, 1, n_bins + 1)[1:-1]))
    return np.where(known, np.searchsorted(edges, score, side="right"), -1)


def _compare(
    weight: np.ndarray, score: np.ndarray, bins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The summands, by image, of two sums; both arrays are [1+K,N]. The first sum is that of
    (score minus the mean score of the images of its bin that are not chosen) over chosen images.
    The second sum is the number of chosen images. weight and score are [1+K,N], bins [N].

    Images that are not chosen move the mean. Their summands are 0 in total: each is the image's
    deviation from that mean, times the number of chosen images for each image not chosen.
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
    score -= means[:, bins]
    added = others * per_other[:, bins]
    np.subtract(chosen, added, out=added)
    added *= score
    return added, chosen


def _ratio(top: np.ndarray, bottom: np.ndarray) -> tuple[float, np.ndarray]:
    """The ratio of the sums of top[0] and bottom[0] (top and bottom are [1+K,N]), and what each
    image adds to the ratio, to first order, with all ids and without each. The function overwrites
    `top` with these parts, since a copy for many images would not fit into memory."""
    n = bottom[0].sum()
    value = float(top[0].sum() / n)
    top -= value * bottom
    top /= n
    return value, top


def _estimate(value: float, parts: np.ndarray, n_models: int) -> Estimate:
    half = half_width(parts, n_models=n_models)
    return Estimate(value, value - half, value + half)
