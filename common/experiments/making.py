"""Make the missing networks one by one, skip finished ones, and refuse those of other recipes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from tqdm import tqdm

from common import files, locks, paths, recipes, runtime, study
from common.data.datasets import Dataset
from common.experiments import population, recording
from common.learning import loop, methods, pruning, resumable
from common.learning.loop import Record
from common.model import checkpoints, wide_resnet
from common.paths import NetworkFiles
from common.recipes import Config
from common.report import summary
from common.runtime import (
    EXIT_ARGUMENTS,
    EXIT_CHECKPOINT,
    EXIT_LOCKED,
    EXIT_MEMORY,
    EXIT_NON_FINITE,
    Damaged,
    Failure,
    Interrupted,
)
from common.study import Cell

Configs = dict[Cell, dict[NetworkFiles, Config]]
Ends = dict[NetworkFiles, int]  # how networks ended: 0 if made, else the exit code of the failure

# If a network fails in one of these ways, others may still succeed. A full disk would stop all of
# them, and a bug ends with a traceback.
OF_ONE_NETWORK = (EXIT_CHECKPOINT, EXIT_NON_FINITE, EXIT_MEMORY)
SECONDS_BETWEEN_LOOKS = 0.5  # at the locks of networks that other ranks are making


class Missing(NamedTuple):
    """A network to make. This process holds its lock until the caller asks for the next network."""

    files: NetworkFiles
    config: Config
    ends: Ends


def _prepare(args: argparse.Namespace, data: Dataset, configs: Configs, compiles: bool) -> None:
    """Refuse what can be refused before the first training, and make the folders. From here on, a
    signal ends the process only after the training has saved its state."""
    for of_cell in configs.values():
        for schedule in methods.schedules(next(iter(of_cell.values()))):
            schedule.check(len(data.train))
    if compiles:
        _check_compiler(data.train.images.device)
    population.prepare_output(args, args.models)
    runtime.stop_at_safe_point()


def _check_compiler(device: torch.device) -> None:
    """Compile a small function, which on a CPU needs a C++ compiler, on a GPU Triton and usually a
    C compiler. Raises Failure(EXIT_ARGUMENTS) if that fails."""
    print("compiling takes about a minute for each loss and size of batch")
    x = torch.ones(2, device=device, requires_grad=True)
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


def unfinished(
    configs: dict[NetworkFiles, Config], overwrite: bool, unknown: Iterable[str] = ()
) -> list[NetworkFiles]:
    """The networks that are still to be made, damaged ones included. Raises
    Failure(EXIT_CHECKPOINT), naming the keys, if a finished network or an interrupted training has
    another configuration, unless `overwrite` is set. Keys in `unknown` are not compared."""
    if overwrite:
        return list(configs)
    missing = []
    for where, config in configs.items():
        path, found = where.last, None
        with suppress(Damaged):
            found = checkpoints.describe(where)
        if found is None:
            missing.append(where)
            path = where.state
            with suppress(Damaged):
                found = resumable.read(where)
        if found and (differing := recipes.differences(found["config"], config, unknown)):
            raise Failure(
                EXIT_CHECKPOINT,
                f"{path}: made by another recipe than asked for: {differing}; "
                "use another --models_dir and --pies_dir, or --overwrite",
            )
    return missing


def missing(args: argparse.Namespace, data: Dataset, configs: Configs) -> Iterator[Missing]:
    """The networks to make, cell by cell, each under its lock. The caller makes each in `attempt`.
    Raises Failure before the first one if a flag, a network of another recipe, the compiler or the
    folders are in the way.

    A network on which another process is working is left to that process; ranks of one command wait
    for each other's networks. At the end, the first rank writes the accuracies into the summary and
    prints the table. If a network failed in any rank, the first rank raises SystemExit with the
    code of the first failure; other ranks end without an error, since torchrun stops all ranks when
    one fails. Raises Failure(EXIT_LOCKED) if networks were left to processes that are not ranks of
    this command.
    """
    to_make = {cell: unfinished(of_cell, args.overwrite) for cell, of_cell in configs.items()}
    _prepare(args, data, configs, compiles=args.compile and any(to_make.values()))
    ends: Ends = {}
    recipe_of = {where: config for of_cell in configs.values() for where, config in of_cell.items()}
    logged = {where: len(files.read_log(_log(args, where))) for where in recipe_of}
    busy: list[NetworkFiles] = []
    for cell, of_cell in configs.items():
        n_missing = len(to_make[cell])
        finished = study.counted(len(of_cell) - n_missing, "network")
        print(f"{cell}: {finished} finished, {n_missing} to make")
        order = [where for where in args.ranks.order([*of_cell])
                 if where in to_make[cell] or where.leftovers]  # fmt: skip
        for where in tqdm(order, desc=str(cell), unit="network", disable=None):
            yield from _take(args, Missing(where, of_cell[where], ends), logged[where])
        busy += [where for where in order if where in to_make[cell] and where not in ends]
    if args.ranks.world > 1:
        for where in _wait(busy, ends):
            yield from _take(args, Missing(where, recipe_of[where], ends), logged[where])
        busy = []
    if args.ranks.rank == 0:
        for cell in configs:
            recording.record_training(args, data, cell)
        print(summary.format_table(args.pies, args.learner))
        if failed := [code for code in ends.values() if code]:
            raise SystemExit(failed[0])
    if busy:
        raise Failure(
            EXIT_LOCKED,
            f"another process is working on {_named(busy)}; everything else is done: run "
            "again when it has ended",
        )


def _wait(busy: list[NetworkFiles], ends: Ends) -> Iterator[NetworkFiles]:
    """Yield the networks on which other processes work, again and again, until each has ended: in
    the other process or, if that was killed, in this one."""
    if busy:
        print(f"waiting for {_named(busy)}")
    while left := [where for where in busy if where not in ends]:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        for where in left:
            if signum := runtime.stop_requested():
                raise Interrupted(signum)
            yield where


def _named(busy: list[NetworkFiles]) -> str:
    return ", ".join(f"{where}{locks.holder(where.state)}" for where in busy)


def _take(args: argparse.Namespace, network: Missing, n_logged: int) -> Iterator[Missing]:
    """Yield the network if it is missing and no other process holds its lock. Its end is then known
    in `ends`, unless another process holds the lock."""
    where = network.files
    with locks.held(where.state, wait=False) as is_mine:
        if not is_mine:
            return
        ended = _end_elsewhere(args, where, n_logged)
        network.ends[where] = ended or 0
        if ended is None and unfinished({where: network.config}, args.overwrite):
            yield network
        for leftover in () if network.ends[where] else where.leftovers:
            leftover.unlink(missing_ok=True)


def _end_elsewhere(args: argparse.Namespace, where: NetworkFiles, n_logged: int) -> int | None:
    """The exit code with which another process ended this network during this run, None if none
    did; the first `n_logged` lines of the log are older. A network that failed there would fail
    here too, and ranks with --overwrite make each network once."""
    for line in files.read_log(_log(args, where))[n_logged:]:
        if "exit_code" not in line or line["models"] != str(where.models):
            continue
        if line["exit_code"] and args.ranks.rank == 0:
            print(runtime.one_line(f"{where}: {line['failed']}"), file=sys.stderr)
        if line["exit_code"] or args.overwrite:
            return line["exit_code"]
    return None


@contextmanager
def attempt(args: argparse.Namespace, data: Dataset, network: Missing) -> Iterator[loop.Run]:
    """A context in which the caller makes a network. If that fails, a line names the network, and
    the caller goes on; a failure that would stop other networks too is raised."""
    where, since = network.files, time.monotonic()
    run = _begin(args, data, where, network.config)
    end: dict[str, Any] = {"models": str(where.models), "exit_code": 0}
    try:
        yield run
        end["finished_after_seconds"] = round(time.monotonic() - since, 1)
    except Failure as failure:
        if failure.code not in OF_ONE_NETWORK:
            raise
        end |= {"exit_code": failure.code, "failed": str(failure)}
        runtime.report(failure.code, f"{where}: {failure}")
    network.ends[where] = end["exit_code"]
    run.log(end)


def _log(args: argparse.Namespace, where: NetworkFiles) -> Path:
    return paths.log(args.logs, where.cell, where.id)


def _begin(
    args: argparse.Namespace, data: Dataset, where: NetworkFiles, config: Config
) -> loop.Run:
    """Set damaged files aside, resume an interrupted training of this recipe, open the log."""
    _set_damaged_aside(where)
    state = resumable.read_or_set_aside(where)
    if state is not None and recipes.differences(state["config"], config):
        where.state.unlink(missing_ok=True)
        state = None
    environment = resumable.environment(data.train.images.device, args.compile)
    run = loop.Run(
        seed=(config["seed"], where.id),
        bf16=config["precision"] == "bf16",
        compile_loss=args.compile,
        resume=state,
        save=partial(resumable.write, where, config, environment),
        log=partial(files.append_log, _log(args, where)),
    )
    begin = {"config": config, "models": str(where.models), "continued": state is not None}
    run.log(begin | resumable.warn_of_another_environment(environment, state))
    return run


def _set_damaged_aside(where: NetworkFiles) -> None:
    """Rename the files of a network if one is damaged; SupCon's two files count as one. An intact
    file of another network than its name says is no damage: --overwrite replaces it."""
    parts = where.parts.values()
    try:
        for path in parts:
            if path.exists():
                checkpoints.read(path)
    except Damaged as damaged:
        for path in parts:
            files.set_aside(path, damaged.reason)


def store(
    args: argparse.Namespace,
    data: Dataset,
    network: Missing,
    modules: dict[str, nn.Module],
    masks: pruning.Masks,
    history: list[Record],
) -> None:
    """Write a trained network."""
    results = {
        "test_accuracy": history[-1]["test_accuracy"],  # of the last epoch, never of the best
        "test_images": data.test.digest,
        "n_test": len(data.test),
        "history": history,
        "compiled": args.compile,
        "device": resumable.processor(data.train.images.device),
    } | pruning.reached(wide_resnet.prunable(modules["network"]), masks, network.config["sparsity"])
    images = {"classes": list(data.classes), "mean": data.mean.tolist(), "std": data.std.tolist()}
    checkpoints.save(network.files, modules, masks, network.config, results, images)
