"""The numbers of PIE detection, as rows of the summary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common import runtime
from common.analysis import clusters, held_out, pie, resampling, statistics
from common.analysis.class_impact import ClassImpact
from common.analysis.predictions import Population, nan_mean
from common.analysis.q_score import low_score_detects
from common.files import Arrays
from common.report.by_image import SCORES
from common.report.rows import Row, mean_rows, row
from common.study import Cell

# Splits behind a corrected count: all 126 at K = 10. With 200 random splits, the standard error of
# the count is 1/20 of half its interval.
N_SPLITS = 200
# Subsets of each population size. 1,000 would take more time than all other statistics of a cell,
# for a band in the figure that looks the same.
N_BY_SIZE = 200
N_SIZES = 9  # population sizes in that figure: each from 2 to 10 at K = 10
# Numbers about each network's embedding: their names in the stored predictions, and their metrics.
NUMBERS = {
    "silhouette": "embedding_silhouette",
    "silhouette_cosine": "embedding_silhouette_cosine",
    "knn_accuracy": "embedding_10nn_accuracy",
}

# How many images each number is from, at most.
USED_OF = {
    "silhouette": clusters.SILHOUETTE_OF,
    "silhouette_cosine": clusters.SILHOUETTE_OF,
    "knn_accuracy": clusters.NEIGHBOURS_OF,
}


def of_population(networks: Population, target: np.ndarray, classes: Sequence[str]) -> list[Row]:
    """The accuracy of one population, over all images and by class, and its scores; target [N]."""
    correct = networks.labels == target
    groups = {"all": np.ones(len(target), dtype=bool)}
    groups |= {name: target == c for c, name in enumerate(classes)}
    rows = []
    for group, members in groups.items():
        share = correct[:, members].mean(axis=1)
        rows += mean_rows(networks.cell, "top1", share, int(members.sum()), group, is_share=True)
    for score in SCORES:
        means = nan_mean(networks.scores[score.field], axis=1)
        rows += mean_rows(networks.cell, score.metric, means, len(target))
    q = networks.scores["q"]
    rows += of_detection(networks.cell, "misclassified", q, ~correct)
    for name, metric in NUMBERS.items():
        values, is_share = networks.numbers[name], name == "knn_accuracy"
        n_examples = min(len(target), USED_OF[name])
        rows += mean_rows(networks.cell, metric, values, n_examples, is_share=is_share)
    undefined = np.isnan(q).mean(axis=1)
    rows += mean_rows(networks.cell, "q_score_undefined", undefined, len(target), is_share=True)
    return rows


def of_detection(cell: Cell, what: str, q: np.ndarray, positive: np.ndarray) -> list[Row]:
    """Measures of a low Q-Score, q [K,N], as a detector of positive images, [K,N] or [N]."""
    positive = np.broadcast_to(positive, q.shape)
    found = [low_score_detects(*pair) for pair in zip(q, positive, strict=True)]
    found = [detection for detection in found if detection is not None]
    if not found:
        return []
    auroc, precision = np.array(found).T
    n_examples = q.shape[1]
    rows = []
    for name, share in (("auroc", auroc), ("ap", precision)):
        rows += mean_rows(cell, f"q_score_{name}_{what}", share, n_examples, is_share=True)
    return rows


def of_count(
    dense: Population,
    pruned: Population,
    n_classes: int,
    paired: bool,
    n_permutations: int,
    n_resamples: int,
    seed: int,
) -> tuple[list[Row], Arrays]:
    """Rows with the number of PIEs and its interval, the corrected count, and the count if dense
    and pruned networks are exchanged; and arrays with counts by population size, for K >= 4."""
    cell, n_models, n_examples = pruned.cell, len(pruned.ids), pruned.labels.shape[1]
    rng = np.random.default_rng(runtime.seed_from(seed, str(cell), "resampling"))
    labels = (dense.labels, pruned.labels, n_classes)
    null = resampling.permutation_null(*labels, paired, n_permutations, rng)
    interval = resampling.count_interval(*labels, paired, n_resamples, rng)
    corrected = resampling.corrected_pies(*labels, N_SPLITS, rng)
    n_pies = int(pie.find_pies(*labels).sum())
    rows = [
        row(cell, metric, value, n_models, n_examples, interval=bounds)
        for metric, value, bounds in (
            ("n_pies", n_pies, interval),
            ("n_pies_corrected", corrected.value, corrected.interval),
            ("n_pies_corrected_half", corrected.half, None),
            ("n_pies_null", null.mean, null.interval),
            ("n_pies_null_paired", paired, None),
            ("pie_p_value", null.p_value, None),
            ("pie_p_value_floor", null.floor, None),
        )
        if not np.isnan(value)
    ]
    if n_models < 4:
        return rows, {}
    sizes = np.unique(np.linspace(2, n_models, N_SIZES).round().astype(int))
    by_size = resampling.counts_by_population_size(
        *labels, paired, sizes.tolist(), min(n_resamples, N_BY_SIZE), rng
    )
    return rows, {"sizes": sizes, "counts": by_size[0], "null": by_size[1]}


def of_replicates(
    dense: Population,
    populations: dict[Cell, Population],
    fresh: dict[Cell, Population],
    n_classes: int,
    n_resamples: int,
    seed: int,
) -> dict[Cell, list[Row]]:
    """The number of modal labels that differ between two populations without a common id. For the
    dense cell: dense against fresh dense networks. For each pruned cell that has fresh networks:
    pruned against fresh pruned networks, and dense against pruned networks, for which dense against
    dense is the null."""
    rows: dict[Cell, list[Row]] = {}
    for cell, pruned in ({dense.cell: dense} | populations).items():
        if cell not in fresh:
            continue
        size = min(len(pruned.ids), len(fresh[cell].ids))  # counts depend on the population size
        dense_labels, fresh_dense, pruned_labels, fresh_pruned = (
            networks.labels[:size]
            for networks in (
                dense.select(pruned.ids),
                fresh[dense.cell].select(fresh[cell].ids),
                pruned,
                fresh[cell],
            )
        )
        compared = {
            "n_pies_dense_null": [(dense_labels, fresh_dense)],
            "n_pies_pruned_null": [(pruned_labels, fresh_pruned)],
            "n_pies_unpaired": [(dense_labels, fresh_pruned), (fresh_dense, pruned_labels)],
        }
        rng = np.random.default_rng(runtime.seed_from(seed, str(cell), "replicates"))
        rows[cell] = []
        for metric, pairs in compared.items():
            count, interval = resampling.replicate_count(pairs, n_classes, n_resamples, rng)
            if (metric == "n_pies_dense_null") == cell.is_dense:
                n_examples = dense.labels.shape[1]
                rows[cell].append(row(cell, metric, count, size, n_examples, interval=interval))
    return rows


def of_pies(
    cell: Cell, found: Arrays, dense: Population, pruned: Population, classes: Sequence[str]
) -> list[Row]:
    """Counts, directions and ties of the PIEs; accuracy and scores on PIEs and on other images."""
    label, is_pie, q = found["label"], found["is_pie"], pruned.scores["q"]
    n_models, n_examples = len(pruned.ids), len(label)
    rows = _of_votes(cell, found, dense, pruned, classes)
    rows += of_detection(cell, "pie", q, is_pie)
    rows += of_detection(cell, "pie_dense", dense.scores["q"], is_pie)
    values = {"vote_distance": found["vote_distance"].mean()}
    if "pie_probability" in found:
        probability = found["pie_probability"]
        values |= {"n_pies_expected": probability.sum()}
        values |= {"n_pies_certain": (probability > 0.95).sum()}
    rows += [row(cell, metric, value, n_models, n_examples) for metric, value in values.items()]
    if 0 < is_pie.sum() < n_examples:
        of_pies, of_rest = (nan_mean(q[:, members], axis=1) for members in (is_pie, ~is_pie))
        rows += mean_rows(cell, "q_score_pie_minus_rest", of_pies - of_rest, n_examples)
    rows += _of_losses(cell, label, dense, pruned)
    for group, members in (("pie", is_pie), ("non_pie", ~is_pie)):
        if members.any():
            rows += _of_group(cell, label, group, members, {"": pruned, "_dense": dense})
    return rows


def _of_votes(
    cell: Cell, found: Arrays, dense: Population, pruned: Population, classes: Sequence[str]
) -> list[Row]:
    """Counts of PIEs by class and by direction, of ties, and of PIEs by the other rule for ties."""
    label, is_pie, n_models = found["label"], found["is_pie"], len(pruned.ids)
    rows = []
    for c, name in enumerate(classes):
        n_pies, n_images = (is_pie & (label == c)).sum(), int((label == c).sum())
        rows.append(row(cell, "n_pies", n_pies, n_models, n_images, name))
    ways = pie.directions(found["modal_dense"], found["modal_pruned"], label)
    tied = pie.is_tied(found["votes_dense"]) | pie.is_tied(found["votes_pruned"])
    other_rule = pie.find_pies(dense.labels, pruned.labels, len(classes), ties="highest")
    counts = {f"n_pies_{way}": n for way, n in ways._asdict().items()}
    counts |= {"n_tied": tied.sum(), "n_pies_highest_tie": other_rule.sum()}
    return rows + [row(cell, metric, n, n_models, len(label)) for metric, n in counts.items()]


def _of_losses(cell: Cell, label: np.ndarray, dense: Population, pruned: Population) -> list[Row]:
    """The losses of accuracy, Q-Score and silhouette by pruning, network by network, and the share
    of the silhouette that is left."""
    networks, rows = (dense, pruned), []
    lost = {
        "top1_lost": [(p.labels == label).mean(axis=1) for p in networks],
        "q_score_lost": [nan_mean(p.scores["q"], axis=1) for p in networks],
        "embedding_silhouette_lost": [p.numbers["silhouette"] for p in networks],
    }
    n_used = min(len(label), clusters.SILHOUETTE_OF)
    for metric, values in lost.items():
        n_examples = n_used if "silhouette" in metric else len(label)
        rows += mean_rows(cell, metric, values[0] - values[1], n_examples)
    for name in ("silhouette", "silhouette_cosine"):
        kept = statistics.ratio(pruned.numbers[name], dense.numbers[name])
        if kept is not None:
            metric, n_models = f"{NUMBERS[name]}_retained", len(pruned.ids)
            rows.append(row(cell, metric, kept.value, n_models, n_used, interval=kept[1:]))
    return rows


def _of_group(
    cell: Cell,
    label: np.ndarray,
    group: str,
    members: np.ndarray,
    populations: dict[str, Population],
) -> list[Row]:
    """Accuracy and scores of populations, by the suffix of their metrics, on a group of images."""
    rows = []
    for suffix, networks in populations.items():
        correct = (networks.labels == label)[:, members].mean(axis=1)
        n_members = int(members.sum())
        rows += mean_rows(cell, f"top1{suffix}", correct, n_members, group, is_share=True)
        for score in SCORES:
            means = nan_mean(networks.scores[score.field][:, members], axis=1)
            rows += mean_rows(cell, f"{score.metric}{suffix}", means, n_members, group)
    return rows


def of_held_out(
    cell: Cell,
    metric: str,
    dense: Population,
    pruned: Population,
    scores: dict[str, np.ndarray],
    n_classes: int,
    seed: int,
) -> list[Row]:
    """The difference of a score between PIEs and other images, measured on networks that did not
    choose the PIEs (see held_out.referenced_effect): for PIEs, for images that flip between two
    populations of one kind, the former minus the latter, and for PIEs within bins of the dense
    score. scores: [K,N] of the `dense` and of the `pruned` networks, nan where not measured."""
    rng = np.random.default_rng(runtime.seed_from(seed, str(cell), metric))
    found = held_out.referenced_effect(
        dense.labels, pruned.labels, scores["pruned"], scores["dense"], n_classes, rng
    )
    if found is None:
        return []
    scored = [np.isfinite(values).any(axis=1) for values in scores.values()]
    n_models = int(np.logical_and(*scored).sum())
    names = ("pies", "flips", "pies_minus_flips", "pies_within_bins")
    return [
        row(cell, f"{metric}_held_out_{name}", value, n_models, dense.labels.shape[1],
            interval=interval)
        for name, (value, *interval) in zip(names, found, strict=True)
    ]  # fmt: skip


def of_class_impact(
    impacts: dict[Cell, ClassImpact], found: dict[Cell, Arrays]
) -> tuple[dict[Cell, list[Row]], dict[Cell, np.ndarray]]:
    """The classes that pay for pruning, as rows; and the q-values [C] of each cell, by Benjamini
    and Hochberg over all classes and cells."""
    if not impacts:
        return {}, {}
    from scipy.stats import false_discovery_control

    p_values = np.stack([impact.p_value for impact in impacts.values()])
    adjusted = false_discovery_control(p_values.ravel()).reshape(p_values.shape)
    q_values = dict(zip(impacts, adjusted, strict=True))
    rows: dict[Cell, list[Row]] = {cell: [] for cell in impacts}
    for cell, impact in impacts.items():
        n_models = int(found[cell]["n_models"])
        for c, name in enumerate(found[cell]["classes"].tolist()):
            n_examples = int((found[cell]["label"] == c).sum())
            rows[cell] += [
                row(cell, metric, value, n_models, n_examples, name, interval)
                for metric, value, interval in (
                    ("class_impact", impact.effect[c], (impact.low[c], impact.high[c])),
                    ("class_impact_p", impact.p_value[c], None),
                    ("class_impact_q", q_values[cell][c], None),
                )
            ]
    return rows, q_values
