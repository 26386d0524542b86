"""Train a population: dense networks, or networks pruned gradually while they learn."""

from __future__ import annotations

import argparse
from typing import Any

from torch import Tensor, nn

from common import paths, runtime
from common.analysis import summary
from common.data.datasets import Dataset
from common.experiments import making, plan, population
from common.learning import resumable
from common.learning.methods import METHODS
from common.options import SCHEDULE_FLAGS
from common.paths import Cell


def run(args: argparse.Namespace) -> int:
    """For each sparsity, train the networks of the population that are missing."""
    if args.dry_run:
        return plan.training(args, {cell: recipe(args, cell) for cell in cells(args)})
    data = population.load_data(args)
    making.check_batch_sizes(args, data)
    method = METHODS[args.learner]
    configs = {cell: config(args, data, cell) for cell in cells(args)}
    to_make = 0
    for cell, cell_config in configs.items():  # refuse before the first training
        to_make += len(making.unfinished(cell, args, dict.fromkeys(args.ids, cell_config)))
        check_schedule(args, data, cell_config)
    if args.compile and to_make:
        making.check_compiler(data)
    population.prepare_output(args, makes_networks=True)
    runtime.stop_at_safe_point()
    busy: list[str] = []
    for cell, cell_config in configs.items():

        def learn(
            network_id: int, config: dict[str, Any], cell: Cell = cell
        ) -> tuple[dict[str, nn.Module], dict[str, Tensor], list[dict[str, Any]]]:
            modules = method.new_modules(config, data.n_classes, network_id)
            masks: dict[str, Tensor] = {}
            history = resumable.train(
                modules, method.stages(modules, config), masks, cell, network_id, config, data,
                args.models, args.logs, args.compile,
            )  # fmt: skip
            return modules, masks, history

        busy += making.make(cell, args, data, dict.fromkeys(args.ids, cell_config), learn)
    print(summary.format_table(args.pies, args.learner))
    making.check_all_made(busy)
    return 0


def cells(args: argparse.Namespace) -> list[Cell]:
    """Sparsity 0 is the dense population, whatever the pruning method."""
    return [
        Cell(args.learner, args.pruning_method, sparsity)
        if sparsity
        else paths.dense_cell(args.learner)
        for sparsity in args.pruning_percentages
    ]


def config(args: argparse.Namespace, data: Dataset, cell: Cell) -> dict[str, Any]:
    """Everything that defines the networks of a cell but their ids."""
    return population.data_config(data) | recipe(args, cell)


def recipe(args: argparse.Namespace, cell: Cell) -> dict[str, Any]:
    """The cell and the flags that matter to it: dense networks have no pruning schedule."""
    flags = {
        name: value
        for name, value in args.recipe.items()
        if cell.sparsity or name not in SCHEDULE_FLAGS
    }
    return cell._asdict() | flags


def check_schedule(args: argparse.Namespace, data: Dataset, config: dict[str, Any]) -> None:
    """Raises Failure(EXIT_ARGUMENTS) if the pruning steps do not fit into the training."""
    method = METHODS[args.learner]
    for stage in method.stages(method.new_modules(config, data.n_classes, 0), config):
        stage.pruning_events(stage.epochs * stage.steps_per_epoch(len(data.train)))
