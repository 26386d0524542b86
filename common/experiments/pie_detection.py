"""Which test images do pruned networks forget? PIEs, accuracy on them, Q-Score, UMAP."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from common import paths
from common.analysis import pie, probes, summary
from common.analysis.predictions import Population
from common.data import arrays
from common.data.arrays import Arrays
from common.data.datasets import Dataset
from common.experiments import pie_rows, population
from common.figures import embedding, plots, style
from common.model import evaluation
from common.model.wide_resnet import WideResNet
from common.paths import Cell
from common.runtime import EXIT_ARGUMENTS, EXIT_CHECKPOINT, Failure, replace_file

# The scores of predictions.Population by their name in the figures' files.
SCORE_NAMES = {"q": "Q-SCORE", "z": "Z-SCORE", "l1": "L1_NORM"}


def run(args: argparse.Namespace) -> int:
    """Compare the dense population with every pruned one that is there."""
    data = population.open_study(args)
    dense_cell = paths.dense_cell(args.learner)
    dense_ids = population.ids_present(args, dense_cell)
    cells = population.pruned_cells(args, dense_ids)
    population.check_recipes(args, data, {dense_cell: dense_ids} | cells)
    check_flags(args, data, dense_ids)
    dense = population.predict(args, data, dense_cell, dense_ids)
    summary.replace(args.pies, pie_rows.of_population(dense, data), all_groups=True)
    if args.null_index_start is not None:
        null_with_dense(args, data, dense)
    found = {}
    for cell, ids in cells.items():
        paired = dense.select(ids)
        pruned = population.predict(args, data, cell, ids)
        found[cell] = compare(cell, paired, pruned, data)
        are_pairs = population.come_from(args, data, cell, ids)
        rows, null = pie_rows.of_chance(args, paired, pruned, are_pairs, data.n_classes)
        found[cell]["null_counts"] = null
        style.keep(paths.pies_distribution(args.pies, cell), plots.pies_by_class, found[cell])
        write_table(paths.pie_table(args.pies, cell), found[cell], paired, pruned)
        rows += pie_rows.of_population(pruned, data)
        rows += pie_rows.of_pies(cell, found[cell], paired, pruned, data)
        summary.replace(args.pies, rows, all_groups=True)
        if args.plot_q_score:
            draw_scores(args.pies, cell, found[cell], paired, pruned)
        compare_learners(args.pies, cell)
    if args.plot_umap:
        draw_umaps(args, data, dense, found)
    print(summary.format_table(args.pies, args.learner))
    return 0


def check_flags(args: argparse.Namespace, data: Dataset, dense_ids: list[int]) -> None:
    """Raises Failure(EXIT_ARGUMENTS) for a map of a network that is not there."""
    if args.umap_id is not None and args.umap_id not in dense_ids:
        raise Failure(
            EXIT_ARGUMENTS, f"argument --umap_id: {args.umap_id}: one of the ids {dense_ids}"
        )
    if args.plot_umap:
        population.check_knn(args, len(data.test) - 1)


def null_with_dense(args: argparse.Namespace, data: Dataset, dense: Population) -> None:
    """Count PIEs of the dense population against as many dense networks with other ids."""
    present = paths.networks_present(args.models).get(dense.cell, set())
    start = args.null_index_start
    others = [i for i in range(start, start + len(dense.ids)) if i in present - set(dense.ids)]
    if len(others) < len(dense.ids):
        raise Failure(
            EXIT_CHECKPOINT,
            f"argument --null_index_start: {start}: {len(others)} of {len(dense.ids)} more dense "
            f"networks are there; make them with: python {paths.training_script(args.learner)} "
            f"--dataset {args.dataset} --index_start {start} --models_number {len(dense.ids)}",
        )
    population.check_recipes(args, data, {dense.cell: [*dense.ids, *others]})
    second = population.predict(args, data, dense.cell, others)
    rows = pie_rows.of_dense_null(dense, second, data.n_classes)
    summary.replace(args.pies, rows)


def compare(cell: Cell, dense: Population, pruned: Population, data: Dataset) -> Arrays:
    """The PIEs of a cell, and the votes that make them."""
    modal = [pie.modal_labels(p.labels, data.n_classes) for p in (dense, pruned)]
    return population.heading(cell, pruned.ids, data) | {
        "label": data.test.labels.cpu().numpy(),
        "is_pie": pie.find_pies(dense.labels, pruned.labels, data.n_classes),
        "modal_dense": modal[0],
        "modal_pruned": modal[1],
        "votes_dense": pie.count_votes(dense.labels, data.n_classes),
        "votes_pruned": pie.count_votes(pruned.labels, data.n_classes),
        "classes": np.array(data.classes),
    }


def write_table(path: Path, found: Arrays, dense: Population, pruned: Population) -> None:
    """pies_<pruning>_s<sparsity>.csv: one row an example."""
    classes = found["classes"]
    columns = {
        "index": np.arange(len(found["label"])),
        "label": classes[found["label"]],
        "modal_dense": classes[found["modal_dense"]],
        "modal_pruned": classes[found["modal_pruned"]],
        "votes_dense": found["votes_dense"].max(axis=1),
        "votes_pruned": found["votes_pruned"].max(axis=1),
        "is_pie": found["is_pie"].astype(int),
        "q_dense": dense.mean_score("q"),
        "q_pruned": pruned.mean_score("q"),
    }

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for values in zip(*(column.tolist() for column in columns.values()), strict=True):
                writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])

    replace_file(path, write, lambda temporary: None)


def draw_scores(
    pies: Path, cell: Cell, found: Arrays, dense: Population, pruned: Population
) -> None:
    """Dense against pruned Q-Score, Z-Score and L1 norm of each image, as means over networks."""
    for field, name in SCORE_NAMES.items():
        shown = {
            "score": np.array(name.replace("_", " ").title()),
            "dense": dense.mean_score(field),
            "pruned": pruned.mean_score(field),
        }
        heading = {key: found[key] for key in (*population.HEADING, "is_pie")}
        style.keep(paths.q_score(pies, cell, name), plots.score_scatter, heading | shown)


def compare_learners(pies: Path, cell: Cell) -> None:
    """Where both learners' PIEs of a cell are there: which are common, and where they disagree."""
    cells = [cell._replace(learner=learner) for learner in paths.LEARNERS]
    stored = [
        arrays.load(paths.pies_distribution(pies, other).with_suffix(".npz")) for other in cells
    ]
    if any(found is None for found in stored):
        return
    a, b = stored
    if not np.array_equal(a["label"], b["label"]):  # other images: --test_limit has changed
        return
    heading = {key: a[key] for key in (*population.HEADING, "label", "classes")}
    heading["learner"] = np.array(" and ".join(paths.LEARNERS))
    both = {"learners": np.array(paths.LEARNERS), "is_pie": np.stack([a["is_pie"], b["is_pie"]])}
    differ = {f"differ_{w}": a[f"modal_{w}"] != b[f"modal_{w}"] for w in ("dense", "pruned")}
    for kind, draw, shown in (
        ("common_PIEs", plots.common_pies, both),
        ("disagreement", plots.disagreement, differ),
    ):
        path = paths.learner_comparison(pies, kind, cell.pruning_method, cell.sparsity)
        style.keep(path, draw, heading | shown)


def draw_umaps(
    args: argparse.Namespace, data: Dataset, dense: Population, found: dict[Cell, Arrays]
) -> None:
    """UMAP of one network: dense alone, and dense beside pruned for each pruning method at its
    highest sparsity. Networks share no axes, so every one has its own map."""
    network_id = dense.ids[0] if args.umap_id is None else args.umap_id
    maps = {"dense": map_network(args, data, dense.cell, network_id)}
    draw_umap(args, data, dense.cell, network_id, maps, np.zeros(len(data.test), dtype=bool))
    highest = {cell.pruning_method: cell for cell in sorted(found)}
    for cell in highest.values():
        if network_id in found[cell]["ids"]:
            pruned = {"pruned": map_network(args, data, cell, network_id)}
            draw_umap(args, data, cell, network_id, maps | pruned, found[cell]["is_pie"])


def map_network(args: argparse.Namespace, data: Dataset, cell: Cell, network_id: int) -> Arrays:
    """One network's predicted labels and the two-dimensional map of its embeddings."""

    def compute(network: WideResNet) -> Arrays:
        labels, embeddings = evaluation.classify(network, data, data.test, args.batch_size)
        quality = probes.cluster_quality(embeddings, data.test.labels.cpu().numpy(), args.knn)
        return {
            "predicted": labels,
            "xy": embedding.umap_2d(embeddings, args.seed),
            "knn_accuracy": np.array(quality.knn_accuracy),
            "silhouette": np.array(quality.silhouette),
        }

    key = f"seed {args.seed} knn {args.knn}"
    path = paths.umap_array(args.pies, cell, network_id)
    made = population.cached(args, data, cell, network_id, path, compute, key)
    summary.replace(
        args.pies,
        [
            summary.row(cell, metric, float(made[name]), 1, len(data.test))
            for metric, name in (
                ("embedding_knn_accuracy", "knn_accuracy"),
                ("embedding_silhouette", "silhouette"),
            )
        ],
    )
    return made


def draw_umap(
    args: argparse.Namespace,
    data: Dataset,
    cell: Cell,
    network_id: int,
    maps: dict[str, Arrays],
    is_pie: np.ndarray,
) -> None:
    """The maps of one network beside each other, with the PIEs of its population."""
    shown = {
        "title": np.array(f"UMAP: {cell}, id {network_id}"),
        "panels": np.array(list(maps)),
        "xy": np.stack([found["xy"] for found in maps.values()]),
        "predicted": np.stack([found["predicted"] for found in maps.values()]),
        "label": data.test.labels.cpu().numpy(),
        "is_pie": is_pie,
        "classes": np.array(data.classes),
        "n_examples": np.array(len(data.test)),
    }
    style.keep(paths.umap(args.pies, cell), plots.embedding_map, shown)
