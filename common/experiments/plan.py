"""`--dry_run`: say what a training would do, without data, networks or files."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from common.data import datasets
from common.learning import methods
from common.learning.loop import Stage
from common.learning.methods import METHODS
from common.model import wide_resnet
from common.paths import Cell


def training(args: argparse.Namespace, cells: dict[Cell, dict[str, Any]]) -> int:
    """Print the plan of a training, given the configuration of each cell."""
    n_images = datasets.count_train_images(args.dataset, args.limit)
    for cell, config in cells.items():
        modules = METHODS[cell.learner].new_modules(config, 10, 0)
        _print(cell, args, n_images, METHODS[cell.learner].stages(modules, config))
    return 0


def finetuning(args: argparse.Namespace, cells: list[Cell]) -> int:
    """Print the plan of a fine-tuning; the architecture makes no difference to it."""
    n_images = datasets.count_train_images(args.dataset, args.limit)
    modules = {
        "network": wide_resnet.build(10, 1, 10, 0.0, 0),
        "projection": wide_resnet.build_projection(64, "mlp", 0),
    }
    for cell in cells:
        _print(cell, args, n_images, methods.finetuning_stages(modules, args.recipe))
    return 0


def _print(cell: Cell, args: argparse.Namespace, n_images: int, stages: list[Stage]) -> None:
    ids = f"ids {args.ids[0]} to {args.ids[-1]}"
    print(f"{cell}: {len(args.ids)} networks, {ids}; {n_images} training images ({args.dataset})")
    for stage in stages:
        print("\n".join(describe(stage, n_images)))


def describe(stage: Stage, n_images: int) -> list[str]:
    """Lines about one stage: steps, optimizer, learning rate by epoch, sparsity by step."""
    per_epoch = stage.steps_per_epoch(n_images)
    n_steps = stage.epochs * per_epoch
    views = f" x {stage.n_views} views" if stage.n_views > 1 else ""
    rates: list[str] = []
    previous = None
    for epoch in range(stage.epochs):
        rate = stage.learning_rate_at(epoch / stage.epochs)
        if rate != previous:
            rates.append(f"epoch {epoch}: {rate:.4g}")
        previous = rate
    events = stage.pruning_events(n_steps)
    sparsities = [f"step {step}: {sparsity:.4f}" for step, sparsity in events.items()]
    lines = [
        f"stage {stage.name}: {stage.epochs} epochs of {per_epoch} steps, {n_steps} steps of "
        f"{stage.batch_size} images{views}",
        f"SGD, momentum {stage.momentum:g}{', Nesterov' if stage.nesterov else ''}, "
        f"weight decay {stage.weight_decay:g}; {stage.augmentation}",
        "learning rate: " + ", ".join(rates),
    ]
    if sparsities:
        lines.append(
            f"sparsity ({len(events)} events, {stage.allocation}): " + ", ".join(sparsities)
        )
    return [
        textwrap.fill(line, 100, initial_indent="  " * (i > 0) + "  ", subsequent_indent="      ")
        for i, line in enumerate(lines)
    ]
