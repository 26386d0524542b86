"""The claims of arXiv 2207.00200, each as a statistic with an interval. Computed, never typed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import files, paths
from common.analysis import statistics
from common.analysis.statistics import Estimate
from common.report import rows, stored_pies
from common.report.rows import Row
from common.study import LATER, LEARNERS, ONE_SHOT, SCHEDULES, Cell, format_sparsity

TEXTS = {
    "K1": "At high sparsity, SupCon loses more examples than cross-entropy.",
    "K2": "Representation quality suffers most when pruning starts early in training.",
    "K3": "The lost examples are largely unique to one combination of learning and pruning.",
    "K4": "PIEs have lower Q-Score and larger prediction depth than other examples.",
    "K5": "Supervised embeddings keep their clusters under one-shot pruning, SupCon's merge.",
}


class Claim(NamedTuple):
    """One row of the table: a statistic that is above 0 if the claim is true."""

    name: str
    text: str
    statistic: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    verdict: str


Rows = dict[tuple[Cell, str], Row]  # by cell and metric, over all images, with an interval


def run(pies: Path) -> None:
    """Rewrite claims.csv from the summary and the stored PIEs."""
    by_metric = {
        (line.cell, line.metric): line
        for line in rows.read(pies)
        if line.group == "all" and line.ci_low is not None and line.ci_high is not None
    }
    claims = [
        *_more_lost(by_metric), *_early(by_metric), *_unique(pies), *_pies(by_metric),
        *_clusters(by_metric),
    ]  # fmt: skip
    shown = ([f"{x:.6g}" if isinstance(x, float) else x for x in claim] for claim in claims)
    files.write_csv(paths.claims(pies), [Claim._fields, *shown])


def claim(name: str, statistic: str, found: Estimate | None) -> Claim:
    """Supported if the whole interval is above 0, contradicted if it is below, else undecided; not
    tested without a number and an interval."""
    if found is None or not np.isfinite(found).all():
        return Claim(name, TEXTS[name], statistic, None, None, None, "not tested")
    verdict = "supported" if found.low > 0 else "contradicted" if found.high < 0 else "undecided"
    return Claim(name, TEXTS[name], statistic, *found, verdict)


def _more_lost(rows: Rows) -> Iterator[Claim]:
    for pruning_method in SCHEDULES:
        supervised, supcon = _at_highest(rows, pruning_method, LEARNERS, "n_pies")
        at = f"{pruning_method.replace('_', ' ')} at {format_sparsity(supcon.sparsity)}"
        found = _minus(rows, (supcon, "n_pies"), (supervised, "n_pies"))
        yield claim("K1", f"PIEs, SupCon minus supervised, {at}", found)


def _early(rows: Rows) -> Iterator[Claim]:
    for learner in LEARNERS:
        for name, metric in (
            ("Q-Score", "q_score_later_minus_early"),
            ("accuracy of the last probe", "probe_accuracy_later_minus_early"),
        ):
            (cell,) = _at_highest(rows, LATER, (learner,), metric)
            at = f"later minus early GMP, {learner} at {format_sparsity(cell.sparsity)}"
            yield claim("K2", f"{name}, {at}", _estimate(rows, cell, metric))


def _unique(pies: Path) -> Iterator[Claim]:
    """Unique to one cell by more than half, and by more than independent sets would be."""
    by_cell = stored_pies.pies_by_cell(pies)
    highest = {
        cell[:2]: cell for cell in by_cell if cell.sparsity and cell[1] in SCHEDULES
    }  # the last is the sparsest
    lost = np.array([by_cell[cell]["is_pie"] for cell in highest.values()])
    found: list[Estimate | None] = [None, None]
    if len(lost) > 1 and lost.any():
        times = lost.sum(axis=0)
        share = statistics.proportion(int((times == 1).sum()), int((times > 0).sum()))
        odds = lost.mean(axis=1) / (1 - lost.mean(axis=1))
        none = np.prod(1 - lost.mean(axis=1))
        by_chance = float(none * odds.sum() / (1 - none))
        found = [Estimate(*(value - other for value in share)) for other in (0.5, by_chance)]
    what = f"share of PIEs unique to one of {len(lost)} cells at their highest sparsity, minus"
    yield claim("K3", f"{what} one half (interval over images)", found[0])
    yield claim("K3", f"{what} that of independent sets (interval over images)", found[1])


def _pies(rows: Rows) -> Iterator[Claim]:
    for learner in LEARNERS:
        for pruning_method in SCHEDULES:
            metric = "q_score_pie_minus_rest"
            (cell,) = _at_highest(rows, pruning_method, (learner,), metric)
            q = _estimate(rows, cell, metric)
            lower = None if q is None else Estimate(-q.value, -q.high, -q.low)
            yield claim("K4", f"Q-Score, other images minus PIEs, {cell}", lower)
            metric = "prediction_depth_pie_minus_rest"
            (cell,) = _at_highest(rows, pruning_method, (learner,), metric)
            depth = _estimate(rows, cell, metric)
            yield claim("K4", f"prediction depth, PIEs minus other images, {cell}", depth)


def _clusters(rows: Rows) -> Iterator[Claim]:
    metric = "embedding_silhouette_lost"
    supervised, supcon = _at_highest(rows, ONE_SHOT, LEARNERS, metric)
    statistic = "silhouette lost by one-shot pruning, SupCon minus supervised, at "
    found = _minus(rows, (supcon, metric), (supervised, metric))
    yield claim("K5", statistic + format_sparsity(supcon.sparsity), found)


def _at_highest(
    rows: Rows, pruning_method: str, learners: Sequence[str], metric: str
) -> list[Cell]:
    """The learners' cells at the highest sparsity at which all have the metric; at 0 if at none
    (0 is no pruning, so nothing is looked up there)."""
    sparsities = [
        {
            cell.sparsity
            for cell, name in rows
            if name == metric and cell[:2] == (learner, pruning_method)
        }
        for learner in learners
    ]
    highest = max(set.intersection(*sparsities), default=0.0)
    return [Cell(learner, pruning_method, highest) for learner in learners]


def _estimate(rows: Rows, cell: Cell, metric: str) -> Estimate | None:
    line = rows.get((cell, metric))
    if line is None or cell.sparsity == 0:
        return None
    return Estimate(line.value, line.ci_low, line.ci_high)


def _minus(rows: Rows, a: tuple[Cell, str], b: tuple[Cell, str]) -> Estimate | None:
    """Difference of two learners, None unless as many networks saw as many images."""
    estimates = [_estimate(rows, *key) for key in (a, b)]
    if None in estimates or rows[a][-2:] != rows[b][-2:]:
        return None
    return statistics.difference(*estimates)
