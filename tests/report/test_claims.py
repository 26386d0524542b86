"""Every claim gets one verdict, which is right in simulated worlds where an earlier reading was
wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.random import Generator

from common import files, paths
from common.analysis import clusters, multiplicity, pie, q_score, resampling, statistics
from common.analysis.statistics import Estimate
from common.report import claims, evidence, pie_rows, rows, stored_pies
from common.report.evidence import Evidence
from common.study import LEARNERS, SCHEDULES, Cell
from tests.analysis.pie_worlds import World, logits, lose
from tests.analysis.test_held_out import make
from tests.report.made_up import population, row, store, store_rows

C, N, K = 5, 400, 10
MEAN = logits(N, C, np.random.default_rng(3))
LABEL = MEAN.argmax(axis=1)


def read(pies: Path) -> list[dict[str, str]]:
    claims.run(pies)
    return files.read_csv(paths.claims(pies))


def verdict(pies: Path, name: str) -> str:
    """That of a claim: the same on all of its lines."""
    (found,) = {line["verdict"] for line in read(pies) if line["name"] == name}
    return found


def number(pies: Path, statistic: str) -> tuple[float, float, float]:
    return pick(read(pies), statistic)


def pick(found: list[dict[str, str]], statistic: str) -> tuple[float, float, float]:
    (line,) = [line for line in found if line["statistic"].startswith(statistic)]
    return float(line["value"]), float(line["ci_low"]), float(line["ci_high"])


def store_world(
    pies: Path, cell: Cell, world: World, rng: Generator, k: int = K
) -> tuple[np.ndarray, np.ndarray]:
    """Networks of a simulated world; the dense ones of a learner are always the same."""
    seed = np.random.default_rng(list(LEARNERS).index(cell.learner))
    dense, pruned = world.sample(k, seed)[0], world.sample(k, rng)[1]
    store(pies, LABEL, population(cell.dense, dense), population(cell, pruned))
    return dense, pruned


# What a verdict is


def test_without_networks_nothing_is_tested(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert [line["name"] for line in found] == ["K1", "K2", "K3", "K4", "K5"]
    assert {line["verdict"] for line in found} == {"not tested"}
    assert {line["note"] for line in found} == {evidence.NO_CELLS}


def test_one_verdict_a_claim_corrected_over_all_five() -> None:
    """p is .03 alone, and .16 with four claims of which nothing is known."""
    sure, barely = Estimate(5, 3, 7), Estimate(2.7, 0.3, 5.1)

    def decide(*found: Evidence) -> dict[str, str]:
        return {name: one.verdict for name, one in claims.decide(list(found)).items()}

    alone = decide(Evidence("K5", "", barely, 10, True))
    assert alone == dict.fromkeys(["K1", "K2", "K3", "K4"], "not tested") | {"K5": "marginal"}
    assert decide(Evidence("K5", "", sure, 10, True))["K5"] == "supported"
    with_another = decide(
        Evidence("K5", "", sure, 10, True), Evidence("K5", "", Estimate(1, -1, 3), 10, True)
    )
    assert with_another["K5"] == "undecided"
    beside = decide(Evidence("K5", "", sure, 10, True), Evidence("K5", "", sure, 10, False))
    assert beside["K5"] == "supported"
    with_missing = decide(Evidence("K5", "", sure, 10, True), Evidence("K5", "", None, 0, True))
    assert with_missing["K5"] == "incomplete"
    no_interval = Evidence("K5", "", Estimate(1, np.nan, np.nan), 1, True)
    assert decide(no_interval)["K5"] == "not tested"


@pytest.mark.parametrize("present", [1, 3])
def test_numbers_that_could_not_be_had_change_no_verdict(present: int) -> None:
    """One number below 0 contradicts, corrected for all that were planned."""
    against = Evidence("K3", "", Estimate(-4, -6.2, -1.8), 10, True)
    missing = [Evidence("K3", "", None, 0, True, "missing")] * (9 - present)
    beside = [Evidence("K3", "", Estimate(1, -1, 3), 10, True)] * (present - 1)
    found = claims.decide([against, *beside, *missing])["K3"]
    p_value = multiplicity.p_from_interval(*against.found, df=9)
    assert found.p_value == pytest.approx(5 * 9 * p_value)


# K1


def severe(severity: float) -> World:
    """Errors and PIEs that rise with the severity of pruning, alike for all learners."""
    rng = np.random.default_rng(4)
    return World(MEAN, lose(MEAN, 2.5 * severity, rng), (1, 1 + severity))


def store_learners(pies: Path, severities: dict[str, tuple[float, ...]]) -> None:
    made = []
    for learner, of_learner in severities.items():
        for severity, sparsity in zip(of_learner, (0.5, 0.7, 0.9), strict=False):
            cell = Cell(learner, "global", sparsity)
            rng = np.random.default_rng(round(100 * severity))
            labels = store_world(pies, cell, severe(severity), rng)
            value = float(pie.find_pies(*labels, C).sum())
            interval = resampling.count_interval(*labels, C, False, 200, rng)
            made.append(rows.row(cell, "n_pies", value, K, N, interval=interval))
    store_rows(pies, *made)


def test_more_errors_are_not_more_lost(tmp_path: Path) -> None:
    """K1 by counts at equal sparsity holds wherever a learner prunes worse."""
    store_learners(tmp_path, {"supervised": (0.2, 0.45, 0.7), "SupCon": (0.35, 0.65, 1.0)})
    found = read(tmp_path)
    assert pick(found, "PIEs at equal sparsity")[1] > 0  # the earlier verdict
    for what in ("corrected PIEs", "PIEs"):
        value, low, high = pick(found, f"{what} at the highest common error")
        assert low < 0 < high
        assert abs(value) < 10
    assert found[0]["verdict"] == "undecided"


def test_less_stable_votes_are_not_more_lost(tmp_path: Path) -> None:
    """K1 by raw counts at equal error. Both learners forget the same images; on 60 others half of
    the predictions are wrong: all those for 30 images, or random ones."""
    for learner, rival in (("supervised", np.repeat((-50, 50), 30)), ("SupCon", np.zeros(60))):
        for severity, sparsity in ((0.2, 0.5), (0.5, 0.7), (0.8, 0.9)):
            made = severe(severity)
            made = made._replace(dense=made.dense.copy())
            for mean in (made.dense, made.pruned):
                mean[:60] = -99
                mean[np.arange(60), LABEL[:60]] = 0
                mean[np.arange(60), (LABEL[:60] + 1) % C] = rival
            cell = Cell(learner, "global", sparsity)
            store_world(tmp_path, cell, made, np.random.default_rng(round(100 * severity)))
    found = read(tmp_path)
    assert pick(found, "PIEs at the highest common error")[1] > 0  # the earlier verdict
    _, low, high = pick(found, "corrected PIEs at the highest common error")
    assert low < 0 < high
    assert found[0]["verdict"] == "undecided"


@pytest.mark.parametrize("more", [1, -1])
def test_a_difference_that_changes_sign_is_decided_at_high_error(tmp_path: Path, more: int) -> None:
    """K1 by the average over errors. On 100 images all networks vote for class 1; at each sparsity
    some of them are lost, to class 2. SupCon loses more at low error, on average, and fewer at high
    error, or the reverse."""
    for learner, lost in zip(LEARNERS, ((5, 20, 80), (60, 50, 40))[::more], strict=True):
        for n_lost, severity, sparsity in zip(lost, (0.2, 0.5, 0.8), (0.5, 0.7, 0.9), strict=True):
            made = severe(severity)
            made = made._replace(dense=made.dense.copy())
            made.dense[:100, 1] = made.pruned[:100, 1] = 99
            made.pruned[:n_lost, 2] = 199
            cell = Cell(learner, "global", sparsity)
            store_world(tmp_path, cell, made, np.random.default_rng(round(100 * severity)))
    found = read(tmp_path)
    for what, sign in (
        ("averaged over common errors", more),  # the earlier verdict
        ("at the lowest common error", more),
        ("at the highest common error", -more),
    ):
        (line,) = [line for line in found if line["statistic"].startswith(f"corrected PIEs {what}")]
        assert min(sign * float(line["ci_low"]), sign * float(line["ci_high"])) > 0
        assert line["note"] == "the sign depends on the error"
    assert found[0]["verdict"] == ("contradicted" if more > 0 else "incomplete")


def test_learners_without_common_errors_are_not_compared(tmp_path: Path) -> None:
    store_learners(tmp_path, {"supervised": (0.1, 0.2), "SupCon": (0.8, 0.95)})
    found = read(tmp_path)
    assert pick(found, "PIEs at equal sparsity")[1] > 0
    assert found[0]["verdict"] == "not tested"
    assert "the learners have no error in common" in {line["note"] for line in found}


def test_populations_of_other_sizes_are_not_compared(tmp_path: Path) -> None:
    for learner, k in (("supervised", 10), ("SupCon", 5)):
        cell = Cell(learner, "global", 0.9)
        store_world(tmp_path, cell, severe(0.2), np.random.default_rng(0), k)
        metric = "embedding_silhouette_retained"
        store_rows(tmp_path, row(cell, "n_pies", k, n_models=k), row(cell, metric, 0.5, n_models=k))
    found = read(tmp_path)
    assert not [line for line in found if line["statistic"].startswith("PIEs at equal sparsity")]
    assert "populations of 10 and of 5 networks" in {line["note"] for line in found}


def test_predictions_of_another_analysis_are_not_used(tmp_path: Path) -> None:
    cell = Cell("SupCon", "GMP", 0.9)
    for schedule in ("GMP", "later_GMP"):
        store_world(
            tmp_path, cell._replace(pruning_method=schedule), severe(0.5), np.random.default_rng(0)
        )
    assert verdict(tmp_path, "K2") == "undecided"
    path = paths.predictions(tmp_path, cell, 3)
    predicted = files.load_arrays(path)
    predicted["labels"][:9] = (predicted["labels"][:9] + 1) % C
    files.save_arrays(path, predicted)
    found = [line for line in read(tmp_path) if line["name"] in ("K2", "K3")]
    assert {line["verdict"] for line in found} == {"not tested"}
    assert {line["note"] for line in found} == {evidence.AGAIN}


# K2


def features(n_active: int, spread: float, rng: Generator) -> np.ndarray:
    """Embeddings [N,64] of which each class has n_active features of its own, and noise."""
    centre = np.zeros((C, 64))
    for c in range(C):
        centre[c, 12 * c : 12 * c + n_active] = 1
    return np.maximum(centre[LABEL] + spread * rng.normal(size=(N, 64)), 0).astype(np.float32)


def test_a_sparser_embedding_is_not_a_better_one(tmp_path: Path) -> None:
    """K2 by Q-Score: the later networks' features are fewer and noisier."""
    q, later, early = [], *(Cell("supervised", name, 0.9) for name in ("later_GMP", "GMP"))
    for cell, n_active, spread, n_wrong in ((later, 1, 0.35, 60), (early, 10, 0.3, 40)):
        rng = np.random.default_rng(n_active)
        embeddings = [features(n_active, spread, rng) for _ in range(K)]
        wrong = [rng.random(N) < n_wrong / N for _ in range(K)]
        labels = np.array([np.where(w, (LABEL + 1) % C, LABEL) for w in wrong])
        knn = np.array([clusters.knn_accuracy(h, LABEL, C) for h in embeddings])
        dense = population(cell.dense, np.tile(LABEL, (K, 1)))
        store(tmp_path, LABEL, dense, population(cell, labels, knn_accuracy=knn))
        q.append(np.array([np.nanmean(q_score.q_score(h).q) for h in embeddings]))
    low, _ = statistics.mean_over_networks(q[0] - q[1]).interval
    assert low > 0  # the earlier verdict
    for what in ("top-1", "10-NN"):
        assert number(tmp_path, what)[2] < 0
    assert verdict(tmp_path, "K2") == "contradicted"


@pytest.mark.parametrize(
    ("steps", "decides", "note"),
    [
        ((None, None), "yes", "pruned from 10 to 19.4 % of training, early from 1.25 to 25 %"),
        (((10, 90), (40, 90)), "yes", "pruned from 40 to 90 steps, early from 10 to 90 steps"),
        (((10, 90), (10, 50)), "", "only the ends differ"),
    ],
)
def test_start_and_end_are_told_apart(
    tmp_path: Path, steps: tuple[tuple[int, int] | None, ...], decides: str, note: str
) -> None:
    recipe = {}
    for name, window in zip(("GMP", "later_GMP"), steps, strict=True):
        cell = Cell("SupCon", name, 0.9)
        labels = np.tile(LABEL, (K, 1))
        store(tmp_path, LABEL, population(cell.dense, labels), population(cell, labels))
        begin, end = window or (None, None)
        recipe[str(cell)] = {"begin_step": begin, "end_step": end}
    files.write_text(paths.recipes(tmp_path, "SupCon"), json.dumps(recipe))
    found = [line for line in read(tmp_path) if line["name"] == "K2" and line["value"]]
    assert [line["decides"] for line in found] == [decides] * 2
    assert all(note in line["note"] for line in found)
    assert ("not the start" in found[0]["note"]) == (steps == (None, None))


# K3


def test_uniqueness_does_not_depend_on_the_number_of_cells(tmp_path: Path) -> None:
    """K3 by the share that is unique to one of the cells: all lose the same images, two populations
    of them share less than half, and six hardly leave an image to one."""
    world = World(MEAN, lose(MEAN, 1.2, np.random.default_rng(1)), (1.0, 1.4))
    cells = [Cell(learner, schedule, 0.9) for schedule in SCHEDULES for learner in LEARNERS]
    unique, lines = [], []
    for i, cell in enumerate(cells):
        store_world(tmp_path, cell, world, np.random.default_rng(i))
        if i + 1 in (2, 6):
            lost = np.array([found["is_pie"] for found in stored_pies_of(tmp_path)])
            times = lost.sum(axis=0)
            unique.append((times == 1).sum() / (times > 0).sum())
            lines.append([line for line in read(tmp_path) if line["name"] == "K3"])
    assert unique[0] > 0.5 > unique[1]  # the earlier verdicts
    assert {line["verdict"] for of in lines for line in of} == {"contradicted"}
    statistics_of = [{line["statistic"]: line["value"] for line in of} for of in lines]
    assert len(statistics_of[1]) == 18
    assert statistics_of[0].items() <= statistics_of[1].items()


def test_cells_that_lose_other_images_are_unique(tmp_path: Path) -> None:
    for i, learner in enumerate(LEARNERS):
        world = World(MEAN, lose(MEAN, 3.0, np.random.default_rng(i)), (1.0, 1.0))
        store_world(tmp_path, Cell(learner, "global", 0.9), world, np.random.default_rng(i))
    assert number(tmp_path, "uniqueness")[1] > 0.5
    assert verdict(tmp_path, "K3") == "incomplete"  # one pair of cells of nine


def stored_pies_of(pies: Path) -> list[dict[str, np.ndarray]]:
    return list(stored_pies.pies_by_cell(pies).values())


# K4


@pytest.mark.parametrize(("name", "expected"), [("noisy", "undecided"), ("trait", "incomplete")])
def test_unstable_images_are_deep_whatever_pruning_does(
    tmp_path: Path, name: str, expected: str
) -> None:
    """K4 by PIEs against other images: they are near a boundary if pruning only adds noise, too."""
    n, rng, cell = 1500, np.random.default_rng(0), Cell("SupCon", "global", 0.9)
    world, score = make(name, n, 0)
    dense, pruned = world.sample(K, rng)
    populations = population(cell.dense, dense), population(cell, pruned)
    label = world.dense.argmax(axis=1)
    store(tmp_path, label, *populations)
    made = []
    for metric, sign in (("q_score", -1), ("prediction_depth", 1)):
        noise = rng.normal(0, 0.3, (2, K, 1)) * score + rng.normal(size=(2, K, n))
        scores = dict(zip(("dense", "pruned"), sign * (score + noise), strict=True))
        is_pie = pie.find_pies(dense, pruned, C)
        of_pies, of_others = (scores["pruned"][:, who].mean(axis=1) for who in (is_pie, ~is_pie))
        low, _ = statistics.mean_over_networks(sign * (of_pies - of_others)).interval
        assert low > 0  # the earlier verdict
        made += pie_rows.of_held_out(cell, metric, *populations, scores, C, 0)
    store_rows(tmp_path, row(cell, "probe_accuracy_layer_1", 0.5), *made)
    assert number(tmp_path, "Q-Score times -1: PIEs minus other images, SupCon")[1] > 0
    assert verdict(tmp_path, "K4") == expected
    assert "at most 1" in [line["statistic"] for line in read(tmp_path)][-3]


@pytest.mark.parametrize(
    ("k", "n_scored", "note"),
    [(10, 10, "no PIEs"), (10, 3, "there are 10 and 3"), (5, 5, "there are 5 and 5")],
)
def test_a_missing_number_says_why(tmp_path: Path, k: int, n_scored: int, note: str) -> None:
    cell, labels = Cell("SupCon", "global", 0.9), np.tile(LABEL, (k, 1))
    store(tmp_path, LABEL, population(cell.dense, labels), population(cell, labels))
    measured = row(cell, "prediction_depth", 3, n_models=n_scored)
    store_rows(tmp_path, row(cell, "top1", 1, n_models=k), measured)
    found = [line for line in read(tmp_path) if line["statistic"].startswith("prediction depth")]
    assert note in found[0]["note"]


# K5


def test_an_embedding_that_had_more_to_lose_did_not_merge_more(tmp_path: Path) -> None:
    """K5 by differences: .55 -> .185 and .467 -> .159 keep the same share."""
    lost, made = {}, []
    for learner, before, after in (("supervised", 0.55, 0.185), ("SupCon", 0.467, 0.159)):
        cell = Cell(learner, "global", 0.97)
        rng = np.random.default_rng(0)
        labels = np.tile(LABEL, (K, 1))
        dense, pruned = (level + rng.normal(0, 0.015, K) for level in (before, after))
        lost[learner] = statistics.mean_over_networks(dense - pruned)
        store(tmp_path, LABEL, population(cell.dense, labels), population(cell, labels))
        for metric in ("embedding_silhouette", "embedding_silhouette_cosine"):
            kept = statistics.ratio(pruned, dense)
            made.append(row(cell, f"{metric}_retained", kept.value, kept.high - kept.value))
    store_rows(tmp_path, *made)
    a, b = (Estimate(lost[learner].mean, *lost[learner].interval) for learner in LEARNERS)
    assert statistics.difference(b, a).high < 0  # the earlier verdict: contradicted
    assert verdict(tmp_path, "K5") == "undecided"


def test_neither_keeps_clusters_where_one_has_none_and_the_other_overlaps(tmp_path: Path) -> None:
    """K5 by shares below 0: .063 -> .002 and .031 -> -.018, as CIFAR-10 had them."""
    kept = {"supervised": Estimate(0.03, -0.02, 0.08), "SupCon": Estimate(-0.6, -0.78, -0.43)}
    assert statistics.difference(*kept.values()).low > 0.4  # the earlier verdict: supported
    made = []
    for learner, (value, low, high) in kept.items():
        cell, labels = Cell(learner, "global", 0.9), np.tile(LABEL, (K, 1))
        store(tmp_path, LABEL, population(cell.dense, labels), population(cell, labels))
        made += [
            rows.row(cell, f"{metric}_retained", value, K, N, interval=(low, high))
            for metric in ("embedding_silhouette", "embedding_silhouette_cosine")
        ]
    store_rows(tmp_path, *made)
    text = "share of the cosine silhouette that is kept, supervised minus SupCon"
    assert number(tmp_path, text) == pytest.approx((0.03, -0.02, 0.08))  # no share is above 0.08
    assert verdict(tmp_path, "K5") == "undecided"


def test_learners_are_compared_at_their_highest_common_sparsity(tmp_path: Path) -> None:
    made = []
    for learner, sparsities in (("supervised", (0.5, 0.9)), ("SupCon", (0.5, 0.9, 0.95))):
        for sparsity in sparsities:
            cell, labels = Cell(learner, "global", sparsity), np.tile(LABEL, (K, 1))
            store(tmp_path, LABEL, population(cell.dense, labels), population(cell, labels))
            value = 0.9 - (learner == "SupCon") * sparsity / 2
            for metric in ("embedding_silhouette", "embedding_silhouette_cosine"):
                made.append(row(cell, f"{metric}_retained", value, 0.02))
    store_rows(tmp_path, *made)
    text = "share of the Euclidean silhouette that is kept, supervised minus SupCon, global 0.90"
    assert number(tmp_path, text)[0] == pytest.approx(0.45)
    assert verdict(tmp_path, "K5") == "supported"


def test_a_control_without_pruning_says_nothing_about_pruning(tmp_path: Path) -> None:
    for learner in LEARNERS:
        store_world(tmp_path, Cell(learner, "global", 0.0), severe(0.5), np.random.default_rng(0))
    assert {line["verdict"] for line in read(tmp_path)} == {"not tested"}
