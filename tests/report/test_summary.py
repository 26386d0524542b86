"""The printed tables say what summary.csv says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from common import files, paths
from common.report import rows, summary
from common.report.rows import row
from common.study import Cell, dense_cell

DENSE = Cell("supervised", "dense", 0.0)
GMP = Cell("supervised", "GMP", 0.9)
GLOBAL = Cell("supervised", "global", 0.5)
SPARSER = Cell("supervised", "global", 0.97)
RANDOM = Cell("supervised", "random_GMP", 0.5)
FEWER = Cell("supervised", "global", 0.98)
CONTRASTIVE = Cell("SupCon", "global", 0.5)


@pytest.fixture
def pies(tmp_path: Path) -> Path:
    """A small study."""
    made = {
        SPARSER: [row(SPARSER, "top1", 0.7, 10, 500)],
        RANDOM: [row(RANDOM, "top1", 0.6, 10, 500)],
        DENSE: [
            row(DENSE, "top1", 0.98765, 10, 500),
            row(DENSE, "top1_sd", 0.00321, 10, 500),
            row(DENSE, "top1", 0.5, 10, 50, group="7"),  # a class is not the whole
            row(DENSE, "prediction_depth", 3.25, 5, 500),
            row(DENSE, "n_pies_dense_null", 2, 10, 500, interval=(0.4, 6.4)),
        ],
        GLOBAL: [
            row(GLOBAL, "top1", 0.98, 10, 500),
            row(GLOBAL, "top1_sd", 0.01, 10, 500),
            row(GLOBAL, "n_pies", 17, 10, 500, interval=(11.6, 22.4)),
            row(GLOBAL, "n_pies_null", 8.4, 10, 500, interval=(5, 12)),
            row(GLOBAL, "n_pies_corrected", 12.4, 10, 500, interval=(-1.2, 26.4)),
            row(GLOBAL, "n_pies_pruned_null", 14, 10, 500, interval=(9.3, 19.8)),
            row(GLOBAL, "n_pies_unpaired", 16.5, 10, 500, interval=(11, 23)),
            row(GLOBAL, "pie_p_value", 0.0123, 10, 500),
            row(GLOBAL, "pie_p_value_floor", 2**-9, 10, 500),
            row(GLOBAL, "n_pies", 9, 10, 50, group="7"),
            row(GLOBAL, "prediction_depth", 4.5, 5, 500),
            row(GLOBAL, "prediction_depth", 6.125, 5, 17, group="pie"),
            row(GLOBAL, "prediction_depth", 4.25, 5, 483, group="non_pie"),
        ],
        GMP: [  # of one network, whose exchange changes nothing
            row(GMP, "top1", 0.91, 1, 500),
            row(GMP, "n_pies_null", 21, 1, 500, interval=(21, 21)),
            row(GMP, "pie_p_value", 1, 1, 500),
        ],
        FEWER: [row(FEWER, "top1", 0.8, 10, 100), row(FEWER, "n_pies", 4, 8, 100, interval=(1, 9))],
        CONTRASTIVE: [row(CONTRASTIVE, "top1", 0.11, 3, 100)],
    }
    rows.store(tmp_path, "pie_detection", made)
    return tmp_path


def test_every_claim_is_told_once(tmp_path: Path) -> None:
    lines = [("K1", "a, b", "supported")] * 3
    table = [("name", "text", "verdict"), *lines, ("K2", "c", "contradicted")]
    files.write_csv(paths.claims(tmp_path), table)
    told = summary.format_claims(tmp_path)
    assert told == "K1 a, b supported\nK2 c contradicted"
    assert summary.format_claims(tmp_path / "nowhere") == ""


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_printed_table_has_the_numbers(pies: Path) -> None:
    header, *lines, note = words(summary.format_table(pies, "supervised"))
    assert header[:4] == ["learner", "pruning", "sparsity", "networks"]
    assert note[:5] == ["With", "fewer", "than", "10", "networks,"]  # one cell has 8
    dense = ["98.77", "±", "0.32"]
    of_pies = ["17", "of", "500", "[12,", "22]", "12", "[-1,", "26]"]
    of_pies += ["14", "[9,", "20]", "16", "[11,", "23]", "8", "[5,", "12]", "0.012", "(0.002)"]
    none = ["-"] * 6
    fewer = ["4", "of", "100", "[1,", "9]", "(K", "=", "8)", *["-"] * 5]
    assert lines == [
        ["supervised", "dense", "0.00", "10", *dense, "2", "[0,", "6]"],
        ["supervised", "GMP", "0.90", "1", *dense, "(K", "=", "10)", "91.00", *none],
        ["supervised", "global", "0.50", "10", *dense, "98.00", "±", "1.00", *of_pies],
        ["supervised", "global", "0.97", "10", *dense, "70.00", *none],
        ["supervised", "global", "0.98", "10", *dense, "(n", "=", "500)", "80.00", *fewer],
        ["supervised", "random_GMP", "0.50", "10", *dense, "60.00", *none],
    ]


def test_the_printed_table_without_dense_networks(pies: Path) -> None:
    assert words(summary.format_table(pies, "SupCon"))[1:] == [
        ["SupCon", "global", "0.50", "3", "-", "11.00"]
    ]


def test_columns_are_aligned(pies: Path) -> None:
    header, *lines, _ = summary.format_table(pies, "supervised").splitlines()
    for title in ("pruning ", "sparsity", "networks", "dense", "pruned", "PIEs", "if exch"):
        column = header.index(title)
        assert all(line[column - 1 : column] in (" ", "") for line in lines)
        assert all(line[column : column + 1] != " " for line in lines if "global" in line)


def test_columns_without_a_number_are_left_out(tmp_path: Path) -> None:
    dense = dense_cell("SupCon")
    rows.store(tmp_path, "training", {dense: [row(dense, "top1", 0.5, 1, 500)]})
    header, line = summary.format_table(tmp_path, "SupCon").splitlines()
    assert header.split() == ["learner", "pruning", "sparsity", "networks", "dense", "top-1", "%"]
    assert line.split() == ["SupCon", "dense", "0.00", "1", "50.00"]


def test_the_table_of_groups_has_the_numbers(pies: Path) -> None:
    header, *lines = words(summary.format_groups(pies, "supervised", "prediction_depth"))
    assert "prediction_depth" in header
    assert lines == [
        ["supervised", "dense", "0.00", "5", "3.25", "-", "-"],
        ["supervised", "global", "0.50", "5", "4.50", "6.12", "4.25"],
    ]


def test_an_empty_study_prints_the_titles_alone(tmp_path: Path) -> None:
    assert len(words(summary.format_table(tmp_path, "SupCon"))) == 1
    assert len(words(summary.format_groups(tmp_path, "SupCon", "q_score"))) == 1


def test_the_module_prints_the_tables_of_both_learners_and_the_claims(
    pies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files.write_csv(paths.claims(pies), [("name", "text", "verdict"), ("K1", "a", "undecided")])
    monkeypatch.setattr(sys, "argv", ["summary.py", str(pies)])
    summary.main()
    shown = capsys.readouterr().out
    for learner in ("supervised", "SupCon"):
        assert summary.format_table(pies, learner) in shown
    assert shown.endswith("\nK1 a undecided\n")
