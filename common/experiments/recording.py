"""Records of trained networks beside the results of analyses: accuracies, curves, recipes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from common import files, locks, paths, runtime
from common.data.datasets import Dataset
from common.experiments import population
from common.model import checkpoints
from common.paths import NetworkFiles
from common.report import plots, rows, stored_pies, style
from common.report.rows import mean_rows
from common.runtime import Failure
from common.study import Cell


def record_training(args: argparse.Namespace, data: Dataset, cell: Cell) -> None:
    """Write accuracy and reached sparsity of all networks of the cell into the summary, and draw
    their training curves."""
    table = paths.rows(args.pies, cell, "training")
    table.parent.mkdir(parents=True, exist_ok=True)
    with locks.held(table):  # if two processes end at once, the later one lists what both made
        found = _results(args, data, cell)
        if not found:
            return
        made = []
        for metric, key in (("top1", "test_accuracy"), ("sparsity_reached", "sparsity_reached")):
            values = [results[key] for results in found.values()]
            made += mean_rows(cell, metric, values, len(data.test), is_share=metric == "top1")
        rows.store(args.pies, "training", {cell: made})
        _draw_curves(paths.curves(args.pies, cell), found, len(data.train))


def _results(args: argparse.Namespace, data: Dataset, cell: Cell) -> dict[int, dict[str, Any]]:
    """By id, the results of each network of the cell that was tested on these images. A network
    that cannot be read is named and left out."""
    found = {}
    for network_id in sorted(paths.networks_present(args.models).get(cell, set())):
        try:
            network = checkpoints.describe(NetworkFiles(args.models, cell, network_id))
        except Failure as failure:
            print(runtime.one_line(f"{failure}; not in the summary"), file=sys.stderr)
            continue
        if network:
            _forget_if_stale(args.pies, cell, network_id, network["digest"])
            if network["results"].get("test_images") == data.test.digest:
                found[network_id] = network["results"]
    return found


def _forget_if_stale(pies: Path, cell: Cell, network_id: int, digest: str) -> None:
    """Remove the numbers and PIEs of a population if its stored predictions are of a network with
    another digest, which has been replaced."""
    cached = files.load_arrays(paths.predictions(pies, cell, network_id))
    if cached is not None and str(cached.get("key")).split(" ")[0] != digest:
        rows.forget(pies, cell)
        stored_pies.forget(pies, cell)


def _draw_curves(path: Path, found: dict[int, dict[str, Any]], n_images: int) -> None:
    """Loss and accuracy of all networks of a cell: one entry a network, stage and epoch."""
    records = [{"id": i} | record for i, results in found.items() for record in results["history"]]
    names = ("id", "stage", "epoch", "loss", "train_accuracy", "test_accuracy")
    curves = {name: np.array([record.get(name, np.nan) for record in records]) for name in names}
    heading = {"networks": np.array(path.stem), "n_examples": np.array(n_images)}
    style.keep(path, plots.training_curves, curves | heading)


def record_recipes(args: argparse.Namespace, data: Dataset, cells: dict[Cell, list[int]]) -> None:
    """Store the configuration of each cell beside the figures, for the report."""
    path = paths.recipes(args.pies, args.learner)
    try:
        stored = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # none yet, or damaged: only what is said here is lost
        stored = {}
    for cell, ids in cells.items():
        network = population.describe(args, data, cell, ids[0])
        hardware = {"trained_on": network["results"].get("device", "unknown")}
        hardware |= {"median_seconds": _median_seconds(args.logs, cell, ids)}
        stored[str(cell)] = network["config"] | network["versions"] | hardware | {"ids": ids}
    files.write_text(path, json.dumps(stored, indent=1))


def _median_seconds(logs: Path, cell: Cell, ids: list[int]) -> float | None:
    """The median time of the cell's trainings that ran without interruption; None if none did."""
    seconds = []
    for network_id in ids:
        lines = files.read_log(paths.log(logs, cell, network_id))
        begun = [line for line in lines if "continued" in line]
        if begun and not begun[-1]["continued"]:
            seconds.append(lines[-1].get("finished_after_seconds"))
    seconds = [value for value in seconds if value is not None]
    return float(np.median(seconds)) if seconds else None
