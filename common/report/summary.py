"""The tables that scripts print, made of summary.csv.

`python -m common.report.summary pies/digits` prints those of both learners.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from common import files, paths, study
from common.report import rows
from common.report.rows import Row
from common.study import Cell


def format_table(pies: Path, learner: str) -> str:
    """The table at the end of every script, aligned."""
    return _align(table(pies, learner))


def table(pies: Path, learner: str) -> list[tuple[str, ...]]:
    """A header and a line a cell: accuracy (mean ± sd over networks), PIEs, PIEs corrected for the
    networks' variance (in populations of half the size), PIEs if dense and pruned networks are
    exchanged, and the p-value of that with the smallest one that K networks allow. A number of
    more or fewer networks or images than the line's accuracy says so: (K = 20)."""
    found = _by_cell(pies, learner)
    of_dense = found.get(study.dense_cell(learner), {})
    lines = [
        ("learner", "pruning", "sparsity", "networks", "dense top-1 %", "pruned top-1 %",
         "PIEs [95 %]", "corrected at K/2 [95 %]", "if exchanged [95 %]", "p (floor)")
    ]  # fmt: skip
    for cell, numbers in found.items():
        top1 = numbers.get(("top1", "all"))
        n_models = str(top1.n_models) if top1 else "-"
        dense = _percent(of_dense) + _other_size(of_dense.get(("top1", "all")), top1)
        of_cell = (learner, cell.pruning_method, study.format_sparsity(cell.sparsity), n_models)
        if cell.is_dense:
            lines.append((*of_cell, dense, "", "", "", "", ""))
            continue
        rows_of_counts = (
            numbers.get((metric, "all")) for metric in ("n_pies", "n_pies_corrected", "n_pies_null")
        )
        counts = (_count(row) + _other_size(row, top1) for row in rows_of_counts)
        lines.append((*of_cell, dense, _percent(numbers), *counts, _p_value(numbers)))
    return lines


def format_groups(pies: Path, learner: str, metric: str) -> str:
    """A table of one metric in the pruned networks: over all images, the PIEs and the rest."""
    lines = [("learner", "pruning", "sparsity", "networks", metric, "of PIEs", "of the rest")]
    for numbers in _by_cell(pies, learner).values():
        groups = [numbers.get((metric, group)) for group in ("all", "pie", "non_pie")]
        if groups[0]:
            shown = [f"{line.value:.2f}" if line else "-" for line in groups]
            lines.append((*groups[0][:3], str(groups[0].n_models), *shown))
    return _align(lines)


def format_claims(pies: Path) -> str:
    """A line a claim: how many of its statistics say what."""
    verdicts: dict[str, Counter[str]] = {}
    for line in files.read_csv(paths.claims(pies)):
        of_claim = verdicts.setdefault(f"{line['name']} {line['text']}", Counter())
        of_claim[line["verdict"]] += 1
    return "\n".join(
        f"{claim} " + ", ".join(f"{verdict} ({n})" for verdict, n in found.most_common())
        for claim, found in verdicts.items()
    )


Numbers = dict[tuple[str, str], Row]


def _by_cell(pies: Path, learner: str) -> dict[Cell, Numbers]:
    """Cell -> (metric, group) -> row; dense first, then by pruning, sparsities ascending."""
    found: dict[Cell, Numbers] = {}
    order = [study.DENSE, *study.PRUNINGS]  # a later version may know others
    for row in rows.read(pies):
        if row.learner == learner and row.pruning_method in order:
            found.setdefault(row.cell, {})[row.metric, row.group] = row
    return {
        cell: found[cell]
        for cell in sorted(found, key=lambda cell: (order.index(cell.pruning_method), cell[2]))
    }


def _percent(numbers: Numbers) -> str:
    mean, sd = numbers.get(("top1", "all")), numbers.get(("top1_sd", "all"))
    if mean is None:
        return "-"
    return f"{100 * mean.value:.2f}" + (f" ± {100 * sd.value:.2f}" if sd else "")


def _other_size(row: Row | None, top1: Row | None) -> str:
    """Says K and n where a number is of other ones than the line's accuracy."""
    if row is None or top1 is None:
        return ""
    sizes = (("K", row.n_models, top1.n_models), ("n", row.n_examples, top1.n_examples))
    other = [f"{name} = {size}" for name, size, of_line in sizes if size != of_line]
    return f" ({', '.join(other)})" if other else ""


def _count(row: Row | None) -> str:
    if row is None:
        return "-"
    value, low, high = (None if x is None else round(x) for x in row[5:8])
    interval = "" if low is None else f" [{low}, {high}]"
    of_all = f" of {row.n_examples}" if row.metric == "n_pies" else ""
    return f"{value}{of_all}{interval}"


def _p_value(numbers: Numbers) -> str:
    p_value = numbers.get(("pie_p_value", "all"))
    floor = numbers.get(("pie_p_value_floor", "all"))
    if p_value is None:
        return "-"
    return f"{p_value.value:.2g}" + (f" ({floor.value:.2g})" if floor else "")


def _align(lines: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def folder_argument(argv: list[str]) -> Path:
    """The folder pies/<dataset> that a command line names, or an end with one line."""
    if len(argv) != 2 or not Path(argv[1]).is_dir():
        sys.exit(f"{Path(argv[0]).name}: give a folder pies/<dataset> that an analysis has made")
    return Path(argv[1])


def main() -> None:
    """Print the tables of both learners, and the claims."""
    pies = folder_argument(sys.argv)
    for learner in study.LEARNERS:
        print(format_table(pies, learner))
    print(format_claims(pies))


if __name__ == "__main__":
    main()
