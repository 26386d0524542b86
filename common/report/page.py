"""The report: one self-contained HTML page, made from the files in pies/<dataset> alone.

`python -m common.report.page pies/digits` makes it again, without a GPU and without models.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common import files, paths
from common.report import captions, gallery, rows, settings, stored_pies
from common.report.by_image import GALLERY
from common.report.rows import Row
from common.report.summary import folder_argument
from common.study import LEARNERS, PRUNINGS, Cell, format_sparsity

HERE = Path(__file__).parent
NOT_TESTED = "not tested"
# What would test a claim that these networks do not.
TESTS = {
    "K1": "both learners pruned alike, {sup,clr}_pie_kmodels_detection.py",
    "K2": "{sup,clr}_training.py with --pruning_method GMP and later_GMP, then the analyses",
    "K3": "two or more pruned cells, {sup,clr}_pie_kmodels_detection.py",
    "K4": "{sup,clr}_prediction_depth.py after {sup,clr}_pie_kmodels_detection.py",
    "K5": "{sup,clr}_pruning_finetune.py, then {sup,clr}_pie_kmodels_detection.py",
}
SURE_FROM = 10  # networks, from which on the interval of a count covers 93 to 96 %


def write(pies: Path) -> Path:
    """Write index.html into `pies` (a folder pies/<dataset>) and return its path."""
    cells = stored_pies.pies_by_cell(pies)
    shown = gallery.lay_out(cells)
    groups = captions.grouped(pies)
    figures = [figure for group in groups for figure in group.figures]
    table = _read_lines(paths.main_table(pies)) or [[]]
    claims = _claims(pies)
    page = _template().render(
        dataset=pies.name,
        n_examples=max((int(a["n_examples"]) for a in cells.values()), default=0),
        answers=_answers(rows.read(pies)),
        headline=next((figure for figure in figures if figure.kind == "by_sparsity"), None),
        claims=[claim for claim in claims if claim["verdict"] != NOT_TESTED],
        untested=[claim["name"] for claim in claims if claim["verdict"] == NOT_TESTED],
        tests=TESTS,
        table=table,
        has_other_k=any("(K = " in value for line in table for value in line),
        is_small_k=any(int(a["n_models"]) < SURE_FROM for a in cells.values()),
        groups=groups,
        kinds={figure.kind: figure.title for figure in figures if figure.kind != "by_sparsity"},
        gallery=shown.data,
        sprite=shown.sprite,
        sources=[_source(pies, cell, n, cells[cell]) for cell, n in shown.n_shown.items()],
        columns=GALLERY,
        has_probability="pie_probability" in GALLERY
        and any("pie_probability" in a for a in cells.values()),
        filters=_filters((c.learner, c.pruning_method, c.sparsity) for c in cells)
        | {"true class": shown.data["classes"]},
        figure_filters=_filters((g.learner, g.pruning, g.sparsity) for g in groups),
        run=settings.of_cells(pies),
        style=Markup((HERE / "page.css").read_text()),
        script=Markup((HERE / "page.js").read_text()),
    )
    target = paths.report(pies)
    files.write_text(target, page)
    return target


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,  # class names come from folder names
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _answers(found: Iterable[Row]) -> list[dict[str, Any]]:
    """How many images each learner loses at its highest sparsity, the least and the most over its
    prunings by magnitude: as counted, and corrected where all of them are."""
    counts: dict[tuple[str, float], dict[str, list[Row]]] = {}
    for row in found:
        is_wanted = row.metric in ("n_pies", "n_pies_corrected") and row.group == "all"
        if is_wanted and row.sparsity != "0.00" and row.pruning_method in PRUNINGS:
            counts.setdefault((row.learner, row.cell.sparsity), {}).setdefault(
                row.metric, []
            ).append(row)
    answers = []
    for learner in LEARNERS:
        highest = max((key for key in counts if key[0] == learner), default=None)
        if highest and (pies := counts[highest].get("n_pies")):
            corrected = counts[highest].get("n_pies_corrected", [])
            answers.append({
                "learner": learner,
                "sparsity": format_sparsity(highest[1]),
                "pies": _range(pies),
                "corrected": _range(corrected) if len(corrected) == len(pies) else "",
                "n_examples": pies[0].n_examples,
            })  # fmt: skip
    return answers


def _range(counts: list[Row]) -> str:
    """`11 to 15`, or one number."""
    values = sorted({round(row.value) for row in counts})
    return " to ".join(map(str, dict.fromkeys((values[0], values[-1]))))


def _claims(pies: Path) -> list[dict[str, Any]]:
    """The claims of claims.csv, each with its verdict and the lines behind it."""
    claims = []
    for name, of_name in groupby(files.read_csv(paths.claims(pies)), key=lambda line: line["name"]):
        lines = list(of_name)
        tested = [line for line in lines if line["verdict"] != NOT_TESTED] or lines
        verdicts = dict.fromkeys(line["verdict"] for line in tested)
        claims.append({
            "name": name,
            "text": lines[0]["text"],
            # Earlier versions gave a verdict to each line.
            "verdict": verdicts.popitem()[0] if len(verdicts) == 1 else "mixed",
            "p_holm": lines[0].get("p_holm", ""),
            "has_k": "n_models" in lines[0],
            "lines": [
                line | {"shown": _estimate(line), "is_beside": line.get("decides") == ""}
                for line in tested
            ],
        })  # fmt: skip
    return claims


def _estimate(line: dict[str, str]) -> str:
    if not line["value"]:
        return line.get("note") or "-"
    value, low, high = (f"{float(line[name]):.3g}" for name in ("value", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"


def _source(pies: Path, cell: Cell, n_shown: int, found: files.Arrays) -> dict[str, Any]:
    table = paths.pie_table(pies, cell)
    return {
        "cell": f"{cell.learner}, {cell.pruning_method.replace('_', ' ')}, "
        f"{format_sparsity(cell.sparsity)}",
        "n_shown": n_shown,
        "n_pies": int(found["is_pie"].sum()),
        "csv": table.relative_to(pies).as_posix() if table.exists() else "",
    }


def _filters(cells: Iterable[tuple[str, str, float | str]]) -> dict[str, list[str]]:
    """The choices of learner, pruning and sparsity that there are."""
    columns = list(zip(*cells, strict=True)) or [()] * 3
    shown = [[format_sparsity(s) if isinstance(s, float) else s for s in c] for c in columns]
    names = ("learner", "pruning", "sparsity")
    return {name: sorted(set(c) - {""}) for name, c in zip(names, shown, strict=True)}


def _read_lines(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.reader(file))


def main() -> None:
    """Write the page of the folder that is named."""
    print(write(folder_argument(sys.argv)))


if __name__ == "__main__":
    main()
