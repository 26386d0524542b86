"""The report: one self-contained HTML page, made from the files in pies/<dataset> alone.

`python -m common.report.page pies/digits` makes it again, without a GPU and without models.
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

from common import files, paths
from common.files import Arrays
from common.report import stored_pies
from common.report.by_image import GALLERY
from common.report.summary import folder_argument
from common.study import LEARNERS, Cell, format_sparsity

# The page stays small enough to be sent by mail: figures beyond this are left to the folder.
FIGURE_BYTES = 2_000_000
FIGURE_WIDTH = 760  # pixels


def write(pies: Path) -> Path:
    """Write index.html into `pies` (a folder pies/<dataset>) and return its path."""
    cells = stored_pies.pies_by_cell(pies)
    gallery, sprite = lay_out_images(cells)
    page = _template().render(
        dataset=pies.name,
        n_examples=max((int(a["n_examples"]) for a in cells.values()), default=0),
        claims=[_show_claim(line) for line in files.read_csv(paths.claims(pies))],
        table=_read_lines(paths.main_table(pies)) or [[]],
        figures=_inline_figures(pies),
        gallery=gallery,
        sprite=sprite,
        columns=GALLERY,
        filters={
            "learner": sorted({cell.learner for cell in cells}),
            "pruning": sorted({cell.pruning_method for cell in cells}),
            "sparsity": sorted({format_sparsity(cell.sparsity) for cell in cells}),
            "true class": gallery["classes"],
        },
        run=_what_was_run(pies),
    )
    target = paths.report(pies)
    files.write_text(target, page)
    return target


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # class names come from folder names
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html.j2")


def lay_out_images(cells: dict[Cell, Arrays]) -> tuple[dict[str, Any], str]:
    """The data of the gallery's script, and one picture with all images that are PIEs somewhere.

    images: [index, label] of each tile; pies: of each PIE of each cell the number of the cell and
    the tile, the modal labels and their votes, and the columns of by_image.GALLERY (null where an
    earlier version did not store one).
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
            [c.learner, c.pruning_method, format_sparsity(c.sparsity), int(a["n_models"])]
            for c, a in cells.items()
        ],
        "pies": [],
    }
    for number, found in enumerate(cells.values()):
        for i in np.flatnonzero(found["is_pie"]).tolist():
            pie = {"cell": number, "tile": tile_of[i]}
            for which in ("dense", "pruned"):
                pie[which] = int(found[f"modal_{which}"][i])
                pie[f"{which}_votes"] = int(found[f"votes_{which}"][i].max())
            for name in GALLERY:
                pie[name] = round(float(found[name][i]), 3) if name in found else None
            gallery["pies"].append(pie)
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
    for path in paths.report_figures(pies):
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
    for learner in LEARNERS:
        path = paths.recipes(pies, learner)
        for cell, recipe in json.loads(path.read_text()).items() if path.exists() else ():
            text = ", ".join(f"{key} {value}" for key, value in recipe.items())
            lines.append((cell, text))
    return lines


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
