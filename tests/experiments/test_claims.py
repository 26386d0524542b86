"""The claims table follows from the summary, whichever way the numbers point."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from common import paths
from common.analysis import summary
from common.experiments import claims
from common.paths import Cell

SUPERVISED, SUPCON = Cell("supervised", "GMP", 0.9), Cell("SupCon", "GMP", 0.9)


def read(pies: Path) -> dict[str, dict[str, str]]:
    claims.run(pies)
    with paths.claims(pies).open(newline="") as file:
        return {line["statistic"]: line for line in csv.DictReader(file)}


def store(pies: Path, cell: Cell, metric: str, value: float, half: float | None = 1.0) -> None:
    interval = None if half is None else (value - half, value + half)
    summary.replace(pies, [summary.row(cell, metric, value, 10, 100, interval=interval)])


def test_without_networks_nothing_is_tested(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert {line["name"] for line in csv.DictReader(paths.claims(tmp_path).open())} == {
        *("K1", "K2", "K3", "K4", "K5")
    }
    assert {line["verdict"] for line in found.values()} == {"not tested"}


@pytest.mark.parametrize(
    ("supcon", "half", "verdict"),
    [
        (20.0, 1.0, "supported"),
        (11.0, 1.0, "not supported"),  # the interval holds 0
        (3.0, 1.0, "not supported"),
        (20.0, None, "not tested"),
    ],
)
def test_more_lost(tmp_path: Path, supcon: float, half: float | None, verdict: str) -> None:
    store(tmp_path, SUPERVISED, "n_pies", 10.0)
    store(tmp_path, SUPCON, "n_pies", supcon, half)
    line = read(tmp_path)["PIEs, SupCon minus supervised, GMP at 0.90"]
    assert line["verdict"] == verdict
    if half is not None:
        assert float(line["value"]) == pytest.approx(supcon - 10)
        assert float(line["ci_low"]) == pytest.approx(supcon - 10 - 2**0.5, rel=1e-4)


def test_learners_are_compared_at_their_highest_common_sparsity(tmp_path: Path) -> None:
    for cell in (SUPERVISED, SUPCON, SUPCON._replace(sparsity=0.95)):
        store(tmp_path, cell, "n_pies", 10.0)
    assert "PIEs, SupCon minus supervised, GMP at 0.90" in read(tmp_path)


def test_the_sign_of_q_is_that_of_the_claim(tmp_path: Path) -> None:
    store(tmp_path, SUPCON, "n_pies", 10.0)
    store(tmp_path, SUPCON, "q_score_pie_minus_rest", -0.5, 0.1)  # PIEs are lower: as claimed
    store(tmp_path, SUPCON, "prediction_depth_pie_minus_rest", -0.5, 0.1)  # earlier: against it
    found = read(tmp_path)
    q = found["Q-Score, other images minus PIEs, SupCon GMP 0.90"]
    assert (q["verdict"], float(q["value"])) == ("supported", 0.5)
    depth = found["prediction depth, PIEs minus other images, SupCon GMP 0.90"]
    assert depth["verdict"] == "not supported"


def test_the_last_probe_is_the_deepest(tmp_path: Path) -> None:
    later = SUPCON._replace(pruning_method="later_GMP")
    for cell, accuracy in ((SUPCON, 0.5), (later, 0.9)):
        store(tmp_path, cell, "n_pies", 10.0)
        for layer in (1, 9, 10):
            store(tmp_path, cell, f"probe_accuracy_layer_{layer}", accuracy * (layer == 10), 0.1)
    line = read(tmp_path)["accuracy of the last probe, later minus early GMP, SupCon at 0.90"]
    assert (line["verdict"], float(line["value"])) == ("supported", pytest.approx(0.4))
