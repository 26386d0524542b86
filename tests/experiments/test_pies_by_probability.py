"""The probability of being a PIE: in a cell's arrays, in the csv by image and in the counts."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from common.analysis.predictions import Population
from common.data.datasets import Dataset, Split
from common.experiments import pie_detection
from common.files import Arrays
from common.report import by_image, pie_rows
from common.report.by_image import GALLERY, SCORES
from common.report.pie_rows import NUMBERS
from common.report.rows import Row
from common.study import Cell

N, C = 60, 3
LABEL = np.arange(N) % C
CELL = Cell("SupCon", "global", 0.9)
CLASSES = ("cat", "dog", "ship")


def populations(k: int) -> tuple[Population, Population]:
    """Dense networks are right; pruned ones all take the first 12 images for another class, and
    every third network the next 12."""
    rng = np.random.default_rng(0)
    dense = np.tile(LABEL, (k, 1))
    pruned = dense.copy()
    pruned[:, :12] += 1
    pruned[::3, 12:24] += 1
    scores = {score.field: rng.random((k, N)) for score in SCORES}
    numbers = {name: rng.random(k) for name in NUMBERS}
    of_dense, of_pruned = (
        Population(CELL, list(range(k)), labels % C, scores, numbers) for labels in (dense, pruned)
    )
    return of_dense, of_pruned


def compared(k: int, tmp_path: Path) -> tuple[Arrays, dict[str, list[str]], dict[str, Row]]:
    """The arrays of a cell, its csv by column, and its rows by metric."""
    split = Split(torch.zeros(N, 3, 8, 8, dtype=torch.uint8), torch.from_numpy(LABEL), "")
    zero = torch.zeros(3)
    data = Dataset("made up", CLASSES, split, split, zero, zero)
    dense, pruned = populations(k)
    found = pie_detection.find_pies(CELL, dense, pruned, data, seed=0)
    by_image.write_csv(tmp_path / "pies.csv", by_image.columns(found, dense, pruned))
    with (tmp_path / "pies.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = pie_rows.of_pies(CELL, found, dense, pruned, CLASSES)
    columns = {name: [line[name] for line in lines] for name in lines[0]}
    return found, columns, {row.metric: row for row in rows if row.group == "all"}


def test_every_image_has_its_probability(tmp_path: Path) -> None:
    found, columns, rows = compared(10, tmp_path)
    chance = found["pie_probability"]
    assert chance[:12].min() > 0.95 > 0.8 > chance[12:24].max() > chance[24:].max()
    assert list(map(float, columns["pie_probability"])) == pytest.approx(chance, rel=1e-5)
    assert rows["n_pies_expected"].value == pytest.approx(chance.sum())
    assert rows["n_pies_certain"][5:] == (12, None, None, 10, N)
    assert "pie_probability" in GALLERY
    again, *_ = compared(10, tmp_path)
    assert again["pie_probability"].tolist() == chance.tolist()


def test_three_networks_say_nothing_of_it(tmp_path: Path) -> None:
    for names in compared(3, tmp_path):
        assert not names.keys() & {"pie_probability", "n_pies_expected", "n_pies_certain"}
