"""The report: one self-contained HTML page, made from the files in pies/<dataset> alone.

`python -m common.report.page pies/digits` makes it again, without a GPU and without models.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common import files, paths
from common.report import page_figures, page_gallery, page_recipes, rows, stored_pies
from common.report.by_image import GALLERY
from common.report.evidence import NO_CELLS
from common.report.rows import Row
from common.report.summary import SURE_FROM, caution_of, folder_argument
from common.study import LEARNERS, SCHEDULES, Cell

HERE = Path(__file__).parent
NOT_TESTED = "not tested"
# Which scripts would test a claim that the present networks leave untested.
TESTS = {
    "K1": "run *_pie_kmodels_detection.py for both learners",
    "K2": "run *_training.py with --pruning_method GMP and later_GMP, then PIE detection",
    "K3": "run *_pie_kmodels_detection.py for both learners",
    "K4": "run *_prediction_depth.py",
    "K5": "run *_pruning_finetune.py for both learners, then PIE detection",
}


def write(pies: Path) -> Path:
    """Write index.html into `pies` (a folder pies/<dataset>) and return its path."""
    cells = stored_pies.pies_by_cell(pies)
    shown = page_gallery.lay_out(cells)
    n_models = [int(arrays["n_models"]) for arrays in cells.values()]
    headline, groups = page_figures.grouped(pies)
    sources = [_source(pies, cell, n, cells[cell]) for cell, n in shown.n_shown.items()]
    table = files.read_csv(paths.main_table(pies))
    claims = _claims(pies)
    page = _template().render(
        dataset=pies.name,
        answers=_answers(rows.read(pies)),
        headline=headline,
        claims=[claim for claim in claims if claim["verdict"] != NOT_TESTED],
        untested=_reasons(claim for claim in claims if claim["verdict"] == NOT_TESTED),
        table=table,
        has_other_size=any(" = " in value for line in table for value in line.values()),
        few_networks=caution_of(min(n_models, default=SURE_FROM)),
        groups=groups,
        kinds={figure.kind: figure.title for group in groups for figure in group.figures},
        n_pies={source["key"]: source["n_pies"] for source in sources},
        folders=[learner for learner in LEARNERS if (pies / learner).is_dir()],
        gallery=shown.data,
        sprite=shown.sprite,
        sources=sources,
        columns=GALLERY,
        has_probability="pie_probability" in GALLERY
        and any("pie_probability" in a for a in cells.values()),
        filters=_choices(source["key"] for source in sources),
        figure_filters=_choices(group[:3] for group in groups),
        run=page_recipes.of_cells(pies),
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
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}  # in the given order
    return environment.get_template("page.html.j2")


def _answers(found: Iterable[Row]) -> list[dict[str, Any]]:
    """The number of images that each learner loses at its highest sparsity: the smallest and the
    largest count over its prunings by magnitude, as counted and, if all cells have corrected
    counts, corrected."""
    metrics, answers = ("n_pies", "n_pies_corrected"), []
    counts = [row for row in found if row.metric in metrics and row.group == "all"]
    for learner in LEARNERS:
        of_learner = [
            row
            for row in counts
            if row.learner == learner and row.pruning_method in SCHEDULES and row.cell.sparsity > 0
        ]
        highest = max((row.cell.sparsity for row in of_learner), default=None)
        pies, corrected = (
            [row for row in of_learner if row.metric == metric and row.cell.sparsity == highest]
            for metric in metrics
        )
        if pies:
            is_complete = len(corrected) == len(pies)
            answers.append({
                "learner": learner,
                "sparsity": pies[0].sparsity,
                "pies": _range(row.value for row in pies),
                "corrected": _range(row.value for row in corrected) if is_complete else "",
                "n_models": _range(row.n_models for row in pies),
                "n_examples": _range(row.n_examples for row in pies),
            })  # fmt: skip
    return answers


def _range(counts: Iterable[float]) -> str:
    """`11 to 15`, or one number."""
    values = sorted({round(count) for count in counts})
    return " to ".join(f"{value:,}" for value in dict.fromkeys((values[0], values[-1])))


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


def _reasons(untested: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """The names of the untested claims, by the reason or by the command that would test them."""
    reasons: dict[str, list[str]] = {}
    for claim in untested:
        notes = [line.get("note") for line in claim["lines"]]
        told = next((note for note in notes if note and note != NO_CELLS), TESTS[claim["name"]])
        reasons.setdefault(told, []).append(claim["name"])
    return reasons


def _estimate(line: dict[str, str]) -> str:
    if not line["value"]:
        return line.get("note") or "-"
    value, low, high = (f"{float(line[name]):.3g}" for name in ("value", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"


def _source(pies: Path, cell: Cell, n_shown: int, found: files.Arrays) -> dict[str, Any]:
    table = paths.pie_table(pies, cell)
    return {
        "key": cell.words,
        "cell": ", ".join(cell.words).replace("_", " "),
        "n_shown": n_shown,
        "n_pies": int(found["is_pie"].sum()),
        "csv": table.relative_to(pies).as_posix() if table.exists() else "",
    }


def _choices(cells: Iterable[tuple[str, ...]]) -> dict[str, list[str]]:
    """The learners, prunings and sparsities among the cells."""
    columns = list(zip(*cells, strict=True)) or [()] * 3
    names = ("learner", "pruning", "sparsity")
    return {name: sorted(set(c) - {""}) for name, c in zip(names, columns, strict=True)}


def main() -> None:
    """Write the page of the folder given on the command line."""
    print(write(folder_argument(sys.argv)))


if __name__ == "__main__":
    main()
