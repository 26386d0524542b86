"""Predictions of networks, computed once and stored: one file for each network and analysis.

Networks run one at a time, and their outputs are reduced at once, so memory does not grow with the
number of networks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from common import files, locks, paths, runtime
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

Stamp = tuple[int, int]  # of a file: changes when the file is replaced
FIELDS = {"labels", *NUMBERS, *(score.field for score in SCORES)}


def predict(network: WideResNet, data: Dataset, batch_size: int) -> Arrays:
    """One network's labels and scores of the test images, [N] each, and its embedding's numbers."""
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


class Wanted(NamedTuple):
    """The arrays `fields` that `compute` makes from a network, and the file that keeps them. `key`
    states what else the arrays depend on."""

    network: NetworkFiles
    path: Path
    fields: set[str]
    compute: Callable[[WideResNet], Arrays]
    key: str = ""


def of_network(args: argparse.Namespace, data: Dataset, network: NetworkFiles) -> Wanted:
    """The predictions of one network on the test images."""
    path = paths.predictions(args.pies, network.cell, network.id)
    return Wanted(network, path, FIELDS, partial(predict, data=data, batch_size=args.batch_size))


def of_population(
    args: argparse.Namespace, data: Dataset, cell: Cell, ids: list[int]
) -> Population:
    """The predictions of a population on the test images."""
    shown = tqdm(ids, desc=f"{cell}: predictions", unit="network", disable=None)
    networks = (of_network(args, data, NetworkFiles(args.models, cell, i)) for i in shown)
    predicted = (get(args, data, network) for network in networks)
    fields = ({name: one[name] for name in FIELDS} for one in predicted)
    return predictions.stack(cell, ids, fields)


def share(args: argparse.Namespace, data: Dataset, wanted: Sequence[Wanted]) -> bool:
    """Share among all ranks the work of computing whatever is wanted and not stored yet, and with
    --overwrite whatever was stored before. Returns whether this rank goes on: only the first rank
    does, which waits for arrays that other ranks are still computing and writes the results."""
    if args.ranks.world > 1 or args.overwrite:
        old = {one.path: _stamp(one.path) if args.overwrite else None for one in wanted}
        order = tqdm(args.ranks.order(wanted), desc="all networks", unit="file", disable=None)
        left = [one for one in order if get(args, data, one, False, old[one.path]) is None]
        for one in left if args.ranks.rank == 0 else ():
            get(args, data, one, True, old[one.path])
    return args.ranks.rank == 0


def get(
    args: argparse.Namespace,
    data: Dataset,
    wanted: Wanted,
    wait: bool = True,
    old: Stamp | None = None,
) -> Arrays | None:
    """The wanted arrays: the stored ones if network, images and key are the same and the file's
    stamp is not `old`, else computed and stored. None if another process is computing them and
    `wait` is False."""
    digest = population.describe(args, data, wanted.network.cell, wanted.network.id)["digest"]
    key = " ".join([digest, data.train.digest, data.test.digest, wanted.key])
    if (stored := _stored(wanted, key, old)) is not None:
        return stored
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    with locks.held(wanted.path, wait) as is_mine:
        if not is_mine:
            return None
        if (stored := _stored(wanted, key, old)) is not None:  # another process was faster
            return stored
        checkpoint = checkpoints.load(wanted.network, data.test.images.device)
        if checkpoint.digest != digest:
            message = f"{wanted.network}: replaced by another process; run again"
            raise Failure(EXIT_CHECKPOINT, message)
        with runtime.memory_for("--batch_size", args.batch_size):
            made = wanted.compute(checkpoint.network) | {"key": np.array(key)}
        files.save_arrays(wanted.path, made)
    return made


def _stored(wanted: Wanted, key: str, old: Stamp | None) -> Arrays | None:
    """The arrays stored for this key, unless the file has the stamp `old`."""
    if old is not None and _stamp(wanted.path) == old:
        return None
    stored = files.load_arrays(wanted.path)
    if stored is None or stored.keys() != wanted.fields | {"key"} or str(stored["key"]) != key:
        return None
    return stored


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
