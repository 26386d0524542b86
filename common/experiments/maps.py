"""UMAPs of embeddings: of one dense network, and of its pruned ones at the highest sparsity."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch

from common import paths
from common.analysis import probes, umap
from common.analysis.predictions import Population
from common.data.datasets import Dataset
from common.experiments import predictions
from common.experiments.predictions import Wanted
from common.files import Arrays
from common.model import evaluation
from common.model.wide_resnet import WideResNet
from common.paths import NetworkFiles
from common.report import plots, rows, style
from common.study import Cell


def draw_all(
    args: argparse.Namespace, data: Dataset, dense: Population, found: dict[Cell, Arrays]
) -> None:
    """Draw UMAPs of one id: of the dense network alone and, for each pruning, of the dense network
    beside its pruned one at the highest sparsity. Embeddings of two networks share no axes, so each
    network has its own map."""
    ids = {dense.cell: dense.ids} | {cell: of_cell["ids"] for cell, of_cell in found.items()}
    wanted_dense, *wanted_pruned = wanted(args, data, ids)
    maps = {"dense": map_network(args, data, wanted_dense)}
    draw_umap(args, data, wanted_dense.network, maps, np.zeros(len(data.test), dtype=bool))
    for one in wanted_pruned:
        pruned = {"pruned": map_network(args, data, one)}
        draw_umap(args, data, one.network, maps | pruned, found[one.network.cell]["is_pie"])


def wanted(
    args: argparse.Namespace, data: Dataset, ids: Mapping[Cell, Sequence[int]]
) -> list[Wanted]:
    """The maps to make, given the ids of each cell; the first cell is the dense one."""
    dense, *pruned = ids
    network_id = ids[dense][0] if args.umap_id is None else args.umap_id
    highest = {cell.pruning_method: cell for cell in sorted(pruned)}
    fields, key = {"predicted", "xy", "knn_accuracy"}, f"seed {args.seed} knn {args.knn}"
    return [
        Wanted(
            NetworkFiles(args.models, cell, network_id),
            paths.umap_array(args.pies, cell, network_id),
            fields,
            partial(_map, args, data),
            key,
        )
        for cell in (dense, *highest.values())
        if network_id in ids[cell]
    ]


def map_network(args: argparse.Namespace, data: Dataset, wanted: Wanted) -> Arrays:
    """One network's predicted labels and the two-dimensional map of its embeddings."""
    cell, made = wanted.network.cell, predictions.get(args, data, wanted)
    accuracy = float(made["knn_accuracy"])  # leave-one-out, in the embedding, not in the map
    row = rows.row(cell, "embedding_knn_accuracy", accuracy, 1, len(data.test))
    rows.store(args.pies, "umap", {cell: [row]})
    return made


def _map(args: argparse.Namespace, data: Dataset, network: WideResNet) -> Arrays:
    labels, _, embeddings = evaluation.classify(network, data, data.test, args.batch_size)
    target = data.test.labels.cpu().numpy()
    neighbours = probes.knn_predict(
        torch.from_numpy(embeddings), target, None, args.knn, data.n_classes
    )
    return {
        "predicted": labels,
        "xy": umap.umap_2d(embeddings, args.seed),
        "knn_accuracy": np.array((neighbours == target).mean()),
    }


def draw_umap(
    args: argparse.Namespace,
    data: Dataset,
    network: NetworkFiles,
    maps: dict[str, Arrays],
    is_pie: np.ndarray,
) -> None:
    """Draw the maps of one id side by side, with the PIEs of its population."""
    shown = {
        "title": np.array(f"UMAP: {network.cell}, id {network.id}"),
        "panels": np.array(list(maps)),
        "xy": np.stack([found["xy"] for found in maps.values()]),
        "predicted": np.stack([found["predicted"] for found in maps.values()]),
        "label": data.test.labels.cpu().numpy(),
        "is_pie": is_pie,
        "classes": np.array(data.classes),
        "n_examples": np.array(len(data.test)),
    }
    style.keep(paths.umap(args.pies, network.cell), plots.embedding_map, shown)
