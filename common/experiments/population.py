"""The populations of a study: which networks are there, and what they say about the images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common import paths, runtime
from common.analysis import predictions, statistics, summary
from common.analysis.predictions import Population
from common.data import arrays, datasets
from common.data.arrays import Arrays
from common.data.datasets import Dataset
from common.figures import style
from common.model import checkpoints
from common.model.wide_resnet import WideResNet
from common.options import SCHEDULE_FLAGS
from common.paths import Cell
from common.runtime import EXIT_ARGUMENTS, EXIT_CHECKPOINT, Failure, write_text

# In these a network may differ from the others of its study.
OWN_KEYS = ("pruning_method", "sparsity", "parent")
HEADING = ("learner", "pruning_method", "sparsity", "n_models", "n_examples", "ids")


def load_data(args: argparse.Namespace) -> Dataset:
    """The data on the chosen device. Makes no folder yet: flags may still be refused."""
    device = runtime.pick_device(args.cuda_device)
    args.recipe["precision"] = runtime.pick_precision(args.precision, device)
    return datasets.load(
        args.dataset, args.data_dir, device, args.limit, args.test_limit, args.released_quirks
    )


def prepare_output(args: argparse.Namespace, makes_networks: bool = False) -> None:
    """Raises Failure(EXIT_WRITE) before the work if its results could not be kept (an analysis only
    reads networks); says in what formats figures are drawn."""
    for folder in (args.models, args.pies) if makes_networks else (args.pies,):
        runtime.check_writable(folder)
    style.suffixes = [".png"] if args.figure_format == "png" else [".png", ".pdf"]


def ids_present(args: argparse.Namespace, cell: Cell) -> list[int]:
    """Those of the ids asked for whose networks are there; says so if some are missing. Raises
    Failure(EXIT_CHECKPOINT), with the command that makes them, if there is none, and as
    `check_complete`."""
    present = paths.networks_present(args.models).get(cell, set())
    ids = [network_id for network_id in args.ids if network_id in present]
    if not ids:
        raise Failure(
            EXIT_CHECKPOINT,
            f"no {cell} networks with ids {args.ids[0]} to {args.ids[-1]} in {args.models}; make "
            f"them with: python {paths.training_script(cell.learner)} --dataset {args.dataset}",
        )
    check_complete(args, cell, ids, args.ids)
    return ids


def check_complete(
    args: argparse.Namespace, cell: Cell, ids: Sequence[int], asked: Sequence[int]
) -> None:
    """Says so if networks are missing. Raises Failure(EXIT_CHECKPOINT) if they are missing to an
    analysis without --allow_missing; fine-tuning takes those that are there."""
    missing = [network_id for network_id in asked if network_id not in ids]
    if not missing:
        return
    count = f"{cell}: {len(ids)} of the {len(asked)} networks asked for are there"
    print(count)
    if not getattr(args, "allow_missing", True):
        shown = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
        raise Failure(
            EXIT_CHECKPOINT,
            f"{count}, not {'id' if len(missing) == 1 else 'ids'} {shown}: make them with "
            f"{paths.making_script(cell)}, or ask for fewer (--models_number, --index_start, "
            "--pruning_methods, --pruning_percentages), or give --allow_missing",
        )


def describe(
    args: argparse.Namespace, data: Dataset, cell: Cell, network_id: int
) -> dict[str, Any]:
    """`checkpoints.describe` of a network that is there; each is read only once in a run. Raises
    Failure(EXIT_CHECKPOINT) if it learned from other images than those of `data` (which also
    normalise the test images), or has another architecture than was asked for."""
    described = vars(args).setdefault("described", {})
    if (cell, network_id) not in described:
        described[cell, network_id] = _describe(args, data, cell, network_id)
    return described[cell, network_id]


def _describe(
    args: argparse.Namespace, data: Dataset, cell: Cell, network_id: int
) -> dict[str, Any]:
    found = checkpoints.describe(args.models, cell, network_id)
    path = list(paths.checkpoints(args.models, cell, network_id).values())[-1]
    if found is None:
        raise Failure(EXIT_CHECKPOINT, f"{path}: missing or incomplete")
    config = found["config"]
    expected = data_config(data) | args.architecture | {"released_quirks": args.released_quirks}
    for key, value in expected.items():
        if config.get(key) is not None and config[key] != value:
            limit = config.get("limit")
            hint = f" (it was trained with --limit {limit})" if "images" in key else ""
            hint = " (see --released_quirks)" if key == "released_quirks" else hint
            raise Failure(EXIT_CHECKPOINT, f"{path}: its {key} is {config[key]}, not {value}{hint}")
    return found


def check_recipes(args: argparse.Namespace, data: Dataset, cells: dict[Cell, list[int]]) -> None:
    """Raises Failure(EXIT_CHECKPOINT), unless --allow_mixed, if two networks of one pruning method
    differ in more than id, sparsity and parent, or a gradually pruned one from the dense ones in
    more than its pruning schedule: then the study would compare recipes, not prunings."""
    first: dict[str, tuple[Path, dict[str, Any]]] = {}
    for cell, ids in cells.items():
        for network_id in ids:
            config = describe(args, data, cell, network_id)["config"]
            config = {key: value for key, value in config.items() if key not in OWN_KEYS}
            path = list(paths.checkpoints(args.models, cell, network_id).values())[-1]
            _check_same(args, path, config, *first.setdefault(cell.pruning_method, (path, config)))
            _check_parent(args, data, cell, network_id)
            if cell.pruning_method != "global" and paths.DENSE in first:
                learned = {key: v for key, v in config.items() if key not in SCHEDULE_FLAGS}
                _check_same(args, path, learned, *first[paths.DENSE])


def _check_parent(args: argparse.Namespace, data: Dataset, cell: Cell, network_id: int) -> None:
    parent = describe(args, data, cell, network_id)["config"].get("parent")
    dense = describe(args, data, paths.dense_cell(cell.learner), network_id) if parent else {}
    if parent and parent != dense["digest"]:
        path = list(paths.checkpoints(args.models, cell, network_id).values())[-1]
        _refuse_mixing(args, f"{path}: made from another dense network than the one of its id")


def _refuse_mixing(args: argparse.Namespace, message: str) -> None:
    if not args.allow_mixed:
        raise Failure(EXIT_CHECKPOINT, f"{message}; use another --models_dir, or --allow_mixed")
    print(message, file=sys.stderr)


def _check_same(
    args: argparse.Namespace, path: Path, config: dict[str, Any], other_path: Path, other: dict
) -> None:
    differing = differences(config, other)
    if not differing:
        return
    _refuse_mixing(args, f"{path}: made by another recipe than {other_path.name}: {differing}")


def differences(config: dict[str, Any], other: dict[str, Any]) -> str:
    """`epochs 5 (not 3), seed 1 (not 0)`: the keys in which two configurations differ."""
    return ", ".join(
        f"{key} {config.get(key)} (not {other.get(key)})"
        for key in sorted(config.keys() | other.keys())
        if config.get(key) != other.get(key)
    )


def data_config(data: Dataset) -> dict[str, Any]:
    """What a network's configuration says about its data."""
    return {"dataset": data.name, "n_classes": data.n_classes, "train_images": data.train.digest}


def pruned_cells(args: argparse.Namespace, dense_ids: list[int]) -> dict[Cell, list[int]]:
    """The pruned populations to analyse, with the ids that the dense one has too. Raises
    Failure(EXIT_CHECKPOINT) as `check_complete`; with --allow_missing, cells asked for of which
    there is nothing are named and left out."""
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
        check_complete(args, cell, ids, dense_ids)
        if ids:
            cells[cell] = ids
    return cells


def are_pairs(args: argparse.Namespace, data: Dataset, cell: Cell, ids: list[int]) -> bool:
    """Whether every pruned network belongs to the dense one of its id: made from it, or trained
    with the same seed, which means the same first weights, order and augmentations."""
    dense_cell = paths.dense_cell(cell.learner)
    for network_id in ids:
        pruned = describe(args, data, cell, network_id)
        dense = describe(args, data, dense_cell, network_id)
        made_from = pruned["config"].get("parent") == dense["digest"]
        seeds = [network["config"].get("seed") for network in (pruned, dense)]
        if not made_from and (None in seeds or seeds[0] != seeds[1] or cell[1] == "global"):
            return False
    return True


def record_recipes(args: argparse.Namespace, data: Dataset, cells: dict[Cell, list[int]]) -> None:
    """Keep beside the figures what the networks of each cell were, for the report."""
    path = paths.recipes(args.pies, args.learner)
    recipes = _read_recipes(path)
    for cell, ids in cells.items():
        network = describe(args, data, cell, ids[0])
        hardware = {"trained_on": network["results"].get("device", "unknown")}
        recipes[str(cell)] = network["config"] | network["versions"] | hardware | {"ids": ids}
    write_text(path, json.dumps(recipes, indent=1))


def _read_recipes(path: Path) -> dict[str, Any]:
    """Those of earlier runs; a damaged file is set aside."""
    if not path.exists():
        return {}
    try:
        recipes = json.loads(path.read_text())
        if isinstance(recipes, dict):
            return recipes
        reason = "not a table of recipes"
    except ValueError as error:
        reason = f"damaged ({error})"
    runtime.set_aside(path, reason, paths.corrupt(path))
    return {}


def check_knn(args: argparse.Namespace, n_bank: int) -> None:
    """Raises Failure(EXIT_ARGUMENTS) for more neighbours than there are images."""
    if args.knn > n_bank:
        raise Failure(EXIT_ARGUMENTS, f"argument --knn: {args.knn}: at most {n_bank} here")


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
    if checkpoint.digest != network["digest"]:
        message = f"{cell} id {network_id}: replaced by another process; run again"
        raise Failure(EXIT_CHECKPOINT, message)
    with runtime.memory_for("--batch_size", args.batch_size):
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


def mean_rows(
    cell: Cell, metric: str, values: Any, n_examples: int, group: str = "all"
) -> list[summary.Row]:
    """The rows of a mean over networks: the mean with its interval, and `<metric>_sd`."""
    mean = statistics.mean_over_networks(values)
    rows = [summary.row(cell, metric, mean.mean, mean.n, n_examples, group, mean.interval)]
    if mean.sd is not None:
        rows.append(summary.row(cell, f"{metric}_sd", mean.sd, mean.n, n_examples, group))
    return rows
