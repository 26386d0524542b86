"""PIEs between any two analysed populations: pruned networks against networks that were fine-tuned
in the same way without being pruned, for instance.

`python -m common.report.between pies/cifar10 "SupCon global 0.00" "SupCon global 0.95"`
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from common.analysis import pie, resampling
from common.analysis.predictions import Population
from common.report import stored_pies

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


def describe(reference: Population, other: Population, n_classes: int) -> str:
    """One line: the PIEs of the networks with the same ids, and their corrected count, each with
    its 95 % interval where there are networks enough for one."""
    ids = sorted(set(reference.ids) & set(other.ids))
    a, b = (of.select(ids).labels for of in (reference, other))
    rng = np.random.default_rng(SEED)
    raw = resampling.count_interval(a, b, n_classes, True, N_RESAMPLES, rng)
    corrected = resampling.corrected_pies(a, b, n_classes, N_RESAMPLES, rng)
    n_pies = int(pie.find_pies(a, b, n_classes).sum())
    return (
        f"{other.cell} against {reference.cell}: {n_pies} of {a.shape[1]} images are PIEs"
        f"{_interval(raw)}; corrected, at K = {corrected.half}: {corrected.value:.0f}"
        f"{_interval(corrected.interval)} (K = {len(ids)})"
    )


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else " [{:.0f}, {:.0f}]".format(*ends)


def main() -> None:
    """Print the line for the folder and the two cells given on the command line."""
    pies, *names = sys.argv[1:] or [""]
    found, n_classes = populations(Path(pies))
    if len(names) != 2 or not found.keys() >= set(names):
        known = ", ".join(found) or "none"
        sys.exit(f"between: give a folder pies/<dataset> and two of its cells (found: {known})")
    reference, other = (found[name] for name in names)
    same_learner = reference.cell.learner == other.cell.learner
    if not same_learner or not set(reference.ids) & set(other.ids):
        sys.exit(f"between: {names[0]} and {names[1]} have no networks that are pairs")
    print(describe(reference, other, n_classes))


if __name__ == "__main__":
    main()
