"""Prune the dense networks in one shot by magnitude, then fine-tune them."""

from __future__ import annotations

import argparse
from typing import Any

from torch import Tensor, nn

from common import paths, runtime
from common.analysis import summary
from common.data.datasets import Dataset
from common.experiments import making, plan, population
from common.learning import methods, pruning, resumable
from common.model import checkpoints, wide_resnet
from common.options import ARCHITECTURE
from common.paths import Cell

# What a pruned network takes over from its dense one.
INHERITED = (*ARCHITECTURE, "method", "projection_head")
# What means nothing to fine-tuning with cross-entropy.
CONTRASTIVE_FLAGS = (
    *("temperature", "base_temperature"),
    *("head_epochs", "batch_size_head", "head_views"),
)


def run(args: argparse.Namespace) -> int:
    """For each sparsity, prune and fine-tune the dense networks whose pruned ones are missing."""
    cells = [Cell(args.learner, "global", sparsity) for sparsity in args.pruning_percentages]
    if args.dry_run:
        return plan.finetuning(args, cells)
    data = population.load_data(args)
    making.check_batch_sizes(args, data)
    ids = population.ids_present(args, paths.dense_cell(args.learner))
    configs = {
        cell: {network_id: config(args, data, cell, network_id) for network_id in ids}
        for cell in cells
    }
    # all cells: refuse before the first training
    to_make = sum(len(making.unfinished(cell, args, configs[cell])) for cell in cells)
    if args.compile and to_make:
        making.check_compiler(data)
    population.prepare_output(args, makes_networks=True)
    runtime.stop_at_safe_point()
    busy: list[str] = []
    for cell in cells:

        def learn(
            network_id: int, config: dict[str, Any], cell: Cell = cell
        ) -> tuple[dict[str, nn.Module], dict[str, Tensor], list[dict[str, Any]]]:
            modules, masks = prune(args, data, network_id, cell.sparsity)
            history = resumable.train(
                modules, methods.finetuning_stages(modules, config), masks,
                cell, network_id, config, data, args.models, args.logs, args.compile,
            )  # fmt: skip
            return modules, masks, history

        busy += making.make(cell, args, data, configs[cell], learn)
    print(summary.format_table(args.pies, args.learner))
    making.check_all_made(busy)
    return 0


def prune(
    args: argparse.Namespace, data: Dataset, network_id: int, sparsity: float
) -> tuple[dict[str, nn.Module], dict[str, Tensor]]:
    """The modules of the dense network with this id, pruned in one shot, and the masks."""
    dense = checkpoints.load(
        args.models, paths.dense_cell(args.learner), network_id, data.train.images.device
    )
    weights = wide_resnet.prunable(dense.network)
    masks = pruning.magnitude_masks(weights, sparsity, args.allocation) if sparsity else {}
    pruning.apply_masks(masks, weights)
    modules: dict[str, nn.Module] = {"network": dense.network}
    if dense.projection is not None:
        modules["projection"] = dense.projection
    return modules, masks


def config(args: argparse.Namespace, data: Dataset, cell: Cell, network_id: int) -> dict[str, Any]:
    """Everything that defines a fine-tuned network; `parent` is the digest of its dense one."""
    dense = population.describe(args, data, paths.dense_cell(args.learner), network_id)
    inherited = {name: dense["config"][name] for name in INHERITED if name in dense["config"]} | {
        "parent": dense["digest"]
    }
    recipe = args.recipe
    if recipe.get("finetune_loss") != "supcon":
        recipe = {name: value for name, value in recipe.items() if name not in CONTRASTIVE_FLAGS}
    return cell._asdict() | population.data_config(data) | recipe | inherited
