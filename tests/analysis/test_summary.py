"""summary.csv: nothing lost, nothing twice, and a printed table that says the same."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import ROOT

from common.analysis import summary
from common.analysis.summary import Row
from common.paths import Cell
from common.runtime import Failure

DENSE = Cell("supervised", "dense", 0.0)
GMP = Cell("supervised", "GMP", 0.9)
GLOBAL = Cell("supervised", "global", 0.5)
CONTRASTIVE = Cell("SupCon", "global", 0.5)
HEADER = "learner,pruning_method,sparsity,metric,group,value,ci_low,ci_high,n_models,n_examples"

cells = st.sampled_from([DENSE, GMP, GLOBAL, CONTRASTIVE, Cell("SupCon", "later_GMP", 0.975)])
numbers = st.floats(-1e6, 1e6).map(lambda x: float(f"{x:.10g}"))
rows = st.builds(
    summary.row,
    cells,
    st.sampled_from(["top1", "n_pies", "q_score"]),
    numbers,
    st.integers(1, 30),
    st.integers(1, 10**4),
    st.sampled_from(["all", "pie", "non_pie", "7", "truck, red", 'the "cat"', "Vögel", " "]),
    st.none() | st.tuples(numbers, numbers),
)


def table(*rows_as_text: str) -> str:
    return "\n".join([HEADER, *rows_as_text]) + "\n"


def test_a_row_is_written_as_the_contract_says(tmp_path: Path) -> None:
    summary.replace(
        tmp_path,
        [
            summary.row(GMP, "top1", 0.9125, 10, 500, interval=(0.9, 0.925)),
            summary.row(GMP, "n_pies", 17, 10, 500, group="pie"),
        ],
    )
    assert (tmp_path / "summary.csv").read_text().splitlines() == [
        HEADER,
        "supervised,GMP,0.90,n_pies,pie,17,,,10,500",
        "supervised,GMP,0.90,top1,all,0.9125,0.9,0.925,10,500",
    ]


def test_no_table_has_no_rows(tmp_path: Path) -> None:
    assert summary.read(tmp_path / "nothing") == []
    summary.forget(tmp_path / "nothing", GMP)
    assert not (tmp_path / "nothing").exists()


@settings(max_examples=30, deadline=None)
@given(st.lists(rows, max_size=12, unique_by=lambda row: row[:5]))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, made: list[Row]) -> None:
    pies = tmp_path_factory.mktemp("pies")
    summary.replace(pies, made)
    assert sorted(summary.read(pies), key=lambda row: row[:5]) == sorted(
        made, key=lambda row: row[:5]
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(rows, max_size=8, unique_by=lambda row: row[:5]),
    st.lists(rows, max_size=8, unique_by=lambda row: row[:5]),
)
def test_rows_are_replaced_by_cell_metric_and_group(
    tmp_path_factory: pytest.TempPathFactory, old: list[Row], new: list[Row]
) -> None:
    pies = tmp_path_factory.mktemp("pies")
    summary.replace(pies, old)
    summary.replace(pies, new)
    expected = {row[:5]: row for row in old} | {row[:5]: row for row in new}
    found = summary.read(pies)
    assert {row[:5]: row for row in found} == expected
    assert len(found) == len(expected)


def test_an_analysis_leaves_no_row_of_an_earlier_run(tmp_path: Path) -> None:
    """A population that has no PIEs any more has no accuracy on them either; what other analyses
    say about the cell stays."""
    kept = [
        summary.row(GMP, "prediction_depth_pie_minus_rest", 1.5, 2, 3),
        summary.row(GMP, "probe_accuracy_layer_1", 0.5, 2, 3),
        summary.row(GMP, "sparsity_reached", 0.9, 2, 3),
        summary.row(GMP, "embedding_knn_accuracy", 0.9, 1, 3),
        summary.row(GLOBAL, "top1", 0.25, 2, 3, group="pie"),
    ]
    old = [
        summary.row(GMP, metric, 0.5, 2, 3, group=group)
        for metric in ("top1", "top1_sd", "q_score_pie_minus_rest", "class_impact")
        for group in ("all", "pie", "non_pie", "cat")
    ]
    summary.replace(tmp_path, old + kept)
    new = summary.row(GMP, "top1", 0.75, 1, 10)
    summary.replace(tmp_path, [new], owner="pie_detection")
    assert sorted(summary.read(tmp_path)) == sorted([new, *kept])


def test_prediction_depth_owns_its_rows_alone(tmp_path: Path) -> None:
    depth = summary.row(GMP, "prediction_depth_label", 3.0, 2, 10, group="pie")
    accuracy = summary.row(GMP, "top1", 0.5, 2, 10)
    summary.replace(tmp_path, [depth, accuracy])
    new = summary.row(GMP, "prediction_depth", 2.0, 2, 10)
    summary.replace(tmp_path, [new], owner="prediction_depth")
    assert sorted(summary.read(tmp_path)) == sorted([new, accuracy])


def test_the_order_of_writing_leaves_no_trace(tmp_path: Path) -> None:
    made = [
        summary.row(cell, metric, value, 2, 10)
        for value, cell in enumerate((GLOBAL, DENSE, CONTRASTIVE, GMP))
        for metric in ("top1", "n_pies")
    ]
    for i, row in enumerate(made):
        summary.replace(tmp_path / "a", [row])
        summary.replace(tmp_path / "b", [made[-1 - i]])
    a, b = ((tmp_path / name / "summary.csv").read_bytes() for name in "ab")
    assert a == b


def test_forget_drops_a_cell_and_keeps_the_others(tmp_path: Path) -> None:
    made = [summary.row(cell, "top1", 0.5, 2, 10) for cell in (DENSE, GMP, GLOBAL, CONTRASTIVE)]
    made.append(summary.row(GMP, "n_pies", 3, 2, 10, group="cat"))
    made.append(summary.row(GMP._replace(sparsity=0.95), "top1", 0.4, 2, 10))
    summary.replace(tmp_path, made)
    summary.forget(tmp_path, GMP)
    assert {(row[:3]) for row in summary.read(tmp_path)} == {
        ("supervised", "dense", "0.00"),
        ("supervised", "GMP", "0.95"),
        ("supervised", "global", "0.50"),
        ("SupCon", "global", "0.50"),
    }


def test_forgetting_the_dense_networks_drops_all_that_was_compared_with_them(
    tmp_path: Path,
) -> None:
    summary.replace(
        tmp_path, [summary.row(cell, "top1", 0.5, 2, 10) for cell in (DENSE, GMP, CONTRASTIVE)]
    )
    summary.forget(tmp_path, DENSE)
    assert [row.learner for row in summary.read(tmp_path)] == ["SupCon"]


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
def test_a_damaged_table_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    path.write_bytes(DAMAGED[damage])
    with pytest.raises(Failure, match=r"summary\.csv"):
        summary.read(tmp_path)
    with pytest.raises(Failure, match=r"summary\.csv"):
        summary.replace(tmp_path, [summary.row(GMP, "top1", 0.5, 2, 10)])
    assert path.read_bytes() == DAMAGED[damage]  # nothing of it is thrown away


WRITER = """
import sys
from pathlib import Path
from common.analysis import summary
from common.paths import Cell

cell = Cell(sys.argv[2], "GMP", 0.9)
print("ready", flush=True)
sys.stdin.readline()
for i in range(40):
    summary.replace(Path(sys.argv[1]), [summary.row(cell, f"metric_{i}", i, 2, 10)])
"""


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), learner],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for learner in ("supervised", "SupCon")
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0, 0]
    found = {(row.learner, row.metric): row.value for row in summary.read(tmp_path)}
    assert found == {
        (learner, f"metric_{i}"): i for learner in ("supervised", "SupCon") for i in range(40)
    }


def small_study() -> list[Row]:
    return [
        summary.row(DENSE, "top1", 0.98765, 10, 500),
        summary.row(DENSE, "top1_sd", 0.00321, 10, 500),
        summary.row(DENSE, "top1", 0.5, 10, 50, group="7"),  # a class is not the whole
        summary.row(DENSE, "prediction_depth", 3.25, 5, 500),
        summary.row(Cell("supervised", "global", 0.97), "top1", 0.7, 10, 500),
        summary.row(GLOBAL, "top1", 0.98, 10, 500),
        summary.row(GLOBAL, "top1_sd", 0.01, 10, 500),
        summary.row(GLOBAL, "n_pies", 17, 10, 500, interval=(11.6, 22.4)),
        summary.row(GLOBAL, "n_pies_null", 8.4, 10, 500, interval=(5, 12)),
        summary.row(GLOBAL, "pie_p_value", 0.0123, 10, 500),
        summary.row(GLOBAL, "n_pies", 9, 10, 50, group="7"),
        summary.row(GLOBAL, "prediction_depth", 4.5, 5, 500),
        summary.row(GLOBAL, "prediction_depth", 6.125, 5, 17, group="pie"),
        summary.row(GLOBAL, "prediction_depth", 4.25, 5, 483, group="non_pie"),
        summary.row(GMP, "top1", 0.91, 1, 500),
        summary.row(CONTRASTIVE, "top1", 0.11, 3, 100),
    ]


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_printed_table_has_the_numbers(tmp_path: Path) -> None:
    summary.replace(tmp_path, small_study())
    header, *lines = words(summary.format_table(tmp_path, "supervised"))
    assert header[:4] == ["learner", "pruning", "sparsity", "networks"]
    dense = ["98.77", "±", "0.32"]
    pies = ["17", "of", "500", "[12,", "22]", "8", "of", "500", "[5,", "12]", "0.012"]
    assert lines == [
        ["supervised", "dense", "0.00", "10", *dense],
        ["supervised", "GMP", "0.90", "1", *dense, "91.00", "-", "-", "-"],
        ["supervised", "global", "0.50", "10", *dense, "98.00", "±", "1.00", *pies],
        ["supervised", "global", "0.97", "10", *dense, "70.00", "-", "-", "-"],
    ]


def test_the_printed_table_without_dense_networks(tmp_path: Path) -> None:
    summary.replace(tmp_path, small_study())
    assert words(summary.format_table(tmp_path, "SupCon"))[1:] == [
        ["SupCon", "global", "0.50", "3", "-", "11.00", "-", "-", "-"]
    ]


def test_columns_are_aligned(tmp_path: Path) -> None:
    summary.replace(tmp_path, small_study())
    header, *lines = summary.format_table(tmp_path, "supervised").splitlines()
    for title in ("pruning ", "sparsity", "networks", "dense", "pruned", "PIEs", "by chance"):
        column = header.index(title)
        assert all(line[column - 1 : column] in (" ", "") for line in lines)
        assert all(line[column : column + 1] != " " for line in lines if "global" in line)


def test_the_table_of_groups_has_the_numbers(tmp_path: Path) -> None:
    summary.replace(tmp_path, small_study())
    header, *lines = words(summary.format_groups(tmp_path, "supervised", "prediction_depth"))
    assert "prediction_depth" in header
    assert lines == [
        ["supervised", "dense", "0.00", "5", "3.25", "-", "-"],
        ["supervised", "global", "0.50", "5", "4.50", "6.12", "4.25"],
    ]


def test_an_empty_study_prints_the_titles_alone(tmp_path: Path) -> None:
    assert len(words(summary.format_table(tmp_path, "SupCon"))) == 1
    assert len(words(summary.format_groups(tmp_path, "SupCon", "q_score"))) == 1


def test_the_module_prints_the_tables_of_both_learners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary.replace(tmp_path, small_study())
    monkeypatch.setattr(sys, "argv", ["summary.py", str(tmp_path)])
    summary.main()
    shown = capsys.readouterr().out
    for learner in ("supervised", "SupCon"):
        assert summary.format_table(tmp_path, learner) in shown
    assert summary.format_groups(tmp_path, "supervised", "prediction_depth") in shown


def test_any_reader_of_csv_can_read_it(tmp_path: Path) -> None:
    summary.replace(tmp_path, [summary.row(GMP, "top1", 0.25, 2, 10, group='a "b", c')])
    with (tmp_path / "summary.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["group"], line["value"], line["ci_low"]) == ('a "b", c', "0.25", "")
