"""The numbers behind each claim of arXiv 2207.00200: some decide the claim, others accompany them.

A deciding number is above 0 if its claim is true. Which cells are compared is fixed beforehand: two
cells, pruned by magnitude, at the highest sparsity that both have. In K1 all sparsities of two
prunings are compared, at the highest error that both reach. So no number depends on cells of other
prunings, or on the flags of one run.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import paths, recipes
from common.analysis import matched, reliability, resampling, statistics
from common.analysis.predictions import Population
from common.analysis.statistics import Estimate
from common.analysis.subsets import modes_differ
from common.report import rows, stored_pies
from common.report.rows import Row
from common.study import (
    EARLY,
    LATER,
    LEARNERS,
    ONE_SHOT,
    SCHEDULES,
    Cell,
    counted,
    format_sparsity,
)

SEED = 0  # for the random halves of K1 and K3, which are the same in every run
N_SPLITS = 60  # splits of the ids, in K3
N_SPLITS_MATCHED = 5  # splits of each of 200 random halves of the ids, in K1
N_REPEATS = 40  # corrected counts of all ids, in K1
NO_CELLS = "no such cells were analysed"
AGAIN = "run PIE detection again: its predictions are missing, or of another analysis"

Compared = tuple[Population, Population]  # dense, pruned
Series = tuple[str, str]  # learner and pruning: cells of several sparsities


class Evidence(NamedTuple):
    """A number about a claim. If it is missing, `found` is None, and `note` says why."""

    claim: str
    statistic: str
    found: Estimate | None
    n_models: int  # of the smaller population
    decides: bool
    note: str = ""


class Stored(NamedTuple):
    """The results that the analyses stored."""

    pies: Path
    rows: dict[tuple[Cell, str], Row]  # over all images, with an interval
    compared: dict[Cell, Compared | None]  # None: predictions no longer fit the stored PIEs
    label: np.ndarray
    n_classes: int


def gather(pies: Path) -> list[Evidence]:
    """The evidence in a folder pies/<dataset>. Each deciding number is listed, even if missing."""
    stored = _read(pies)
    found = (_more_lost, _early, _unique, _special, _clusters)
    return [evidence for of_claim in found for evidence in of_claim(stored)]


def _read(pies: Path) -> Stored:
    by_metric = {
        (line.cell, line.metric): line
        for line in rows.read(pies)
        if line.group == "all" and line.ci_low is not None and line.ci_high is not None
    }
    cells = {
        cell: found
        for cell, found in stored_pies.pies_by_cell(pies).items()
        if cell.pruning_method in SCHEDULES and cell.sparsity > 0
    }
    load = functools.cache(stored_pies.load_labels)  # cells share dense networks
    compared = {cell: stored_pies.populations(pies, cell, a, load) for cell, a in cells.items()}
    some = next(iter(cells.values()), {"label": np.array([]), "classes": np.array([])})
    return Stored(pies, by_metric, compared, some["label"], len(some["classes"]))


def _more_lost(stored: Stored) -> Iterator[Evidence]:
    """K1. Errors alone make PIEs, and at equal sparsity the learner that suffers more from pruning
    has more of both; so counts at equal error decide. Among these the corrected count decides: if
    two learners forget alike but the votes of one are less stable, its raw count is larger. The
    claim speaks of high sparsity, so the difference at the highest common error decides. An average
    over errors may lie above 0 although SupCon loses fewer images there."""
    supervised, supcon = LEARNERS
    for schedule in SCHEDULES:
        yield from _at_equal_error(stored, schedule)
        pair = _highest(stored, (supcon, schedule), (supervised, schedule))
        for metric, what in (("n_pies_corrected", "corrected PIEs"), ("n_pies", "PIEs")):
            text = f"{what} at equal sparsity, SupCon minus supervised, {schedule}"
            difference = _difference(stored, "K1", text, metric, pair, decides=False)
            if difference.found:
                yield difference


def _at_equal_error(stored: Stored, schedule: str) -> Iterator[Evidence]:
    def corrected(*labels_and_subsets: np.ndarray) -> np.ndarray:
        options = (stored.n_classes, N_SPLITS_MATCHED, np.random.default_rng(SEED))
        return resampling.corrected_counts(*labels_and_subsets, *options)

    def raw(dense: np.ndarray, pruned: np.ndarray, subsets: np.ndarray) -> np.ndarray:
        return modes_differ(dense, subsets, pruned, subsets, stored.n_classes).sum(axis=1)

    levels, why_not = _levels(stored, schedule)
    n_models = min((len(level.errors) for of in levels for level in of), default=0)
    end = f"SupCon minus supervised, {schedule}"
    for what, count, n_repeats in (("corrected PIEs", corrected, N_REPEATS), ("PIEs", raw, 1)):
        rng, decides = np.random.default_rng(SEED), count is corrected
        found = matched.matched_difference(*levels, count, rng, n_repeats=n_repeats)
        if found is None:
            text = f"{what} at the highest common error, {end}"
            if decides:
                yield Evidence("K1", text, None, n_models, True, why_not)
            continue
        low, high = (f"{100 * error:.1f} %" for error in found.errors)
        note = "the sign depends on the error" if found.changes_sign() else ""
        for where, number, is_highest in (
            (f"at the highest common error, {high}", found.highest, True),
            (f"at the lowest common error, {low}", found.lowest, False),
            ("averaged over common errors", found.average, False),
        ):
            text = f"{what} {where}, {end}"
            yield Evidence("K1", text, number, n_models, decides and is_highest, note)


def _levels(stored: Stored, schedule: str) -> tuple[list[list[matched.Level]], str]:
    """Both learners at all their sparsities; and the reason if they cannot be compared."""
    cells = [
        [cell for cell in stored.compared if cell[:2] == (learner, schedule)]
        for learner in LEARNERS
    ]
    levels = [
        [
            matched.Level((pruned.labels != stored.label).mean(axis=1), dense.labels, pruned.labels)
            for dense, pruned in _networks(stored, of_learner)
        ]
        for of_learner in cells
    ]
    if not all(cells):
        return levels, NO_CELLS
    if not all(levels):
        return levels, AGAIN
    if min(len(level.errors) for of_learner in levels for level in of_learner) < 4:
        return levels, "needs 4 networks of the same ids"
    if min(map(len, levels)) < 2:
        return levels, "needs two sparsities of each learner"
    return levels, "the learners have no error in common"


def _early(stored: Stored) -> Iterator[Evidence]:
    """K2. The numbers are accuracies: of the networks, and of nearest neighbours in embeddings.
    Q-Scores are not compared: they rise with the sparsity of an embedding, whatever its quality."""
    for learner in LEARNERS:
        pair = _highest(stored, (learner, LATER), (learner, EARLY))
        decides, note = _windows(stored.pies, *pair) if pair else (True, NO_CELLS)
        pruned = [pruned for _, pruned in _networks(stored, pair or ())]
        if pair and not pruned:
            note = AGAIN
        accuracies = {
            "top-1": [(of.labels == stored.label).mean(axis=1) for of in pruned],
            "10-NN accuracy of the embedding": [of.numbers["knn_accuracy"] for of in pruned],
        }
        for what, values in accuracies.items():
            text = f"{what}, later minus early, {pair[0] if pair else learner}"
            found, n_models = None, len(values[0]) if values else 0
            if n_models > 1:
                mean = statistics.mean_over_networks(values[0] - values[1])
                found = Estimate(mean.mean, *mean.interval)
            elif n_models == 1:
                note = "needs 2 networks of the same ids"
            yield Evidence("K2", text, found, n_models, decides, note)


def _windows(pies: Path, later: Cell, early: Cell) -> tuple[bool, str]:
    """True if the prunings start at different times, and a note that says what is compared. If the
    ends differ too, as in the paper, the verdict is about the two windows, not about the start."""
    path = paths.recipes(pies, later.learner)
    recipe = json.loads(path.read_text()) if path.exists() else {}
    windows, shown = [], []
    for cell in (later, early):
        window = [recipe.get(str(cell), {}).get(name) for name in ("begin_step", "end_step")]
        unit = "steps"
        if None in window:
            unit = "% of training"
            window = [100 * share for share in recipes.WINDOWS[cell.pruning_method][:2]]
        windows.append([(time, unit) for time in window])
        shown.append(f"{window[0]:.6g} to {window[1]:.6g} {unit}")
    (start, end), (early_start, early_end) = windows
    note = f"pruned from {shown[0]}, early from {shown[1]}"
    if start == early_start:
        return False, f"{note}: only the ends differ" if end != early_end else note
    if end != early_end:
        note += ": starts and ends differ, so the verdict is about these windows, not the start"
    return True, note


def _unique(stored: Stored) -> Iterator[Evidence]:
    """K3. Each pair of cells that differ only in the learner, or only in the schedule. More than
    half is unique to a cell, 1 - r² > ½, if r is below √½."""

    @functools.cache
    def halves(k: int) -> reliability.Halves:
        return reliability.split_ids(k, N_SPLITS, np.random.default_rng(SEED))

    @functools.cache
    def lost_by_half(cell: Cell, ids: tuple[int, ...]) -> reliability.Lost:
        dense, pruned = (of.select(list(ids)).labels for of in stored.compared[cell])
        return reliability.lost_by_half(dense, pruned, halves(len(ids)), stored.n_classes)

    for two in _pairs():
        pair = _highest(stored, *two)
        networks = _networks(stored, pair or ())
        ids = tuple(networks[0][0].ids) if networks else ()
        found, note = None, "one of the two loses no image repeatably"
        if not networks:
            note = AGAIN if pair else NO_CELLS
        elif len(ids) < 4:
            note = "needs 4 networks of the same ids"
        else:
            lost = (lost_by_half(cell, ids) for cell in pair)
            found = reliability.corrected_overlap(*lost, halves(len(ids)))
        cells = " and ".join(str(cell) if pair else " ".join(cell) for cell in pair or two)
        text = f"√½ minus overlap r, {cells}"
        if found is None:
            yield Evidence("K3", text, None, len(ids), True, note)
            continue
        r, low, high = found.r
        limit = 0.5**0.5
        below = Estimate(limit - r, limit - high, limit - low)
        yield Evidence("K3", text, below, len(ids), True)
        yield Evidence("K3", f"uniqueness 1 - r², {cells}", found.uniqueness, len(ids), False)


def _pairs() -> list[tuple[Series, Series]]:
    """For each schedule, both learners; for each learner, every pair of schedules."""
    first, second = LEARNERS
    return [
        *(((first, schedule), (second, schedule)) for schedule in SCHEDULES),
        *(
            ((learner, one), (learner, other))
            for learner in LEARNERS
            for one, other in itertools.combinations(SCHEDULES, 2)
        ),
    ]


def _special(stored: Stored) -> Iterator[Evidence]:
    """K4. Unstable images have low Q-Scores and large depths, however they are chosen. So PIEs are
    compared with images that flip between two populations of one kind, and on networks that chose
    neither; this difference decides."""
    for learner, schedule in itertools.product(LEARNERS, SCHEDULES):
        (cell,) = _highest(stored, (learner, schedule)) or (None,)
        probes = (metric for of, metric in stored.rows if of == cell)
        layers = sum(metric.startswith("probe_accuracy_layer_") for metric in probes)
        for metric, what in (
            ("q_score", "Q-Score times -1"),
            ("prediction_depth", f"prediction depth{f', at most {layers}' if layers else ''}"),
        ):
            for name, others, decides in (
                ("pies_minus_flips", "images that flip between two populations of one kind", True),
                ("pies", "other images", False),
                ("pies_within_bins", "other images of equal dense score", False),
            ):
                found, n_models = _number(stored, cell, f"{metric}_held_out_{name}")
                if found and metric == "q_score":
                    found = Estimate(-found.value, -found.high, -found.low)
                note = _why_not_held_out(stored, cell, metric) if cell else NO_CELLS
                text = f"{what}: PIEs minus {others}, {cell or f'{learner} {schedule}'}"
                if found or decides:
                    yield Evidence("K4", text, found, n_models, decides, "" if found else note)


def _why_not_held_out(stored: Stored, cell: Cell, metric: str) -> str:
    """Why a held-out number of this cell is missing."""
    n_models, n_scored = (_number(stored, cell, name)[1] for name in ("top1", metric))
    if n_models >= 6 and n_scored >= 4:
        return "no PIEs, or no image that flips, in parts of the networks"
    return f"needs 6 networks, 4 of them with this score; there are {n_models} and {n_scored}"


def _clusters(stored: Stored) -> Iterator[Evidence]:
    """K5. The retained share of the dense silhouette decides. By a difference of losses, the
    embedding with the larger silhouette, which has more to lose, would seem to merge more. Where
    classes overlap a silhouette is below 0; then nothing is kept, and a share of 0 is compared.
    Otherwise the larger overlap of one learner would let the other seem to keep its clusters."""
    supervised, supcon = LEARNERS
    pair = _highest(stored, (supervised, ONE_SHOT), (supcon, ONE_SHOT))
    for metric, distance in (
        ("embedding_silhouette", "Euclidean"),
        ("embedding_silhouette_cosine", "cosine"),
    ):
        kept = f"share of the {distance} silhouette that is kept"
        text = f"{kept}, supervised minus SupCon, {ONE_SHOT}"
        retained = f"{metric}_retained"
        yield _difference(stored, "K5", text, retained, pair, decides=True, at_least=0.0)
        for cell in pair or ():
            for of, name, what in (
                (cell, f"{metric}_retained", kept),
                (cell.dense, metric, f"{distance} silhouette"),
                (cell, metric, f"{distance} silhouette"),
            ):
                found, n_models = _number(stored, of, name)
                if found:
                    yield Evidence("K5", f"{what}, {of}", found, n_models, False)


def _highest(stored: Stored, *series: Series) -> tuple[Cell, ...] | None:
    """The cells of these series at the highest sparsity that all of them have."""
    sparsities = [{cell.sparsity for cell in stored.compared if cell[:2] == of} for of in series]
    common = set.intersection(*sparsities)
    return tuple(Cell(*of, max(common)) for of in series) if common else None


def _networks(stored: Stored, cells: Iterable[Cell]) -> list[Compared]:
    """The dense and the pruned networks of these cells, with the ids that all cells have; empty if
    the networks of one cell are missing."""
    compared = [stored.compared[cell] for cell in cells]
    if not compared or None in compared:
        return []
    ids = sorted(set.intersection(*(set(pruned.ids) for _, pruned in compared)))
    return [(dense.select(ids), pruned.select(ids)) for dense, pruned in compared]


def _number(stored: Stored, cell: Cell | None, metric: str) -> tuple[Estimate | None, int]:
    """The number in a row of the summary, and how many networks it is from."""
    line = stored.rows.get((cell, metric))
    if line is None:
        return None, 0
    return Estimate(line.value, line.ci_low, line.ci_high), line.n_models


def _difference(
    stored: Stored,
    claim: str,
    text: str,
    metric: str,
    pair: tuple[Cell, ...] | None,
    decides: bool,
    at_least: float = -np.inf,
) -> Evidence:
    """A number of the first cell minus that of the second, which has other networks. A number and
    limits below at_least count as at_least, but for the lower limit of the first cell: it keeps the
    interval of the difference from shrinking to nothing."""
    (a, n_a), (b, n_b) = (_number(stored, cell, metric) for cell in pair or (None, None))
    found, note = None, ""
    if pair is None:
        note = NO_CELLS
    elif a is None or b is None:
        note = "not known of both: run PIE detection again, with more networks"
    elif n_a != n_b:
        note = f"populations of {n_a} and of {counted(n_b, 'network')}"
    else:
        a_raised = Estimate(max(a.value, at_least), a.low, max(a.high, at_least))
        found = statistics.difference(a_raised, Estimate(*(max(x, at_least) for x in b)))
    at = f" {format_sparsity(pair[0].sparsity)}" if pair else ""
    return Evidence(claim, text + at, found, min(n_a, n_b), decides, note)
