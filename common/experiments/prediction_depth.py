"""How deep in the network is an image decided? Prediction depth, of PIEs and of the rest."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor
from tqdm import tqdm

from common import paths, runtime
from common.analysis import pie, probes, summary
from common.analysis.predictions import Population
from common.data import augment
from common.data.arrays import Arrays
from common.data.datasets import Dataset
from common.experiments import population, publish
from common.figures import plots, style
from common.learning.methods import classification_views
from common.model import evaluation
from common.model.wide_resnet import WideResNet
from common.paths import Cell

# The two targets a probe can be asked to agree with, the released variant, and their metrics in the
# summary. With the label, a misclassified image has nearly the largest depth by construction, and
# so have many PIEs.
METRICS = {
    "prediction": "prediction_depth",
    "label": "prediction_depth_label",
    "released": "prediction_depth_released",
}


def run(args: argparse.Namespace) -> int:
    """Measure the first networks of the dense population and of every pruned one that is there."""
    data = population.load_data(args)
    population.check_knn(args, len(data.train))
    dense_cell = paths.dense_cell(args.learner)
    dense_ids = population.ids_present(args, dense_cell)
    cells = population.pruned_cells(args, dense_ids)
    population.check_recipes(args, data, {dense_cell: dense_ids} | cells)
    population.prepare_output(args)
    dense = population.predict(args, data, dense_cell, dense_ids)
    accuracy: dict[Cell, tuple[list[int], np.ndarray]] = {}
    for cell, ids in cells.items():
        paired = dense.select(ids)
        pruned = population.predict(args, data, cell, ids)
        is_pie = pie.find_pies(paired.labels, pruned.labels, data.n_classes)
        measured = ids[: args.prediction_depth_models]
        probed = {
            which: probe(args, data, networks.select(measured))
            for which, networks in (("dense", paired), ("pruned", pruned))
        }
        new = rows(cell, probed, is_pie, measured, data)
        summary.replace(args.pies, new, owner="prediction_depth")
        accuracy[cell] = measured, probed["pruned"]["accuracy"][:, -1]
        shown = (paired.select(measured), pruned.select(measured))
        draw(args, data, cell, probed, is_pie, *shown, n_models_pies=len(ids))
    summary.replace(args.pies, rows_of_schedules(accuracy, len(data.test)))
    publish.run(args.pies)
    print(summary.format_table(args.pies, args.learner))
    print(summary.format_groups(args.pies, args.learner, METRICS[args.pd_target]))
    return 0


def probe(args: argparse.Namespace, data: Dataset, networks: Population) -> Arrays:
    """Depths of N images in K networks by either target and as released, and the accuracy of each
    probe: `prediction`, `label`, `released` [K,N], `accuracy` [K,L]."""
    cell, label = networks.cell, data.test.labels.cpu().numpy()

    def compute(network: WideResNet, network_id: int) -> Arrays:
        run = partial(evaluation.outputs, network, data, batch_size=args.batch_size, probes=True)
        bank = run(split=data.train, view=bank_view(args, cell, network_id))
        layers = zip(
            evaluation.probe_embeddings(bank),
            evaluation.probe_embeddings(run(split=data.test)),
            strict=True,
        )
        bank_labels = data.train.labels.cpu().numpy()
        predicted = [
            probes.knn_predict(embedding, bank_labels, queries, args.knn, data.n_classes)
            for embedding, queries in layers
        ]
        return {"probe_labels": np.stack(predicted).astype(np.int16)}

    key = f"exact knn {args.knn} bank {args.pd_bank}"
    if args.pd_bank == "augmented":  # drawn batch by batch
        key += f" seed {args.seed} batch {args.batch_size}"
    found = []
    for network_id in tqdm(networks.ids, desc=f"{cell}: probes", unit="network", disable=None):
        path = paths.probe_predictions(args.pies, cell, network_id)
        compute_this = partial(compute, network_id=network_id)
        made = population.cached(args, data, cell, network_id, path, compute_this, key)
        found.append(made["probe_labels"])
    return {
        "prediction": np.stack(
            [probes.prediction_depth(*pair) for pair in zip(found, networks.labels, strict=True)]
        ),
        "label": np.stack([probes.prediction_depth(layers, label) for layers in found]),
        "released": np.stack([probes.released_depth(layers, label) for layers in found]),
        "accuracy": np.stack([(layers == label).mean(axis=1) for layers in found]),
    }


def bank_view(args: argparse.Namespace, cell: Cell, network_id: int) -> Callable[[Tensor], Tensor]:
    """How the training images among which probes look for neighbours are shown to the network."""
    if args.pd_bank == "clean":
        return lambda images: images.float() / 255
    views = classification_views(args.recipe)
    draws = runtime.generator(args.seed, network_id, str(cell), "bank")
    return lambda images: augment.augment(images, views, draws)


def rows(
    cell: Cell, probed: dict[str, Arrays], is_pie: np.ndarray, ids: list[int], data: Dataset
) -> list[summary.Row]:
    """Mean depth of all images, PIEs and the rest, and the probes' accuracy by layer."""
    dense_cell = paths.dense_cell(cell.learner)
    everything = np.ones_like(is_pie)
    found = []
    for target, metric in METRICS.items():
        for where, which in ((dense_cell, "dense"), (cell, "pruned")):
            means = probed[which][target].mean(axis=1)
            found += population.mean_rows(where, metric, means, len(everything))
        for group, members in (("pie", is_pie), ("non_pie", ~is_pie)):
            for which, suffix in (("pruned", ""), ("dense", "_dense")):
                if members.any():
                    means = probed[which][target][:, members].mean(axis=1)
                    found += population.mean_rows(
                        cell, f"{metric}{suffix}", means, int(members.sum()), group
                    )
    for target, metric in METRICS.items():  # pruned minus dense, network by network
        gained = (probed["pruned"][target] - probed["dense"][target]).mean(axis=1)
        found += population.mean_rows(cell, f"{metric}_gained", gained, len(everything))
    if 0 < is_pie.sum() < len(is_pie):
        depth = probed["pruned"]["prediction"]
        difference = depth[:, is_pie].mean(axis=1) - depth[:, ~is_pie].mean(axis=1)
        metric = "prediction_depth_pie_minus_rest"
        found += population.mean_rows(cell, metric, difference, len(everything))
    for where, which in ((dense_cell, "dense"), (cell, "pruned")):
        for layer, accuracy in enumerate(probed[which]["accuracy"].T, start=1):
            found += population.mean_rows(
                where, f"probe_accuracy_layer_{layer}", accuracy, len(everything)
            )
    return found


def rows_of_schedules(
    accuracy: dict[Cell, tuple[list[int], np.ndarray]], n_examples: int
) -> list[summary.Row]:
    """Accuracy of the last probe, late minus early gradual pruning, network by network: those of
    one id share first weights, order and augmentations."""
    found = []
    for later, (ids, values) in accuracy.items():
        early_ids, early = accuracy.get(later._replace(pruning_method="GMP"), ([], values))
        if later.pruning_method == "later_GMP" and early_ids == ids:
            metric = "probe_accuracy_later_minus_early"
            found += population.mean_rows(later, metric, values - early, n_examples)
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
    """Depth dense against pruned, depth against Q-Score, and probe accuracy by layer."""
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
