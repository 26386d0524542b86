"""Make the networks of a population: finished ones are kept, others' recipes refused."""

from __future__ import annotations

import argparse
import platform
import sys
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
from common.analysis import summary
from common.data import arrays, stored
from common.data.datasets import Dataset
from common.experiments import population
from common.learning import pruning, resumable
from common.model import checkpoints, wide_resnet
from common.paths import Cell
from common.runtime import EXIT_ARGUMENTS, EXIT_CHECKPOINT, EXIT_LOCKED, Damaged, Failure

Config = dict[str, Any]
Modules = dict[str, nn.Module]
History = list[dict[str, Any]]
# From a network's id and configuration to its trained modules, masks and history.
Learn = Callable[[int, Config], tuple[Modules, dict[str, Tensor], History]]


def check_batch_sizes(args: argparse.Namespace, data: Dataset) -> None:
    """A batch larger than the data set is a mistake in a flag or in --limit."""
    flags = ["batch_size", "batch_size_head"]
    if getattr(args, "finetune_loss", "supcon") == "cross_entropy":
        flags.remove("batch_size_head")
    for flag in flags:
        size = getattr(args, flag, 1)
        if size > len(data.train):
            raise Failure(
                EXIT_ARGUMENTS,
                f"argument --{flag}: {size}: at most the {len(data.train)} training images",
            )


def check_compiler(data: Dataset) -> None:
    """Compile a little function: on a CPU it needs a C++ compiler, on a GPU Triton and mostly a C
    compiler. Raises Failure(EXIT_ARGUMENTS)."""
    print("compiling takes about a minute for each loss and size of batch")
    x = torch.ones(2, device=data.train.images.device, requires_grad=True)
    try:
        torch.compile(lambda x: x.exp().sum())(x).backward()
    except Exception as error:
        if runtime.is_out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise Failure(
            EXIT_ARGUMENTS,
            f"argument --compile: does not work here ({reason}); install what is missing, "
            "or leave it out",
        ) from error


def files(models: Path, cell: Cell, network_id: int) -> list[Path]:
    """The files of a network, the one that names it in messages last."""
    return list(paths.checkpoints(models, cell, network_id).values())


def unfinished(cell: Cell, args: argparse.Namespace, configs: dict[int, Config]) -> list[int]:
    """Ids whose networks are still to be made, damaged ones among them. Raises
    Failure(EXIT_CHECKPOINT), naming the keys, where a finished network or an interrupted training
    has another configuration and --overwrite is not given."""
    if args.overwrite:
        return list(configs)
    missing = []
    for network_id, config in configs.items():
        path = files(args.models, cell, network_id)[-1]
        try:
            found = checkpoints.describe(args.models, cell, network_id)
        except Damaged:
            found = None
        if found is None:
            missing.append(network_id)
            path = paths.training_state(args.models, cell, network_id)
            found = resumable.read_state(args.models, cell, network_id)
        if found and (differing := population.differences(found["config"], config)):
            raise Failure(
                EXIT_CHECKPOINT,
                f"{path}: made by another recipe than asked for: {differing}; "
                "use another --models_dir, or --overwrite",
            )
    return missing


def leftovers(models: Path, cell: Cell, network_id: int) -> list[Path]:
    """What lies there of trainings that are over: half-written files, states, a copied encoder."""
    found = files(models, cell, network_id)
    state = paths.training_state(models, cell, network_id)
    rest = [paths.previous(found[0]), paths.previous(state), state]
    return runtime.orphans(found + rest) + [path for path in rest if path.exists()]


def tidy(models: Path, cell: Cell, network_id: int) -> None:
    """Remove what a finished network does not need. Only for who holds its lock."""
    checkpoints.settle(models, cell, network_id)
    for path in leftovers(models, cell, network_id):
        path.unlink(missing_ok=True)


def make(
    cell: Cell,
    args: argparse.Namespace,
    data: Dataset,
    configs: dict[int, Config],
    learn: Learn,
) -> list[str]:
    """Learn and store the networks of a cell that are missing; then record the population.

    A network that another process is working on is left to it; returns the names of these.
    """
    missing = unfinished(cell, args, configs)
    print(f"{cell}: {len(configs) - len(missing)} networks finished, {len(missing)} to make")
    untidy = [i for i in configs if i not in missing and leftovers(args.models, cell, i)]
    busy = []
    for network_id in tqdm([*missing, *untidy], desc=str(cell), unit="network", disable=None):
        state = paths.training_state(args.models, cell, network_id)
        try:
            with FileLock(paths.lock(state), timeout=0):
                config = configs[network_id]
                if not args.overwrite and not unfinished(cell, args, {network_id: config}):
                    tidy(args.models, cell, network_id)  # who finished it may have been killed
                    continue
                history = _make_one(cell, args, data, network_id, config, learn)
        except Timeout:
            busy += [network_id] if network_id in missing else []
            continue
        _draw_curves(args.pies, cell, network_id, history, len(data.train))
    _record(cell, args, data)
    return [f"{cell} id {network_id}" for network_id in busy]


def _make_one(
    cell: Cell,
    args: argparse.Namespace,
    data: Dataset,
    network_id: int,
    config: Config,
    learn: Learn,
) -> History:
    """Learn and store one network; only for who holds its lock."""
    started = time.monotonic()
    replaced = any(path.exists() for path in files(args.models, cell, network_id))
    _clear_the_way(args.models, cell, network_id)
    modules, masks, history = learn(network_id, config)
    results = _results(cell, data, modules, masks, history) | {"compiled": args.compile}
    digest = checkpoints.save(args.models, cell, network_id, modules, masks, config, results)
    _forget_if_stale(args, cell, network_id, digest, replaced)
    tidy(args.models, cell, network_id)
    seconds = {"finished_after_seconds": round(time.monotonic() - started, 1)}
    runtime.append_log(paths.log(args.logs, cell, network_id), seconds)
    return history


def _clear_the_way(models: Path, cell: Cell, network_id: int) -> None:
    """What killed processes left half-written goes, damaged files are set aside (both of a SupCon
    network: they count as one)."""
    stored_in = files(models, cell, network_id)
    state = paths.training_state(models, cell, network_id)
    for orphan in runtime.orphans([*stored_in, paths.previous(stored_in[0]), state]):
        orphan.unlink(missing_ok=True)
    try:
        checkpoints.settle(models, cell, network_id)
        checkpoints.read_parts(models, cell, network_id)
    except Damaged as damaged:
        for path in stored_in:
            runtime.set_aside(path, damaged.reason, paths.corrupt(path))
    except Failure:
        pass  # whole, but another network than its name says: --overwrite is given


def _forget_if_stale(
    args: argparse.Namespace, cell: Cell, network_id: int, digest: str, replaced: bool = False
) -> None:
    """Drop the numbers of a population if they are of another network with this id than the one
    with this digest. One that was made again as it was takes nothing along."""
    cached = arrays.load(paths.predictions(args.pies, cell, network_id))
    stale = replaced if cached is None else str(cached.get("key")).split(" ")[0] != digest
    if stale:
        summary.forget(args.pies, cell)
        stored.forget(args.pies, cell)


def check_all_made(busy: list[str]) -> None:
    """Raises Failure(EXIT_LOCKED) if networks were left to other processes."""
    if busy:
        raise Failure(
            EXIT_LOCKED,
            f"another process is working on {', '.join(busy)}; everything else is done: run again "
            "when it has ended",
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
        "test_accuracy": history[-1]["test_accuracy"],  # of the last epoch, never of the best
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
    """Loss and accuracy by epoch; the network is stored by now."""
    from common.figures import plots, style

    path = paths.curves(pies, cell, network_id)
    curves = {
        name: np.array([record.get(name, np.nan) for record in history])
        for name in ("stage", "epoch", "loss", "train_accuracy", "test_accuracy")
    }
    named = {"network": np.array(path.stem), "n_examples": np.array(n_images)}
    style.keep(path, plots.training_curves, curves | named)


def _record(cell: Cell, args: argparse.Namespace, data: Dataset) -> None:
    """Accuracy and reached sparsity of all networks of the cell, into the summary. One that nobody
    asked for here and that cannot be read is named and left out."""
    results = []
    for network_id in sorted(paths.networks_present(args.models).get(cell, set())):
        try:
            network = checkpoints.describe(args.models, cell, network_id)
        except Failure as failure:
            print(runtime.one_line(f"{failure}; not in the summary"), file=sys.stderr)
            continue
        if network:
            _forget_if_stale(args, cell, network_id, network["digest"])
            results.append(network["results"])
    results = [result for result in results if result.get("test_images") == data.test.digest]
    if not results:
        return
    rows = []
    for metric, key in (("top1", "test_accuracy"), ("sparsity_reached", "sparsity_reached")):
        rows += population.mean_rows(
            cell, metric, [result[key] for result in results], len(data.test)
        )
    summary.replace(args.pies, rows)
