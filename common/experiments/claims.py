"""The claims of arXiv 2207.00200, each as a statistic with an interval. Computed, never typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import paths
from common.analysis import statistics, summary
from common.analysis.statistics import Estimate
from common.data import stored
from common.paths import LEARNERS, PRUNING_METHODS, Cell
from common.runtime import write_csv

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


def run(pies: Path) -> None:
    """Rewrite claims.csv from the summary and the stored PIEs."""
    claims = [*_more_lost(pies), *_early(pies), *_unique(pies), *_pies(pies), *_clusters(pies)]
    shown = ([f"{x:.6g}" if isinstance(x, float) else x for x in claim] for claim in claims)
    write_csv(paths.claims(pies), [Claim._fields, *shown])


def claim(name: str, statistic: str, found: Estimate | None) -> Claim:
    """Supported if the whole interval is above 0; not tested without a number or an interval."""
    if found is None:
        return Claim(name, TEXTS[name], statistic, None, None, None, "not tested")
    verdict = "supported" if found.low > 0 else "not supported"
    return Claim(name, TEXTS[name], statistic, *found, verdict)


def _more_lost(pies: Path) -> Iterator[Claim]:
    for pruning_method in PRUNING_METHODS:
        cells = [Cell(learner, pruning_method, 0.0) for learner in LEARNERS]
        sparsity = _highest(pies, cells)
        supervised, supcon = (
            _estimate(pies, c._replace(sparsity=sparsity), "n_pies") for c in cells
        )
        at = f"{pruning_method.replace('_', ' ')} at {paths.format_sparsity(sparsity)}"
        yield claim("K1", f"PIEs, SupCon minus supervised, {at}", _minus(supcon, supervised))


def _early(pies: Path) -> Iterator[Claim]:
    for learner in LEARNERS:
        cells = [Cell(learner, pruning_method, 0.0) for pruning_method in ("GMP", "later_GMP")]
        sparsity = _highest(pies, cells)
        early, later = (cell._replace(sparsity=sparsity) for cell in cells)
        at = f"later minus early GMP, {learner} at {paths.format_sparsity(sparsity)}"
        for name, metric in (
            ("Q-Score", "q_score"),
            ("accuracy of the last probe", _last_probe(pies, early)),
        ):
            found = _minus(_estimate(pies, later, metric), _estimate(pies, early, metric))
            yield claim("K2", f"{name}, {at}", found)


def _unique(pies: Path) -> Iterator[Claim]:
    by_cell = stored.pies_by_cell(pies)
    highest = {cell[:2]: cell for cell in by_cell}  # the last is the sparsest
    lost = [by_cell[cell]["is_pie"] for cell in highest.values()]
    found = None
    if len(lost) > 1 and np.any(lost):
        times = np.sum(lost, axis=0)
        share = statistics.proportion(int((times == 1).sum()), int((times > 0).sum()))
        found = Estimate(*(value - 0.5 for value in share))
    yield claim(
        "K3",
        f"share of PIEs that are unique to one of {len(lost)} cells at their highest sparsity, "
        "minus one half (interval over images)",
        found,
    )


def _pies(pies: Path) -> Iterator[Claim]:
    for learner in LEARNERS:
        for pruning_method in PRUNING_METHODS:
            cell = Cell(learner, pruning_method, 0.0)
            cell = cell._replace(sparsity=_highest(pies, [cell]))
            q = _estimate(pies, cell, "q_score_pie_minus_rest")
            depth = _estimate(pies, cell, "prediction_depth_pie_minus_rest")
            lower = None if q is None else Estimate(-q.value, -q.high, -q.low)
            yield claim("K4", f"Q-Score, other images minus PIEs, {cell}", lower)
            yield claim("K4", f"prediction depth, PIEs minus other images, {cell}", depth)


def _clusters(pies: Path) -> Iterator[Claim]:
    cells = [Cell(learner, "global", 0.0) for learner in LEARNERS]
    sparsity = _highest(pies, cells)
    lost = []
    for cell in cells:
        dense = _estimate(pies, paths.dense_cell(cell.learner), "embedding_silhouette")
        pruned = _estimate(pies, cell._replace(sparsity=sparsity), "embedding_silhouette")
        lost.append(_minus(dense, pruned))
    statistic = "silhouette lost by one-shot pruning, SupCon minus supervised, at "
    yield claim("K5", statistic + paths.format_sparsity(sparsity), _minus(lost[1], lost[0]))


def _highest(pies: Path, cells: list[Cell]) -> float:
    """The highest sparsity at which all these cells were analysed; 0 if there is none."""
    analysed = {line[:3] for line in summary.read(pies) if line.metric == "n_pies"}
    sparsities = [
        {sparsity for learner, pruning, sparsity in analysed if (learner, pruning) == cell[:2]}
        for cell in cells
    ]
    return max(map(float, set.intersection(*sparsities)), default=0.0)


def _estimate(pies: Path, cell: Cell, metric: str) -> Estimate | None:
    key = (cell.learner, cell.pruning_method, paths.format_sparsity(cell.sparsity), metric, "all")
    for line in summary.read(pies):
        if line[:5] == key and line.ci_low is not None and line.ci_high is not None:
            return Estimate(line.value, line.ci_low, line.ci_high)
    return None


def _minus(a: Estimate | None, b: Estimate | None) -> Estimate | None:
    return None if a is None or b is None else statistics.difference(a, b)


def _last_probe(pies: Path, cell: Cell) -> str:
    layers = [
        int(line.metric.rpartition("_")[2])
        for line in summary.read(pies)
        if line.learner == cell.learner
        and line.metric.startswith("probe_accuracy_layer_")
        and not line.metric.endswith("_sd")
    ]
    return f"probe_accuracy_layer_{max(layers, default=0)}"
