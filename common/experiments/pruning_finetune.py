"""Prune the dense networks in one shot by a criterion, then fine-tune them."""

from __future__ import annotations

import argparse

from torch import nn

from common import paths, recipes, runtime, study
from common.data.datasets import Dataset
from common.experiments import making, plan, population
from common.learning import loop, methods, pruning
from common.model import checkpoints, wide_resnet
from common.model.checkpoints import Contents
from common.paths import NetworkFiles
from common.recipes import Config
from common.runtime import EXIT_CHECKPOINT, Damaged, Failure
from common.study import Cell


def run(args: argparse.Namespace) -> int:
    """For each sparsity, prune and fine-tune the dense networks whose pruned networks are missing.
    Raises Failure(EXIT_CHECKPOINT) before the work if dense networks are missing and not allowed to
    be, and after pruning the others if some are damaged."""
    dense = study.dense_cell(args.learner)
    name = study.PruningWords(study.ONE_SHOT, args.criterion).name
    cells = [Cell(args.learner, name, sparsity) for sparsity in args.pruning_percentages]
    asked = {cell: recipe(args, cell) for cell in cells}
    if args.dry_run:
        return print_plan(args, dense, asked)
    data = population.load_data(args)
    present = population.present(args, dense)
    parents = find_parents(args, data, dense, present)
    resolved = population.resolve(args, data)
    configs = {
        cell: {
            NetworkFiles(args.models, cell, i): recipe | resolved | inherited(parents[i])
            for i in parents
        }
        for cell, recipe in asked.items()
    }
    for network in making.missing(args, data, configs):
        with making.attempt(args, data, network) as run:
            dense_files = network.files._replace(cell=dense)
            parent = checkpoints.load(dense_files, data.train.images.device)
            modules, masks = prune(parent, network.config, network.files.id)
            stages = methods.stages(modules, network.config)
            history = loop.train(stages, modules, masks, data, run)
            making.store(args, data, network, modules, masks, history)
    if args.ranks.rank == 0 and len(parents) < len(present):
        raise Failure(
            EXIT_CHECKPOINT,
            f"{dense}: only {len(parents)} of the {study.counted(len(present), 'network')} could "
            "be pruned; make the others with: "
            f"{population.making_command(args, dense, args.ids)}; then run this again",
        )
    return 0


def find_parents(
    args: argparse.Namespace, data: Dataset, dense: Cell, present: list[int]
) -> dict[int, Contents]:
    """The contents of the dense networks' files but for their tensors, by id. Damaged networks are
    named and left out; if no other network is there, raises Damaged."""
    parents, damaged = {}, []
    for network_id in present:
        try:
            parents[network_id] = population.describe(args, data, dense, network_id)
        except Damaged as failure:
            damaged.append(failure)
    if not parents:
        raise damaged[0]
    for failure in damaged if args.ranks.rank == 0 else ():
        runtime.report(failure.code, str(failure))
    return parents


def print_plan(args: argparse.Namespace, dense: Cell, asked: dict[Cell, Config]) -> int:
    """Print the plan for all ids, whether or not their dense networks exist."""
    there = paths.networks_present(args.models).get(dense, set())
    ids = [i for i in args.ids if i in there]
    if len(ids) < len(args.ids):
        first = population.making_command(args, dense, args.ids)
        found = population.count_found(dense, ids, args.ids)
        print(f"{found}; make the missing ones first: {first}")
    taken = recipes.NETWORK[args.preset] | args.architecture
    if "finetune_loss" in args.recipe:  # a learner whose networks have a projection head
        taken["projection_head"] = "mlp"
    if ids and (parent := checkpoints.describe(NetworkFiles(args.models, dense, ids[0]))):
        taken = inherited(parent)
    configs = {cell: config | taken for cell, config in asked.items()}
    return plan.of_making(args, configs)


def prune(
    parent: checkpoints.Checkpoint, config: Config, network_id: int
) -> tuple[dict[str, nn.Module], pruning.Masks]:
    """The modules of a dense network, pruned in one shot, and the masks."""
    weights, sparsity = wide_resnet.prunable(parent.network), config["sparsity"]
    masks_by = pruning.CRITERIA[config["criterion"]]
    seed = (config["seed"], network_id)
    masks = masks_by(weights, sparsity, config["allocation"], *seed) if sparsity else {}
    pruning.apply_masks(masks, weights)
    modules: dict[str, nn.Module] = {"network": parent.network}
    if parent.projection is not None:
        modules["projection"] = parent.projection
    return modules, masks


def recipe(args: argparse.Namespace, cell: Cell) -> Config:
    """The cell and the flags relevant to it: cross-entropy needs no contrastive flags."""
    left_out = () if args.recipe.get("finetune_loss") == "supcon" else recipes.CONTRASTIVE_ONLY
    flags = {name: value for name, value in args.recipe.items() if name not in left_out}
    return cell._asdict() | flags


def inherited(parent: Contents) -> Config:
    """The keys that a fine-tuned network takes from its dense parent, and the parent's digest."""
    config = parent["config"]
    taken = {name: config[name] for name in recipes.INHERITED if name in config}
    return taken | {"parent": parent["digest"]}
