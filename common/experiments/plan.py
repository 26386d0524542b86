"""`--dry_run`: what a script would do, and what that costs. Needs no data and writes nothing."""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Iterable
from pathlib import Path

import torch

from common import paths, runtime, study
from common.data import datasets
from common.data.datasets import Size
from common.experiments import costs, making, population
from common.experiments.costs import Cost
from common.learning import methods
from common.learning.schedule import Schedule
from common.model import checkpoints
from common.options import shown
from common.paths import NetworkFiles
from common.recipes import Config
from common.study import Cell, counted

# The keys of a network that a plan does not know: it reads no images and hashes no parents.
UNKNOWN = ("n_classes", "train_images", "precision", "parent")


def of_making(args: argparse.Namespace, configs: dict[Cell, Config]) -> int:
    """Print what training or fine-tuning would do, given the recipe of each cell. Refuses networks
    of another recipe like the run itself."""
    if args.ranks.rank > 0:
        return 0
    size, device = _begin(args, _without_effect(args, configs))
    of_image: dict[str, Cost] = {}
    total, n_networks, n_steps, n_files = Cost(), 0, 0, 0
    for cell, config in configs.items():
        config = {"dataset": args.name} | config
        networks = {NetworkFiles(args.models, cell, i): config for i in args.ids}
        to_make = making.unfinished(networks, args.overwrite, UNKNOWN)
        finished = counted(len(args.ids) - len(to_make), "network")
        print(f"{cell}: {finished} finished, {len(to_make)} to make, of "
              f"{study.named_ids(args.ids)}; {size.n_train} training images")  # fmt: skip
        of_image = of_image or costs.of_training(config, size, device)  # equal in all cells
        of_network = Cost(n_bytes=costs.stored_bytes(config, size.n_classes))
        for schedule in methods.schedules(config):
            schedule.check(size.n_train)
            print("\n".join(describe(schedule, size.n_train)))
            passes = min(schedule.cached_views or schedule.epochs, schedule.epochs)
            of_network = of_network.plus(of_image[schedule.name], passes * size.n_train)
            n_steps += schedule.n_steps(size.n_train) * len(to_make)
        total = total.plus(of_network, len(to_make))
        n_networks += len(to_make)
        n_files += len(to_make) * len(NetworkFiles(args.models, cell, 0).parts)
    what = f"to make: {counted(n_networks, 'network')} in {counted(n_steps, 'step')}, "
    what += f"{counted(n_files, 'file')} in {args.models}"
    print(f"{what}, {_amounts(total, args.ranks.world)}")
    print(f"beside them a log of each in {args.logs}, and their curves in {args.pies}")
    return 0


def of_analysis(args: argparse.Namespace) -> int:
    """Print what an analysis of the existing networks would do. If networks are missing, this
    raises Failure like the analysis itself."""
    if args.ranks.rank > 0:
        return 0
    dense = study.dense_cell(args.learner)
    cells = {dense: population.present(args, dense)}
    cells |= population.pruned_cells(args, cells[dense])
    size, device = _begin(args)
    network = checkpoints.load(NetworkFiles(args.models, dense, cells[dense][0]), device).network
    n_probed = getattr(args, "prediction_depth_models", 0)
    of_image = costs.of_prediction(args, network, size, device)
    of_probes = costs.of_probes(args, network, size, device) if n_probed else Cost()
    total, of_first_rank = Cost(), Cost()
    for cell, ids in cells.items():
        to_run = _not_there(args, [paths.predictions(args.pies, cell, i) for i in ids])
        total = total.plus(of_image, to_run * size.n_test)
        print(f"{cell}: {counted(len(ids), 'network')}, {size.n_test} test images; predictions of "
              f"{to_run} to compute, {len(ids) - to_run} stored")  # fmt: skip
        if n_probed:
            to_ask = [paths.probe_predictions(args.pies, cell, i) for i in ids[:n_probed]]
            to_probe = _not_there(args, to_ask)
            print(f"  probes of {to_probe} to ask, {len(to_ask) - to_probe} stored")
            passes = of_image._replace(n_bytes=0.0)
            total = total.plus(passes, to_probe * (size.n_train + size.n_test))
            total = total.plus(of_probes, to_probe * size.n_test)
        elif cell != dense:
            statistics = costs.of_statistics(args, cell, len(ids), size)
            of_first_rank = of_first_rank.plus(statistics, size.n_test)
    n_networks = sum(map(len, cells.values()))
    what = f"to analyse: {counted(n_networks, 'network')} in {counted(len(cells), 'cell')}"
    print(f"{what}, {_amounts(total, args.ranks.world, of_first_rank.seconds)}")
    print(f"tables, figures and the page come on top, in {args.pies}")
    return 0


def _without_effect(args: argparse.Namespace, configs: dict[Cell, Config]) -> set[str]:
    """The flags of the recipe on which none of these cells depends: those of pruning where all
    cells are dense, those of contrastive learning where networks are fine-tuned without it."""
    unused = args.recipe.keys() - set().union(*configs.values())
    return unused | {"pruning_method"} if all(cell.is_dense for cell in configs) else unused


def _begin(
    args: argparse.Namespace, without_effect: Iterable[str] = ()
) -> tuple[Size, torch.device]:
    """Print the flags, but those without effect and, outside the recipe, switches that are off;
    return the size of the data and the device."""
    flags = [
        f"{name} {shown(value)}"
        for name, value in args.flags.items()
        if value is not None
        and name not in without_effect
        and (value is not False or name in args.recipe)
    ]
    print(textwrap.fill("flags: " + ", ".join(flags), 100, subsequent_indent="  "))
    size = datasets.size(args.dataset, args.limit, args.test_limit)
    return size, runtime.pick_device(args.cuda_device)


def _not_there(args: argparse.Namespace, files: list[Path]) -> int:
    return sum(args.overwrite or not path.exists() for path in files)


def _amounts(total: Cost, n_ranks: int, seconds_of_first_rank: float = 0.0) -> str:
    """The cost of the work that all ranks share, and the time with the work of the first rank."""
    hours = (total.seconds / n_ranks + seconds_of_first_rank) / 3600
    time = f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"
    return (
        f"{_scaled(total.n_bytes)}B; {_scaled(total.flops)}FLOP, about {time} "
        f"by {counted(n_ranks, 'rank')} (an estimate, from work timed just now)"
    )


def _scaled(value: float) -> str:
    """`9.4 P`: the number, and a prefix for the unit that follows."""
    thousands = min(5, int(math.log10(max(value, 1)) / 3))
    return f"{value / 1000**thousands:.3g} {' kMGTP'[thousands].strip()}"


def describe(schedule: Schedule, n_images: int) -> list[str]:
    """Lines about one stage: steps, optimizer, learning rate by epoch, sparsity by step."""
    views = f" x {schedule.n_views} views" if schedule.n_views > 1 else ""
    rates: list[str] = []
    previous = None
    for epoch in range(schedule.epochs):
        rate = schedule.learning_rate_at(epoch / schedule.epochs)
        if rate != previous:
            rates.append(f"epoch {epoch}: {rate:.4g}")
        previous = rate
    lines = [
        f"stage {schedule.name}: {counted(schedule.epochs, 'epoch')} of "
        f"{counted(schedule.steps_per_epoch(n_images), 'step')}, "
        f"{counted(schedule.n_steps(n_images), 'step')} of "
        f"{counted(schedule.batch_size, 'image')}{views}",
        f"SGD, momentum {schedule.momentum:g}{', Nesterov' if schedule.nesterov else ''}, "
        f"weight decay {schedule.weight_decay:g}; {schedule.augmentation}",
        "learning rate: " + ", ".join(rates),
    ]
    if events := schedule.pruning_events(n_images):
        how = (counted(len(events), "event"), schedule.pruning.criterion,
               schedule.pruning.allocation)  # fmt: skip
        steps = (f"step {step}: {sparsity:.4f}" for step, sparsity in events.items())
        lines.append(f"sparsity ({', '.join(how)}): " + ", ".join(steps))
    return [
        textwrap.fill(line, 100, initial_indent="  " * (i > 0) + "  ", subsequent_indent="      ")
        for i, line in enumerate(lines)
    ]
