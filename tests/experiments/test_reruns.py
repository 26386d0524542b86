"""Running the study again: what is kept, what is made again, and what is dropped because it is
about other networks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from naive import Naive, Table
from running import (
    N_TEST,
    Study,
    assert_refused,
    assert_succeeds,
    cells,
    chain,
    contents,
    depth,
    detect,
    files,
    finetune,
    run,
    train,
)

from common.experiments import predictions
from common.report import plots, publish
from common.study import Cell, dense_cell

DENSE, GLOBAL = dense_cell("supervised"), Cell("supervised", "global", 0.9)
PRUNED = cells("supervised")[1:]
numbers_only = pytest.mark.usefixtures("numbers_only")
# Fewer cells, where a test is not about the others.
ONLY_GLOBAL = detect("supervised", "--pruning_methods", "global")


@pytest.mark.parametrize("learner", ["supervised", pytest.param("SupCon", marks=pytest.mark.slow)])
def test_a_second_run_makes_nothing_and_says_the_same(study_copy: Study, learner: str) -> None:
    before = files(study_copy.folder)
    times = {name: (study_copy.folder / name).stat().st_mtime_ns for name in before}
    for command in chain(learner):
        again = study_copy.run(command)
        assert "2 to make" not in again.stdout
        if "training" not in command[0] and "finetune" not in command[0]:
            first = study_copy.results[command].stdout
            assert again.stdout.splitlines()[:-1] == first.splitlines()[:-1]  # the last: its time
    assert files(study_copy.folder) == before
    for name, time in times.items():
        assert (study_copy.folder / name).stat().st_mtime_ns == time, f"{name} was written again"


# Populations of other sizes and ids


@numbers_only
def test_a_population_is_its_ids_not_its_positions(study_copy: Study, naive: Naive) -> None:
    """The second network alone is compared with the second dense network; no other network enters a
    mean or is named beside it."""
    one = ("--models_number", "1", "--index_start", "1")
    assert "±" not in study_copy.run(detect("supervised", *one)).stdout
    table = Table(study_copy.pies)
    for cell in PRUNED:
        before, after = (naive.network(of, 1) for of in (DENSE, cell))
        assert table.value(cell, "n_pies") == np.not_equal(before.labels, after.labels).sum()
        accuracy = np.equal(after.labels, naive.target).mean()
        assert table.value(cell, "top1") == pytest.approx(accuracy)
        mean = after.scores["q_score"].mean()
        assert table.value(cell, "q_score") == pytest.approx(mean, rel=1e-5)
        for metric in ("n_pies", "top1", "q_score"):
            line = table.line(cell, metric)
            assert (line["ci_low"], line["ci_high"], line["n_models"]) == ("", "", "1")
        for metric in ("top1_sd", "q_score_sd"):
            with pytest.raises(KeyError):
                table.line(cell, metric)


@numbers_only
def test_one_network_is_enough(tmp_path: Path) -> None:
    """--models_number 1 from the first script to the last."""
    for script in (train, finetune, detect, depth):
        assert_succeeds(tmp_path, script("supervised", "--models_number", "1"))
    lines = Table(tmp_path / "pies" / "digits").lines
    assert {line["n_models"] for line in lines.values()} == {"1"}
    assert not any(name[3].endswith("_sd") for name in lines)
    means = [
        line
        for name, line in lines.items()
        if name[3].startswith(("top1", "q_score", "prediction_depth", "probe_accuracy", "n_pies"))
        and name[3] != "n_pies_null"  # which has an interval over exchanges
    ]
    assert len(means) > 50
    assert all(line["ci_low"] == line["ci_high"] == "" for line in means)


@numbers_only
def test_a_missing_cell_is_named_and_left_out(study_copy: Study) -> None:
    command = detect("supervised", "--pruning_percentages", "0.5,0.77")
    assert_refused(study_copy.folder, command, 4, "0 of the 2")
    done = study_copy.run((*command, "--allow_missing"))
    for missing in ("GMP 0.50", "later_GMP 0.50", "GMP 0.77", "later_GMP 0.77", "global 0.77"):
        assert f"supervised {missing}: 0 of the 2 networks" in done.stdout
    assert "supervised global 0.50: 0 of" not in done.stdout
    assert not any("0.77" in name for name in contents(study_copy.folder))


@numbers_only
def test_a_cell_with_fewer_networks_is_compared_id_by_id(study_copy: Study, naive: Naive) -> None:
    (study_copy.models / "supervised_global_s0.90_id00.pt").unlink()
    done = study_copy.run((*ONLY_GLOBAL, "--allow_missing"))
    assert "supervised global 0.90: 1 of the 2 networks asked for is there" in done.stdout
    before, after = (naive.network(of, 1).labels for of in (DENSE, GLOBAL))
    table = Table(study_copy.pies)
    assert table.value(GLOBAL, "n_pies") == np.not_equal(before, after).sum()
    assert table.counts(GLOBAL, "n_pies") == (1, N_TEST)


@numbers_only
def test_fine_tuning_goes_on_with_the_networks_that_are_there(study_copy: Study) -> None:
    fewer = ("--models_number", "3", "--pruning_percentages", "0.7", "--allow_missing")
    done = study_copy.run(finetune("supervised", *fewer))
    assert "supervised dense 0.00: 2 of the 3 networks asked for are there\n" in done.stdout
    assert len(list(study_copy.models.glob("supervised_global_s0.70_*.pt"))) == 2


# Networks that are made again


def test_half_a_supcon_network_is_made_again(study_copy: Study) -> None:
    head = study_copy.models / "SupCon_dense_s0.00_id00_head.pt"
    other = study_copy.models / "SupCon_dense_s0.00_id01_head.pt"
    before, kept = torch.load(head, weights_only=True), other.stat().st_mtime_ns
    head.unlink()
    done = study_copy.run(train("SupCon"))
    assert "1 network finished, 1 to make" in done.stdout
    assert other.stat().st_mtime_ns == kept
    after = torch.load(head, weights_only=True)
    assert all(torch.equal(after["model"][name], before["model"][name]) for name in before["model"])


def test_overwriting_makes_the_networks_again_and_forgets_what_they_said(
    study_copy: Study,
) -> None:
    path = study_copy.models / "supervised_dense_s0.00_id00.pt"
    before = files(study_copy.models)
    study_copy.run(train("supervised", "--epochs", "1", "--overwrite"))
    after = files(study_copy.models)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"supervised_dense_s0.00_id0{i}.pt" for i in (0, 1)}
    assert torch.load(path, weights_only=True)["config"]["epochs"] == 1
    # What was said about the pruned networks compared them with other dense ones; what their own
    # trainings said stays true.
    table, fresh = Table(study_copy.pies), Naive(study_copy.models)
    of_trainings = {"top1", "top1_sd", "sparsity_reached", "sparsity_reached_sd"}
    said = {name[3] for name in table.lines if name[0] == "supervised" and name[1] != "dense"}
    assert said == of_trainings
    assert table.cells("SupCon") == {"dense", "GMP", "later_GMP", "global"}
    table.assert_mean(DENSE, "top1", fresh.accuracies(DENSE))
    # Networks that were fine-tuned from the former dense ones are refused, naming the reason.
    assert_refused(study_copy.folder, finetune("supervised"), 4, "parent")


# Caches


def lacking(cache: Path) -> None:
    with np.load(cache, allow_pickle=False) as stored:
        kept = {name: stored[name] for name in stored.files if name != "softmax_margin"}
    np.savez(cache, **kept)


def with_another(cache: Path) -> None:
    with np.load(cache, allow_pickle=False) as stored:
        np.savez(cache, another=np.zeros(N_TEST), **stored)


def of_another_network(cache: Path) -> None:
    shutil.copy(cache.with_name(cache.name.replace("id00", "id01")), cache)


def cut_in_half(cache: Path) -> None:
    cache.write_bytes(cache.read_bytes()[: cache.stat().st_size // 2])


@numbers_only
@pytest.mark.parametrize("change", [lacking, with_another, of_another_network, cut_in_half])
def test_a_cache_that_is_not_what_is_asked_for_is_made_again(
    study_copy: Study, change: object
) -> None:
    """One of an earlier version lacks a field; one of a later version has more."""
    cache = study_copy.pies / "supervised" / "predictions" / "supervised_dense_s0.00_id00.npz"
    before, summary = cache.read_bytes(), (study_copy.pies / "summary.csv").read_bytes()
    assert callable(change)
    change(cache)
    assert cache.read_bytes() != before
    done = run(study_copy.folder, *detect("supervised"))
    assert done.code == 0
    assert (cache.name in done.stderr) == (change is cut_in_half)
    assert (study_copy.pies / "summary.csv").read_bytes() == summary
    with np.load(cache, allow_pickle=False) as stored:
        assert stored.keys() == predictions.FIELDS | {"key"}
        assert stored["labels"].shape == (N_TEST,)


def test_a_figure_that_cannot_be_drawn_costs_no_number(
    study_copy: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(contents: dict[str, np.ndarray]) -> None:
        raise RuntimeError("no fonts")

    folder = study_copy.pies / "supervised" / "pies_distribution"
    before = {name: data for name, data in files(folder).items() if name.endswith(".csv")}
    for path in [*folder.glob("*.csv"), *folder.glob("PIEs_distribution*.png")]:
        path.unlink()
    shutil.rmtree(study_copy.pies / "rows")
    (study_copy.pies / "summary.csv").unlink()
    monkeypatch.setattr(plots, "pies_by_class", failing)
    monkeypatch.setattr(publish, "run", lambda pies: None)
    done = run(study_copy.folder, *detect("supervised"))
    assert done.code == 0
    assert done.stderr.count("no fonts") == done.stderr.count("\n") == len(PRUNED)
    assert before.items() <= files(folder).items()
    assert not list(folder.glob("PIEs_distribution*.png"))
    for cell in PRUNED:
        assert Table(study_copy.pies).value(cell, "n_pies") > 0
