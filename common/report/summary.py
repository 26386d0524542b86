"""The tables that scripts print, made from summary.csv.

`python -m common.report.summary pies/digits` prints the tables of both learners.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import files, paths, runtime, study
from common.report import rows
from common.report.rows import Row
from common.study import Cell

COUNTS = ("n_pies", "n_pies_corrected", "n_pies_pruned_null", "n_pies_unpaired")
N_FIXED = 5  # columns that every printed table has: the cell, its networks, dense accuracy
INTERVAL_FROM, SURE_FROM = 4, 10  # networks; docs/statistics.md: measured coverages of intervals


def format_table(pies: Path, learner: str) -> str:
    """The table at the end of every script, aligned, without columns of counts and pruned networks
    in which no cell has a number; below it a warning if its intervals are not to be trusted."""
    columns = [*zip(*table(pies, learner), strict=True)]
    told = [column for column in columns[N_FIXED:] if any(x not in ("", "-") for x in column[1:])]
    text = _align([*zip(*columns[:N_FIXED], *told, strict=True)])
    counts = [row for row in rows.read(pies) if row[0] == learner and row[3:5] == ("n_pies", "all")]
    if counts and (caution := caution_of(min(row.n_models for row in counts))):
        text += f"\n{caution}"
    return text


def caution_of(n_models: int) -> str:
    """A sentence on counts of few networks; empty for enough networks."""
    if n_models < INTERVAL_FROM:
        return f"With fewer than {INTERVAL_FROM} networks, counts have no intervals."
    if n_models < SURE_FROM:
        return f"With fewer than {SURE_FROM} networks, 95 % intervals of counts cover 89 to 99 %."
    return ""


def table(pies: Path, learner: str) -> list[tuple[str, ...]]:
    """A header, and a line for each cell: accuracy (mean ± sd over networks); PIEs; PIEs corrected
    for the networks' variance (in populations of half the size); images that differ between two
    populations of the cell's recipe; images that differ between dense and pruned networks of other
    ids; PIEs if dense and pruned networks are exchanged; and the p-value of that, with the smallest
    p-value that K networks allow. A number that comes from more or fewer networks or images than
    the accuracy says so: (K = 20)."""
    found = _by_cell(pies, learner)
    of_dense = found.get(study.dense_cell(learner), {})
    lines = [
        ("learner", "pruning", "sparsity", "networks", "dense top-1 %", "pruned top-1 %",
         "PIEs [95 %]", "corrected at K/2 [95 %]", "same recipe twice [95 %]",
         "unpaired [95 %]", "if exchanged [95 %]", "p (floor)")
    ]  # fmt: skip
    for cell, numbers in found.items():
        top1 = numbers.get(("top1", "all"))
        n_models = str(top1.n_models) if top1 else "-"
        dense = _percent(of_dense) + _other_size(of_dense.get(("top1", "all")), top1)
        if cell.is_dense:
            rest = ("", "", "", _count(numbers, "n_pies_dense_null"), "", "", "")
        else:
            counts = (_count(numbers, metric) for metric in COUNTS)
            rest = (_percent(numbers), *counts, *_exchanged(numbers))
        lines.append((*cell.words, n_models, dense, *rest))
    return lines


def format_groups(pies: Path, learner: str, metric: str) -> str:
    """A table of one metric, by cell: over all images, over the PIEs and over the other images."""
    lines = [("learner", "pruning", "sparsity", "networks", metric, "of PIEs", "of the rest")]
    for numbers in _by_cell(pies, learner).values():
        groups = [numbers.get((metric, group)) for group in ("all", "pie", "non_pie")]
        if groups[0]:
            shown = [f"{line.value:.2f}" if line else "-" for line in groups]
            lines.append((*groups[0][:3], str(groups[0].n_models), *shown))
    return _align(lines)


def format_claims(pies: Path) -> str:
    """A line for each claim, with its verdict."""
    found = files.read_csv(paths.claims(pies))
    lines = (f"{line['name']} {line['text']} {line['verdict']}" for line in found)
    return "\n".join(dict.fromkeys(lines))


Numbers = dict[tuple[str, str], Row]


def _by_cell(pies: Path, learner: str) -> dict[Cell, Numbers]:
    """Cell -> (metric, group) -> row; dense first, then by pruning, sparsities ascending."""
    found: dict[Cell, Numbers] = {}
    known = {study.DENSE, *study.PRUNINGS}  # rows of a later version may have other prunings
    for row in rows.read(pies):
        if row.learner == learner and row.pruning_method in known:
            found.setdefault(row.cell, {})[row.metric, row.group] = row
    return {cell: found[cell] for cell in study.in_order(found)}


def _percent(numbers: Numbers) -> str:
    mean, sd = numbers.get(("top1", "all")), numbers.get(("top1_sd", "all"))
    if mean is None:
        return "-"
    return f"{100 * mean.value:.2f}" + (f" ± {100 * sd.value:.2f}" if sd else "")


def _other_size(row: Row | None, top1: Row | None) -> str:
    """K and n of a number, if they differ from those of the line's accuracy."""
    if row is None or top1 is None:
        return ""
    sizes = (("K", row.n_models, top1.n_models), ("n", row.n_examples, top1.n_examples))
    other = [f"{name} = {size}" for name, size, of_line in sizes if size != of_line]
    return f" ({', '.join(other)})" if other else ""


def _count(numbers: Numbers, metric: str) -> str:
    row = numbers.get((metric, "all"))
    if row is None:
        return "-"
    value, low, high = (None if x is None else round(x) for x in row[5:8])
    interval = "" if low is None else f" [{low}, {high}]"
    of_all = f" of {row.n_examples}" if metric == "n_pies" else ""
    return f"{value}{of_all}{interval}{_other_size(row, numbers.get(('top1', 'all')))}"


def _exchanged(numbers: Numbers) -> tuple[str, str]:
    """The count if exchanged, and its p-value. Exchanging a single pair changes nothing."""
    count, p_value = numbers.get(("n_pies_null", "all")), numbers.get(("pie_p_value", "all"))
    if count is None or p_value is None or count.n_models == 1:
        return "-", "-"
    floor = numbers.get(("pie_p_value_floor", "all"))
    shown = f"{p_value.value:.2g}" + (f" ({floor.value:.2g})" if floor else "")
    return _count(numbers, "n_pies_null"), shown


def _align(lines: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def folder_argument(argv: list[str]) -> Path:
    """The folder pies/<dataset> given on a command line; ends the program if there is none."""
    if len(argv) != 2 or not Path(argv[1]).is_dir():
        what = "give a folder pies/<dataset> that an analysis has made"
        raise SystemExit(runtime.report(runtime.EXIT_ARGUMENTS, what))
    return Path(argv[1])


def main() -> None:
    """Print the tables of both learners, and the claims."""
    pies = folder_argument(sys.argv)
    for learner in study.LEARNERS:
        print(format_table(pies, learner))
    print(format_claims(pies))


if __name__ == "__main__":
    main()
