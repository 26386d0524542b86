"""Which test images do pruned networks forget? PIEs, accuracy on them, Q-Score, UMAP."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from common import paths
from common.analysis import forgetting, pie, summary
from common.analysis.forgetting import ClassImpact, class_impact
from common.analysis.predictions import Population
from common.data import stored
from common.data.arrays import Arrays
from common.data.datasets import Dataset
from common.experiments import maps, pie_rows, population, publish
from common.figures import forgetting as figures
from common.figures import plots, style
from common.paths import Cell
from common.runtime import EXIT_ARGUMENTS, EXIT_CHECKPOINT, Failure, write_csv

# The scores of predictions.Population by their name in the figures' files.
SCORE_NAMES = {"q": "Q-SCORE", "z": "Z-SCORE", "l1": "L1_NORM"}


def run(args: argparse.Namespace) -> int:
    """Compare the dense population with every pruned one that is there."""
    data = population.load_data(args)
    dense_cell = paths.dense_cell(args.learner)
    dense_ids = population.ids_present(args, dense_cell)
    cells = population.pruned_cells(args, dense_ids)
    population.check_recipes(args, data, {dense_cell: dense_ids} | cells)
    check_flags(args, data, dense_ids)
    population.prepare_output(args)
    stored.remember_test_labels(args.pies, data.test.labels.cpu().numpy())
    dense = population.predict(args, data, dense_cell, dense_ids)
    summary.replace(args.pies, pie_rows.of_population(dense, data), owner="pie_detection")
    if args.null_index_start is not None:
        null_with_dense(args, data, dense)
    found, impacts, populations = {}, {}, {}
    for cell, ids in cells.items():
        paired = dense.select(ids)
        populations[cell] = pruned = population.predict(args, data, cell, ids)
        found[cell] = compare(cell, paired, pruned, data)
        are_pairs = population.are_pairs(args, data, cell, ids)
        rows, chance = pie_rows.of_chance(args, paired, pruned, are_pairs, data.n_classes)
        rows += pie_rows.of_population(pruned, data)
        rows += pie_rows.of_pies(cell, found[cell], paired, pruned, data)
        summary.replace(args.pies, rows, owner="pie_detection")
        write_table(paths.pie_table(args.pies, cell), found[cell], paired, pruned)
        draw(args, cell, found[cell], chance, paired, pruned)
        if len(ids) > 1:
            label = found[cell]["label"]
            impacts[cell] = class_impact(paired.labels, pruned.labels, label, data.n_classes)
    draw_class_impacts(args, impacts, found)
    summary.replace(args.pies, pie_rows.of_schedules(populations))
    if args.plot_umap:
        maps.draw_all(args, data, dense, found)
    population.record_recipes(args, data, {dense_cell: dense_ids} | cells)
    publish.run(args.pies)
    print(summary.format_table(args.pies, args.learner))
    return 0


def check_flags(args: argparse.Namespace, data: Dataset, dense_ids: list[int]) -> None:
    """Raises Failure(EXIT_ARGUMENTS) for a map of a network that is not there, or a null population
    that is not another one."""
    if args.umap_id is not None and args.umap_id not in dense_ids:
        raise Failure(
            EXIT_ARGUMENTS, f"argument --umap_id: {args.umap_id}: one of the ids {dense_ids}"
        )
    if args.plot_umap:
        population.check_knn(args, len(data.test) - 1)
    start = args.null_index_start
    if start is not None and set(range(start, start + len(dense_ids))) & set(dense_ids):
        raise Failure(
            EXIT_ARGUMENTS,
            f"argument --null_index_start: {start}: {len(dense_ids)} ids from here overlap those "
            "of the population itself",
        )


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
    """The PIEs of a cell, the votes that make them, and what they look like."""
    modal = [pie.modal_labels(p.labels, data.n_classes) for p in (dense, pruned)]
    votes = [pie.count_votes(p.labels, data.n_classes) for p in (dense, pruned)]
    is_pie = pie.find_pies(dense.labels, pruned.labels, data.n_classes)
    images = data.test.images[torch.from_numpy(is_pie).to(data.test.images.device)]
    return population.heading(cell, pruned.ids, data) | {
        "label": data.test.labels.cpu().numpy(),
        "is_pie": is_pie,
        "modal_dense": modal[0],
        "modal_pruned": modal[1],
        "votes_dense": votes[0],
        "votes_pruned": votes[1],
        "classes": np.array(data.classes),
        "vote_distance": forgetting.vote_distance(*votes),
        "pie_images": images.cpu().numpy(),
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
        "margin_dense": forgetting.vote_margin(found["votes_dense"]),
        "margin_pruned": forgetting.vote_margin(found["votes_pruned"]),
        "entropy_dense": forgetting.vote_entropy(found["votes_dense"]),
        "entropy_pruned": forgetting.vote_entropy(found["votes_pruned"]),
        "vote_distance": found["vote_distance"],
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    shown = ([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows)
    write_csv(path, [columns, *shown])


def draw(
    args: argparse.Namespace,
    cell: Cell,
    found: Arrays,
    chance: Arrays,
    dense: Population,
    pruned: Population,
) -> None:
    """PIEs by class and by population size, distance of the votes, and with a flag the scores."""
    heading = {key: found[key] for key in (*population.HEADING, "is_pie")}
    style.keep(paths.pies_distribution(args.pies, cell), plots.pies_by_class, found)
    distance = found["vote_distance"]
    path = paths.pies_distribution(args.pies, cell, "vote_distance")
    style.keep(path, figures.vote_distances, heading | {"distance": distance})
    if "sizes" in chance:
        path = paths.pies_distribution(args.pies, cell, "PIEs_by_population_size")
        style.keep(path, figures.pies_by_population_size, heading | chance)
    for field, name in SCORE_NAMES.items() if args.plot_q_score else ():
        shown = {
            "score": np.array(name.replace("_", " ").title()),
            "dense": dense.mean_score(field),
            "pruned": pruned.mean_score(field),
        }
        style.keep(paths.q_score(args.pies, cell, name), plots.score_scatter, heading | shown)


def draw_class_impacts(
    args: argparse.Namespace, impacts: dict[Cell, ClassImpact], found: dict[Cell, Arrays]
) -> None:
    """Which classes pay, with q-values over all classes and cells of this run."""
    for cell, q_value in pie_rows.of_class_impact(args, impacts, found).items():
        heading = {key: found[cell][key] for key in (*population.HEADING, "classes")}
        shown = impacts[cell]._asdict() | {"q_value": q_value}
        path = paths.pies_distribution(args.pies, cell, "class_impact")
        style.keep(path, figures.class_impact, heading | shown)
