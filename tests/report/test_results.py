"""The results file is JSON with one number on each line, and holds every number of summary.csv."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from common import files, paths
from common.report import results, rows
from common.report.rows import Row, row
from common.runtime import EXIT_ARGUMENTS
from common.study import Cell

GMP = Cell("SupCon", "GMP", 0.95)
FOUND = [
    row(GMP, "n_pies", 17, 10, 500, interval=(11.5, 22.25)),
    row(GMP, "top1", 0.875, 10, 50, group="7"),  # a class, not the number 7
]


def test_every_number_with_its_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.store(tmp_path, "pie_detection", {GMP: FOUND})
    files.write_text(paths.recipes(tmp_path, "SupCon"), json.dumps({str(GMP): {"epochs": 60}}))
    files.write_csv(paths.claims(tmp_path), [["name", "verdict"], ["K1", "marginal"]])
    target = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["results", str(tmp_path), str(target)])
    results.main()
    written = json.loads(target.read_text())
    assert [Row(*line) for line in written["numbers"]] == rows.read(tmp_path)
    assert written["columns"] == list(Row._fields)
    assert written["recipes"] == {str(GMP): {"epochs": 60}}
    assert written["analysed_with"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert written["claims"] == [{"name": "K1", "verdict": "marginal"}]
    assert sum('"n_pies"' in line for line in target.read_text().splitlines()) == 1


def test_a_folder_without_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["results", str(tmp_path), str(tmp_path / "results.json")])
    with pytest.raises(SystemExit) as stop:
        results.main()
    assert stop.value.code == EXIT_ARGUMENTS
    assert not (tmp_path / "results.json").exists()
