"""The numbers of PIE detection, as rows of the summary."""

from __future__ import annotations

import argparse

import numpy as np

from common import runtime
from common.analysis import forgetting, pie, resampling, summary
from common.analysis.forgetting import ClassImpact
from common.analysis.predictions import Population
from common.analysis.q_score import low_score_detects
from common.data.arrays import Arrays
from common.data.datasets import Dataset
from common.experiments import population
from common.paths import Cell

SCORE_METRICS = {"q": "q_score", "z": "z_score", "l1": "l1_norm"}


def of_population(networks: Population, data: Dataset) -> list[summary.Row]:
    """Accuracy over all images and by class, and the Q-Scores, of one population."""
    target = data.test.labels.cpu().numpy()
    correct = networks.labels == target
    groups = {"all": np.ones(len(target), dtype=bool)}
    groups |= {name: target == c for c, name in enumerate(data.classes)}
    rows = []
    for group, members in groups.items():
        rows += population.mean_rows(
            networks.cell, "top1", correct[:, members].mean(axis=1), int(members.sum()), group
        )
    for field, metric in SCORE_METRICS.items():
        rows += of_score(networks.cell, metric, getattr(networks, field), "all", groups["all"])
    rows += of_detection(networks.cell, "misclassified", networks.q, ~correct)
    if not np.isnan(networks.silhouette).any():
        rows += population.mean_rows(
            networks.cell, "embedding_silhouette", networks.silhouette, min(len(target), 2000)
        )
    undefined = np.isnan(networks.q).mean(axis=1)
    rows += population.mean_rows(networks.cell, "q_score_undefined", undefined, len(target))
    return rows


def of_score(
    cell: Cell, metric: str, score: np.ndarray, group: str, members: np.ndarray
) -> list[summary.Row]:
    """The mean over networks of each network's mean score [K,N] over a group of images; undefined
    scores are left out of it. No rows for a group without any."""
    values = score[:, members].astype(np.float64)
    defined = ~np.isnan(values).all(axis=1)
    if not defined.any():
        return []
    means = np.nanmean(values[defined], axis=1)
    return population.mean_rows(cell, metric, means, int(members.sum()), group)


def of_detection(cell: Cell, what: str, q: np.ndarray, positive: np.ndarray) -> list[summary.Row]:
    """How well a low Q-Score of a network [K,N] tells which images are positive [K,N] or [N]."""
    positive = np.broadcast_to(positive, q.shape)
    found = [low_score_detects(*pair) for pair in zip(q, positive, strict=True)]
    found = [detection for detection in found if detection is not None]
    if not found:
        return []
    auroc, precision = np.array(found).T
    n_examples = q.shape[1]
    return population.mean_rows(
        cell, f"q_score_auroc_{what}", auroc, n_examples
    ) + population.mean_rows(cell, f"q_score_ap_{what}", precision, n_examples)


def of_chance(
    args: argparse.Namespace, dense: Population, pruned: Population, paired: bool, n_classes: int
) -> tuple[list[summary.Row], Arrays]:
    """The number of PIEs with its interval, what exchanging networks at random would give, the
    excess over that, and the p-value; and counts and null by population size, where K >= 4."""
    cell, n_models, n_examples = pruned.cell, len(pruned.ids), pruned.labels.shape[1]
    rng = np.random.default_rng(runtime.seed_from(args.seed, str(cell), "resampling"))
    common = (dense.labels, pruned.labels, n_classes, paired)
    null = resampling.permutation_null(*common, args.permutations, rng)
    interval = resampling.count_interval(*common, args.resamples, rng)
    n_pies = int(pie.find_pies(dense.labels, pruned.labels, n_classes).sum())
    excess = None if interval is None else (interval[0] - null.mean, interval[1] - null.mean)
    rows = [
        summary.row(cell, metric, value, n_models, n_examples, interval=bounds)
        for metric, value, bounds in (
            ("n_pies", n_pies, interval),
            ("n_pies_null", null.mean, null.interval),
            ("n_pies_excess", n_pies - null.mean, excess),
            ("pie_p_value", null.p_value, None),
            ("n_pies_null_paired", paired, None),
        )
    ]
    if n_models < 4:
        return rows, {}
    sizes = np.unique(np.linspace(2, n_models, 8).round().astype(int))
    by_size = resampling.counts_by_population_size(*common, sizes.tolist(), args.resamples, rng)
    return rows, {"sizes": sizes, "counts": by_size[0], "null": by_size[1]}


def of_dense_null(dense: Population, others: Population, n_classes: int) -> list[summary.Row]:
    """PIEs between two dense populations of other seeds: the cleanest null of all."""
    found = pie.find_pies(dense.labels, others.labels, n_classes)
    return [summary.row(dense.cell, "n_pies_dense_null", found.sum(), len(others.ids), len(found))]


def of_pies(
    cell: Cell, found: Arrays, dense: Population, pruned: Population, data: Dataset
) -> list[summary.Row]:
    """Counts, direction and ties of the PIEs; accuracy and scores on them and on the rest."""
    label, is_pie = found["label"], found["is_pie"]
    n_models, n_examples = len(pruned.ids), len(label)

    def count(metric: str, value: float, group: str = "all") -> summary.Row:
        members = n_examples if group == "all" else int((label == data.classes.index(group)).sum())
        return summary.row(cell, metric, value, n_models, members, group)

    rows = [
        count("n_pies", (is_pie & (label == c)).sum(), name) for c, name in enumerate(data.classes)
    ]
    ways = pie.directions(found["modal_dense"], found["modal_pruned"], label)
    rows += [count(f"n_pies_{way}", n) for way, n in ways._asdict().items()]
    tied = pie.is_tied(found["votes_dense"]) | pie.is_tied(found["votes_pruned"])
    rows.append(count("n_tied", tied.sum()))
    other_rule = pie.find_pies(dense.labels, pruned.labels, data.n_classes, ties="highest")
    rows.append(count("n_pies_highest_tie", other_rule.sum()))
    rows += of_detection(cell, "pie", pruned.q, is_pie)
    rows += of_detection(cell, "pie_dense", dense.q, is_pie)
    rows.append(count("vote_distance", found["vote_distance"].mean()))
    if 0 < is_pie.sum() < n_examples:
        q = pruned.q.astype(np.float64)
        defined = ~(np.isnan(q[:, is_pie]).all(axis=1) | np.isnan(q[:, ~is_pie]).all(axis=1))
        means = [np.nanmean(q[defined][:, members], axis=1) for members in (is_pie, ~is_pie)]
        rows += _paired(cell, "q_score_pie_minus_rest", *means, n_examples)
    networks = (dense, pruned)
    lost = {  # dense minus pruned, network by network
        "top1_lost": [(p.labels == label).mean(axis=1) for p in networks],
        "q_score_lost": [_mean_q(p) for p in networks],
        "embedding_silhouette_lost": [p.silhouette for p in networks],
    }
    for metric, (of_dense, of_pruned) in lost.items():
        rows += _paired(cell, metric, of_dense, of_pruned, n_examples)
    for group, members in (("pie", is_pie), ("non_pie", ~is_pie)):
        if not members.any():
            continue
        for networks, suffix in ((pruned, ""), (dense, "_dense")):
            correct = (networks.labels == label)[:, members].mean(axis=1)
            rows += population.mean_rows(cell, f"top1{suffix}", correct, members.sum(), group)
            for field, metric in SCORE_METRICS.items():
                score = getattr(networks, field)
                rows += of_score(cell, f"{metric}{suffix}", score, group, members)
    return rows


def of_schedules(populations: dict[Cell, Population]) -> list[summary.Row]:
    """Q-Score of late minus early gradual pruning, network by network: those of one id share first
    weights, order and augmentations."""
    rows = []
    for later, networks in populations.items():
        early = populations.get(later._replace(pruning_method="GMP"))
        if later.pruning_method == "later_GMP" and early and early.ids == networks.ids:
            n_examples = networks.q.shape[1]
            means = (_mean_q(networks), _mean_q(early))
            rows += _paired(later, "q_score_later_minus_early", *means, n_examples)
    return rows


def _mean_q(networks: Population) -> np.ndarray:
    """Mean Q-Score [K] of each network over its images with one, NaN if there is none."""
    defined = ~np.isnan(networks.q)
    n_defined = defined.sum(axis=1)
    total = np.where(defined, networks.q.astype(np.float64), 0).sum(axis=1)
    return np.where(n_defined > 0, total / np.maximum(n_defined, 1), np.nan)


def _paired(
    cell: Cell, metric: str, a: np.ndarray, b: np.ndarray, n_examples: int
) -> list[summary.Row]:
    """The mean over networks of a - b, both [K]; networks where it is undefined are left out."""
    difference = a - b
    difference = difference[~np.isnan(difference)]
    return population.mean_rows(cell, metric, difference, n_examples) if len(difference) else []


def of_class_impact(
    args: argparse.Namespace, impacts: dict[Cell, ClassImpact], found: dict[Cell, Arrays]
) -> dict[Cell, np.ndarray]:
    """Write which classes pay into the summary; return the q-values [C] of each cell, by
    Benjamini and Hochberg over classes and cells."""
    if not impacts:
        return {}
    stacked = np.stack([impact.p_value for impact in impacts.values()])
    q_values = dict(zip(impacts, forgetting.false_discovery_rate(stacked), strict=True))
    rows = []
    for cell, impact in impacts.items():
        n_models = int(found[cell]["n_models"])
        for c, name in enumerate(found[cell]["classes"].tolist()):
            n_examples = int((found[cell]["label"] == c).sum())
            bounds = (impact.low[c], impact.high[c])
            for metric, value, interval in (
                ("class_impact", impact.effect[c], bounds),
                ("class_impact_p", impact.p_value[c], None),
                ("class_impact_q", q_values[cell][c], None),
            ):
                rows.append(summary.row(cell, metric, value, n_models, n_examples, name, interval))
    summary.replace(args.pies, rows)
    return q_values
