"""How deep in the network is an image decided? Prediction depth of PIEs and of other images."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor
from tqdm import tqdm

from common import paths, runtime, study
from common.analysis import pie, probes
from common.analysis.predictions import Population
from common.data import augment
from common.data.datasets import Dataset
from common.experiments import plan, population, predictions
from common.experiments.predictions import Wanted
from common.files import Arrays
from common.learning.methods import classification_views
from common.model import evaluation
from common.model.wide_resnet import WideResNet
from common.paths import NetworkFiles
from common.report import pie_rows, plots, publish, rows, style, summary
from common.report.rows import Row, mean_rows
from common.study import Cell

# The metrics in the summary: of the two targets with which a probe may have to agree, and of the
# released variant. If the target is the label, a misclassified image has nearly the largest depth
# by construction, and so have many PIEs.
METRICS = {
    "prediction": "prediction_depth",
    "label": "prediction_depth_label",
    "released": "prediction_depth_released",
}


def run(args: argparse.Namespace) -> int:
    """Measure the first networks of the dense population and of every existing pruned one."""
    if args.dry_run:
        return plan.of_analysis(args)
    data = population.load_data(args)
    population.check_knn(args, len(data.train))
    dense_cell = study.dense_cell(args.learner)
    dense_ids = population.present(args, dense_cell)
    cells = population.pruned_cells(args, dense_ids)
    population.check_recipes(args, data, {dense_cell: dense_ids} | cells)
    population.prepare_output(args)
    if not predictions.share(args, data, wanted(args, data, {dense_cell: dense_ids} | cells)):
        return 0
    dense = predictions.of_population(args, data, dense_cell, dense_ids)
    first = dense.select(dense_ids[: args.prediction_depth_models])
    probed_dense = probe(args, data, first)
    found = {dense_cell: rows_of_population(probed_dense, dense_cell, len(data.test))}
    for cell, ids in cells.items():
        paired = dense.select(ids)
        pruned = predictions.of_population(args, data, cell, ids)
        is_pie = pie.find_pies(paired.labels, pruned.labels, data.n_classes)
        measured = ids[: args.prediction_depth_models]
        probed = {
            which: probe(args, data, networks.select(measured))
            for which, networks in (("dense", paired), ("pruned", pruned))
        }
        found[cell] = rows_of_population(probed["pruned"], cell, len(data.test))
        found[cell] += rows_of_cell(cell, probed, is_pie)
        depths = {which: of_all(one["prediction"], len(ids)) for which, one in probed.items()}
        found[cell] += pie_rows.of_held_out(
            cell, METRICS["prediction"], paired, pruned, depths, data.n_classes, args.seed
        )
        shown = (paired.select(measured), pruned.select(measured))
        draw(args, data, cell, probed, is_pie, *shown, n_models_pies=len(ids))
    rows.store(args.pies, "prediction_depth", found)
    publish.run(args.pies)
    print(summary.format_table(args.pies, args.learner))
    print(summary.format_groups(args.pies, args.learner, METRICS[args.pd_target]))
    return 0


def wanted(args: argparse.Namespace, data: Dataset, cells: dict[Cell, list[int]]) -> list[Wanted]:
    """The arrays to compute: the predictions of all networks; the probes of the first networks of
    each cell, and of the dense networks with the same ids."""
    measured = {cell: ids[: args.prediction_depth_models] for cell, ids in cells.items()}
    dense = next(iter(cells))
    measured[dense] = sorted({i for ids in measured.values() for i in ids})
    predicted, probed = population.networks(args, cells), population.networks(args, measured)
    found = [predictions.of_network(args, data, network) for network in predicted]
    return found + [probes_of(args, data, network) for network in probed]


def probes_of(args: argparse.Namespace, data: Dataset, network: NetworkFiles) -> Wanted:
    """The labels [L,N] that the probes of one network give to the test images, and their file."""
    path = paths.probe_predictions(args.pies, network.cell, network.id)
    key = f"exact knn {args.knn} bank {args.pd_bank}"
    if args.pd_bank == "augmented":  # drawn batch by batch
        key += f" seed {args.seed} batch {args.batch_size}"
    view = bank_view(args, data, network.cell, network.id)
    return Wanted(network, path, {"probe_labels"}, partial(_ask_probes, args, data, view), key)


def probe(args: argparse.Namespace, data: Dataset, networks: Population) -> Arrays:
    """Depths of N images in K networks for either target (`prediction`, `label`) and as in the
    released code (`released`), each [K,N]; and the accuracy of each probe, `accuracy` [K,L]."""
    cell, label = networks.cell, data.test.labels.cpu().numpy()
    found = []
    for network_id in tqdm(networks.ids, desc=f"{cell}: probes", unit="network", disable=None):
        of_network = probes_of(args, data, NetworkFiles(args.models, cell, network_id))
        found.append(predictions.get(args, data, of_network)["probe_labels"])
    return {
        "prediction": np.stack(
            [probes.prediction_depth(*pair) for pair in zip(found, networks.labels, strict=True)]
        ),
        "label": np.stack([probes.prediction_depth(layers, label) for layers in found]),
        "released": np.stack([probes.released_depth(layers, label) for layers in found]),
        "accuracy": np.stack([(layers == label).mean(axis=1) for layers in found]),
    }


def _ask_probes(
    args: argparse.Namespace,
    data: Dataset,
    view: Callable[[Tensor], Tensor],
    network: WideResNet,
) -> Arrays:
    """The labels [L,N] that the probes of a network give to the test images."""
    run = partial(evaluation.outputs, network, data, batch_size=args.batch_size, probes=True)
    bank = evaluation.probe_embeddings(run(split=data.train, view=view))
    queries = evaluation.probe_embeddings(run(split=data.test))
    labels = data.train.labels.cpu().numpy()
    predicted = [
        probes.knn_predict(*layer, args.knn, data.n_classes)
        for layer in zip(bank, [labels] * len(bank), queries, strict=True)
    ]
    return {"probe_labels": np.stack(predicted).astype(np.int16)}


def bank_view(
    args: argparse.Namespace, data: Dataset, cell: Cell, network_id: int
) -> Callable[[Tensor], Tensor]:
    """The views of the bank, the training images among which probes find neighbours."""
    if args.pd_bank == "clean":
        return lambda images: images.float() / 255
    views = classification_views({"dataset": data.name} | args.recipe)
    draws = runtime.generator(args.seed, network_id, str(cell), "bank")
    return lambda images: augment.augment(images, views, draws)


def rows_of_population(probed: Arrays, cell: Cell, n_examples: int) -> list[Row]:
    """Mean depth over all images, and the probes' accuracy by layer."""
    found = []
    for target, metric in METRICS.items():
        found += mean_rows(cell, metric, probed[target].mean(axis=1), n_examples)
    for layer, accuracy in enumerate(probed["accuracy"].T, start=1):
        metric = f"probe_accuracy_layer_{layer}"
        found += mean_rows(cell, metric, accuracy, n_examples, is_share=True)
    return found


def rows_of_cell(cell: Cell, probed: dict[str, Arrays], is_pie: np.ndarray) -> list[Row]:
    """Mean depth of PIEs and of other images, and the depth gained by pruning, over networks."""
    found = []
    groups = {"pie": is_pie, "non_pie": ~is_pie}
    groups = {group: members for group, members in groups.items() if members.any()}
    for target, metric in METRICS.items():
        dense, pruned = (probed[which][target] for which in ("dense", "pruned"))
        for group, members in groups.items():
            for depth, suffix in ((pruned, ""), (dense, "_dense")):
                means, n_members = depth[:, members].mean(axis=1), int(members.sum())
                found += mean_rows(cell, f"{metric}{suffix}", means, n_members, group)
        found += mean_rows(cell, f"{metric}_gained", (pruned - dense).mean(axis=1), len(is_pie))
    if len(groups) == 2:
        depth = probed["pruned"]["prediction"]
        difference = depth[:, is_pie].mean(axis=1) - depth[:, ~is_pie].mean(axis=1)
        found += mean_rows(cell, "prediction_depth_pie_minus_rest", difference, len(is_pie))
    return found


def of_all(depth: np.ndarray, n_models: int) -> np.ndarray:
    """Depths [M,N] of the first networks -> [K,N], nan for networks that were not measured."""
    found = np.full((n_models, depth.shape[1]), np.nan)
    found[: len(depth)] = depth
    return found


def draw(
    args: argparse.Namespace,
    data: Dataset,
    cell: Cell,
    probed: dict[str, Arrays],
    is_pie: np.ndarray,
    dense: Population,
    pruned: Population,
    n_models_pies: int,
) -> None:
    """Draw dense against pruned depth, depth against Q-Score, and probe accuracy by layer."""
    target = {"is_pie": is_pie, "target": np.array(args.pd_target)}
    target["n_models_pies"] = np.array(n_models_pies)
    heading = population.heading(cell, dense.ids, data) | target
    depth = {which: probed[which][args.pd_target].mean(axis=0) for which in probed}
    path = {
        kind: paths.prediction_depth(args.pies, cell, args.knn, kind)
        for kind in ("PIEs", "Q-SCORE", "probe_accuracy")
    }
    style.keep(path["PIEs"], plots.depth_scatter, heading | depth)
    style.keep(
        path["Q-SCORE"],
        plots.depth_against_q,
        heading
        | {f"depth_{which}": values for which, values in depth.items()}
        | {"q_dense": dense.mean_score("q"), "q_pruned": pruned.mean_score("q")},
    )
    accuracy = {f"accuracy_{which}": found["accuracy"] for which, found in probed.items()}
    style.keep(path["probe_accuracy"], plots.probe_accuracy, heading | accuracy)
