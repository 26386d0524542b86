"""summary.csv: the long table with one row a number, and the short one printed from it."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from common import paths
from common.paths import Cell, format_sparsity
from common.runtime import EXIT_WRITE, Failure, write_csv


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


# The metrics of each analysis. Maps are made on demand, so their number stays until it is replaced.
_DEPTH, _TRAINING = r"prediction_depth|probe_accuracy", r"sparsity_reached"
OWNERS = {
    "prediction_depth": re.compile(_DEPTH),
    "training": re.compile(_TRAINING),
    "pie_detection": re.compile(rf"(?!{_DEPTH}|{_TRAINING}|embedding_knn_accuracy)"),
}


def row(
    cell: Cell,
    metric: str,
    value: float,
    n_models: int,
    n_examples: int,
    group: str = "all",
    interval: tuple[float, float] | None = None,
) -> Row:
    """A row for a cell of the study."""
    low, high = interval if interval is not None else (None, None)
    sparsity = format_sparsity(cell.sparsity)
    return Row(
        cell.learner, cell.pruning_method, sparsity, metric, group, float(value),
        low, high, n_models, n_examples,
    )  # fmt: skip


def read(pies: Path) -> list[Row]:
    """All rows; none if there is no table yet."""
    path = paths.summary(pies)
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            return [
                Row(
                    *(line[name] for name in Row._fields[:5]),
                    float(line["value"]),
                    float(line["ci_low"]) if line["ci_low"] else None,
                    float(line["ci_high"]) if line["ci_high"] else None,
                    int(line["n_models"]),
                    int(line["n_examples"]),
                )
                for line in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise Failure(
            EXIT_WRITE, f"{path}: damaged ({error}); remove it, then run again"
        ) from error


def replace(pies: Path, rows: list[Row], owner: str = "") -> None:
    """Put rows into the table in place of those of the same cell, metric and group.

    owner: the analysis that wrote them all, a key of OWNERS: its older rows of these cells go, also
    those that have no successor (a cell may no longer have any PIEs).
    """
    keys, cells = {line[:5] for line in rows}, {line[:3] for line in rows}

    def stays(line: Row) -> bool:
        owned = owner and line[:3] in cells and OWNERS[owner].match(line.metric)
        return line[:5] not in keys and not owned

    _rewrite(pies, lambda old: [line for line in old if stays(line)] + rows)


def forget(pies: Path, cell: Cell) -> None:
    """Drop the rows of a population that has been trained anew: they are of other networks. Rows
    that compare with a new dense population go too."""
    key = (cell.pruning_method, format_sparsity(cell.sparsity))

    def of_others(old: list[Row]) -> list[Row]:
        if cell.pruning_method == paths.DENSE:
            return [line for line in old if line.learner != cell.learner]
        return [line for line in old if (line.learner, *line[1:3]) != (cell.learner, *key)]

    if paths.summary(pies).exists():
        _rewrite(pies, of_others)


def _rewrite(pies: Path, change: Callable[[list[Row]], list[Row]]) -> None:
    path = paths.summary(pies)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.lock(path)):  # both learners' scripts may run at once
        rows = sorted(change(read(pies)), key=lambda line: (*line[:4], line.group))
        shown = (
            [f"{value:.10g}" if isinstance(value, float) else value for value in line]
            for line in rows
        )
        write_csv(path, [Row._fields, *shown])


def format_table(pies: Path, learner: str) -> str:
    """The table at the end of every script, aligned."""
    return _align(table(pies, learner))


def table(pies: Path, learner: str) -> list[tuple[str, ...]]:
    """A header and a line a cell: accuracy (mean ± sd over networks), PIEs, and PIEs by chance."""
    found = _by_cell(pies, learner)
    dense = _percent(found.get((paths.DENSE, format_sparsity(0)), {}))
    lines = [
        ("learner", "pruning", "sparsity", "networks", "dense top-1 %", "pruned top-1 %",
         "PIEs [95 %]", "by chance [95 %]", "p")
    ]  # fmt: skip
    for (pruning_method, sparsity), numbers in found.items():
        top1, p_value = numbers.get(("top1", "all")), numbers.get(("pie_p_value", "all"))
        n_models = str(top1.n_models) if top1 else "-"
        if pruning_method == paths.DENSE:
            lines.append((learner, pruning_method, sparsity, n_models, dense, "", "", "", ""))
            continue
        lines.append(
            (
                learner,
                pruning_method,
                sparsity,
                n_models,
                dense,
                _percent(numbers),
                _count(numbers.get(("n_pies", "all"))),
                _count(numbers.get(("n_pies_null", "all"))),
                f"{p_value.value:.3f}" if p_value else "-",
            )
        )
    return lines


def format_groups(pies: Path, learner: str, metric: str) -> str:
    """A table of one metric in the pruned networks: over all images, the PIEs and the rest."""
    lines = [("learner", "pruning", "sparsity", "networks", metric, "of PIEs", "of the rest")]
    for (pruning_method, sparsity), numbers in _by_cell(pies, learner).items():
        groups = [numbers.get((metric, group)) for group in ("all", "pie", "non_pie")]
        if groups[0]:
            shown = [f"{line.value:.2f}" if line else "-" for line in groups]
            lines.append((learner, pruning_method, sparsity, str(groups[0].n_models), *shown))
    return _align(lines)


Numbers = dict[tuple[str, str], Row]


def _by_cell(pies: Path, learner: str) -> dict[tuple[str, str], Numbers]:
    """(pruning method, sparsity) -> (metric, group) -> row; dense first, sparsities ascending."""
    found: dict[tuple[str, str], Numbers] = {}
    for line in read(pies):
        if line.learner == learner:
            numbers = found.setdefault((line.pruning_method, line.sparsity), {})
            numbers[line.metric, line.group] = line
    order = (paths.DENSE, *paths.PRUNING_METHODS)
    return dict(
        sorted(found.items(), key=lambda item: (order.index(item[0][0]), float(item[0][1])))
    )


def _percent(numbers: Numbers) -> str:
    mean, sd = numbers.get(("top1", "all")), numbers.get(("top1_sd", "all"))
    if mean is None:
        return "-"
    return f"{100 * mean.value:.2f}" + (f" ± {100 * sd.value:.2f}" if sd else "")


def _count(line: Row | None) -> str:
    if line is None:
        return "-"
    interval = "" if line.ci_low is None else f" [{line.ci_low:.0f}, {line.ci_high:.0f}]"
    return f"{line.value:.0f} of {line.n_examples}{interval}"


def _align(lines: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main() -> None:
    """`python -m common.analysis.summary pies/digits`: print the tables of both learners."""
    for learner in paths.LEARNERS:
        print(format_table(Path(sys.argv[1]), learner))
        print(format_groups(Path(sys.argv[1]), learner, "prediction_depth"))


if __name__ == "__main__":
    main()
