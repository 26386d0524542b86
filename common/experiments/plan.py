"""`--dry_run`: say what a training would do, without data, networks or files."""

from __future__ import annotations

import argparse
import textwrap

from common.data import datasets
from common.learning import methods
from common.learning.schedule import Schedule
from common.recipes import Config
from common.study import Cell


def show(args: argparse.Namespace, recipes: dict[Cell, Config]) -> int:
    """Print the plan of a training or fine-tuning, given the recipe of each cell."""
    n_images = datasets.count_train_images(args.dataset, args.limit)
    ids = f"ids {args.ids[0]} to {args.ids[-1]}"
    for cell, recipe in recipes.items():
        print(
            f"{cell}: {len(args.ids)} networks, {ids}; {n_images} training images ({args.dataset})"
        )
        for schedule in methods.schedules({"dataset": args.name} | recipe):
            print("\n".join(describe(schedule, n_images)))
    return 0


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
        f"stage {schedule.name}: {schedule.epochs} epochs of {schedule.steps_per_epoch(n_images)} "
        f"steps, {schedule.n_steps(n_images)} steps of {schedule.batch_size} images{views}",
        f"SGD, momentum {schedule.momentum:g}{', Nesterov' if schedule.nesterov else ''}, "
        f"weight decay {schedule.weight_decay:g}; {schedule.augmentation}",
        "learning rate: " + ", ".join(rates),
    ]
    if events := schedule.pruning_events(n_images):
        how = f"{len(events)} events, {schedule.pruning.criterion}, {schedule.pruning.allocation}"
        shown = (f"step {step}: {sparsity:.4f}" for step, sparsity in events.items())
        lines.append(f"sparsity ({how}): " + ", ".join(shown))
    return [
        textwrap.fill(line, 100, initial_indent="  " * (i > 0) + "  ", subsequent_indent="      ")
        for i, line in enumerate(lines)
    ]
