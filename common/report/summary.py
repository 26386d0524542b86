"""The tables that scripts print, made of summary.csv.

`python -m common.report.summary pies/digits` prints those of both learners.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import study
from common.report import rows
from common.report.rows import Row
from common.study import Cell


def format_table(pies: Path, learner: str) -> str:
    """The table at the end of every script, aligned."""
    return _align(table(pies, learner))


def table(pies: Path, learner: str) -> list[tuple[str, ...]]:
    """A header and a line a cell: accuracy (mean ± sd over networks), PIEs, and PIEs by chance."""
    found = _by_cell(pies, learner)
    dense = _percent(found.get(study.dense_cell(learner), {}))
    lines = [
        ("learner", "pruning", "sparsity", "networks", "dense top-1 %", "pruned top-1 %",
         "PIEs [95 %]", "by chance [95 %]", "p")
    ]  # fmt: skip
    for cell, numbers in found.items():
        pruning_method, sparsity = cell.pruning_method, study.format_sparsity(cell.sparsity)
        top1, p_value = numbers.get(("top1", "all")), numbers.get(("pie_p_value", "all"))
        n_models = str(top1.n_models) if top1 else "-"
        if cell.is_dense:
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
    for numbers in _by_cell(pies, learner).values():
        groups = [numbers.get((metric, group)) for group in ("all", "pie", "non_pie")]
        if groups[0]:
            shown = [f"{line.value:.2f}" if line else "-" for line in groups]
            lines.append((*groups[0][:3], str(groups[0].n_models), *shown))
    return _align(lines)


Numbers = dict[tuple[str, str], Row]


def _by_cell(pies: Path, learner: str) -> dict[Cell, Numbers]:
    """Cell -> (metric, group) -> row; dense first, then by pruning, sparsities ascending."""
    found: dict[Cell, Numbers] = {}
    for row in rows.read(pies):
        if row.learner == learner:
            found.setdefault(row.cell, {})[row.metric, row.group] = row
    order = [study.DENSE, *study.PRUNINGS]
    return {
        cell: found[cell]
        for cell in sorted(found, key=lambda cell: (order.index(cell.pruning_method), cell[2]))
    }


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
    """Print the tables of both learners."""
    for learner in study.LEARNERS:
        print(format_table(Path(sys.argv[1]), learner))
        print(format_groups(Path(sys.argv[1]), learner, "prediction_depth"))


if __name__ == "__main__":
    main()
