"""The gallery of the page: every image that is a PIE in some cell, in one picture, with votes and
scores. If there are too many for a page, each cell shows its most probable PIEs."""

from __future__ import annotations

import base64
import io
import json
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from common.files import Arrays
from common.report.by_image import GALLERY
from common.study import Cell

# How many PIEs a cell may show: the largest of these numbers with which picture and data fit.
LIMITS = (2000, 1000, 500, 200, 100, 50, 20, 10, 5, 2, 1)
SPRITE_BYTES, DATA_BYTES = 900_000, 300_000
TILE = 64  # pixels, at most
# The fields of each PIE: numbers of its cell and tile, modal labels with their votes, and scores.
FIELDS = ("cell", "tile", "dense", "dense_votes", "pruned", "pruned_votes", *GALLERY)


class Gallery(NamedTuple):
    """Data for the page's script, the picture with all tiles, and how many PIEs each cell shows.

    data: `images` holds [index, label] of each tile, `cells` [learner, pruning, sparsity, K], and
    `pies` a list of FIELDS for each PIE of each cell (null where an earlier version stored none).
    """

    data: dict[str, Any]
    sprite: str
    n_shown: dict[Cell, int]


def lay_out(cells: dict[Cell, Arrays]) -> Gallery:
    """The largest gallery of all cells that fits into SPRITE_BYTES and DATA_BYTES."""
    for limit in LIMITS:
        gallery = _lay_out(cells, limit)
        n_bytes = len(json.dumps(gallery.data, separators=(",", ":")))
        if len(gallery.sprite) <= SPRITE_BYTES and n_bytes <= DATA_BYTES:
            break
    return gallery


def _lay_out(cells: dict[Cell, Arrays], limit: int) -> Gallery:
    chosen = {cell: _most_probable(found, limit) for cell, found in cells.items()}
    tiles: dict[int, np.ndarray] = {}
    for cell, found in cells.items():
        place = np.cumsum(found["is_pie"]) - 1  # of an image, in pie_images
        tiles |= {i: found["pie_images"][place[i]] for i in chosen[cell]}
    tile_of = {index: tile for tile, index in enumerate(sorted(tiles))}
    columns = max(1, int(np.ceil(len(tiles) ** 0.5)))
    some = next(iter(cells.values()), None)
    data = {
        "columns": columns,
        "classes": [] if some is None else some["classes"].tolist(),
        "images": [[index, int(some["label"][index])] for index in tile_of],
        "cells": [[*cell.words, int(found["n_models"])] for cell, found in cells.items()],
        "fields": FIELDS,
        "pies": [
            [number, tile_of[i], *_votes(cells[cell], i), *_scores(cells[cell], i)]
            for number, cell in enumerate(cells)
            for i in chosen[cell]
        ],
    }
    sprite = _sprite([tiles[index] for index in tile_of], columns)
    return Gallery(data, sprite, {cell: len(shown) for cell, shown in chosen.items()})


def _most_probable(found: Arrays, limit: int) -> list[int]:
    """The indices of the `limit` PIEs with the highest probability, or, without probabilities, with
    the largest distance between votes."""
    pies = np.flatnonzero(found["is_pie"])
    by = found.get("pie_probability", found["vote_distance"])[pies]
    return sorted(pies[np.argsort(-by, kind="stable")[:limit]].tolist())


def _votes(found: Arrays, i: int) -> list[int]:
    """Modal label and the number of its votes, dense and pruned."""
    return [
        int(number)
        for which in ("dense", "pruned")
        for number in (found[f"modal_{which}"][i], found[f"votes_{which}"][i].max())
    ]


def _scores(found: Arrays, i: int) -> list[float | None]:
    scores = (float(found[name][i]) if name in found else np.nan for name in GALLERY)
    return [round(score, 3) if np.isfinite(score) else None for score in scores]


def _sprite(images: list[np.ndarray], columns: int) -> str:
    if not images:
        return ""
    size = min(images[0].shape[-1], TILE)
    sheet = Image.new("RGB", (columns * size, -(-len(images) // columns) * size))
    for tile, image in enumerate(images):
        position = (tile % columns * size, tile // columns * size)
        picture = Image.fromarray(image.transpose(1, 2, 0))
        sheet.paste(picture if picture.width == size else picture.resize((size, size)), position)
    # Small images (digits) stay exact; photographs are smaller as JPEG.
    return data_uri(sheet, "png" if size < 32 else "jpeg", quality=80)


def data_uri(picture: Image.Image, kind: str, **options: Any) -> str:
    """A picture as a data URI, which an <img> accepts in place of an address."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
