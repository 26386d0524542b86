"""The PIEs that earlier analyses left on disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from common import paths
from common.data import arrays
from common.data.arrays import Arrays
from common.paths import Cell

KEYS = {"label", "is_pie", "modal_dense", "modal_pruned", "votes_dense", "votes_pruned"}
KEYS |= {"vote_distance", "pie_images", "classes", "n_models", "n_examples"}


def pies_by_cell(pies: Path) -> dict[Cell, Arrays]:
    """Every analysed cell of both learners in a folder pies/<dataset>, sorted. Cells that saw other
    test images than the last analysis (where nothing says so: than most cells) are left out: their
    column n is another example. File times say nothing: clocks jump, and copies are new."""
    files = {
        cell: path
        for path in pies.glob("*/pies_distribution/*.npz")
        if (cell := paths.cell_of_pies(path)) is not None
    }
    found = {cell: arrays.load(files[cell]) for cell in sorted(files)}
    complete = {cell: a for cell, a in found.items() if a is not None and a.keys() >= KEYS}
    if not complete:
        return {}
    last = arrays.load(paths.test_labels(pies))
    if last is not None and "label" in last:
        label = last["label"]
    else:
        images = {cell: a["label"].tobytes() for cell, a in complete.items()}
        most = Counter(images.values()).most_common(1)[0][0]
        label = next(complete[cell]["label"] for cell in complete if images[cell] == most)
    return {cell: a for cell, a in complete.items() if np.array_equal(a["label"], label)}


def remember_test_labels(pies: Path, label: np.ndarray) -> None:
    """Keep which test images were analysed last."""
    path, contents = paths.test_labels(pies), {"label": label}
    if not arrays.same(arrays.load(path), contents):
        arrays.save(path, contents)


def forget(pies: Path, cell: Cell) -> None:
    """Remove the PIEs of a cell whose networks were replaced; of all the learner's cells if these
    were the dense ones, with which they were compared."""
    for path in pies.glob("*/pies_distribution/*.npz"):
        found = paths.cell_of_pies(path)
        of_dense = cell.pruning_method == paths.DENSE and found and found.learner == cell.learner
        if found == cell or of_dense:
            path.unlink(missing_ok=True)
