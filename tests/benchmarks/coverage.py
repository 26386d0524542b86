"""How often do the 95 % intervals of PIE counts cover? Simulated studies; prints a markdown table.

python -m tests.benchmarks.coverage                     (one core: 20 minutes)

A study draws K dense and K pruned networks, and K fresh pruned ones, in a simulated world
(tests/analysis/worlds.py) and computes its intervals. The truth is the mean of the same counts over
fresh studies of the same K.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from common.analysis import resampling
from common.analysis.pie import find_pies
from tests import benchmarks
from tests.analysis import worlds
from tests.analysis.worlds import N_CLASSES

N_SPLITS, N_RESAMPLES = 200, 100
SPLITS_OF_TRUTH = 20  # a study's mean over fewer splits has the same expectation
HEADING = """\
| world | K | corrected | covers | width | PIEs | covers | width | pruned twice | covers | width |
|---|---|---|---|---|---|---|---|---|---|---|"""


class Coverage(NamedTuple):
    """Of the corrected count, the count of PIEs, and of images on which fresh pruned networks
    differ from pruned ones, [3] each."""

    truth: np.ndarray
    covered: np.ndarray  # the share of intervals that contain the truth
    width: np.ndarray  # of an interval, over that of value +- 1.96 standard deviations


def measure(name: str, k: int, n_studies: int, n_truth: int, seed: int) -> Coverage:
    """The coverage in one world at one K >= 4."""
    draw, rng = worlds.make(worlds.WORLDS[name]), np.random.default_rng([seed, k, *name.encode()])
    truth = np.mean([counts(*draw_study(draw, k, rng), rng) for _ in range(n_truth)], axis=0)
    values, found = [], []
    for _ in range(n_studies):
        study = draw_study(draw, k, rng)
        values.append(counts(*study, rng))
        found.append(intervals(*study, rng))
    low, high = np.moveaxis(np.array(found), 2, 0)
    covered = ((low <= truth) & (truth <= high)).mean(axis=0)
    width = (high - low).mean(axis=0) / (2 * 1.96 * np.std(values, axis=0))
    return Coverage(truth, covered, width)


def draw_study(draw: worlds.Study, k: int, rng: Generator) -> tuple[np.ndarray, ...]:
    """Labels [K,N] of dense, their pruned, and fresh pruned networks."""
    return *draw(k, rng), draw(k, rng)[1]


def counts(
    dense: np.ndarray, pruned: np.ndarray, fresh: np.ndarray, rng: Generator
) -> tuple[float, ...]:
    """The three counts of one study."""
    corrected = resampling.corrected_pies(dense, pruned, N_CLASSES, SPLITS_OF_TRUTH, rng)
    pies, differing = (find_pies(a, pruned, N_CLASSES).sum() for a in (dense, fresh))
    return corrected.value, float(pies), float(differing)


def intervals(
    dense: np.ndarray, pruned: np.ndarray, fresh: np.ndarray, rng: Generator
) -> list[tuple[float, float]]:
    """The intervals of the three counts of one study."""
    with_options = (N_RESAMPLES, rng)
    return [
        resampling.corrected_pies(dense, pruned, N_CLASSES, N_SPLITS, rng).interval,
        resampling.count_interval(dense, pruned, N_CLASSES, True, *with_options),
        resampling.count_interval(fresh, pruned, N_CLASSES, False, *with_options),
    ]


def main() -> int:
    parser = benchmarks.parser(".coverage", __doc__)
    parser.add_argument("--studies", type=int, default=400, help="for each row (default: 400)")
    parser.add_argument("--truth", type=int, default=1000, help="fresh studies (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 5, 6, 10, 30], metavar="K")
    parser.add_argument("--worlds", nargs="+", choices=worlds.WORLDS, default=list(worlds.WORLDS))
    args = parser.parse_args()
    error = 100 * (0.95 * 0.05 / args.studies) ** 0.5
    print(
        f"{args.studies} studies a row, truth from {args.truth}, seed {args.seed}, "
        f"{worlds.N_IMAGES} images, {N_SPLITS} splits, {N_RESAMPLES} resamples; "
        f"standard error of a coverage of 95 %: {error:.1f} %\n\n{HEADING}"
    )
    for name in args.worlds:
        for k in args.sizes:
            found = measure(name, k, args.studies, args.truth, args.seed)
            cells = [
                f"{truth:.1f} | {100 * covered:.1f} % | {width:.2f}"
                for truth, covered, width in zip(*found, strict=True)
            ]
            print(f"| {name} | {k} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
