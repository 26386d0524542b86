"""PIEs between any two analysed populations: pruned networks against networks that were fine-tuned
in the same way without being pruned, for instance.

`python -m common.report.between pies/cifar10 "SupCon global 0.00" "SupCon global 0.95"`
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common import runtime
from common.analysis import pie, resampling
from common.analysis.predictions import Population
from common.report import stored_pies
from common.study import format_sparsity

SEED = 0
N_RESAMPLES = 1000  # halves behind an interval; all splits are taken up to K = 12


def populations(pies: Path) -> tuple[dict[str, Population], int]:
    """The analysed populations in a folder pies/<dataset> by the name of their cell, as far as
    their stored predictions are those of the analysis; and the number of classes."""
    found, n_classes = {}, 0
    for cell, arrays in stored_pies.pies_by_cell(pies).items():
        if compared := stored_pies.populations(pies, cell, arrays):
            found[str(cell)] = compared[1]
            found.setdefault(str(cell.dense), compared[0])
            n_classes = len(arrays["classes"])
    return found, n_classes


class Between(NamedTuple):
    """The PIEs of one population against another one of the same learner, and their corrected
    count; limits are None where there are too few networks for an interval."""

    reference: str
    other: str
    n_pies: int
    ci_low: float | None
    ci_high: float | None
    corrected: float | None  # None for K = 1
    corrected_low: float | None
    corrected_high: float | None
    half: int  # networks that the corrected count is for
    n_models: int
    n_examples: int


def count(reference: Population, other: Population, n_classes: int) -> Between:
    """The PIEs between the networks with the same ids. Raises ValueError if there are none, or if
    the learners differ: networks are pairs if they began with the same weights."""
    ids = sorted(set(reference.ids) & set(other.ids))
    if reference.cell.learner != other.cell.learner or not ids:
        raise ValueError(f"{reference.cell} and {other.cell} have no networks that are pairs")
    a, b = (of.select(ids).labels for of in (reference, other))
    rng = np.random.default_rng(SEED)
    low, high = resampling.count_interval(a, b, n_classes, True, N_RESAMPLES, rng) or (None, None)
    corrected = resampling.corrected_pies(a, b, n_classes, N_RESAMPLES, rng)
    return Between(
        *(str(reference.cell), str(other.cell), int(pie.find_pies(a, b, n_classes).sum())),
        *(low, high, None if np.isnan(corrected.value) else corrected.value),
        *(*(corrected.interval or (None, None)), corrected.half),
        *(len(ids), a.shape[1]),
    )


def of_pruned(pies: Path) -> list[Between]:
    """The counts between every two pruned populations of a learner that share ids."""
    found, n_classes = populations(pies)
    pruned = [population for population in found.values() if not population.cell.is_dense]
    return [
        count(reference, other, n_classes)
        for reference, other in itertools.combinations(pruned, 2)
        if reference.cell.learner == other.cell.learner and set(reference.ids) & set(other.ids)
    ]


def describe(found: Between) -> str:
    """One line for a reader."""
    raw = _interval(found.ci_low, found.ci_high)
    line = f"{found.other} against {found.reference}: {found.n_pies} of {found.n_examples} images "
    line += f"are PIEs{raw} (K = {found.n_models})"
    if found.corrected is None:
        return line
    corrected = f"{found.corrected:.0f}{_interval(found.corrected_low, found.corrected_high)}"
    return f"{line}; corrected: {corrected} (K = {found.half})"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None else f" [{low:.0f}, {high:.0f}]"


def _cell_name(words: str) -> str:
    """The name of a cell as tables write it, whatever the spelling of its sparsity: 0.5, .50."""
    *cell, sparsity = words.split() or [""]
    try:
        return " ".join([*cell, format_sparsity(float(sparsity))])
    except ValueError:
        return words


def main() -> None:
    """Print the line for the folder and the two cells given on the command line."""
    pies, *names = sys.argv[1:] or [""]
    found, n_classes = populations(Path(pies))
    names = [_cell_name(name) for name in names]
    if len(names) != 2 or not found.keys() >= set(names):
        known = ", ".join(map(repr, found)) or "none"
        what = f"give a folder pies/<dataset> and two of its cells (found: {known})"
        raise SystemExit(runtime.report(runtime.EXIT_ARGUMENTS, what))
    try:
        print(describe(count(found[names[0]], found[names[1]], n_classes)))
    except ValueError as error:
        raise SystemExit(runtime.report(runtime.EXIT_ARGUMENTS, str(error))) from None


if __name__ == "__main__":
    main()
