"""PIEs between any two populations are those of PIE detection where one of them is dense."""

from __future__ import annotations

import re
import sys

import pytest
from running import Study, cells

from common import files, paths
from common.report import between, rows
from common.runtime import EXIT_ARGUMENTS
from common.study import LEARNERS


def say(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["between", *words])
    between.main()


def test_against_dense_networks_it_is_the_count_of_the_summary(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {
        row.cell: row
        for row in rows.read(study.pies)
        if row.metric == "n_pies" and row.group == "all"
    }
    pruned = [cell for cell in cells("supervised") if cell in counts]
    assert pruned
    for cell in pruned:
        say(monkeypatch, str(study.pies), str(cell.dense), str(cell))
        row = counts[cell]
        start = f"{cell} against {cell.dense}: {row.value:.0f} of {row.n_examples} images are PIEs"
        line = capsys.readouterr().out
        assert line.startswith(start)
        assert f"(K = {row.n_models}); corrected: " in line


def test_two_pruned_populations(study: Study) -> None:
    one, other = [cell for cell in cells("supervised") if not cell.is_dense][:2]
    found, n_classes = between.populations(study.pies)
    counted = between.count(found[str(one)], found[str(other)], n_classes)
    line = between.describe(counted)
    ids = sorted(set(found[str(one)].ids) & set(found[str(other)].ids))
    a, b = (
        [files.load_arrays(paths.predictions(study.pies, cell, i))["labels"] for i in ids]
        for cell in (one, other)
    )
    n_differing = sum(
        max(range(n_classes), key=lambda c, of=x: (of.count(c), -c))
        != max(range(n_classes), key=lambda c, of=y: (of.count(c), -c))
        for x, y in zip(
            map(list, zip(*a, strict=True)), map(list, zip(*b, strict=True)), strict=True
        )
    )
    assert f": {n_differing} of {len(a[0])} images" in line


@pytest.mark.parametrize("sparsity", ["0.5", ".50", "0.500", "5e-1"])
def test_a_sparsity_may_be_spelled_in_any_way(
    sparsity: str, study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say(monkeypatch, str(study.pies), "supervised dense 0", f"supervised global {sparsity}")
    expected = "supervised global 0.50 against supervised dense 0.00: "
    assert capsys.readouterr().out.startswith(expected)


def test_every_two_pruned_populations_of_a_learner(study: Study) -> None:
    pruned = [c for learner in LEARNERS for c in cells(learner) if not c.is_dense]
    expected = {
        frozenset((str(a), str(b))) for a in pruned for b in pruned
        if a != b and a.learner == b.learner
    }  # fmt: skip
    found = between.of_pruned(study.pies)
    assert {frozenset((pair.reference, pair.other)) for pair in found} == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ((), "give a folder"),
        (("supervised dense 0.00", "no such cell"), "found: .*'supervised dense 0.00'"),
        (("supervised dense 0.00", "SupCon dense 0.00"), "no networks that are pairs"),
    ],
)
def test_what_cannot_be_compared(
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    names: tuple[str, ...],
    why: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        say(monkeypatch, str(study.pies), *names)
    assert stop.value.code == EXIT_ARGUMENTS
    assert re.search(why, capsys.readouterr().err)
