"""Studies that no network made: what analyses leave of populations that tests write down."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common import files, paths
from common.analysis import pie
from common.analysis.predictions import Population
from common.report import pie_rows, rows
from common.report.rows import Row
from common.study import Cell

Arrays = dict[str, np.ndarray]


def population(cell: Cell, labels: np.ndarray, **numbers: np.ndarray) -> Population:
    """Networks that predict labels [K,N]; of their embeddings `numbers` [K] is known, else 0.5."""
    k = len(labels)
    known = {name: np.full(k, 0.5) for name in pie_rows.NUMBERS} | numbers
    return Population(cell, list(range(k)), labels, {}, known)


def store(pies: Path, label: np.ndarray, dense: Population, pruned: Population) -> None:
    """The predictions of both and their PIEs, as PIE detection leaves them."""
    n_classes = int(max(label.max(), dense.labels.max(), pruned.labels.max())) + 1
    found: Arrays = {
        "label": label,
        "is_pie": pie.find_pies(dense.labels, pruned.labels, n_classes),
        "vote_distance": np.zeros(len(label)),
        "classes": np.array([str(c) for c in range(n_classes)]),
        "n_models": np.array(len(pruned.ids)),
        "n_examples": np.array(len(label)),
        "ids": np.array(pruned.ids),
    }
    found["pie_images"] = np.zeros((found["is_pie"].sum(), 3, 8, 8), dtype=np.uint8)
    for which, networks in (("dense", dense), ("pruned", pruned)):
        found[f"modal_{which}"] = pie.modal_labels(networks.labels, n_classes)
        found[f"votes_{which}"] = pie.count_votes(networks.labels, n_classes)
        for i, labels in enumerate(networks.labels):
            numbers = {name: values[i] for name, values in networks.numbers.items()}
            predicted = numbers | {"labels": labels.astype(np.int16), "key": np.array("")}
            files.save_arrays(paths.predictions(pies, networks.cell, networks.ids[i]), predicted)
    path = paths.pies_distribution(pies, pruned.cell).with_suffix(".npz")
    files.save_arrays(path, found)


def store_rows(pies: Path, *made: Row) -> None:
    """Rows of the summary, in place of all earlier ones of their cells."""
    cells = {row.cell for row in made}
    by_cell = {cell: [row for row in made if row.cell == cell] for cell in cells}
    rows.store(pies, "pie_detection", by_cell)


def row(cell: Cell, metric: str, value: float, half: float | None = 1.0, n_models: int = 10) -> Row:
    """A number with an interval of this half width."""
    interval = None if half is None else (value - half, value + half)
    return rows.row(cell, metric, value, n_models, 100, interval=interval)
