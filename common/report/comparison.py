"""Are the same images lost? Comparisons of all cells of both learners, from arrays on disk."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np

from common import files, paths, study
from common.analysis import pie
from common.files import Arrays
from common.report import comparison_plots, rows, stored_pies, style
from common.report.plots import HEADING
from common.report.rows import Row
from common.study import LEARNERS, Cell


def run(pies: Path) -> None:
    """Draw PIEs by sparsity, the overlap of each pair of cells, and both learners side by side."""
    draw_by_sparsity(pies)
    found = stored_pies.pies_by_cell(pies)
    if len(found) > 1:
        compare_cells(pies, found)
    first, second = LEARNERS
    for cell in found:
        other = cell._replace(learner=second)
        if cell.learner == first and other in found:
            compare_learners(pies, cell, found[cell], found[other])


def draw_by_sparsity(pies: Path) -> None:
    """comparison/PIEs_by_sparsity: the counts and the accuracy of every pruned cell."""
    wanted = ("n_pies", "n_pies_corrected", "top1", "top1_lost")
    found: dict[Cell, dict[str, Row]] = {}
    for row in rows.read(pies):
        if row.group == "all" and row.metric in wanted and not row.cell.is_dense:
            found.setdefault(row.cell, {})[row.metric] = row
    cells = [cell for cell in sorted(found) if found[cell].keys() >= set(wanted)]
    if not cells:
        return
    of = {metric: np.array([_estimate(found[cell][metric]) for cell in cells]) for metric in wanted}
    sizes = [found[cell]["n_pies"].n_models for cell in cells]
    shown = {
        "learner": np.array([cell.learner for cell in cells]),
        "pruning_method": np.array([cell.pruning_method for cell in cells]),
        "sparsity": np.array([cell.sparsity for cell in cells]),
        **{metric: of[metric] for metric in ("n_pies", "n_pies_corrected", "top1")},
        "top1_lost": of["top1_lost"][:, 0],
        "n_models": np.array(" to ".join(map(str, sorted({min(sizes), max(sizes)})))),
        "n_examples": np.array(found[cells[0]]["n_pies"].n_examples),
    }
    style.keep(paths.by_sparsity(pies), comparison_plots.pies_by_sparsity, shown)


def _estimate(row: Row) -> tuple[float, float, float]:
    bounds = (np.nan if bound is None else bound for bound in (row.ci_low, row.ci_high))
    return row.value, *bounds


def compare_cells(pies: Path, found: dict[Cell, Arrays]) -> None:
    """comparison/overlap.csv, with one row for each pair of cells, and its picture."""
    cells = study.in_order(found)
    jaccard, expected = np.eye(len(cells)), np.eye(len(cells))
    header = ("cell_a", "cell_b", "n_a", "n_b", "common", "jaccard", "expected_jaccard", "p_value")
    lines: list[tuple[object, ...]] = [header]
    for i, j in combinations(range(len(cells)), 2):
        a, b = (found[cells[index]]["is_pie"] for index in (i, j))
        pair = pie.overlap(a, b)
        jaccard[i, j] = jaccard[j, i] = pair.jaccard
        expected[i, j] = expected[j, i] = pair.expected_jaccard
        numbers = (f"{value:.6g}" for value in pair[1:])
        lines.append((cells[i], cells[j], a.sum(), b.sum(), pair.common, *numbers))
    files.write_csv(paths.overlap(pies).with_suffix(".csv"), lines)
    sizes = sorted({int(a["n_models"]) for a in found.values()})
    shown = {
        "cells": np.array([str(cell) for cell in cells]),
        "n_pies": np.array([found[cell]["is_pie"].sum() for cell in cells]),
        "jaccard": jaccard,
        "expected": expected,
        "n_models": np.array(" to ".join(map(str, sorted({sizes[0], sizes[-1]})))),
        "n_examples": np.array(len(next(iter(found.values()))["label"])),
    }
    style.keep(paths.overlap(pies), comparison_plots.overlap_matrix, shown)


def compare_learners(pies: Path, cell: Cell, a: Arrays, b: Arrays) -> None:
    """Draw which PIEs of a pruning both learners have, and on which images the two disagree."""
    heading = {key: a[key] for key in (*HEADING, "label", "classes")}
    heading["learner"] = np.array(" and ".join(LEARNERS))
    if a["n_models"] != b["n_models"]:
        heading["n_models"] = np.array(f"{a['n_models']} and {b['n_models']}")
    both = {"learners": np.array(list(LEARNERS)), "is_pie": np.stack([a["is_pie"], b["is_pie"]])}
    differ = {f"differ_{w}": a[f"modal_{w}"] != b[f"modal_{w}"] for w in ("dense", "pruned")}
    for kind, draw, shown in (
        ("common_PIEs", comparison_plots.common_pies, both),
        ("disagreement", comparison_plots.disagreement, differ),
    ):
        path = paths.learner_comparison(pies, kind, cell.pruning_method, cell.sparsity)
        style.keep(path, draw, heading | shown)
