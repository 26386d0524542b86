"""Which test images do pruned networks forget? PIEs, accuracy on them, Q-Score, UMAP."""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import torch

from common import paths, runtime, study
from common.analysis import pie, pie_probability, votes
from common.analysis.class_impact import ClassImpact, class_impact
from common.analysis.predictions import Population
from common.data.datasets import Dataset
from common.experiments import maps, plan, population, predictions, recording
from common.experiments.predictions import Wanted
from common.files import Arrays
from common.report import (
    by_image,
    pie_rows,
    plots,
    publish,
    rows,
    stored_pies,
    style,
    summary,
)
from common.report.plots import HEADING
from common.report.rows import Row
from common.runtime import EXIT_ARGUMENTS, EXIT_CHECKPOINT, Failure
from common.study import Cell


class Comparison(NamedTuple):
    """The results of comparing a pruned population with the dense one."""

    pruned: Population  # without its scores: those of all populations would not fit into memory
    rows: list[Row]
    pies: Arrays  # for figures, the gallery, and other runs
    by_image: Arrays
    by_size: Arrays
    impact: ClassImpact | None  # None for a single network


def run(args: argparse.Namespace) -> int:
    """Compare the dense population with every pruned population that exists."""
    if args.dry_run:
        return plan.of_analysis(args)
    data = population.load_data(args)
    dense_cell = study.dense_cell(args.learner)
    dense_ids = population.present(args, dense_cell)
    pruned_cells = population.pruned_cells(args, dense_ids)
    cells = {dense_cell: dense_ids} | pruned_cells
    population.check_recipes(args, data, cells)
    check_flags(args, data, dense_ids)
    fresh = find_replicates(args, data, cells)
    population.prepare_output(args)
    if not predictions.share(args, data, wanted(args, data, cells, fresh)):
        return 0
    target = data.test.labels.cpu().numpy()
    stored_pies.remember_test_labels(args.pies, target)
    dense = predictions.of_population(args, data, dense_cell, dense_ids)
    found_rows = {dense_cell: pie_rows.of_population(dense, target, data.classes)}
    compared = {}
    for cell, ids in pruned_cells.items():
        compared[cell] = compare(
            args, data, dense.select(ids), predictions.of_population(args, data, cell, ids)
        )
        found_rows[cell] = compared[cell].rows
    pies = {cell: found.pies for cell, found in compared.items()}
    impacts = {cell: found.impact for cell, found in compared.items() if found.impact}
    impact_rows, q_values = pie_rows.of_class_impact(impacts, pies)
    for cell in impact_rows:
        found_rows[cell] += impact_rows[cell]
    rows.store(args.pies, "pie_detection", found_rows)
    rows.store(args.pies, "replicates", replicate(args, data, fresh, dense, compared))
    for cell, found in compared.items():  # after the numbers, which no figure can then cost
        draw(args, cell, found)
        if found.impact:
            draw_class_impact(args, cell, found.pies, found.impact, q_values[cell])
    if args.plot_umap:
        maps.draw_all(args, data, dense, pies)
    recording.record_recipes(args, data, cells)
    publish.run(args.pies)
    print(summary.format_table(args.pies, args.learner))
    return 0


def wanted(
    args: argparse.Namespace,
    data: Dataset,
    cells: dict[Cell, list[int]],
    fresh: dict[Cell, list[int]],
) -> list[Wanted]:
    """The arrays to compute: the predictions of all networks, and the maps of some."""
    networks = [*population.networks(args, cells), *population.networks(args, fresh)]
    found = [predictions.of_network(args, data, network) for network in networks]
    return found + (maps.wanted(args, data, cells) if args.plot_umap else [])


def check_flags(args: argparse.Namespace, data: Dataset, dense_ids: list[int]) -> None:
    """Raises Failure(EXIT_ARGUMENTS) if the network to map does not exist, or has fewer neighbours
    than its map needs."""
    if args.umap_id is not None and args.umap_id not in dense_ids:
        raise Failure(
            EXIT_ARGUMENTS, f"argument --umap_id: {args.umap_id}: one of the ids {dense_ids}"
        )
    if args.plot_umap:
        population.check_knn(args, len(data.test) - 1)


def find_replicates(
    args: argparse.Namespace, data: Dataset, cells: dict[Cell, list[int]]
) -> dict[Cell, list[int]]:
    """The ids of fresh networks by cell, dense first; a pruned cell without fresh networks is left
    out. Raises Failure if fresh dense networks are in the population itself or missing, or if the
    recipe of fresh networks is not that of their cell."""
    if (start := args.replicate_index_start) is None:
        return {}
    dense_cell, n_models = study.dense_cell(args.learner), len(next(iter(cells.values())))
    what, ids = f"argument --replicate_index_start: {start}: ", range(start, start + n_models)
    if set(ids) & set(cells[dense_cell]):
        message = f"{study.named_ids(ids)} must not be in the population itself"
        raise Failure(EXIT_ARGUMENTS, what + message)
    present = paths.networks_present(args.models)
    fresh = {cell: [i for i in ids if i in present.get(cell, ())] for cell in cells}
    if (n_fresh := len(fresh[dense_cell])) < n_models:
        raise Failure(
            EXIT_CHECKPOINT,
            f"{what}only {n_fresh} of the {study.counted(n_models, 'more dense network')} "
            "asked for are there; make them with: "
            f"{population.making_command(args, dense_cell, ids)}",
        )
    fresh = {cell: found for cell, found in fresh.items() if found}
    population.check_recipes(args, data, {cell: [*cells[cell], *fresh[cell]] for cell in fresh})
    return fresh


def replicate(
    args: argparse.Namespace,
    data: Dataset,
    fresh: dict[Cell, list[int]],
    dense: Population,
    compared: dict[Cell, Comparison],
) -> dict[Cell, list[Row]]:
    """Count the images whose modal labels differ between two populations of one recipe, dense or
    pruned, the second of which consists of fresh networks with other ids."""
    if not fresh:
        return {}
    of_fresh = {
        cell: predictions.of_population(args, data, cell, ids) for cell, ids in fresh.items()
    }
    populations = {cell: found.pruned for cell, found in compared.items()}
    return pie_rows.of_replicates(
        dense, populations, of_fresh, data.n_classes, args.resamples, args.seed
    )


def compare(
    args: argparse.Namespace, data: Dataset, dense: Population, pruned: Population
) -> Comparison:
    """Compare populations of the same ids, and write the table by image."""
    cell, target, n_classes = pruned.cell, data.test.labels.cpu().numpy(), data.n_classes
    pies = find_pies(cell, dense, pruned, data, args.seed)
    of_count, by_size = pie_rows.of_count(
        dense, pruned, n_classes, population.are_pairs(args, data, cell, pruned.ids),
        args.permutations, args.resamples, args.seed,
    )  # fmt: skip
    q_scores = {"dense": dense.scores["q"], "pruned": pruned.scores["q"]}
    found_rows = [
        *of_count,
        *pie_rows.of_population(pruned, target, data.classes),
        *pie_rows.of_pies(cell, pies, dense, pruned, data.classes),
        *pie_rows.of_held_out(cell, "q_score", dense, pruned, q_scores, n_classes, args.seed),
    ]
    table = by_image.columns(pies, dense, pruned)
    by_image.write_csv(paths.pie_table(args.pies, cell), table)
    pies |= {name: table[name] for name in by_image.GALLERY if name in table}
    several = len(pruned.ids) > 1
    impact = class_impact(dense.labels, pruned.labels, target, n_classes) if several else None
    return Comparison(pruned._replace(scores={}), found_rows, pies, table, by_size, impact)


def find_pies(
    cell: Cell, dense: Population, pruned: Population, data: Dataset, seed: int
) -> Arrays:
    """The PIEs of a cell with their pictures, and for each image the votes and the probability of
    being a PIE."""
    modal = [pie.modal_labels(p.labels, data.n_classes) for p in (dense, pruned)]
    counted = [pie.count_votes(p.labels, data.n_classes) for p in (dense, pruned)]
    is_pie = pie.find_pies(dense.labels, pruned.labels, data.n_classes)
    rng = np.random.default_rng(runtime.seed_from(seed, str(cell), "pie_probability"))
    probability = pie_probability.pie_probability(dense.labels, pruned.labels, data.n_classes, rng)
    images = data.test.images[torch.from_numpy(is_pie).to(data.test.images.device)]
    return population.heading(cell, pruned.ids, data) | {
        "label": data.test.labels.cpu().numpy(),
        "is_pie": is_pie,
        "modal_dense": modal[0],
        "modal_pruned": modal[1],
        "votes_dense": counted[0],
        "votes_pruned": counted[1],
        "classes": np.array(data.classes),
        "vote_distance": votes.vote_distance(*counted),
        "pie_images": images.cpu().numpy(),
        **({} if probability is None else {"pie_probability": probability}),
    }


def draw(args: argparse.Namespace, cell: Cell, compared: Comparison) -> None:
    """Draw PIEs by class and by population size, vote distances, and with --plot_q_score scores."""
    found, table = compared.pies, compared.by_image
    heading = {key: found[key] for key in (*HEADING, "is_pie")}
    style.keep(paths.pies_distribution(args.pies, cell), plots.pies_by_class, found)
    distance = found["vote_distance"]
    path = paths.pies_distribution(args.pies, cell, "vote_distance")
    style.keep(path, plots.vote_distances, heading | {"distance": distance})
    if "sizes" in compared.by_size:
        path = paths.pies_distribution(args.pies, cell, "PIEs_by_population_size")
        style.keep(path, plots.pies_by_population_size, heading | compared.by_size)
    for score in by_image.SCORES if args.plot_q_score else ():
        shown = {"score": np.array(score.title)}
        shown |= {which: table[f"{score.field}_{which}"] for which in ("dense", "pruned")}
        path = paths.q_score(args.pies, cell, score.figure)
        style.keep(path, plots.score_scatter, heading | shown)


def draw_class_impact(
    args: argparse.Namespace, cell: Cell, found: Arrays, impact: ClassImpact, q_value: np.ndarray
) -> None:
    """Draw which classes pay, with q-values [C] taken over all classes and cells of this run."""
    heading = {key: found[key] for key in (*HEADING, "classes")}
    path = paths.pies_distribution(args.pies, cell, "class_impact")
    style.keep(path, plots.class_impact, heading | impact._asdict() | {"q_value": q_value})
