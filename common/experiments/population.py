"""Make the networks of a population: finished ones are kept, others' recipes refused."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from tqdm import tqdm

from common import paths, runtime
from common.analysis import predictions, statistics, summary
from common.analysis.predictions import Population
from common.data import arrays, datasets
from common.data.arrays import Arrays
from common.data.datasets import Dataset
from common.learning import pruning
from common.model import checkpoints, evaluation, wide_resnet
from common.model.wide_resnet import WideResNet
from common.paths import Cell
from common.runtime import EXIT_ARGUMENTS, EXIT_CHECKPOINT, EXIT_LOCKED, Failure

HEADING = ("learner", "pruning_method", "sparsity", "n_models", "n_examples", "ids")
Config = dict[str, Any]
Modules = dict[str, nn.Module]
History = list[dict[str, Any]]
# From a network's id and configuration to its trained modules, masks and history.
Learn = Callable[[int, Config], tuple[Modules, dict[str, Tensor], History]]


def open_study(args: argparse.Namespace) -> Dataset:
    """The data on the chosen device, after checking that results can be written."""
    device = runtime.pick_device(args.cuda_device)
    for folder in (args.models, args.pies):
        runtime.check_writable(folder)
    return datasets.load(args.dataset, args.data_dir, device, args.limit, args.test_limit)


def check_batch_sizes(args: argparse.Namespace, data: Dataset) -> None:
    """A batch larger than the data set is a mistake in a flag or in --limit."""
    for flag in ("batch_size", "batch_size_head"):
        size = getattr(args, flag, 1)
        if size > len(data.train):
            raise Failure(
                EXIT_ARGUMENTS,
                f"argument --{flag}: {size}: at most the {len(data.train)} training images",
            )


def data_config(data: Dataset) -> Config:
    """What a network's configuration says about its data."""
    return {"dataset": data.name, "n_classes": data.n_classes, "train_images": data.train.digest}


def ids_present(args: argparse.Namespace, cell: Cell) -> list[int]:
    """Those of the ids asked for whose networks are there; says so if some are missing. Raises
    Failure(EXIT_CHECKPOINT), with the command that makes them, if there is none."""
    present = paths.networks_present(args.models).get(cell, set())
    ids = [network_id for network_id in args.ids if network_id in present]
    if not ids:
        raise Failure(
            EXIT_CHECKPOINT,
            f"no {cell} networks with ids {args.ids[0]} to {args.ids[-1]} in {args.models}; make "
            f"them with: python {paths.training_script(cell.learner)} --dataset {args.dataset}",
        )
    if len(ids) < len(args.ids):
        print(f"{cell}: {len(ids)} of the {len(args.ids)} networks asked for are there")
    return ids


def describe(
    args: argparse.Namespace, data: Dataset, cell: Cell, network_id: int
) -> dict[str, Any]:
    """`checkpoints.describe` of a network that is there. Raises Failure(EXIT_CHECKPOINT) if it
    learned other classes than those of `data`, or has another architecture than was asked for."""
    found = checkpoints.describe(args.models, cell, network_id)
    path = list(paths.checkpoints(args.models, cell, network_id).values())[-1]
    if found is None:
        raise Failure(EXIT_CHECKPOINT, f"{path}: missing or incomplete")
    expected = {"dataset": data.name, "n_classes": data.n_classes} | args.architecture
    for key, value in expected.items():
        if found["config"][key] != value:
            raise Failure(
                EXIT_CHECKPOINT, f"{path}: its {key} is {found['config'][key]}, not {value}"
            )
    return found


def pruned_cells(args: argparse.Namespace, dense_ids: list[int]) -> dict[Cell, list[int]]:
    """The pruned populations to analyse, with the ids that the dense one has too. Cells asked for
    that are missing are named and left out."""
    present = paths.networks_present(args.models)
    if args.pruning_percentages is None:
        asked = [
            cell
            for cell in present
            if cell.learner == args.learner and cell.pruning_method in args.pruning_methods
        ]
    else:
        asked = [
            Cell(args.learner, pruning_method, sparsity)
            for pruning_method in args.pruning_methods
            for sparsity in args.pruning_percentages
        ]
    cells = {}
    for cell in asked:
        ids = [i for i in dense_ids if i in present.get(cell, ())]
        if not ids:
            print(f"{cell}: no networks with these ids; left out")
            continue
        if len(ids) < len(dense_ids):
            print(f"{cell}: {len(ids)} networks, compared with the dense ones of the same ids")
        cells[cell] = ids
    return cells


def cached(
    args: argparse.Namespace,
    data: Dataset,
    cell: Cell,
    network_id: int,
    path: Path,
    compute: Callable[[WideResNet], Arrays],
    key: str = "",
) -> Arrays:
    """What `compute` makes of a network: from `path` if it was made of the same network, the same
    images and the same `key`, else computed and stored there."""
    network = describe(args, data, cell, network_id)
    key = " ".join([network["digest"], data.train.digest, data.test.digest, key])
    stored = arrays.load(path)
    if stored is not None and not args.overwrite and str(stored.get("key")) == key:
        return stored
    checkpoint = checkpoints.load(args.models, cell, network_id, data.test.images.device)
    made = compute(checkpoint.network) | {"key": np.array(key)}
    arrays.save(path, made)
    return made


def predict(args: argparse.Namespace, data: Dataset, cell: Cell, ids: list[int]) -> Population:
    """The predictions of a population on the test images."""

    def compute(network: WideResNet) -> Arrays:
        return predictions.predict(network, data, args.batch_size)

    predicted = [
        cached(args, data, cell, i, paths.predictions(args.pies, cell, i), compute)
        for i in tqdm(ids, desc=f"{cell}: predictions", unit="network", disable=None)
    ]
    return predictions.stack(cell, ids, predicted)


def heading(cell: Cell, ids: list[int], data: Dataset) -> Arrays:
    """What a figure says about its cell."""
    return {
        "learner": np.array(cell.learner),
        "pruning_method": np.array(cell.pruning_method),
        "sparsity": np.array(paths.format_sparsity(cell.sparsity)),
        "n_models": np.array(len(ids)),
        "n_examples": np.array(len(data.test)),
        "ids": np.array(ids),
    }


def unfinished(cell: Cell, args: argparse.Namespace, configs: dict[int, Config]) -> list[int]:
    """Ids whose networks are still to be made. Raises Failure(EXIT_CHECKPOINT), naming the keys,
    where a finished network has another configuration and --overwrite is not given."""
    missing = []
    for network_id, config in configs.items():
        found = None if args.overwrite else checkpoints.describe(args.models, cell, network_id)
        if found is None:
            missing.append(network_id)
            continue
        stored = found["config"]
        differing = [
            f"{key} {stored.get(key)} (asked: {config.get(key)})"
            for key in sorted(stored.keys() | config.keys())
            if stored.get(key) != config.get(key)
        ]
        if differing:
            name = list(paths.checkpoints(args.models, cell, network_id).values())[-1]
            raise Failure(
                EXIT_CHECKPOINT,
                f"{name} was made with {', '.join(differing)}; "
                "use another --models_dir, or --overwrite",
            )
    return missing


def make(
    cell: Cell,
    args: argparse.Namespace,
    data: Dataset,
    configs: dict[int, Config],
    learn: Learn,
) -> None:
    """Learn and store the networks of a cell that are missing; then record the population.

    A network that another process is working on is left to it; Failure(EXIT_LOCKED) at the end
    says so, when everything else is done.
    """
    missing = unfinished(cell, args, configs)
    print(f"{cell}: {len(configs) - len(missing)} networks finished, {len(missing)} to make")
    if missing:
        summary.forget(args.pies, cell)
    busy = []
    for network_id in tqdm(missing, desc=str(cell), unit="network", disable=None):
        state = paths.training_state(args.models, cell, network_id)
        try:
            with FileLock(paths.lock(state), timeout=0):
                if not args.overwrite and not unfinished(
                    cell, args, {network_id: configs[network_id]}
                ):
                    continue  # another process finished it in the meantime
                started = time.monotonic()
                modules, masks, history = learn(network_id, configs[network_id])
                results = _results(cell, data, modules, masks, history)
                results["seconds"] = round(time.monotonic() - started, 1)
                checkpoints.save(
                    args.models, cell, network_id, modules, masks, configs[network_id], results
                )
                state.unlink(missing_ok=True)
        except Timeout:
            busy.append(network_id)
            continue
        _draw_curves(args.pies, cell, network_id, history, len(data.train))
    _record(cell, args, data)
    if busy:
        raise Failure(
            EXIT_LOCKED,
            f"{cell}: another process is working on ids {busy}; run again when it ended",
        )


def _results(
    cell: Cell, data: Dataset, modules: Modules, masks: dict[str, Tensor], history: History
) -> dict[str, Any]:
    network = modules["network"]
    weights = wide_resnet.prunable(network)
    check_sparsity(weights, masks, cell.sparsity)
    zeros, total = pruning.count_zeros(weights.values())
    device = data.train.images.device
    return {
        "test_accuracy": evaluation.accuracy(network, data, data.test),
        "test_images": data.test.digest,
        "n_test": len(data.test),
        "sparsity_reached": zeros / total,
        "sparsity_by_layer": pruning.sparsity_by_layer(weights),
        "history": history,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.machine(),
    }


def check_sparsity(weights: dict[str, Tensor], masks: dict[str, Tensor], sparsity: float) -> None:
    """Raises RuntimeError unless the masks prune as many weights as asked, to one weight, and
    every pruned weight is zero."""
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    total = sum(weight.numel() for weight in weights.values())
    if abs(pruned - sparsity * total) > 1:
        raise RuntimeError(f"{pruned} of {total} weights are pruned, not a share of {sparsity}")
    revived = [name for name, mask in masks.items() if weights[name][~mask].any()]
    if revived:
        raise RuntimeError(f"pruned weights are not zero in {', '.join(revived)}")


def _draw_curves(pies: Path, cell: Cell, network_id: int, history: History, n_images: int) -> None:
    """Loss and accuracy by epoch. The network is stored by now: no figure can cost a result."""
    from common.figures import plots

    path = paths.curves(pies, cell, network_id)
    curves = {
        name: np.array([record.get(name, np.nan) for record in history])
        for name in ("stage", "epoch", "loss", "train_accuracy", "test_accuracy")
    }
    named = {"network": np.array(path.stem), "n_examples": np.array(n_images)}
    try:
        plots.keep(path, plots.training_curves, curves | named)
    except Exception as error:
        tqdm.write(f"figure not drawn: {path}: {error}")


def _record(cell: Cell, args: argparse.Namespace, data: Dataset) -> None:
    """Accuracy and reached sparsity of the population, into the summary."""
    found = [checkpoints.describe(args.models, cell, network_id) for network_id in args.ids]
    results = [network["results"] for network in found if network is not None]
    if not results:
        return
    rows = []
    for metric, key in (("top1", "test_accuracy"), ("sparsity_reached", "sparsity_reached")):
        rows += mean_rows(cell, metric, [result[key] for result in results], len(data.test))
    summary.replace(args.pies, rows)


def mean_rows(
    cell: Cell, metric: str, values: Any, n_examples: int, group: str = "all"
) -> list[summary.Row]:
    """The rows of a mean over networks: the mean with its interval, and `<metric>_sd`."""
    mean = statistics.mean_over_networks(values)
    rows = [
        summary.row(cell, metric, mean.mean, mean.n, n_examples, group, mean.interval),
        summary.row(cell, f"{metric}_sd", mean.sd, mean.n, n_examples, group),
    ]
    return [row for row in rows if row.value == row.value]  # no NaN for a single network
