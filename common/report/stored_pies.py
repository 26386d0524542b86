"""The PIEs that earlier analyses left on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common import files, paths
from common.analysis import pie, predictions
from common.analysis.predictions import Population
from common.files import Arrays
from common.report.pie_rows import NUMBERS
from common.study import Cell

KEYS = {"label", "is_pie", "modal_dense", "modal_pruned", "votes_dense", "votes_pruned"}
KEYS |= {"vote_distance", "pie_images", "classes", "n_models", "n_examples"}
KEPT = {"labels", *NUMBERS}


def pies_by_cell(pies: Path) -> dict[Cell, Arrays]:
    """The PIEs of every analysed cell of both learners in a folder pies/<dataset>, sorted. A cell
    is left out if its column n is another image than in the last analysis (or, if nobody noted its
    images, than in most cells). File times do not tell which analysis was last: clocks jump, and
    copies are new."""
    stored = paths.pies_files(pies)
    found = {cell: files.load_arrays(stored[cell]) for cell in sorted(stored)}
    complete = {cell: a for cell, a in found.items() if a is not None and a.keys() >= KEYS}
    if not complete:
        return {}
    last = files.load_arrays(paths.test_labels(pies))
    if last is not None and "label" in last:
        label = last["label"]
    else:
        images = {cell: a["label"].tobytes() for cell, a in complete.items()}
        most = Counter(images.values()).most_common(1)[0][0]
        label = next(complete[cell]["label"] for cell in complete if images[cell] == most)
    return {cell: a for cell, a in complete.items() if np.array_equal(a["label"], label)}


def load_labels(path: Path) -> Arrays:
    """Labels and numbers of one network's stored predictions; not its scores, since those of all
    cells would not fit into memory. Empty if the file is missing."""
    return {name: a for name, a in (files.load_arrays(path) or {}).items() if name in KEPT}


def populations(
    pies: Path, cell: Cell, found: Arrays, load: Callable[[Path], Arrays] = load_labels
) -> tuple[Population, Population] | None:
    """The dense and the pruned networks behind the PIEs `found`, without scores, from the cached
    predictions. None unless these predictions give exactly the votes from which the PIEs were
    counted: caches may be missing, of an earlier version, or from a later analysis of other images.
    """
    compared = []
    for of, which in ((cell.dense, "dense"), (cell, "pruned")):
        ids = found["ids"].tolist() if "ids" in found else []
        predicted = [load(paths.predictions(pies, of, i)) for i in ids]
        shape = found["label"].shape
        if not ids or any(a.keys() != KEPT or a["labels"].shape != shape for a in predicted):
            return None
        networks = predictions.stack(of, ids, predicted)
        votes = pie.count_votes(networks.labels, len(found["classes"]))
        if not np.array_equal(votes, found[f"votes_{which}"]):
            return None
        compared.append(networks)
    return compared[0], compared[1]


def remember_test_labels(pies: Path, label: np.ndarray) -> None:
    """Store the labels of the test images, to tell which images were analysed last."""
    path, contents = paths.test_labels(pies), {"label": label}
    if not files.same_arrays(files.load_arrays(path), contents):
        files.save_arrays(path, contents)


def forget(pies: Path, cell: Cell) -> None:
    """Remove the PIEs of a cell whose networks were replaced. If the cell is dense, remove those of
    all the learner's cells, which were compared with it."""
    for found, path in paths.pies_files(pies).items():
        if found == cell or (cell.is_dense and found.learner == cell.learner):
            path.unlink(missing_ok=True)
