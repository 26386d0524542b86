"""Time and memory of the statistics of PIE detection and of the claims, for the paper's study.

python -m tests.benchmarks.claims                      (one core: 2 minutes)

Six cells of simulated networks (tests/analysis/pie_worlds.py): seconds of one core of each part,
all cells together, and the peak of memory.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.analysis import pie_probability
from common.report import claims, pie_rows
from common.report.rows import Row
from common.study import LEARNERS, Cell
from tests import benchmarks
from tests.analysis import pie_worlds
from tests.report import made_up

N_CLASSES = 10
OF_LEARNER = (("GMP", 0.7), ("GMP", 0.9), ("global", 0.9))


def measure(k: int, n: int, folder: Path) -> Counter[str]:
    """Seconds by part; the claims are those that the rows of all cells decide."""
    seconds: Counter[str] = Counter()

    def timed(part: str, compute: Callable[..., Any], *arguments: Any) -> Any:
        started = time.process_time()
        result = compute(*arguments)
        seconds[part] += time.process_time() - started
        return result

    world = pie_worlds.world("many", n, N_CLASSES, 0, shared=0.2)
    label = world.dense.argmax(axis=1)
    made: list[Row] = []
    for seed, learner in enumerate(LEARNERS):
        of_dense, _ = world.sample(k, np.random.default_rng(seed))
        for i, (schedule, sparsity) in enumerate(OF_LEARNER):
            cell, rng = Cell(learner, schedule, sparsity), np.random.default_rng([seed, i])
            dense = made_up.population(cell.dense, of_dense)
            pruned = made_up.population(cell, world.sample(k, rng)[1])
            made_up.store(folder, label, dense, pruned)
            both = (dense, pruned, N_CLASSES)
            made += timed("counts", pie_rows.of_count, *both, True, 1000, 1000, 0)[0]
            labels = (dense.labels, pruned.labels, N_CLASSES)
            timed("probability of being a PIE", pie_probability.pie_probability, *labels, rng)
            scores = dict(zip(("dense", "pruned"), rng.normal(size=(2, k, n)), strict=True))
            for metric in ("q_score", "prediction_depth"):
                what = (cell, metric, dense, pruned, scores, N_CLASSES, 0)
                made += timed("held-out effects", pie_rows.of_held_out, *what)
    made_up.store_rows(folder, *made)
    timed("claims", claims.run, folder)
    return seconds


def main() -> int:
    parser = benchmarks.parser(".claims", __doc__)
    parser.add_argument("--networks", type=int, default=30, metavar="K")
    parser.add_argument("--images", type=int, default=10_000, metavar="N")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(args.networks, args.images, Path(folder))
    for part, value in seconds.items():
        print(f"{part}: {value:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"all: {seconds.total():.1f} s of one core, peak {peak:.0f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
