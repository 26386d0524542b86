"""The recipes of all cells, for the last section of the page."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from common import paths
from common.study import LEARNERS, format_sparsity

CELL_KEYS = ("learner", "pruning_method", "sparsity")  # shown in the heads of the columns
VARYING_KEYS = ("median_seconds",)  # may differ where the recipe does not
Recipe = dict[str, Any]


def stored(pies: Path) -> dict[str, Recipe]:
    """The recipe of every analysed cell, by the name of the cell, as the analyses stored them."""
    files = [paths.recipes(pies, learner) for learner in LEARNERS]
    stored = [json.loads(file.read_text()) for file in files if file.exists()]
    return {cell: recipe for of_learner in stored for cell, recipe in of_learner.items()}


class Settings(NamedTuple):
    """`common`: name and value of each setting that all cells share. `lines`: the other settings,
    each with a value for every column. `heads`: learner and prunings of each column; a column
    stands for the cells that were made alike except for their pruning."""

    common: list[tuple[str, str]]
    heads: list[tuple[str, str]]
    lines: list[tuple[str, list[str]]]


def of_cells(pies: Path) -> Settings:
    """The settings of every analysed cell, from the recipes that the analyses stored, without
    settings that no cell uses."""
    recipes = list(stored(pies).values())
    keys = [key for key in dict.fromkeys(key for r in recipes for key in r) if key not in CELL_KEYS]
    alike: dict[tuple[str, ...], list[Recipe]] = {}
    for recipe in recipes:
        fixed = (_shown(recipe.get(key)) for key in keys if key not in VARYING_KEYS)
        alike.setdefault((recipe.get("learner", ""), *fixed), []).append(recipe)
    columns = list(alike.values())
    lines = [(key.replace("_", " "), [_values(column, key) for column in columns]) for key in keys]
    used = [(name, values) for name, values in lines if set(values) - {"-", "no"}]
    return Settings(
        common=[(name, values[0]) for name, values in used if len(set(values)) == 1],
        heads=[_head(column) for column in columns],
        lines=[(name, values) for name, values in used if len(set(values)) > 1],
    )


def _head(column: list[Recipe]) -> tuple[str, str]:
    """`SupCon` and `global 0.50, 0.90`."""
    prunings: dict[str, list[str]] = {}
    for recipe in column:
        sparsity = format_sparsity(recipe.get("sparsity", 0.0))
        prunings.setdefault(recipe.get("pruning_method", ""), []).append(sparsity)
    shown = (f"{p.replace('_', ' ')} {', '.join(s)}" for p, s in prunings.items())
    return column[0].get("learner", ""), "; ".join(shown).replace("dense 0.00", "dense")


def _values(column: list[Recipe], key: str) -> str:
    return ", ".join(dict.fromkeys(_shown(recipe.get(key)) for recipe in column))


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ranges(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    is_digest = isinstance(value, str) and len(value) == 32
    return f"{value[:8]}…" if is_digest else str(value)


def ranges(ids: list[int]) -> str:
    """[0, …, 9, 12] as `0-9, 12`."""
    pairs = list(pairwise([None, *ids, None]))
    starts = [b for a, b in pairs if b is not None and (a is None or b != a + 1)]
    ends = [a for a, b in pairs if a is not None and (b is None or b != a + 1)]
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in zip(starts, ends, strict=True))
