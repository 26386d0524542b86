"""UMAP of one network's embeddings: dense, and pruned to each method's highest sparsity."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from common import paths
from common.analysis import probes, summary
from common.analysis.predictions import Population
from common.data.arrays import Arrays
from common.data.datasets import Dataset
from common.experiments import population
from common.figures import embedding, plots, style
from common.model import evaluation
from common.model.wide_resnet import WideResNet
from common.paths import Cell


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

    def compute(network: WideResNet) -> Arrays:
        labels, embeddings = evaluation.classify(network, data, data.test, args.batch_size)
        target = data.test.labels.cpu().numpy()
        neighbours = probes.knn_predict(
            torch.from_numpy(embeddings), target, None, args.knn, data.n_classes
        )
        return {
            "predicted": labels,
            "xy": embedding.umap_2d(embeddings, args.seed),
            "knn_accuracy": np.array((neighbours == target).mean()),
        }

    key = f"seed {args.seed} knn {args.knn}"
    path = paths.umap_array(args.pies, cell, network_id)
    made = population.cached(args, data, cell, network_id, path, compute, key)
    accuracy = float(made["knn_accuracy"])  # leave-one-out, in the embedding itself
    row = summary.row(cell, "embedding_knn_accuracy", accuracy, 1, len(data.test))
    summary.replace(args.pies, [row])
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
