"""The claims table follows from the summary, whichever way the numbers point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common import files, paths, study
from common.report import claims, rows, stored_pies
from common.report.rows import Row
from common.study import Cell

SUPERVISED, SUPCON = Cell("supervised", "GMP", 0.9), Cell("SupCon", "GMP", 0.9)


def read(pies: Path) -> dict[str, dict[str, str]]:
    claims.run(pies)
    return {line["statistic"]: line for line in files.read_csv(paths.claims(pies))}


def row(cell: Cell, metric: str, value: float, half: float | None = 1.0, n_models: int = 10) -> Row:
    interval = None if half is None else (value - half, value + half)
    return rows.row(cell, metric, value, n_models, 100, interval=interval)


def store(pies: Path, *made: Row) -> None:
    rows.store(pies, "pie_detection", {r.cell: [x for x in made if x.cell == r.cell] for r in made})


def test_without_networks_nothing_is_tested(tmp_path: Path) -> None:
    found = read(tmp_path).values()
    assert {line["name"] for line in found} == {"K1", "K2", "K3", "K4", "K5"}
    assert {line["verdict"] for line in found} == {"not tested"}


@pytest.mark.parametrize(
    ("supcon", "half", "verdict"),
    [
        (20.0, 1.0, "supported"),
        (11.0, 1.0, "undecided"),  # the interval holds 0
        (3.0, 1.0, "contradicted"),
        (20.0, None, "not tested"),
    ],
)
def test_more_lost(tmp_path: Path, supcon: float, half: float | None, verdict: str) -> None:
    store(tmp_path, row(SUPERVISED, "n_pies", 10), row(SUPCON, "n_pies", supcon, half))
    at = "0.90" if half else "0.00"  # without an interval there is nothing to compare
    line = read(tmp_path)[f"PIEs, SupCon minus supervised, GMP at {at}"]
    assert line["verdict"] == verdict
    if half is not None:
        assert float(line["value"]) == pytest.approx(supcon - 10)
        assert float(line["ci_low"]) == pytest.approx(supcon - 10 - 2**0.5, rel=1e-4)


def test_learners_are_compared_at_their_highest_common_sparsity(tmp_path: Path) -> None:
    cells = (SUPERVISED, SUPCON, SUPCON._replace(sparsity=0.95))
    store(tmp_path, *(row(cell, "n_pies", 10) for cell in cells))
    assert "PIEs, SupCon minus supervised, GMP at 0.90" in read(tmp_path)


def test_the_sign_of_q_is_that_of_the_claim(tmp_path: Path) -> None:
    store(
        tmp_path,
        row(SUPCON, "q_score_pie_minus_rest", -0.5, 0.1),  # PIEs are lower: as claimed
        row(SUPCON, "prediction_depth_pie_minus_rest", -0.5, 0.1),  # earlier: against it
    )
    found = read(tmp_path)
    q = found["Q-Score, other images minus PIEs, SupCon GMP 0.90"]
    assert (q["verdict"], float(q["value"])) == ("supported", 0.5)
    depth = found["prediction depth, PIEs minus other images, SupCon GMP 0.90"]
    assert depth["verdict"] == "contradicted"


def test_populations_of_other_sizes_are_not_compared(tmp_path: Path) -> None:
    store(tmp_path, row(SUPERVISED, "n_pies", 10), row(SUPCON, "n_pies", 90, n_models=5))
    line = read(tmp_path)["PIEs, SupCon minus supervised, GMP at 0.90"]
    assert line["verdict"] == "not tested"


def test_a_control_without_pruning_says_nothing_about_pruning(tmp_path: Path) -> None:
    store(tmp_path, *(row(Cell(who, "global", 0.0), "n_pies", 10) for who in study.LEARNERS))
    line = read(tmp_path)["PIEs, SupCon minus supervised, global at 0.00"]
    assert line["verdict"] == "not tested"


def test_schedules_are_compared_network_by_network(tmp_path: Path) -> None:
    later = SUPCON._replace(pruning_method="later_GMP")
    store(tmp_path, row(later, "probe_accuracy_later_minus_early", 0.4, 0.1))
    line = read(tmp_path)["accuracy of the last probe, later minus early GMP, SupCon at 0.90"]
    assert (line["verdict"], float(line["value"])) == ("supported", 0.4)


def store_sets(pies: Path, sets: list[np.ndarray]) -> None:
    for cell, is_pie in zip((SUPERVISED, SUPCON), sets, strict=True):
        votes = np.zeros((len(is_pie), 2), int)
        contents = dict.fromkeys(stored_pies.KEYS, votes) | {"is_pie": is_pie}
        contents["label"] = np.zeros(len(is_pie), int)
        files.save_arrays(paths.pies_distribution(pies, cell).with_suffix(".npz"), contents)


def test_uniqueness_is_measured_against_chance(tmp_path: Path) -> None:
    """Two independent halves of 400 images: a third of their union is in both; equal sets: all."""
    halves = [np.arange(400) % 2 == 0, np.arange(400) // 2 % 2 == 0]
    store_sets(tmp_path, halves)
    found = {name: line for name, line in read(tmp_path).items() if "unique" in name}
    half, chance = found.values()
    assert float(half["value"]) == pytest.approx(2 / 3 - 1 / 2, abs=1e-5)
    assert float(chance["value"]) == pytest.approx(0, abs=1e-5)
    assert (half["verdict"], chance["verdict"]) == ("supported", "undecided")
    store_sets(tmp_path, [halves[0], halves[0]])
    found = [line["verdict"] for name, line in read(tmp_path).items() if "unique" in name]
    assert found == ["contradicted", "contradicted"]
