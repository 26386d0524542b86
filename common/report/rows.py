"""summary.csv, the long table with one row for each number, and the files from which it is made:
for each cell, every analysis keeps its rows in a file of its own."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from common import files, locks, paths
from common.analysis import statistics
from common.runtime import EXIT_WRITE, Failure
from common.study import Cell

# If two analyses have the same number (a population's accuracy), the later in this list counts.
ANALYSES = ("training", "pie_detection", "replicates", "umap", "prediction_depth")


class Row(NamedTuple):
    """One number. `group` is all, pie, non_pie or a class name; an interval may be missing."""

    learner: str
    pruning_method: str
    sparsity: str
    metric: str
    group: str
    value: float
    ci_low: float | None
    ci_high: float | None
    n_models: int
    n_examples: int

    @property
    def cell(self) -> Cell:
        """The population that the number is about."""
        return Cell(self.learner, self.pruning_method, float(self.sparsity))


def row(
    cell: Cell,
    metric: str,
    value: float,
    n_models: int,
    n_examples: int,
    group: str = "all",
    interval: tuple[float, float] | None = None,
) -> Row:
    """A row about a cell of the study."""
    low, high = interval if interval is not None else (None, None)
    return Row(*cell.words, metric, group, float(value), low, high, n_models, n_examples)


def mean_rows(
    cell: Cell,
    metric: str,
    values: ArrayLike,
    n_examples: int,
    group: str = "all",
    is_share: bool = False,
) -> list[Row]:
    """The rows of a mean of values [K] over networks: the mean with its interval, which for shares
    stays in [0, 1], and `<metric>_sd`. Undefined values (nan) are left out; no rows if none is
    defined."""
    values = np.asarray(values, dtype=np.float64)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return []
    mean = statistics.mean_over_networks(values)
    interval = mean.interval
    if is_share and interval is not None:
        interval = statistics.share_interval(values)[1:]
    rows = [row(cell, metric, mean.mean, mean.n, n_examples, group, interval)]
    if mean.sd is not None:
        rows.append(row(cell, f"{metric}_sd", mean.sd, mean.n, n_examples, group))
    return rows


def store(pies: Path, analysis: str, rows: Mapping[Cell, list[Row]]) -> None:
    """Keep the rows that an analysis made about these cells, in place of its earlier rows about
    them, and rewrite summary.csv."""
    pies.mkdir(parents=True, exist_ok=True)
    with _lock(pies):
        _keep_earlier(pies)
        for cell, of_cell in rows.items():
            _write(paths.rows(pies, cell, analysis), of_cell)
        _rewrite_summary(pies)


def forget(pies: Path, cell: Cell) -> None:
    """Remove the rows of a population whose networks were replaced. If the population is dense,
    also remove every comparison with it: all rows of the learner except those of its trainings."""
    if not paths.summary(pies).exists() and not paths.rows_files(pies):
        return

    with _lock(pies):
        _keep_earlier(pies)
        for path in paths.rows_files(pies):
            compares = cell.is_dense and paths.analysis_of(path) != ANALYSES[0]
            kept = [
                row
                for row in _read(path)
                if row.cell != cell and not (compares and row.learner == cell.learner)
            ]
            if kept:
                _write(path, kept)
            else:
                path.unlink()
        _rewrite_summary(pies)


def read(pies: Path) -> list[Row]:
    """All rows of summary.csv; none if there is no table yet."""
    return _read(paths.summary(pies))


def _lock(pies: Path) -> AbstractContextManager[bool]:
    """The lock of summary.csv, since both learners' scripts may run at once."""
    return locks.held(paths.summary(pies))


def _keep_earlier(pies: Path) -> None:
    """Keep the rows of a summary that was written before there were files of rows."""
    if paths.summary(pies).exists() and not paths.rows_files(pies):
        _write(paths.earlier_rows(pies), read(pies))


def _rewrite_summary(pies: Path) -> None:
    """Concatenate all files of rows. If two analyses have the same number, the later one's mean and
    spread both count: a spread over other networks than those of the mean would mislead."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for analysis in ANALYSES:
        of_analysis: dict[tuple[str, ...], list[Row]] = {}
        for path in paths.rows_files(pies, analysis):
            for row in _read(path):
                number = (*row[:3], row.metric.removesuffix("_sd"), row.group)
                of_analysis.setdefault(number, []).append(row)
        found |= of_analysis
    rows = [row for of_number in found.values() for row in of_number]
    known = {row[:4] for row in rows}  # an earlier version's rows count only for other metrics
    rows += [row for row in _read(paths.earlier_rows(pies)) if row[:4] not in known]
    _write(paths.summary(pies), sorted(rows, key=lambda row: row[:5]))


def _write(path: Path, rows: list[Row]) -> None:
    shown = (
        [f"{value:.10g}" if isinstance(value, float) else value for value in row] for row in rows
    )
    files.write_csv(path, [Row._fields, *shown])


def _read(path: Path) -> list[Row]:
    try:
        return [
            Row(
                *(line[name] for name in Row._fields[:5]),
                float(line["value"]),
                float(line["ci_low"]) if line["ci_low"] else None,
                float(line["ci_high"]) if line["ci_high"] else None,
                int(line["n_models"]),
                int(line["n_examples"]),
            )
            for line in files.read_csv(path)
        ]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise Failure(
            EXIT_WRITE, f"{path}: damaged ({error}); remove it, then run again"
        ) from error
