"""claims.csv: the claims of arXiv 2207.00200, with one verdict each, and the numbers behind it.

The file has one line for each number (see `evidence`), grouped by claim. Columns:
- `name`, `text`: the claim; `statistic`, `value`, `ci_low`, `ci_high`, `n_models`: the number, its
  95 % interval, and how many networks it is from. `note`: what else to know of the number, or why
  it is missing.
- `decides`: `yes` for numbers that decide the verdict: they are above 0 if the claim is true. Empty
  for numbers that only accompany them.
- `verdict`, `p_holm`: of the claim, so equal on all lines of one claim. `supported` and
  `contradicted` hold for all five claims at once with 95 % confidence; `marginal` means decided
  only without that correction; `incomplete`: all available numbers support the claim without that
  correction, but some are missing; `undecided`; `not tested`. A claim is supported if all deciding
  numbers are above 0, contradicted if one is below; intervals and p-value say how certainly.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common import files, paths
from common.analysis import multiplicity
from common.analysis.multiplicity import Verdict
from common.report import evidence
from common.report.evidence import Evidence

TEXTS = {
    "K1": "At high sparsity, SupCon loses more examples than cross-entropy.",
    "K2": "Representation quality suffers most when pruning starts early in training.",
    "K3": "The lost examples are largely unique to one combination of learning and pruning.",
    "K4": "PIEs have lower Q-Score and larger prediction depth than other examples.",
    "K5": "Supervised embeddings keep their clusters under one-shot pruning, SupCon's merge.",
}
COLUMNS = ("name", "text", "statistic", "value", "ci_low", "ci_high", "verdict")
COLUMNS += ("p_holm", "decides", "n_models", "note")


def run(pies: Path) -> None:
    """Rewrite claims.csv from the files that the analyses left."""
    found = evidence.gather(pies)
    lines: list[tuple[object, ...]] = [COLUMNS]
    for name, verdict in decide(found).items():
        of_claim = [one for one in found if one.claim == name]
        there = [one for one in of_claim if one.note != evidence.NO_CELLS]
        lines += [_line(number, verdict) for number in there or of_claim[:1]]
    files.write_csv(paths.claims(pies), lines)


def decide(found: list[Evidence]) -> dict[str, Verdict]:
    """The verdict of each claim, corrected over all claims. All intervals are treated as Student's
    with K - 1 degrees of freedom, the fewest that any of them has."""
    family = []
    for name in TEXTS:
        planned = [one for one in found if one.claim == name and one.decides]
        tested = [
            (one.found.value, multiplicity.p_from_interval(*one.found, df=one.n_models - 1))
            for one in planned
            if one.found
        ]
        family.append(multiplicity.combine(tested, len(planned)))
    return dict(zip(TEXTS, multiplicity.verdicts(family), strict=True))


def _line(number: Evidence, verdict: Verdict) -> tuple[object, ...]:
    shown = [None] * 3 if number.found is None else [f"{x:.6g}" for x in number.found]
    p_value = None if np.isnan(verdict.p_value) else f"{verdict.p_value:.2g}"
    return (
        number.claim, TEXTS[number.claim], number.statistic, *shown, verdict.verdict,
        p_value, "yes" if number.decides else None, number.n_models or None, number.note or None,
    )  # fmt: skip
