"""Predictions of networks, computed once and cached: one file for each network and analysis.

Networks run one at a time and are reduced at once, so memory does not grow with their number.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import files, paths, runtime
from common.analysis import clusters, predictions
from common.analysis.margin import softmax_margin
from common.analysis.predictions import Population
from common.analysis.q_score import q_score
from common.data.datasets import Dataset
from common.experiments import population
from common.files import Arrays
from common.model import checkpoints, evaluation
from common.model.wide_resnet import WideResNet
from common.paths import NetworkFiles
from common.report.by_image import SCORES
from common.report.pie_rows import NUMBERS
from common.runtime import EXIT_CHECKPOINT, Failure
from common.study import Cell

FIELDS = {"labels", *NUMBERS, *(score.field for score in SCORES)}


def predict(network: WideResNet, data: Dataset, batch_size: int) -> Arrays:
    """One network on the test images: labels and scores, each [N], and numbers of its embedding."""
    labels, logits, embedding = evaluation.classify(network, data, data.test, batch_size)
    scores = q_score(embedding)._asdict() | {"softmax_margin": softmax_margin(logits)}
    target = data.test.labels.cpu().numpy()
    numbers = {
        "silhouette": clusters.silhouette(embedding, target),
        "silhouette_cosine": clusters.silhouette(embedding, target, "cosine"),
        "knn_accuracy": clusters.knn_accuracy(embedding, target, data.n_classes),
    }
    return {
        "labels": labels.astype(np.int16),
        **{name: np.array(number) for name, number in numbers.items()},
        **{name: score.astype(np.float32) for name, score in scores.items()},
    }


def of_population(
    args: argparse.Namespace, data: Dataset, cell: Cell, ids: list[int]
) -> Population:
    """The predictions of a population on the test images."""
    compute = partial(predict, data=data, batch_size=args.batch_size)
    predicted = [
        cached(args, data, cell, i, paths.predictions(args.pies, cell, i), FIELDS, compute)
        for i in tqdm(ids, desc=f"{cell}: predictions", unit="network", disable=None)
    ]
    fields = ({name: one[name] for name in FIELDS} for one in predicted)
    return predictions.stack(cell, ids, list(fields))


def cached(
    args: argparse.Namespace,
    data: Dataset,
    cell: Cell,
    network_id: int,
    path: Path,
    fields: set[str],
    compute: Callable[[WideResNet], Arrays],
    key: str = "",
) -> Arrays:
    """The arrays `fields` that `compute` makes of a network: from `path` if it holds just these,
    made of the same network, the same images and by the same `key`, else computed and stored."""
    digest = population.describe(args, data, cell, network_id)["digest"]
    key = " ".join([digest, data.train.digest, data.test.digest, key])
    stored = files.load_arrays(path)
    is_current = stored is not None and stored.keys() == fields | {"key"}
    if is_current and str(stored["key"]) == key and not args.overwrite:
        return stored
    where = NetworkFiles(args.models, cell, network_id)
    checkpoint = checkpoints.load(where, data.test.images.device)
    if checkpoint.digest != digest:
        raise Failure(EXIT_CHECKPOINT, f"{where}: replaced by another process; run again")
    with runtime.memory_for("--batch_size", args.batch_size):
        made = compute(checkpoint.network) | {"key": np.array(key)}
    files.save_arrays(path, made)
    return made
