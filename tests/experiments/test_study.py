"""The study end to end, as a user runs it, and every number of it computed again."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from running import FINETUNING, KNN, STUDY, TRAINING, Study, contents, run_here
from sklearn.neighbors import KNeighborsClassifier

from common.data import datasets
from common.data.datasets import Dataset
from common.figures import report
from common.model import checkpoints
from common.paths import Cell

LEARNERS = ("supervised", "SupCon")
CPU = torch.device("cpu")
PRUNED = (("GMP", 0.9), ("later_GMP", 0.9), ("global", 0.5), ("global", 0.9))
CELLS = (("dense", 0.0), *PRUNED)
IDS = (0, 1)
N_TEST = 100
every_learner = pytest.mark.parametrize("learner", LEARNERS)
every_cell = pytest.mark.parametrize(("pruning", "sparsity"), CELLS)
every_pruned = pytest.mark.parametrize(("pruning", "sparsity"), PRUNED)


class Naive:
    """Networks of the study, run one image at a time and scored by the definitions."""

    def __init__(self, models: Path):
        self.models = models
        self.data: Dataset = datasets.load("digits", Path("data"), CPU, 300, N_TEST)
        self.target: list[int] = self.data.test.labels.tolist()
        self.known: dict[tuple[Cell, int], dict[str, np.ndarray]] = {}

    def images(self, images: torch.Tensor) -> torch.Tensor:
        train = self.data.train.images.double() / 255
        mean = train.mean((0, 2, 3)).reshape(3, 1, 1)
        std = train.std((0, 2, 3), unbiased=False).reshape(3, 1, 1)
        return ((images.double() / 255 - mean) / std).float()

    def network(self, cell: Cell, network_id: int) -> dict[str, np.ndarray]:
        """Labels, Q-Scores and, by layer, the probes' labels."""
        if (cell, network_id) not in self.known:
            network = checkpoints.load(self.models, cell, network_id, CPU).network.eval()
            with torch.no_grad():
                outputs = [network(x[None]) for x in self.images(self.data.test.images)]
                probes = network(self.images(self.data.test.images), probes=True).probes
                bank = network(self.images(self.data.train.images), probes=True).probes
            h = torch.cat([output.embedding for output in outputs]).double()
            h = h / h.norm(dim=1, keepdim=True)
            z = (h.max(1).values - h.mean(1)) / h.std(1, unbiased=False)
            labels = self.data.train.labels.numpy()
            self.known[cell, network_id] = {
                "labels": torch.cat([output.logits for output in outputs]).argmax(1).numpy(),
                "q": (z / h.abs().sum(1)).numpy(),
                "probes": np.stack(
                    [
                        KNeighborsClassifier(int(KNN)).fit(b.numpy(), labels).predict(p.numpy())
                        for b, p in zip(bank, probes, strict=True)
                    ]
                ),
            }
        return self.known[cell, network_id]

    def labels(self, cell: Cell) -> list[list[int]]:
        return [self.network(cell, i)["labels"].tolist() for i in IDS]

    def accuracies(self, cell: Cell, members: list[int]) -> list[float]:
        return [
            float(np.mean([labels[n] == self.target[n] for n in members]))
            for labels in self.labels(cell)
        ]

    def modal(self, cell: Cell) -> list[int]:
        """Of two networks that disagree the lower label wins."""
        return [min(votes) for votes in zip(*self.labels(cell), strict=True)]

    def pies(self, cell: Cell) -> list[int]:
        pairs = zip(self.modal(dense(cell.learner)), self.modal(cell), strict=True)
        return [n for n, (before, after) in enumerate(pairs) if before != after]

    def depths(self, cell: Cell, target: str) -> np.ndarray:
        """[K,N]: layers before every probe from there on agrees with the target. The released code
        takes the true label, and one layer off."""
        found = []
        for i in IDS:
            network = self.network(cell, i)
            goal = network["labels"].tolist() if target == "prediction" else self.target
            depth = []
            for n, right in enumerate(goal):
                disagreeing = [
                    layer for layer, labels in enumerate(network["probes"], 1) if labels[n] != right
                ]
                depth.append(max(disagreeing, default=0))
            found.append(depth)
        return np.maximum(np.array(found) - (target == "released"), 0)


def dense(learner: str) -> Cell:
    return Cell(learner, "dense", 0.0)


@pytest.fixture(scope="module")
def naive(study: Study) -> Naive:
    return Naive(study.models)


def read_summary(pies: Path) -> dict[tuple[str, ...], dict[str, str]]:
    with (pies / "summary.csv").open(newline="") as file:
        return {tuple(line.values())[:5]: line for line in csv.DictReader(file)}


@pytest.fixture(scope="module")
def rows(study: Study) -> dict[tuple[str, ...], dict[str, str]]:
    return read_summary(study.pies)


def key(cell: Cell, metric: str, group: str = "all") -> tuple[str, ...]:
    return (cell.learner, cell.pruning_method, f"{cell.sparsity:.2f}", metric, group)


def assert_mean(
    rows: dict[tuple[str, ...], dict[str, str]],
    cell: Cell,
    metric: str,
    values: list[float],
    n_examples: int,
    group: str = "all",
) -> None:
    """The rows of a mean over two networks, against numpy and scipy."""
    row = rows[key(cell, metric, group)]
    mean, sd = np.mean(values), np.std(values, ddof=1)
    assert float(row["value"]) == pytest.approx(mean, rel=1e-5, abs=1e-9)
    sd_row = rows[key(cell, f"{metric}_sd", group)]
    assert float(sd_row["value"]) == pytest.approx(sd, rel=1e-3, abs=1e-9)
    low, high = mean, mean
    if sd > 0:
        low, high = scipy.stats.t.interval(0.95, 1, loc=mean, scale=sd / 2**0.5)
    assert float(row["ci_low"]) == pytest.approx(low, rel=1e-3, abs=1e-6)
    assert float(row["ci_high"]) == pytest.approx(high, rel=1e-3, abs=1e-6)
    for found in (row, sd_row):
        assert (int(found["n_models"]), int(found["n_examples"])) == (2, n_examples)


# How the scripts end, and what they leave


@every_learner
def test_every_script_ends_well_and_in_silence(study: Study, learner: str) -> None:
    for command, result in zip(study.commands[learner], study.results[learner], strict=True):
        assert result.code == 0, f"{command}: {result.stderr}"
        assert result.stderr == "", command  # no progress bars where there is no terminal


@every_learner
def test_the_files_have_the_names_of_the_contract(study: Study, learner: str) -> None:
    """Spelled out: users of the released code know these names."""
    parts = {"supervised": ("",), "SupCon": ("_encoder", "_head")}[learner]
    names = [
        f"models/digits/{learner}_{cell}_id0{i}{part}.pt"
        for cell in ("dense_s0.00", "GMP_s0.90", "later_GMP_s0.90", "global_s0.50", "global_s0.90")
        for i in IDS
        for part in parts
    ]
    pies = f"pies/digits/{learner}"
    for pruning, s in (("GMP", "0.90"), ("later_GMP", "0.90"), ("global", "0.50"),
                       ("global", "0.90")):  # fmt: skip
        names.append(f"{pies}/pies_distribution/pies_{pruning}_s{s}.csv")
        figures = [
            *(
                f"{pies}/pies_distribution/{kind}_{learner}_{s}sparsity_{pruning}_pruning"
                for kind in ("PIEs_distribution", "class_impact", "vote_distance")
            ),
            *(
                f"{pies}/q_score/{score}_{pruning}_sparsity{s}_{learner}"
                for score in ("Q-SCORE", "Z-SCORE", "L1_NORM")
            ),
            *(
                f"{pies}/prediction_depth/"
                f"Prediction_Depth_{kind}_{learner}_{pruning}_{s}sparsity_{KNN}knn"
                for kind in ("PIEs", "Q-SCORE", "probe_accuracy")
            ),
            f"pies/digits/comparison/common_PIEs_{s}sparsity_{pruning}_pruning",
            f"pies/digits/comparison/disagreement_{s}sparsity_{pruning}_pruning",
        ]
        names += [figure + suffix for figure in figures for suffix in (".png", ".npz")]
    if learner == "supervised":  # the highest sparsity of each method, and the dense network
        maps = (("0.00", "dense"), ("0.90", "GMP"), ("0.90", "later_GMP"), ("0.90", "global"))
        names += [
            f"{pies}/umap/UMAP_Classes_{learner}_sparsity{s}_{pruning}_pruning{suffix}"
            for s, pruning in maps
            for suffix in (".png", ".npz")
        ]
    names += [
        f"{pies}/training/{learner}_{cell}_id0{i}.png"
        for cell in ("dense_s0.00", "GMP_s0.90", "later_GMP_s0.90", "global_s0.50", "global_s0.90")
        for i in IDS
    ]
    names += [f"logs/digits/{learner}_dense_s0.00_id0{i}.jsonl" for i in IDS]
    names += [f"pies/digits/comparison/overlap.{suffix}" for suffix in ("png", "npz", "csv")]
    names += ["pies/digits/summary.csv", "pies/digits/index.html"]
    missing = set(names) - contents(study.folder)
    assert not missing


def test_nothing_temporary_is_left(study: Study) -> None:
    left = {name for name in contents(study.folder) if ".tmp" in name or ".state" in name}
    assert {name for name in left if not name.endswith(".lock")} == set()
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


@every_learner
@every_cell
def test_checkpoints_are_plain_and_have_the_sparsity_they_claim(
    study: Study, learner: str, pruning: str, sparsity: float
) -> None:
    """Read with torch alone: convolutions and the classifier's weights are what can be pruned."""
    for network_id in IDS:
        stem = f"{learner}_{pruning}_s{sparsity:.2f}_id0{network_id}"
        parts = [
            torch.load(path, weights_only=True) for path in sorted(study.models.glob(f"{stem}*"))
        ]
        assert len(parts) == (1 if learner == "supervised" else 2)
        weights = [
            tensor
            for part in parts
            for name, tensor in part["model"].items()
            if name.endswith("weight") and tensor.ndim >= 2
        ]
        total = sum(tensor.numel() for tensor in weights)
        zeros = sum(int((tensor == 0).sum()) for tensor in weights)
        assert abs(zeros - sparsity * total) <= 1
        for part in parts:
            assert (part["learner"], part["pruning_method"]) == (learner, pruning)
            assert (part["sparsity"], part["network_id"]) == (sparsity, network_id)
        assert parts[-1]["results"]["sparsity_reached"] == zeros / total


@every_learner
def test_networks_of_a_population_differ(study: Study, learner: str) -> None:
    for pruning, sparsity in CELLS:
        first, second = (
            checkpoints.load(study.models, Cell(learner, pruning, sparsity), i, CPU).network
            for i in IDS
        )
        assert not torch.equal(first.conv1.weight, second.conv1.weight)


# The table, computed again


def test_no_number_is_in_the_table_twice(
    study: Study, rows: dict[tuple[str, ...], dict[str, str]]
) -> None:
    lines = (study.pies / "summary.csv").read_text().splitlines()
    assert len(lines) - 1 == len(rows)
    assert lines[0] == (
        "learner,pruning_method,sparsity,metric,group,value,ci_low,ci_high,n_models,n_examples"
    )


@every_learner
@every_cell
def test_accuracies_are_those_of_the_networks(
    naive: Naive,
    rows: dict[tuple[str, ...], dict[str, str]],
    learner: str,
    pruning: str,
    sparsity: float,
) -> None:
    cell = Cell(learner, pruning, sparsity)
    everything = list(range(N_TEST))
    assert_mean(rows, cell, "top1", naive.accuracies(cell, everything), N_TEST)
    for c in range(10):
        members = [n for n in everything if naive.target[n] == c]
        assert len(members) == 10
        assert_mean(rows, cell, "top1", naive.accuracies(cell, members), 10, group=str(c))


@every_learner
@every_cell
def test_the_table_says_which_sparsity_was_reached(
    rows: dict[tuple[str, ...], dict[str, str]], learner: str, pruning: str, sparsity: float
) -> None:
    row = rows[key(Cell(learner, pruning, sparsity), "sparsity_reached")]
    assert float(row["value"]) == pytest.approx(sparsity, abs=2e-5)  # of 77,000 weights


@every_learner
@every_pruned
def test_pies_are_counted_right(
    naive: Naive,
    rows: dict[tuple[str, ...], dict[str, str]],
    learner: str,
    pruning: str,
    sparsity: float,
) -> None:
    cell = Cell(learner, pruning, sparsity)
    pies, before, after = naive.pies(cell), naive.modal(dense(learner)), naive.modal(cell)
    counts = {"n_pies": len(pies)}
    counts["n_pies_right_to_wrong"] = sum(before[n] == naive.target[n] for n in pies)
    counts["n_pies_wrong_to_right"] = sum(after[n] == naive.target[n] for n in pies)
    counts["n_pies_wrong_to_wrong"] = len(pies) - sum(
        naive.target[n] in (before[n], after[n]) for n in pies
    )
    votes = list(zip(*naive.labels(dense(learner)), *naive.labels(cell), strict=True))
    counts["n_tied"] = sum(a != b or c != d for a, b, c, d in votes)
    counts["n_pies_highest_tie"] = sum(max(a, b) != max(c, d) for a, b, c, d in votes)
    found = {metric: float(rows[key(cell, metric)]["value"]) for metric in counts}
    assert found == counts
    for metric in counts:
        row = rows[key(cell, metric)]
        assert (row["n_models"], row["n_examples"]) == ("2", "100")
    by_class = Counter(naive.target[n] for n in pies)
    for c in range(10):
        row = rows[key(cell, "n_pies", str(c))]
        assert (float(row["value"]), row["n_examples"]) == (by_class[c], "10")


def test_the_small_study_has_pies_and_others(naive: Naive) -> None:
    """Else the tests of them would compare nothing with nothing."""
    for learner in LEARNERS:
        for pruning, sparsity in PRUNED:
            assert 0 < len(naive.pies(Cell(learner, pruning, sparsity))) < N_TEST


@every_learner
@every_pruned
def test_accuracy_and_score_of_pies_and_of_the_rest(
    naive: Naive,
    rows: dict[tuple[str, ...], dict[str, str]],
    learner: str,
    pruning: str,
    sparsity: float,
) -> None:
    cell = Cell(learner, pruning, sparsity)
    pies = naive.pies(cell)
    rest = [n for n in range(N_TEST) if n not in pies]
    for group, members in (("pie", pies), ("non_pie", rest)):
        for of, suffix in ((cell, ""), (dense(learner), "_dense")):
            accuracies = naive.accuracies(of, members)
            assert_mean(rows, cell, f"top1{suffix}", accuracies, len(members), group)
            scores = [float(naive.network(of, i)["q"][members].mean()) for i in IDS]
            assert_mean(rows, cell, f"q_score{suffix}", scores, len(members), group)


@every_learner
@every_cell
def test_q_scores_are_averaged_over_images_then_networks(
    naive: Naive,
    rows: dict[tuple[str, ...], dict[str, str]],
    learner: str,
    pruning: str,
    sparsity: float,
) -> None:
    cell = Cell(learner, pruning, sparsity)
    scores = [float(naive.network(cell, i)["q"].mean()) for i in IDS]
    assert_mean(rows, cell, "q_score", scores, N_TEST)


@every_learner
@every_pruned
def test_what_a_class_lost_more_than_the_average(
    naive: Naive,
    rows: dict[tuple[str, ...], dict[str, str]],
    learner: str,
    pruning: str,
    sparsity: float,
) -> None:
    cell = Cell(learner, pruning, sparsity)
    for c in range(10):
        members = [n for n in range(N_TEST) if naive.target[n] == c]
        normalised = [
            [
                recall - accuracy
                for recall, accuracy in zip(
                    naive.accuracies(of, members),
                    naive.accuracies(of, list(range(N_TEST))),
                    strict=True,
                )
            ]
            for of in (cell, dense(learner))
        ]
        row = rows[key(cell, "class_impact", str(c))]
        assert float(row["value"]) == pytest.approx(
            np.mean(normalised[0]) - np.mean(normalised[1]), abs=1e-9
        )
        assert (row["n_models"], row["n_examples"]) == ("2", "10")
        if np.std(normalised) > 1e-9 and min(np.ptp(values) for values in normalised) > 1e-9:
            p_value = scipy.stats.ttest_ind(*normalised, equal_var=False).pvalue
            found = rows[key(cell, "class_impact_p", str(c))]
            assert float(found["value"]) == pytest.approx(p_value, rel=1e-4)


@every_learner
def test_q_values_are_over_all_classes_and_cells(
    rows: dict[tuple[str, ...], dict[str, str]], learner: str
) -> None:
    tests = [(Cell(learner, *pruned), str(c)) for pruned in PRUNED for c in range(10)]
    p_values = [float(rows[key(cell, "class_impact_p", c)]["value"]) for cell, c in tests]
    q_values = [float(rows[key(cell, "class_impact_q", c)]["value"]) for cell, c in tests]
    assert q_values == pytest.approx(scipy.stats.false_discovery_control(p_values), rel=1e-6)


@every_learner
@every_pruned
@pytest.mark.parametrize(
    ("target", "metric"),
    [
        ("prediction", "prediction_depth"),
        ("label", "prediction_depth_label"),
        ("released", "prediction_depth_released"),
    ],
)
def test_depths_are_those_of_the_definition(
    naive: Naive,
    rows: dict[tuple[str, ...], dict[str, str]],
    learner: str,
    pruning: str,
    sparsity: float,
    target: str,
    metric: str,
) -> None:
    cell = Cell(learner, pruning, sparsity)
    pies = naive.pies(cell)
    rest = [n for n in range(N_TEST) if n not in pies]
    for of in (cell, dense(learner)):
        values = naive.depths(of, target).mean(axis=1).tolist()
        assert_mean(rows, of, metric, values, N_TEST)
    for group, members in (("pie", pies), ("non_pie", rest)):
        for of, suffix in ((cell, ""), (dense(learner), "_dense")):
            values = naive.depths(of, target)[:, members].mean(axis=1).tolist()
            assert_mean(rows, cell, f"{metric}{suffix}", values, len(members), group)


@every_learner
@every_cell
def test_the_accuracy_of_every_probe(
    naive: Naive,
    rows: dict[tuple[str, ...], dict[str, str]],
    learner: str,
    pruning: str,
    sparsity: float,
) -> None:
    cell = Cell(learner, pruning, sparsity)
    probes = [naive.network(cell, i)["probes"] for i in IDS]
    assert len(probes[0]) == 10  # depth 10: first convolution, and 2 + 1 in each of 3 groups
    for layer in range(10):
        values = [float((labels[layer] == naive.target).mean()) for labels in probes]
        assert_mean(rows, cell, f"probe_accuracy_layer_{layer + 1}", values, N_TEST)
    assert key(cell, "probe_accuracy_layer_11") not in rows


@every_learner
@every_pruned
def test_the_table_of_examples(
    study: Study, naive: Naive, learner: str, pruning: str, sparsity: float
) -> None:
    cell = Cell(learner, pruning, sparsity)
    name = f"pies_{pruning}_s{sparsity:.2f}.csv"
    with (study.pies / learner / "pies_distribution" / name).open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0])[:9] == [
        *("index", "label", "modal_dense", "modal_pruned", "votes_dense", "votes_pruned"),
        *("is_pie", "q_dense", "q_pruned"),
    ]
    assert [int(line["index"]) for line in lines] == list(range(N_TEST))
    assert [int(line["label"]) for line in lines] == naive.target
    for which, of in (("dense", dense(learner)), ("pruned", cell)):
        assert [int(line[f"modal_{which}"]) for line in lines] == naive.modal(of)
        agreeing = [2 if a == b else 1 for a, b in zip(*naive.labels(of), strict=True)]
        assert [int(line[f"votes_{which}"]) for line in lines] == agreeing
        q = np.mean([naive.network(of, i)["q"] for i in IDS], axis=0)
        assert [float(line[f"q_{which}"]) for line in lines] == pytest.approx(q, rel=1e-4)
    pies = [n for n, line in enumerate(lines) if line["is_pie"] == "1"]
    assert pies == naive.pies(cell)
    assert {line["is_pie"] for line in lines} == {"0", "1"}


@every_learner
def test_the_printed_table_has_the_numbers(
    study: Study, naive: Naive, rows: dict[tuple[str, ...], dict[str, str]], learner: str
) -> None:
    detection = study.results[learner][4].stdout
    lines = [line for line in detection.splitlines() if line.startswith(f"{learner} ")]
    printed = [line.split() for line in lines if "±" in line]
    assert len(printed) == len(CELLS)
    for words, (pruning, sparsity) in zip(printed, CELLS, strict=True):
        cell = Cell(learner, pruning, sparsity)
        assert words[:4] == [learner, pruning, f"{sparsity:.2f}", "2"]
        shown = []
        for of in (dense(learner), cell) if pruning != "dense" else (cell,):
            percent = [100 * accuracy for accuracy in naive.accuracies(of, list(range(N_TEST)))]
            shown += [f"{np.mean(percent):.2f}", "±", f"{np.std(percent, ddof=1):.2f}"]
        if pruning != "dense":
            shown += [str(len(naive.pies(cell))), "of", str(N_TEST)]
            assert words[-1] == f"{float(rows[key(cell, 'pie_p_value')]['value']):.3f}"
        assert words[4 : 4 + len(shown)] == shown


@every_learner
@every_pruned
def test_the_null_is_what_two_pairs_of_networks_can_give(
    naive: Naive,
    rows: dict[tuple[str, ...], dict[str, str]],
    learner: str,
    pruning: str,
    sparsity: float,
) -> None:
    """All exchanges of two dense and two pruned networks within the two pairs of equal id, by hand:
    a pruned network was made from the dense one, or shares its seeds."""
    cell = Cell(learner, pruning, sparsity)
    (a, b), (c, d) = naive.labels(dense(learner)), naive.labels(cell)
    halves = [((a, b), (c, d)), ((c, d), (a, b)), ((c, b), (a, d)), ((a, d), (c, b))]
    counts = [
        sum(min(x) != min(y) for x, y in zip(zip(*one, strict=True), zip(*other, strict=True),
                                             strict=True))
        for one, other in halves
    ]  # fmt: skip
    found = {
        metric: float(rows[key(cell, metric)]["value"])
        for metric in ("n_pies", "n_pies_null", "n_pies_excess", "pie_p_value")
    }
    assert float(rows[key(cell, "n_pies_null_paired")]["value"]) == 1
    error = 5 * np.std(counts) / 1000**0.5 + 1e-9
    assert found["n_pies_null"] == pytest.approx(np.mean(counts), abs=error)
    assert found["n_pies_excess"] == pytest.approx(found["n_pies"] - found["n_pies_null"])
    share = np.mean(np.array(counts) >= found["n_pies"])
    assert found["pie_p_value"] == pytest.approx(share, abs=0.08)
    null = rows[key(cell, "n_pies_null")]
    assert min(counts) <= float(null["ci_low"]) <= float(null["ci_high"]) <= max(counts)


@every_learner
@every_pruned
def test_figures_hold_what_the_table_says(
    study: Study, naive: Naive, learner: str, pruning: str, sparsity: float
) -> None:
    folder = study.pies / learner
    cell = Cell(learner, pruning, sparsity)
    is_pie = [n in naive.pies(cell) for n in range(N_TEST)]
    figure = f"PIEs_distribution_{learner}_{sparsity:.2f}sparsity_{pruning}_pruning.npz"
    with np.load(folder / "pies_distribution" / figure, allow_pickle=False) as stored:
        assert stored["is_pie"].tolist() == is_pie
        assert stored["label"].tolist() == naive.target
        assert (int(stored["n_models"]), stored["ids"].tolist()) == (2, [0, 1])
    figure = f"Q-SCORE_{pruning}_sparsity{sparsity:.2f}_{learner}.npz"
    with np.load(folder / "q_score" / figure, allow_pickle=False) as stored:
        q = np.mean([naive.network(cell, i)["q"] for i in IDS], axis=0)
        assert stored["pruned"] == pytest.approx(q, rel=1e-4)
        assert stored["is_pie"].tolist() == is_pie
    figure = f"Prediction_Depth_PIEs_{learner}_{pruning}_{sparsity:.2f}sparsity_{KNN}knn.npz"
    with np.load(folder / "prediction_depth" / figure, allow_pickle=False) as stored:
        depths = naive.depths(cell, "prediction").mean(axis=0)
        assert stored["pruned"].tolist() == depths.tolist()
        assert stored["is_pie"].tolist() == is_pie


@every_pruned
def test_the_learners_are_compared(
    study: Study, naive: Naive, pruning: str, sparsity: float
) -> None:
    folder = study.pies / "comparison"
    cells = {learner: Cell(learner, pruning, sparsity) for learner in LEARNERS}
    name = f"{sparsity:.2f}sparsity_{pruning}_pruning.npz"
    with np.load(folder / f"common_PIEs_{name}", allow_pickle=False) as stored:
        assert stored["learners"].tolist() == ["supervised", "SupCon"]
        for learner, is_pie in zip(LEARNERS, stored["is_pie"], strict=True):
            assert np.flatnonzero(is_pie).tolist() == naive.pies(cells[learner])
    with np.load(folder / f"disagreement_{name}", allow_pickle=False) as stored:
        for which, of in (
            ("dense", [dense(learner) for learner in LEARNERS]),
            ("pruned", list(cells.values())),
        ):
            first, second = (naive.modal(cell) for cell in of)
            differ = [a != b for a, b in zip(first, second, strict=True)]
            assert stored[f"differ_{which}"].tolist() == differ


def test_the_overlap_of_every_two_cells(study: Study, naive: Naive) -> None:
    with (study.pies / "comparison" / "overlap.csv").open(newline="") as file:
        lines = {(line["cell_a"], line["cell_b"]): line for line in csv.DictReader(file)}
    cells = [Cell(learner, *pruned) for learner in LEARNERS for pruned in PRUNED]
    assert len(lines) == len(cells) * (len(cells) - 1) / 2
    for (a, b), line in lines.items():
        one, other = (
            set(naive.pies(next(cell for cell in cells if str(cell) == name))) for name in (a, b)
        )
        assert (int(line["n_a"]), int(line["n_b"])) == (len(one), len(other))
        assert int(line["common"]) == len(one & other)
        assert float(line["jaccard"]) == pytest.approx(
            len(one & other) / len(one | other), abs=1e-6
        )


def test_maps_are_finite_and_belong_to_the_first_network(study: Study, naive: Naive) -> None:
    name = "UMAP_Classes_supervised_sparsity0.90_global_pruning.npz"
    with np.load(study.pies / "supervised" / "umap" / name, allow_pickle=False) as stored:
        assert stored["panels"].tolist() == ["dense", "pruned"]
        assert stored["xy"].shape == (2, N_TEST, 2)
        assert np.isfinite(stored["xy"]).all()
        for predicted, cell in zip(
            stored["predicted"], (dense("supervised"), Cell("supervised", "global", 0.9)),
            strict=True,
        ):  # fmt: skip
            assert predicted.tolist() == naive.labels(cell)[0]


# Running it again


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page takes seconds, and says nothing that the table does not."""
    monkeypatch.setattr(report, "write", lambda pies: None)


no_report = pytest.mark.usefixtures("without_report")


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and time of every file that is not a lock."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


@every_learner
def test_a_second_run_makes_nothing_and_says_the_same(study_copy: Study, learner: str) -> None:
    before = snapshot(study_copy.folder)
    for command, first in zip(
        study_copy.commands[learner], study_copy.results[learner], strict=True
    ):
        again = run_here(study_copy.folder, *command)
        assert (again.code, again.stderr) == (0, "")
        assert "2 to make" not in again.stdout
        if "pie_kmodels" in command[0] or "prediction_depth" in command[0]:
            assert again.stdout == first.stdout
    after = snapshot(study_copy.folder)
    assert {name: data for name, (data, _) in after.items()} == {
        name: data for name, (data, _) in before.items()
    }
    for name, (_, changed) in after.items():
        if not name.endswith(".csv"):
            assert changed == before[name][1], f"{name} was written again"


def sup_pies(*flags: str) -> tuple[str, ...]:
    return ("sup_pie_kmodels_detection.py", *STUDY, *flags)


@no_report
def test_a_population_is_its_ids_not_its_positions(study_copy: Study, naive: Naive) -> None:
    """The second network alone: compared with the second dense one, and nothing is averaged over
    networks that are not there."""
    flags = ("--models_number", "1", "--index_start", "1", "--pruning_percentages", "0.9")
    done = run_here(study_copy.folder, *sup_pies(*flags))
    assert done.code == 0
    rows = read_summary(study_copy.pies)
    for pruning in ("GMP", "later_GMP", "global"):
        cell = Cell("supervised", pruning, 0.9)
        before, after = (naive.network(of, 1)["labels"] for of in (dense("supervised"), cell))
        row = rows[key(cell, "n_pies")]
        assert (float(row["value"]), row["n_models"]) == ((before != after).sum(), "1")
        row = rows[key(cell, "top1")]
        assert float(row["value"]) == pytest.approx((after == naive.target).mean())
        assert (row["ci_low"], row["ci_high"], row["n_models"]) == ("", "", "1")
        row = rows[key(cell, "q_score")]
        assert float(row["value"]) == pytest.approx(naive.network(cell, 1)["q"].mean(), rel=1e-5)


@no_report
def test_dense_networks_against_others(study_copy: Study, naive: Naive) -> None:
    """Network 1 as the null of network 0: an image is a PIE where they disagree."""
    flags = ("--models_number", "1", "--null_index_start", "1")
    done = run_here(study_copy.folder, *sup_pies(*flags))
    assert (done.code, done.stderr) == (0, "")
    first, second = naive.labels(dense("supervised"))
    row = read_summary(study_copy.pies)[key(dense("supervised"), "n_pies_dense_null")]
    disagreeing = sum(a != b for a, b in zip(first, second, strict=True))
    assert (float(row["value"]), row["n_models"], row["n_examples"]) == (disagreeing, "1", "100")
    refused = run_here(study_copy.folder, *sup_pies("--null_index_start", "2"))
    assert refused.code == 4
    assert "sup_training.py" in refused.stderr
    assert refused.stderr.count("\n") == 1


@no_report
def test_numbers_of_another_population_size_do_not_stay(study_copy: Study) -> None:
    """A spread over two networks beside a mean of one would be read as its spread."""
    done = run_here(study_copy.folder, *sup_pies("--models_number", "1"))
    assert done.code == 0
    rows = read_summary(study_copy.pies)
    for metric in ("top1", "q_score"):
        row = rows[key(Cell("supervised", "global", 0.9), metric)]
        spread = rows.get(key(Cell("supervised", "global", 0.9), f"{metric}_sd"))
        assert row["n_models"] == "1"
        assert spread is None or spread["n_models"] == "1"
    assert "±" not in done.stdout


def test_one_network_is_enough(tmp_path: Path) -> None:
    """--models_number 1 from the first script to the last."""
    one = (*STUDY, "--models_number", "1")
    for script, *flags in (
        ("sup_training.py", *TRAINING["supervised"]),
        ("sup_pruning_finetune.py", *FINETUNING),
        ("sup_pie_kmodels_detection.py", "--plot_q_score"),
        ("sup_prediction_depth.py", "--knn", KNN),
    ):
        done = run_here(tmp_path, script, *one, *flags)
        assert (done.code, done.stderr) == (0, ""), done.stderr
    rows = read_summary(tmp_path / "pies" / "digits")
    assert {row["n_models"] for row in rows.values()} == {"1"}
    assert not any(name[3].endswith("_sd") for name in rows)
    means = [
        row
        for name, row in rows.items()
        if name[3].startswith(("top1", "q_score", "prediction_depth", "probe_accuracy", "n_pies"))
        and name[3] != "n_pies_null"  # which has an interval over exchanges
    ]
    assert len(means) > 50
    assert all(row["ci_low"] == row["ci_high"] == "" for row in means)


@no_report
def test_a_missing_cell_is_named_and_left_out(study_copy: Study) -> None:
    flags = sup_pies("--pruning_percentages", "0.5,0.77")
    assert run_here(study_copy.folder, *flags).code == 4
    done = run_here(study_copy.folder, *flags, "--allow_missing")
    assert done.code == 0
    for missing in ("GMP 0.50", "later_GMP 0.50", "GMP 0.77", "later_GMP 0.77", "global 0.77"):
        assert f"supervised {missing}: 0 of the 2 networks" in done.stdout
    assert "supervised global 0.50: 0 of" not in done.stdout
    assert not any("0.77" in name for name in contents(study_copy.folder))


@no_report
def test_a_cell_with_fewer_networks_is_compared_id_by_id(study_copy: Study, naive: Naive) -> None:
    (study_copy.models / "supervised_global_s0.90_id00.pt").unlink()
    done = run_here(study_copy.folder, *sup_pies("--allow_missing"))
    assert done.code == 0
    assert "supervised global 0.90: 1 of the 2 networks" in done.stdout
    cell = Cell("supervised", "global", 0.9)
    row = read_summary(study_copy.pies)[key(cell, "n_pies")]
    before, after = (naive.network(of, 1)["labels"] for of in (dense("supervised"), cell))
    assert (float(row["value"]), row["n_models"]) == ((before != after).sum(), "1")


def test_half_a_supcon_network_is_made_again(study_copy: Study) -> None:
    head = study_copy.models / "SupCon_dense_s0.00_id00_head.pt"
    other = study_copy.models / "SupCon_dense_s0.00_id01_head.pt"
    before, kept = torch.load(head, weights_only=True), other.stat().st_mtime_ns
    head.unlink()
    done = run_here(study_copy.folder, *study_copy.commands["SupCon"][0])
    assert done.code == 0
    assert "1 networks finished, 1 to make" in done.stdout
    assert other.stat().st_mtime_ns == kept
    after = torch.load(head, weights_only=True)
    assert all(torch.equal(after["model"][name], before["model"][name]) for name in before["model"])


def test_overwriting_makes_the_networks_again_and_forgets_what_they_said(
    study_copy: Study, naive: Naive
) -> None:
    path = study_copy.models / "supervised_dense_s0.00_id00.pt"
    untouched = study_copy.models / "SupCon_dense_s0.00_id00_head.pt"
    before, kept = path.read_bytes(), untouched.read_bytes()
    train = [*study_copy.commands["supervised"][0], "--epochs", "1", "--overwrite"]
    done = run_here(study_copy.folder, *train)
    assert done.code == 0
    assert path.read_bytes() != before
    assert untouched.read_bytes() == kept
    assert torch.load(path, weights_only=True)["config"]["epochs"] == 1
    # What was said about the pruned networks compared them with other dense ones.
    rows = read_summary(study_copy.pies)
    assert {name[:3] for name in rows if name[0] == "supervised"} == {
        ("supervised", "dense", "0.00")
    }
    assert {name[1] for name in rows if name[0] == "SupCon"} == {
        "dense", "GMP", "later_GMP", "global"
    }  # fmt: skip
    fresh = Naive(study_copy.models)
    assert_mean(
        rows, dense("supervised"), "top1",
        fresh.accuracies(dense("supervised"), list(range(N_TEST))), N_TEST,
    )  # fmt: skip
    # Networks that were fine-tuned from the former dense ones are refused, naming the reason.
    refused = run_here(study_copy.folder, "sup_pruning_finetune.py", *STUDY, *FINETUNING)
    assert refused.code == 4
    assert "parent" in refused.stderr


@no_report
def test_predictions_of_a_replaced_network_are_not_reused(study_copy: Study, naive: Naive) -> None:
    """Fine-tuned anew under the same name: the cache is known by the network's contents."""
    finetune = ("sup_pruning_finetune.py", *STUDY, *FINETUNING, "--learning_rate", "0.05")
    assert run_here(study_copy.folder, *finetune, "--overwrite").code == 0
    assert run_here(study_copy.folder, *sup_pies()).code == 0
    fresh, cell = Naive(study_copy.models), Cell("supervised", "global", 0.5)
    assert fresh.labels(cell) != naive.labels(cell)
    row = read_summary(study_copy.pies)[key(cell, "n_pies")]
    assert float(row["value"]) == len(fresh.pies(cell))


@no_report
def test_damaged_caches_are_made_again(study_copy: Study) -> None:
    cache = study_copy.pies / "supervised" / "predictions" / "supervised_dense_s0.00_id00.npz"
    before = cache.read_bytes()
    cache.write_bytes(before[: len(before) // 2])
    summary = (study_copy.pies / "summary.csv").read_bytes()
    done = run_here(study_copy.folder, *study_copy.commands["supervised"][4])
    assert done.code == 0
    assert cache.name in done.stdout + done.stderr
    assert (study_copy.pies / "summary.csv").read_bytes() == summary
    with np.load(cache, allow_pickle=False) as stored:
        assert stored["labels"].shape == (N_TEST,)


@no_report
def test_a_figure_that_cannot_be_drawn_costs_no_number(
    study_copy: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.figures import plots

    def failing(contents: dict[str, np.ndarray]) -> None:
        raise RuntimeError("no fonts")

    folder = study_copy.pies / "supervised" / "pies_distribution"
    tables = sorted(folder.glob("*.csv"))
    for path in [*tables, *folder.glob("*.png"), study_copy.pies / "summary.csv"]:
        path.unlink()
    monkeypatch.setattr(plots, "pies_by_class", failing)
    try:
        run_here(study_copy.folder, *sup_pies())
    except RuntimeError as error:  # also a way to end, if the numbers are safe
        assert "no fonts" in str(error)
    assert sorted(folder.glob("*.csv")) == tables
    rows = read_summary(study_copy.pies)
    for pruning, sparsity in PRUNED:
        assert key(Cell("supervised", pruning, sparsity), "n_pies") in rows


@every_learner
@every_pruned
def test_losses_are_paired_by_network(
    naive: Naive,
    rows: dict[tuple[str, ...], dict[str, str]],
    learner: str,
    pruning: str,
    sparsity: float,
) -> None:
    cell = Cell(learner, pruning, sparsity)
    differences = [
        sum(a == t for a, t in zip(before, naive.target, strict=True)) / N_TEST
        - sum(b == t for b, t in zip(after, naive.target, strict=True)) / N_TEST
        for before, after in zip(naive.labels(dense(learner)), naive.labels(cell), strict=True)
    ]
    row = rows[key(cell, "top1_lost")]
    assert float(row["value"]) == pytest.approx(np.mean(differences))
    half = scipy.stats.t.ppf(0.975, 1) * np.std(differences, ddof=1) / 2**0.5
    assert float(row["ci_high"]) - float(row["value"]) == pytest.approx(half, abs=1e-9)
