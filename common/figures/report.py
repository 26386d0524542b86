"""The report: one self-contained HTML page, made from the files in pies/<dataset> alone.

`python -m common.figures.report pies/digits` makes it again, without a GPU and without models.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from common import paths
from common.data import stored
from common.data.arrays import Arrays
from common.runtime import write_text

# The page stays small enough to be sent by mail: figures beyond this are left to the folder.
FIGURE_BYTES = 2_000_000
FIGURE_WIDTH = 760  # pixels
FIGURES = (
    "comparison/overlap.png",
    "*/umap/UMAP_*.png",
    "comparison/common_PIEs_*.png",
    "*/pies_distribution/PIEs_by_population_size_*.png",
    "*/pies_distribution/class_impact_*.png",
    "*/prediction_depth/*_PIEs_*.png",
    "*/prediction_depth/*_probe_accuracy_*.png",
    "*/q_score/Q-SCORE_*.png",
    "*/pies_distribution/vote_distance_*.png",
    "comparison/disagreement_*.png",
)


def write(pies: Path) -> Path:
    """Write index.html into `pies` (a folder pies/<dataset>) and return its path."""
    cells = stored.pies_by_cell(pies)
    gallery, sprite = lay_out_images(cells)
    page = _template().render(
        dataset=pies.name,
        n_examples=max((int(a["n_examples"]) for a in cells.values()), default=0),
        claims=[_show_claim(line) for line in _read_csv(paths.claims(pies))],
        table=_read_lines(paths.main_table(pies)) or [[]],
        figures=_inline_figures(pies),
        gallery=gallery,
        sprite=sprite,
        filters={
            "learner": sorted({cell.learner for cell in cells}),
            "pruning": sorted({cell.pruning_method for cell in cells}),
            "sparsity": sorted({paths.format_sparsity(cell.sparsity) for cell in cells}),
            "true class": gallery["classes"],
        },
        run=_what_was_run(pies),
    )
    target = paths.report(pies)
    write_text(target, page)
    return target


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # class names come from folder names
        undefined=StrictUndefined,
    )
    return environment.get_template("report.html.j2")


def lay_out_images(cells: dict[paths.Cell, Arrays]) -> tuple[dict[str, Any], str]:
    """What the gallery's script reads, and one picture with every image that is a PIE anywhere.

    images: [index, label] of each tile; pies: [cell, tile, modal dense, its votes, modal pruned,
    its votes, margin of the pruned votes, distance between the votes] of each PIE of each cell.
    """
    tiles: dict[int, np.ndarray] = {}
    for found in cells.values():
        tiles |= zip(np.flatnonzero(found["is_pie"]).tolist(), found["pie_images"], strict=True)
    order = sorted(tiles)
    tile_of = {index: tile for tile, index in enumerate(order)}
    columns = max(1, int(np.ceil(len(order) ** 0.5)))
    some = next(iter(cells.values()), None)
    gallery: dict[str, Any] = {
        "columns": columns,
        "classes": [] if some is None else some["classes"].tolist(),
        "images": [[index, int(some["label"][index])] for index in order],
        "cells": [
            [c.learner, c.pruning_method, paths.format_sparsity(c.sparsity), int(a["n_models"])]
            for c, a in cells.items()
        ],
        "pies": [],
    }
    for number, found in enumerate(cells.values()):
        for i in np.flatnonzero(found["is_pie"]).tolist():
            dense, pruned = found["votes_dense"][i], found["votes_pruned"][i]
            second, first = np.sort(pruned)[-2:]
            gallery["pies"].append(
                [
                    *(number, tile_of[i]),
                    *(int(found["modal_dense"][i]), int(dense.max())),
                    *(int(found["modal_pruned"][i]), int(pruned.max())),
                    round(float(first - second) / int(pruned.sum()), 3),
                    round(float(found["vote_distance"][i]), 3),
                ]
            )
    return gallery, _sprite([tiles[index] for index in order], columns)


def _sprite(images: list[np.ndarray], columns: int) -> str:
    if not images:
        return ""
    size = images[0].shape[-1]
    sheet = Image.new("RGB", (columns * size, -(-len(images) // columns) * size))
    for tile, image in enumerate(images):
        position = (tile % columns * size, tile // columns * size)
        sheet.paste(Image.fromarray(image.transpose(1, 2, 0)), position)
    # Small images (digits) stay exact; photographs are smaller as JPEG.
    return _data_uri(sheet, "png" if size < 32 else "jpeg", quality=85)


def _inline_figures(pies: Path) -> list[dict[str, Any]]:
    figures, n_bytes = [], 0
    for pattern in FIGURES:
        for path in sorted(pies.glob(pattern)):
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
            height = round(picture.height * FIGURE_WIDTH / picture.width)
            picture = picture.resize((FIGURE_WIDTH, height), Image.Resampling.LANCZOS)
            source = _data_uri(picture.quantize(48), "png", optimize=True)
            n_bytes += len(source)
            if n_bytes > FIGURE_BYTES:
                return figures
            size = {"width": FIGURE_WIDTH, "height": height}
            figures.append({"name": path.stem.replace("_", " "), "source": source} | size)
    return figures


def _data_uri(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _show_claim(line: dict[str, str]) -> dict[str, str]:
    shown = "-"
    if line["value"]:
        value, low, high = (float(line[name]) for name in ("value", "ci_low", "ci_high"))
        shown = f"{value:.3g} [{low:.3g}, {high:.3g}]"
    return line | {"shown": shown}


def _what_was_run(pies: Path) -> list[tuple[str, str]]:
    """Configuration, ids, versions and hardware of every cell."""
    lines = []
    for learner in paths.LEARNERS:
        path = paths.recipes(pies, learner)
        for cell, recipe in json.loads(path.read_text()).items() if path.exists() else ():
            text = ", ".join(f"{key} {value}" for key, value in recipe.items())
            lines.append((cell, text))
    return lines


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _read_lines(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.reader(file))


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
