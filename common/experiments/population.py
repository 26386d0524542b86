"""The populations of a study: which networks exist, and whether they may be compared."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from common import files, locks, paths, ranks, recipes, runtime, study
from common.data import datasets
from common.data.datasets import Dataset
from common.data.named import CIFAR10_CLASSES
from common.files import Arrays
from common.model import checkpoints
from common.model.checkpoints import Contents
from common.paths import NetworkFiles
from common.recipes import Config
from common.report import style
from common.runtime import EXIT_ARGUMENTS, EXIT_CHECKPOINT, Damaged, Failure
from common.study import Cell

# Keys that may differ between the cells of a study.
PER_CELL_KEYS = ("pruning_method", "criterion", "sparsity", "parent")


def load_data(args: argparse.Namespace) -> Dataset:
    """Load the data onto the chosen device. From here on, every rank but the first prints into a
    log."""
    if args.ranks.rank > 0:
        ranks.print_to(paths.rank_log(args.logs, args.ranks.rank))
    device = runtime.pick_device(args.cuda_device, args.ranks.local)
    return datasets.load_dataset(
        args.dataset, args.data_dir, device, args.image_size, args.limit, args.test_limit,
        args.released_quirks, args.name,
    )  # fmt: skip


def data_config(data: Dataset) -> Config:
    """The keys of a configuration that name its data."""
    return {"dataset": data.name, "n_classes": data.n_classes, "train_images": data.train.digest}


def resolve(args: argparse.Namespace, data: Dataset) -> Config:
    """The keys of a configuration that do not come from flags: the images, and the precision that
    `auto` means on this device."""
    device = data.train.images.device
    return data_config(data) | {"precision": runtime.pick_precision(args.precision, device)}


def prepare_output(args: argparse.Namespace, *folders: Path) -> None:
    """Raises Failure(EXIT_WRITE) before the work if results could not be written. Also sets the
    formats in which figures are drawn."""
    for folder in (*folders, args.pies):
        files.check_writable(folder)
        if args.ranks.rank == 0:
            locks.check(folder)
    style.suffixes = [".png"] if args.figure_format == "png" else [".png", ".pdf"]


def present(args: argparse.Namespace, cell: Cell) -> list[int]:
    """The requested ids that have a network. Raises Failure(EXIT_CHECKPOINT), with the command that
    makes the networks, if no id has one or `check_complete` refuses."""
    there = paths.networks_present(args.models).get(cell, set())
    ids = [network_id for network_id in args.ids if network_id in there]
    if not ids:
        raise Failure(
            EXIT_CHECKPOINT,
            f"no {cell} networks with {study.named_ids(args.ids)} in {args.models}; make "
            f"them with: {making_command(args, cell, args.ids)}",
        )
    check_complete(args, cell, ids, args.ids)
    return ids


def check_complete(
    args: argparse.Namespace, cell: Cell, ids: Sequence[int], asked: Sequence[int]
) -> None:
    """Raises Failure(EXIT_CHECKPOINT) if networks are missing; with --allow_missing prints how many
    exist."""
    missing = [network_id for network_id in asked if network_id not in ids]
    if not missing:
        return
    count = count_found(cell, ids, asked)
    if args.allow_missing:
        print(count)
        return
    shown = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
    raise Failure(
        EXIT_CHECKPOINT,
        f"{count}, not {'id' if len(missing) == 1 else 'ids'} {shown}; make them with: "
        f"{making_command(args, cell, asked)}; or ask for fewer networks (--models_number, "
        "--index_start), or give --allow_missing",
    )


def count_found(cell: Cell, ids: Sequence[int], asked: Sequence[int]) -> str:
    """`supervised dense 0.00: 20 of the 30 networks asked for are there`."""
    there = "is there" if len(ids) == 1 else "are there"
    return f"{cell}: {len(ids)} of the {study.counted(len(asked), 'network')} asked for {there}"


def making_command(args: argparse.Namespace, cell: Cell, ids: Sequence[int]) -> str:
    """The command that makes networks with these ids, with every relevant flag of this command."""
    words = study.dataset_words(args.dataset)
    flags = [  # name, value, and the default, which is not shown
        ("dataset", args.dataset, None),
        ("data_dir", args.data_dir, Path("data")),
        ("models_dir", args.models_dir, Path("models")),
        ("pies_dir", args.pies_dir, Path("pies")),
        ("image_size", args.image_size, words.image_size),
        ("preset", args.preset, words.preset),
        ("limit", args.limit, None),
        ("test_limit", args.test_limit, None),
        ("seed", args.seed, 0),
        ("index_start", ids[0], 0),
        ("models_number", ids[-1] - ids[0] + 1, None),
    ]
    if not cell.is_dense:
        pruning = study.PRUNINGS[cell.pruning_method]
        flags += [
            ("pruning_method", pruning.schedule, study.ONE_SHOT),
            ("pruning_percentages", study.format_sparsity(cell.sparsity), None),
            ("criterion", pruning.criterion, study.CRITERIA[0]),
        ]
    shown = [
        f"--{flag} {shlex.quote(str(value))}" for flag, value, usual in flags if value != usual
    ]
    return " ".join(["python", study.script(cell), *shown])


def pruned_cells(args: argparse.Namespace, dense_ids: list[int]) -> dict[Cell, list[int]]:
    """The pruned populations to analyse, each with the ids that have a dense network too. Raises
    Failure(EXIT_CHECKPOINT) like `check_complete`. With --allow_missing, cells without any network
    are named and left out."""
    there = paths.networks_present(args.models)
    methods = args.pruning_methods or list(study.PRUNINGS)
    asked = [
        cell for cell in there if cell.learner == args.learner and cell.pruning_method in methods
    ]
    if args.pruning_percentages is not None:
        named = args.pruning_methods or sorted({cell.pruning_method for cell in asked})
        sparsities = args.pruning_percentages
        asked = [
            Cell(args.learner, method, sparsity) for method in named for sparsity in sparsities
        ]
    cells = {}
    for cell in asked:
        ids = [i for i in dense_ids if i in there.get(cell, ())]
        check_complete(args, cell, ids, dense_ids)
        if ids:
            cells[cell] = ids
    return cells


def describe(args: argparse.Namespace, data: Dataset, cell: Cell, network_id: int) -> Contents:
    """`checkpoints.describe` of an existing network. Raises Failure(EXIT_CHECKPOINT) if the network
    learned from other images than those of `data`, or if its architecture is not the one asked for,
    and Damaged if its files cannot be read."""
    where = NetworkFiles(args.models, cell, network_id)
    found, path = checkpoints.describe(where), where.last
    if found is None:
        raise Damaged(path, "missing or incomplete", f"make it with python {study.script(cell)}")
    config = recipes.complete(found["config"])
    if config.get("released") and data.classes != CIFAR10_CLASSES:
        raise Failure(EXIT_CHECKPOINT, f"{path}: a released network knows the classes of CIFAR-10")
    expected = {"image_size": args.image_size, "released_quirks": args.released_quirks}
    for key, value in (expected | data_config(data) | args.architecture).items():
        known = config.get(key)
        if known is not None and known != value:
            hint = f" (see --{key})" if key in expected else ""
            said = f"its {key} is {known}, not {value}{hint}"
            if key == "train_images":
                said = f"it learned from other training images: {_why(args, config.get('limit'))}"
            raise Failure(EXIT_CHECKPOINT, f"{path}: {said}")
    return found


def _why(args: argparse.Namespace, limit: int | None) -> str:
    """Why a network, trained with this --limit, learned from other images, and what to do."""
    if limit == args.limit:
        return (
            f"those of --dataset {args.dataset} are not the same any more; give --dataset and "
            "--data_dir of its images, or use another --models_dir and --pies_dir"
        )
    then = f"with --limit {limit}" if limit else "without --limit"
    now = f"--limit {args.limit}" if args.limit else "no --limit"
    remedy = f"give --limit {limit}" if limit else "leave out --limit"
    return f"it was trained {then}, this command has {now}; {remedy}"


def networks(args: argparse.Namespace, cells: dict[Cell, list[int]]) -> list[NetworkFiles]:
    """The networks of these cells and ids."""
    return [NetworkFiles(args.models, cell, i) for cell, ids in cells.items() for i in ids]


def check_recipes(args: argparse.Namespace, data: Dataset, cells: dict[Cell, list[int]]) -> None:
    """Raises Failure(EXIT_CHECKPOINT), without --allow_mixed, if two networks of one pruning differ
    in more than id, sparsity and parent, or if a gradually pruned network differs from the dense
    ones in more than its pruning: the study would then compare recipes, not prunings. The dense
    cell must come first."""
    for message in _mixtures(args, data, cells):
        if not args.allow_mixed:
            remedy = "use another --models_dir and --pies_dir, or --allow_mixed"
            raise Failure(EXIT_CHECKPOINT, f"{message}; {remedy}")
        print(message, file=sys.stderr)


def _mixtures(
    args: argparse.Namespace, data: Dataset, cells: dict[Cell, list[int]]
) -> Iterator[str]:
    """A line for each network of another recipe, or of another dense network, than it should be."""
    first: dict[str, tuple[Path, Config]] = {}  # by pruning
    for network in networks(args, cells):
        cell, path = network.cell, network.last
        config = describe(args, data, cell, network.id)["config"]
        first.setdefault(cell.pruning_method, (path, config))
        compared = {cell.pruning_method: PER_CELL_KEYS}
        if study.DENSE in first and cell.schedule and cell.schedule.is_gradual:
            compared[study.DENSE] = (*PER_CELL_KEYS, *recipes.PRUNED_ONLY)
        for pruning, may_differ in compared.items():
            other_path, other = first[pruning]
            if differing := recipes.differences(config, other, may_differ):
                yield f"{path}: made by another recipe than {other_path.name}: {differing}"
        parent = config.get("parent")
        if parent and parent != describe(args, data, cell.dense, network.id)["digest"]:
            yield f"{path}: made from another dense network than the one of its id"


def are_pairs(args: argparse.Namespace, data: Dataset, cell: Cell, ids: list[int]) -> bool:
    """True if every pruned network is paired with the dense network of the same id: either made
    from it, or trained with the same seed, so the same first weights, order and augmentations."""
    for network_id in ids:
        pruned = describe(args, data, cell, network_id)
        dense = describe(args, data, cell.dense, network_id)
        is_made_from = pruned["config"].get("parent") == dense["digest"]
        seed, dense_seed = (network["config"].get("seed") for network in (pruned, dense))
        has_same_seed = seed is not None and seed == dense_seed
        if not is_made_from and not (cell.schedule.is_paired_by_seed and has_same_seed):
            return False
    return True


def check_knn(args: argparse.Namespace, n_bank: int) -> None:
    """Raises Failure(EXIT_ARGUMENTS) if --knn is larger than the number of images."""
    if args.knn > n_bank:
        what = f"argument --knn: {args.knn}"
        raise Failure(EXIT_ARGUMENTS, f"{what}: give at most {n_bank}, the images to choose from")


def heading(cell: Cell, ids: list[int], data: Dataset) -> Arrays:
    """The arrays that the title of a figure is made of."""
    return {
        "learner": np.array(cell.learner),
        "pruning_method": np.array(cell.pruning_method),
        "sparsity": np.array(study.format_sparsity(cell.sparsity)),
        "n_models": np.array(len(ids)),
        "n_examples": np.array(len(data.test)),
        "ids": np.array(ids),
    }
