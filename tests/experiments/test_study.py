"""The study end to end, as a user runs it, with every number recomputed."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from naive import CPU, EVERYTHING, Naive, Table
from running import IDS, KNN, N_TEST, PREFIXES, Study, cells, chain, contents

from common import paths
from common.model import checkpoints
from common.paths import NetworkFiles
from common.report.by_image import SCORES
from common.study import Cell, dense_cell, format_sparsity

LEARNERS = tuple(PREFIXES)
ALL = {learner: cells(learner) for learner in LEARNERS}
PRUNED = {learner: of_learner[1:] for learner, of_learner in ALL.items()}
every_learner = pytest.mark.parametrize("learner", LEARNERS)
every_cell = pytest.mark.parametrize("cell", [c for of in ALL.values() for c in of], ids=str)
every_pruned = pytest.mark.parametrize("cell", [c for of in PRUNED.values() for c in of], ids=str)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# What the scripts leave


@every_learner
def test_each_recipe_has_the_time_of_a_training(study: Study, learner: str) -> None:
    recipes = json.loads((study.pies / learner / "recipes.json").read_text())
    for cell in ALL[learner]:
        logs = (study.folder / "logs" / "digits").glob(f"{paths.cell_stem(cell)}_id*.jsonl")
        seconds = [json.loads(log.read_text().splitlines()[-1]) for log in logs]
        expected = np.median([record["finished_after_seconds"] for record in seconds])
        assert recipes[str(cell)]["median_seconds"] == pytest.approx(expected)


def names_of(cell: Cell) -> set[str]:
    """The files of a cell, spelled out: users of the released code know these names."""
    learner, pruning, s = cell.learner, cell.pruning_method, format_sparsity(cell.sparsity)
    pies, stem = f"pies/digits/{learner}", f"{learner}_{pruning}_s{s}"
    names = set()
    for i in IDS:
        names.add(f"logs/digits/{stem}_id0{i}.jsonl")
        for part in ("",) if learner == "supervised" else ("_encoder", "_head"):
            names.add(f"models/digits/{stem}_id0{i}{part}.pt")
    figures = {f"{pies}/training/{stem}"}
    if pruning != "dense":
        names.add(f"{pies}/pies_distribution/pies_{pruning}_s{s}.csv")
        for kind in ("PIEs_distribution", "class_impact", "vote_distance"):
            figures.add(f"{pies}/pies_distribution/{kind}_{learner}_{s}sparsity_{pruning}_pruning")
        for score in ("Q-SCORE", "Z-SCORE", "L1_NORM", "SOFTMAX_MARGIN"):
            figures.add(f"{pies}/q_score/{score}_{pruning}_sparsity{s}_{learner}")
        for kind in ("PIEs", "Q-SCORE", "probe_accuracy"):
            name = f"Prediction_Depth_{kind}_{learner}_{pruning}_{s}sparsity_{KNN}knn"
            figures.add(f"{pies}/prediction_depth/{name}")
        for kind in ("common_PIEs", "disagreement"):
            figures.add(f"pies/digits/comparison/{kind}_{s}sparsity_{pruning}_pruning")
    if learner == "supervised" and s != "0.50":  # dense, and the highest sparsity of each pruning
        figures.add(f"{pies}/umap/UMAP_Classes_{learner}_sparsity{s}_{pruning}_pruning")
    return names | {figure + suffix for figure in figures for suffix in (".png", ".npz")}


def test_the_files_have_the_names_of_the_contract(study: Study) -> None:
    names = {name for of in ALL.values() for cell in of for name in names_of(cell)}
    names |= {"pies/digits/summary.csv", "pies/digits/index.html"}
    for figure in ("overlap.png", "overlap.npz", "overlap.csv", "PIEs_by_sparsity.png"):
        names.add(f"pies/digits/comparison/{figure}")
    assert names - contents(study.folder) == set()


def test_nothing_temporary_is_left(study: Study) -> None:
    left = [name for name in contents(study.folder) if ".tmp" in name or ".state" in name]
    assert [name for name in left if not name.endswith(".lock")] == []
    assert {path.name for path in study.folder.iterdir()} == {"models", "pies", "logs"}


@every_learner
def test_a_log_has_a_line_for_the_recipe_and_one_for_every_epoch(
    study: Study, learner: str
) -> None:
    text = (study.folder / "logs" / "digits" / f"{learner}_dense_s0.00_id01.jsonl").read_text()
    first, *epochs, last = [json.loads(line) for line in text.splitlines()]
    assert last["finished_after_seconds"] > 0
    assert first["config"]["epochs"] == 2
    stages = ["network"] * 2 if learner == "supervised" else ["encoder"] * 2 + ["head"]
    assert [epoch["stage"] for epoch in epochs] == stages
    assert all(np.isfinite(epoch["loss"]) for epoch in epochs)


@every_cell
def test_the_curves_of_all_networks_lie_in_one_figure(study: Study, cell: Cell) -> None:
    assert paths.curves(study.pies, cell).exists()
    with np.load(paths.curves(study.pies, cell).with_suffix(".npz")) as stored:
        curves = {name: stored[name] for name in ("id", "stage", "epoch", "loss", "test_accuracy")}
    logged = [
        (i, *(epoch.get(name, np.nan) for name in [*curves][1:]))
        for i in IDS
        for epoch in map(json.loads, paths.log(study.folder / "logs/digits", cell, i).open())
        if "epoch" in epoch
    ]
    for found, expected in zip(curves.values(), zip(*logged, strict=True), strict=True):
        np.testing.assert_array_equal(found, expected)


@every_cell
def test_checkpoints_are_plain_and_have_the_sparsity_they_claim(
    study: Study, table: Table, cell: Cell
) -> None:
    """Read with torch alone: convolutions and the classifier's weights are what can be pruned."""
    for network_id in IDS:
        stem = f"{cell.learner}_{cell.pruning_method}_s{cell.sparsity:.2f}_id0{network_id}"
        files = sorted(study.models.glob(f"{stem}*"))
        parts = [torch.load(path, weights_only=True) for path in files]
        assert len(parts) == (1 if cell.learner == "supervised" else 2)
        weights = [
            tensor
            for part in parts
            for name, tensor in part["model"].items()
            if name.endswith("weight") and tensor.ndim >= 2
        ]
        total = sum(tensor.numel() for tensor in weights)
        zeros = sum(int((tensor == 0).sum()) for tensor in weights)
        assert abs(zeros - cell.sparsity * total) <= 1
        for part in parts:
            assert (part["learner"], part["pruning_method"]) == cell[:2]
            assert (part["sparsity"], part["network_id"]) == (cell.sparsity, network_id)
        assert parts[-1]["results"]["sparsity_reached"] == zeros / total
    assert table.value(cell, "sparsity_reached") == pytest.approx(cell.sparsity, abs=2e-5)


@every_cell
def test_networks_of_a_population_differ(study: Study, cell: Cell) -> None:
    first, second = (
        checkpoints.load(NetworkFiles(study.models, cell, i), CPU).network for i in IDS
    )
    assert not torch.equal(first.conv1.weight, second.conv1.weight)


# The table, computed again


def test_no_number_is_in_the_table_twice(study: Study, table: Table) -> None:
    lines = (study.pies / "summary.csv").read_text().splitlines()
    assert len(lines) - 1 == len(table.lines)
    assert lines[0] == (
        "learner,pruning_method,sparsity,metric,group,value,ci_low,ci_high,n_models,n_examples"
    )


@every_cell
def test_accuracies_are_those_of_the_networks(naive: Naive, table: Table, cell: Cell) -> None:
    table.assert_mean(cell, "top1", naive.accuracies(cell))
    for c in range(10):
        members = naive.of_class(c)
        assert len(members) == 10
        table.assert_mean(cell, "top1", naive.accuracies(cell, members), 10, group=str(c))


@every_pruned
def test_losses_are_paired_by_network(naive: Naive, table: Table, cell: Cell) -> None:
    lost = np.subtract(naive.accuracies(cell.dense), naive.accuracies(cell))
    table.assert_mean(cell, "top1_lost", lost)


@every_pruned
def test_pies_are_counted_right(naive: Naive, table: Table, cell: Cell) -> None:
    pies, before, after = naive.pies(cell), naive.modal(cell.dense), naive.modal(cell)
    assert 0 < len(pies) < N_TEST  # else the tests of them would compare nothing with nothing
    counts = {"n_pies": len(pies)}
    counts["n_pies_right_to_wrong"] = sum(before[n] == naive.target[n] for n in pies)
    counts["n_pies_wrong_to_right"] = sum(after[n] == naive.target[n] for n in pies)
    counts["n_pies_wrong_to_wrong"] = len(pies) - sum(
        naive.target[n] in (before[n], after[n]) for n in pies
    )
    votes = list(zip(*naive.labels(cell.dense), *naive.labels(cell), strict=True))
    counts["n_tied"] = sum(a != b or c != d for a, b, c, d in votes)
    counts["n_pies_highest_tie"] = sum(max(a, b) != max(c, d) for a, b, c, d in votes)
    for metric, count in counts.items():
        assert table.value(cell, metric) == count
        assert table.counts(cell, metric) == (2, N_TEST)
    by_class = Counter(naive.target[n] for n in pies)
    for c in range(10):
        assert table.value(cell, "n_pies", str(c)) == by_class[c]
        assert table.counts(cell, "n_pies", str(c)) == (2, 10)


@every_pruned
def test_what_is_left_of_a_count_and_what_exchanges_give(
    naive: Naive, table: Table, cell: Cell
) -> None:
    """By hand: two pairs of networks can be split into halves in one way, and have two exchanges
    within pairs. A pruned network was made from the dense one with its id, or shares its seeds."""
    (a, b), (c, d) = naive.labels(cell.dense), naive.labels(cell)

    def differing(one: list[int], other: list[int]) -> int:
        return sum(np.not_equal(one, other))

    across, within = differing(a, d) + differing(b, c), differing(a, b) + differing(c, d)
    assert table.value(cell, "n_pies_corrected") == (across - within) / 2
    assert table.value(cell, "n_pies_corrected_half") == 1
    exchanged = differing(list(map(min, c, b)), list(map(min, a, d)))
    counts = [len(naive.pies(cell)), exchanged]
    assert table.value(cell, "n_pies_null_paired") == 1
    assert table.value(cell, "n_pies_null") == np.mean(counts)
    assert table.value(cell, "pie_p_value") == (1 if exchanged >= counts[0] else 0.5)
    assert table.value(cell, "pie_p_value_floor") == 0.5
    line = table.line(cell, "n_pies_null")
    assert min(counts) <= float(line["ci_low"]) <= float(line["ci_high"]) <= max(counts)


@every_cell
def test_scores_are_averaged_over_images_then_networks(
    naive: Naive, table: Table, cell: Cell
) -> None:
    for score in SCORES:
        table.assert_mean(cell, score.metric, naive.scores(cell, score.metric).mean(axis=1))


@every_pruned
def test_accuracy_scores_and_depths_of_pies_and_of_the_rest(
    naive: Naive, table: Table, cell: Cell
) -> None:
    depths = {
        "prediction_depth": "prediction",
        "prediction_depth_label": "label",
        "prediction_depth_released": "released",
    }
    for group, members in naive.groups(cell).items():
        for of, suffix in ((cell, ""), (cell.dense, "_dense")):
            found = {score.metric: naive.scores(of, score.metric) for score in SCORES}
            found |= {metric: naive.depths(of, target) for metric, target in depths.items()}
            means = {metric: values[:, members].mean(axis=1) for metric, values in found.items()}
            means["top1"] = naive.accuracies(of, members)
            for metric, values in means.items():
                table.assert_mean(cell, metric + suffix, values, len(members), group)
    for of in (cell, cell.dense):
        for metric, target in depths.items():
            table.assert_mean(of, metric, naive.depths(of, target).mean(axis=1))


@every_cell
def test_the_accuracy_of_every_probe(naive: Naive, table: Table, cell: Cell) -> None:
    probes = np.stack([naive.network(cell, i).probes for i in IDS])
    assert probes.shape[1] == 10  # depth 10: first convolution, and 2 + 1 in each of 3 groups
    for layer, accuracy in enumerate((probes == naive.target).mean(axis=2).T, 1):
        table.assert_mean(cell, f"probe_accuracy_layer_{layer}", accuracy)
    with pytest.raises(KeyError):
        table.line(cell, "probe_accuracy_layer_11")


@every_pruned
def test_what_a_class_lost_more_than_the_average(naive: Naive, table: Table, cell: Cell) -> None:
    for c in map(str, range(10)):
        members = naive.of_class(int(c))
        pruned, dense = (
            np.subtract(naive.accuracies(of, members), naive.accuracies(of))
            for of in (cell, cell.dense)
        )
        effect = pruned.mean() - dense.mean()
        assert table.value(cell, "class_impact", c) == pytest.approx(effect, abs=1e-9)
        assert table.counts(cell, "class_impact", c) == (2, 10)
        if min(np.ptp(pruned), np.ptp(dense)) > 1e-9:
            p_value = scipy.stats.ttest_ind(pruned, dense, equal_var=False).pvalue
            assert table.value(cell, "class_impact_p", c) == pytest.approx(p_value, rel=1e-4)


@every_learner
def test_q_values_are_over_all_classes_and_cells(table: Table, learner: str) -> None:
    p_values, q_values = (
        [table.value(cell, metric, str(c)) for cell in PRUNED[learner] for c in range(10)]
        for metric in ("class_impact_p", "class_impact_q")
    )
    assert q_values == pytest.approx(scipy.stats.false_discovery_control(p_values), rel=1e-6)


# Other tables, figures, the page


@every_pruned
def test_the_table_of_examples(study: Study, naive: Naive, cell: Cell) -> None:
    name = f"pies_{cell.pruning_method}_s{cell.sparsity:.2f}.csv"
    lines = read_csv(study.pies / cell.learner / "pies_distribution" / name)
    columns = {key: [line[key] for line in lines] for key in lines[0]}
    assert list(columns)[:7] == [
        *("index", "label", "modal_dense", "modal_pruned", "votes_dense", "votes_pruned", "is_pie"),
    ]
    expected = {"index": EVERYTHING, "label": naive.target}
    expected["is_pie"] = [int(n in naive.pies(cell)) for n in EVERYTHING]
    for which, of in (("dense", cell.dense), ("pruned", cell)):
        expected[f"modal_{which}"] = naive.modal(of)
        expected[f"votes_{which}"] = (1 + np.equal(*naive.labels(of))).tolist()
    for column, values in expected.items():
        assert list(map(int, columns[column])) == values
    for score in SCORES:
        for which, of in (("dense", cell.dense), ("pruned", cell)):
            found = list(map(float, columns[f"{score.field}_{which}"]))
            means = naive.scores(of, score.metric).mean(axis=0)
            assert found == pytest.approx(means, rel=1e-4, abs=1e-6)


@every_pruned
def test_figures_hold_what_the_table_says(study: Study, naive: Naive, cell: Cell) -> None:
    folder, (learner, pruning, _) = study.pies / cell.learner, cell
    sparsity, is_pie = f"{cell.sparsity:.2f}", [n in naive.pies(cell) for n in EVERYTHING]
    figure = f"PIEs_distribution_{learner}_{sparsity}sparsity_{pruning}_pruning.npz"
    with np.load(folder / "pies_distribution" / figure, allow_pickle=False) as stored:
        assert stored["is_pie"].tolist() == is_pie
        assert stored["label"].tolist() == naive.target
        assert (int(stored["n_models"]), stored["ids"].tolist()) == (2, [0, 1])
    for score in SCORES:
        figure = f"{score.figure}_{pruning}_sparsity{sparsity}_{learner}.npz"
        with np.load(folder / "q_score" / figure, allow_pickle=False) as stored:
            for which, of in (("dense", cell.dense), ("pruned", cell)):
                means = naive.scores(of, score.metric).mean(axis=0)
                assert stored[which] == pytest.approx(means, rel=1e-4, abs=1e-6)
            assert stored["is_pie"].tolist() == is_pie
    figure = f"Prediction_Depth_PIEs_{learner}_{pruning}_{sparsity}sparsity_{KNN}knn.npz"
    with np.load(folder / "prediction_depth" / figure, allow_pickle=False) as stored:
        depths = naive.depths(cell, "prediction").mean(axis=0)
        assert stored["pruned"].tolist() == depths.tolist()
        assert stored["is_pie"].tolist() == is_pie


def test_the_gallery_tells_the_softmax_margin_of_every_pie(study: Study, naive: Naive) -> None:
    """It shows every column of by_image.GALLERY in the same way."""
    page = (study.pies / "index.html").read_text()
    found = re.search(r"^const data = (.*);$", page, re.MULTILINE)
    assert found is not None
    data, told = json.loads(found[1]), {}
    for values in data["pies"]:
        pie = dict(zip(data["fields"], values, strict=True))
        learner, pruning, sparsity, _ = data["cells"][pie["cell"]]
        index, _ = data["images"][pie["tile"]]
        told[Cell(learner, pruning, float(sparsity)), index] = pie["softmax_margin_pruned"]
    expected = {}
    for cell in (cell for of in PRUNED.values() for cell in of):
        margins = naive.scores(cell, "softmax_margin").mean(axis=0)
        expected |= {(cell, n): margins[n] for n in naive.pies(cell)}
    assert told == pytest.approx(expected, abs=6e-4)  # three decimals


@every_learner
def test_the_printed_table_has_the_numbers(
    study: Study, naive: Naive, table: Table, learner: str
) -> None:
    detection = study.results[chain(learner)[4]].stdout
    lines = [line for line in detection.splitlines() if line.startswith(f"{learner} ")]
    printed = [line.split() for line in lines if "±" in line]
    for words, cell in zip(printed, ALL[learner], strict=True):
        assert words[:4] == [learner, cell.pruning_method, f"{cell.sparsity:.2f}", "2"]
        shown = []
        for of in (cell,) if cell.is_dense else (cell.dense, cell):
            percent = [100 * accuracy for accuracy in naive.accuracies(of)]
            shown += [f"{np.mean(percent):.2f}", "±", f"{np.std(percent, ddof=1):.2f}"]
        if not cell.is_dense:
            shown += [str(len(naive.pies(cell))), "of", str(N_TEST)]
            shown += [f"{table.value(cell, 'n_pies_corrected'):.0f}"]
            assert words[-2:] == [f"{table.value(cell, 'pie_p_value'):.3g}", "(0.5)"]
        assert words[4 : 4 + len(shown)] == shown


def test_the_learners_are_compared(study: Study, naive: Naive) -> None:
    for pair in zip(*PRUNED.values(), strict=True):
        name = f"{pair[0].sparsity:.2f}sparsity_{pair[0].pruning_method}_pruning.npz"
        folder = study.pies / "comparison"
        with np.load(folder / f"common_PIEs_{name}", allow_pickle=False) as stored:
            assert stored["learners"].tolist() == ["supervised", "SupCon"]
            for cell, is_pie in zip(pair, stored["is_pie"], strict=True):
                assert np.flatnonzero(is_pie).tolist() == naive.pies(cell)
        with np.load(folder / f"disagreement_{name}", allow_pickle=False) as stored:
            dense = [cell.dense for cell in pair]
            for which, of in (("dense", dense), ("pruned", pair)):
                differ = np.not_equal(*(naive.modal(cell) for cell in of))
                assert stored[f"differ_{which}"].tolist() == differ.tolist()


def test_the_overlap_of_every_two_cells(study: Study, naive: Naive) -> None:
    pies = {str(cell): set(naive.pies(cell)) for of in PRUNED.values() for cell in of}
    lines = read_csv(study.pies / "comparison" / "overlap.csv")
    assert len(lines) == len(pies) * (len(pies) - 1) / 2
    for line in lines:
        one, other = pies[line["cell_a"]], pies[line["cell_b"]]
        assert (int(line["n_a"]), int(line["n_b"])) == (len(one), len(other))
        assert int(line["common"]) == len(one & other)
        jaccard = len(one & other) / len(one | other)
        assert float(line["jaccard"]) == pytest.approx(jaccard, abs=1e-6)


def test_maps_are_finite_and_belong_to_the_first_network(study: Study, naive: Naive) -> None:
    name = "UMAP_Classes_supervised_sparsity0.90_global_pruning.npz"
    both = (dense_cell("supervised"), Cell("supervised", "global", 0.9))
    with np.load(study.pies / "supervised" / "umap" / name, allow_pickle=False) as stored:
        assert stored["panels"].tolist() == ["dense", "pruned"]
        assert stored["xy"].shape == (2, N_TEST, 2)
        assert np.isfinite(stored["xy"]).all()
        assert stored["predicted"].tolist() == [naive.network(cell, 0).labels for cell in both]
