"""Train a population: dense networks, or networks pruned gradually while they learn."""

from __future__ import annotations

import argparse

from common import recipes, study
from common.experiments import making, plan, population
from common.learning import loop, methods
from common.learning.pruning import Masks
from common.paths import NetworkFiles
from common.recipes import Config
from common.study import Cell


def run(args: argparse.Namespace) -> int:
    """For each sparsity, train the networks of the population that are missing."""
    asked = {cell: recipe(args, cell) for cell in asked_cells(args)}
    if args.dry_run:
        return plan.of_making(args, asked)
    data = population.load_data(args)
    resolved = population.resolve(args, data)
    configs = {
        cell: {NetworkFiles(args.models, cell, i): recipe | resolved for i in args.ids}
        for cell, recipe in asked.items()
    }
    for network in making.missing(args, data, configs):
        with making.attempt(args, data, network) as run:
            modules = methods.new_modules(network.config, data.n_classes, network.files.id)
            stages = methods.stages(modules, network.config)
            masks: Masks = {}
            history = loop.train(stages, modules, masks, data, run)
            making.store(args, data, network, modules, masks, history)
    return 0


def asked_cells(args: argparse.Namespace) -> list[Cell]:
    """The cells to train; sparsity 0 is the dense population, whatever the pruning."""
    pruning = study.PruningWords(args.pruning_method, args.criterion).name
    return [
        Cell(args.learner, pruning if sparsity else study.DENSE, sparsity)
        for sparsity in args.pruning_percentages
    ]


def recipe(args: argparse.Namespace, cell: Cell) -> Config:
    """The cell and the flags relevant to it: dense networks need no flags of pruning."""
    left_out = () if cell.sparsity else recipes.PRUNED_ONLY
    flags = {name: value for name, value in args.recipe.items() if name not in left_out}
    return cell._asdict() | flags
