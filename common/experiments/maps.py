"""UMAP of one network's embeddings: dense, and pruned to each method's highest sparsity."""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch

from common import paths
from common.analysis import probes, umap
from common.analysis.predictions import Population
from common.data.datasets import Dataset
from common.experiments import predictions
from common.files import Arrays
from common.model import evaluation
from common.model.wide_resnet import WideResNet
from common.report import plots, rows, style
from common.study import Cell


def draw_all(
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
    path, key = paths.umap_array(args.pies, cell, network_id), f"seed {args.seed} knn {args.knn}"
    compute, fields = partial(_map, args, data), {"predicted", "xy", "knn_accuracy"}
    made = predictions.cached(args, data, cell, network_id, path, fields, compute, key)
    accuracy = float(made["knn_accuracy"])  # leave-one-out, in the embedding itself
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
