"""summary.csv and the files of rows behind it: nothing lost, nothing twice, nothing outdated."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import ROOT, contents

from common.report import rows
from common.report.rows import ANALYSES, Row, row
from common.runtime import Failure
from common.study import Cell

DENSE = Cell("supervised", "dense", 0.0)
GMP = Cell("supervised", "GMP", 0.9)
GLOBAL = Cell("supervised", "global", 0.5)
CONTRASTIVE = Cell("SupCon", "GMP", 0.975)
CELLS = (DENSE, GMP, GLOBAL, CONTRASTIVE)
HEADER = "learner,pruning_method,sparsity,metric,group,value,ci_low,ci_high,n_models,n_examples"


def table(*lines: str) -> str:
    return "\r\n".join([HEADER, *lines, ""])


def store(pies: Path, analysis: str, *made: Row) -> None:
    """Store these rows of an analysis, cell by cell."""
    rows.store(pies, analysis, {r.cell: [x for x in made if x.cell == r.cell] for r in made})


def test_the_rows_of_a_cell_lie_in_a_file_of_their_analysis(tmp_path: Path) -> None:
    store(
        tmp_path,
        "pie_detection",
        row(GMP, "top1", 0.9125, 10, 500, interval=(0.9, 0.925)),
        row(GMP, "n_pies", 17, 10, 500, group="pie"),
        row(DENSE, "top1", 1 / 3, 10, 500, group='a "b", c'),
    )
    store(tmp_path, "umap", row(GMP, "embedding_knn_accuracy", 0.5, 1, 500))
    of_gmp = (
        "supervised,GMP,0.90,n_pies,pie,17,,,10,500",
        "supervised,GMP,0.90,top1,all,0.9125,0.9,0.925,10,500",
    )
    of_dense = 'supervised,dense,0.00,top1,"a ""b"", c",0.3333333333,,,10,500'
    knn = "supervised,GMP,0.90,embedding_knn_accuracy,all,0.5,,,1,500"
    files = {
        "rows/pie_detection.supervised_GMP_s0.90.csv": table(*reversed(of_gmp)),
        "rows/pie_detection.supervised_dense_s0.00.csv": table(of_dense),
        "rows/umap.supervised_GMP_s0.90.csv": table(knn),
        "summary.csv": table(knn, *of_gmp, of_dense),  # sorted
    }
    assert contents(tmp_path) == {"rows", ".summary.csv.lock", *files}
    for name, text in files.items():
        assert (tmp_path / name).read_bytes().decode() == text


def test_a_mean_over_networks_has_its_spread_beside_it() -> None:
    mean, sd = rows.mean_rows(GMP, "top1", [1.0, 2.0, 3.0], 500, "pie")
    assert mean[3:6] == ("top1", "pie", 2.0)
    assert mean[6:] == (pytest.approx(2 - 2.484138), pytest.approx(2 + 2.484138), 3, 500)
    assert sd == row(GMP, "top1_sd", 1.0, 3, 500, "pie")
    assert rows.mean_rows(GMP, "top1", np.array([0.5]), 9) == [row(GMP, "top1", 0.5, 1, 9)]
    assert rows.mean_rows(GMP, "top1", [1, np.nan, 2, 3], 500, "pie") == [mean, sd]
    assert rows.mean_rows(GMP, "top1", [np.nan], 9) == []


numbers = st.floats(-1e6, 1e6).map(lambda x: float(f"{x:.10g}"))
made_rows = st.lists(
    st.builds(
        row,
        st.sampled_from(CELLS),
        st.sampled_from(["top1", "n_pies"]),
        numbers,
        st.integers(1, 30),
        st.integers(1, 10**4),
        st.sampled_from(["all", "pie", "truck, red", "Vögel", " "]),
        st.none() | st.tuples(numbers, numbers),
    ),
    max_size=6,
    unique_by=lambda made: made[:5],
)
steps = st.lists(
    st.tuples(st.sampled_from(ANALYSES), made_rows) | st.sampled_from(CELLS), max_size=8
)


@settings(max_examples=40)
@given(steps)
def test_the_summary_holds_the_last_word_of_every_analysis(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, list[Row]] | Cell]
) -> None:
    """Against a dictionary: an analysis that stores a cell replaces what it said of that cell, also
    numbers that it has no longer. A cell may be forgotten; with the dense one go the learner's
    other cells too, but not what their own trainings said."""
    pies, known = tmp_path_factory.mktemp("pies"), {}
    for step in steps:
        if isinstance(step, Cell):
            rows.forget(pies, step)
            compared = CELLS[:3] if step == DENSE else []
            known = {
                (analysis, cell): made
                for (analysis, cell), made in known.items()
                if cell != step and not (cell in compared and analysis != "training")
            }
        else:
            store(pies, *step[:1], *step[1])
            known |= {(step[0], made.cell): [] for made in step[1]}
            for made in step[1]:
                known[step[0], made.cell].append(made)
    expected: dict[tuple[str, ...], Row] = {}
    for analysis, cell in product(ANALYSES, CELLS):  # a later analysis' number counts
        expected |= {made[:5]: made for made in known.get((analysis, cell), [])}
    assert rows.read(pies) == [expected[key] for key in sorted(expected)]


def test_a_study_without_numbers_stays_untouched(tmp_path: Path) -> None:
    assert rows.read(tmp_path / "nothing") == []
    rows.forget(tmp_path / "nothing", GMP)
    assert contents(tmp_path) == set()


def test_a_summary_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    """Its rows stay until an analysis says them anew, or until their cell is forgotten."""
    old = [row(cell, metric, 1, 2, 10) for cell in CELLS for metric in ("n_pies", "top1")]
    store(tmp_path / "old", "training", *old)
    (tmp_path / "summary.csv").write_bytes((tmp_path / "old" / "summary.csv").read_bytes())
    new = row(GMP, "top1", 2, 3, 10)
    store(tmp_path, "training", new)
    expected = {made[:5]: made for made in (*old, new)}
    assert {made[:5]: made for made in rows.read(tmp_path)} == expected
    rows.forget(tmp_path, GLOBAL)
    rows.forget(tmp_path, CONTRASTIVE)
    left = [expected[key] for key in sorted(expected) if expected[key].cell in (DENSE, GMP)]
    assert rows.read(tmp_path) == left


def test_rows_are_forgotten_where_the_summary_was_removed(tmp_path: Path) -> None:
    store(tmp_path, "training", *(row(cell, "top1", 1, 2, 10) for cell in (GMP, GLOBAL)))
    (tmp_path / "summary.csv").unlink()
    rows.forget(tmp_path, GMP)
    assert rows.read(tmp_path) == [row(GLOBAL, "top1", 1, 2, 10)]


DAMAGED = {
    "a number that is none": table("supervised,dense,0.00,top1,all,high,,,2,10").encode(),
    "a count that is none": table("supervised,dense,0.00,top1,all,0.5,,,2.5,10").encode(),
    "a torn line": table("supervised,dense,0.00,top1,all").encode(),
    "a torn number": table("supervised,dense,0.00,top1,all,0.5,,,2").encode(),
    "another header": b"a,b,c\n1,2,3\n",
    "bytes": bytes(range(128, 256)) * 4,
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("name", ["summary.csv", "rows/training.supervised_GMP_s0.90.csv"])
def test_a_damaged_table_is_refused_by_name(name: str, damage: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(DAMAGED[damage])
    with pytest.raises(Failure, match=f"{path}: damaged .*; remove it, then run again"):
        store(tmp_path, "umap", row(GMP, "top1", 0.5, 2, 10))
    assert path.read_bytes() == DAMAGED[damage]  # nothing of it is thrown away


WRITER = """
import sys
from pathlib import Path
from common.report import rows
from common.study import Cell

pies, cell = Path(sys.argv[1]), Cell(sys.argv[2], "GMP", 0.9)
print("ready", flush=True)
sys.stdin.readline()
for i in range(20):
    made = [rows.row(cell, f"metric_{i}", i, 2, 10)]
    rows.store(pies, "pie_detection", {cell._replace(sparsity=(i + 1) / 100): made})
    rows.forget(pies, Cell(sys.argv[2], "global", i / 100))
"""


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    """They take over one old table, add their own rows, and forget the old ones of their own."""
    learners = ("supervised", "SupCon")
    old = [row(Cell(who, "global", i / 100), "n", i, 2, 10) for who in learners for i in range(25)]
    store(tmp_path / "old", "training", *old)
    (tmp_path / "old" / "summary.csv").rename(tmp_path / "summary.csv")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), learner],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for learner in learners
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0, 0]
    found = {(made.learner, made.metric, made.value) for made in rows.read(tmp_path)}
    metrics = [(f"metric_{i}", i) for i in range(20)] + [("n", i) for i in range(20, 25)]
    assert found == {(learner, *metric) for learner in learners for metric in metrics}
