"""The figure by sparsity, from rows of the summary alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common import files, paths, study
from common.report import comparison, rows
from common.report.rows import Row, row
from common.study import Cell


def of_cell(cell: Cell, n_pies: float, top1: float) -> list[Row]:
    return [
        row(cell, "n_pies", n_pies, 10, 500, interval=(n_pies - 2, n_pies + 3)),
        row(cell, "n_pies_corrected", n_pies / 2, 10, 500, interval=(-1, n_pies)),
        row(cell, "top1", top1, 10, 500, interval=(top1 - 0.01, top1 + 0.01)),
        row(cell, "top1_lost", 0.98 - top1, 10, 500),
        row(cell, "n_pies", 3, 10, 50, group="7"),  # of a class: not drawn
    ]


def test_every_pruned_cell_is_drawn_with_its_intervals(tmp_path: Path) -> None:
    cells = {
        Cell("SupCon", "global", 0.9): (20, 0.9),
        Cell("SupCon", "random_global", 0.9): (60, 0.6),
        Cell("supervised", "GMP", 0.975): (10, 0.95),
    }
    made = {cell: of_cell(cell, *numbers) for cell, numbers in cells.items()}
    made[study.dense_cell("SupCon")] = [row(study.dense_cell("SupCon"), "top1", 0.98, 10, 500)]
    made[Cell("supervised", "global", 0.5)] = [  # not analysed yet
        row(Cell("supervised", "global", 0.5), "top1", 0.97, 10, 500)
    ]
    rows.store(tmp_path, "pie_detection", made)
    comparison.draw_by_sparsity(tmp_path)
    picture = paths.by_sparsity(tmp_path)
    assert picture.exists()
    drawn = files.load_arrays(picture.with_suffix(".npz"))
    assert drawn is not None
    assert drawn["pruning_method"].tolist() == ["global", "random_global", "GMP"]
    assert drawn["n_pies"].tolist() == [[20, 18, 23], [60, 58, 63], [10, 8, 13]]
    assert drawn["n_pies_corrected"].tolist() == [[10, -1, 20], [30, -1, 60], [5, -1, 10]]
    assert np.allclose(drawn["top1_lost"], [0.08, 0.38, 0.03])
    assert str(drawn["n_models"]) == "10"


def test_nothing_is_drawn_where_no_cell_is_analysed(tmp_path: Path) -> None:
    comparison.draw_by_sparsity(tmp_path)
    assert not paths.by_sparsity(tmp_path).exists()
