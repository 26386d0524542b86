"""Is the probability of being a PIE calibrated? Simulated worlds whose modal labels in populations
of 300 are known. `python -m tests.benchmarks.calibration` prints tables (2 cores: 2 minutes)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.analysis import pie, pie_probability

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
import pie_worlds

N_CLASSES, N_IMAGES = 10, 2000
SIZES = (5, 10, 30)
EDGES = (0, 0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1)


class Study(NamedTuple):
    """The results of one world, images of all repetitions together: [N] each."""

    probability: np.ndarray
    lost: np.ndarray  # modes of 300 differ
    pie: np.ndarray  # modes of K differ


def study(name: str, k: int, repetitions: int, shared: float = 0.2) -> Study:
    """Fresh worlds, each with one population of k and one of 300."""
    found = []
    for seed in range(repetitions):
        world = pie_worlds.world(name, N_IMAGES, N_CLASSES, seed, shared)
        rng = np.random.default_rng(seed)
        labels, many = world.sample(k, rng), world.sample(300, rng)
        probability = pie_probability.pie_probability(*labels, N_CLASSES, rng)
        sets = (pie.find_pies(*population, N_CLASSES) for population in (many, labels))
        found.append(Study(probability, *sets))
    return Study(*(np.concatenate(part) for part in zip(*found, strict=True)))


def bins(found: Study) -> Iterator[tuple[float, float, int, float, float]]:
    """(from, to, n images, mean probability, share lost) of every bin that has images."""
    of = np.clip(np.searchsorted(EDGES, found.probability, side="right") - 1, 0, len(EDGES) - 2)
    for i, (low, high) in enumerate(pairwise(EDGES)):
        inside = of == i
        if inside.any():
            mean, share = found.probability[inside].mean(), found.lost[inside].mean()
            yield low, high, int(inside.sum()), float(mean), float(share)


def main(repetitions: int = 4) -> None:
    studies = {(name, k): study(name, k, repetitions) for name in pie_worlds.LOSS for k in SIZES}
    print(f"{repetitions} worlds each of {N_IMAGES} images; counts are means over the worlds.\n")
    print("| world | K | PIEs | sum of probabilities | lost at K = 300 | p > .95 | of them lost |")
    print("|---|---|---|---|---|---|---|")
    for (name, k), found in studies.items():
        sure = found.probability > 0.95
        numbers = [part.sum() / repetitions for part in (found.pie, found.probability, found.lost)]
        counts = " | ".join(f"{number:.1f}" for number in numbers)
        share = f"{found.lost[sure].mean():.2f}" if sure.any() else "-"
        print(f"| {name} | {k} | {counts} | {sure.sum()} | {share} |")
    print("\n| world | K | probability | images | mean probability | share lost |")
    print("|---|---|---|---|---|---|")
    for (name, k), found in studies.items():
        for low, high, n, mean, share in bins(found):
            print(f"| {name} | {k} | {low}-{high} | {n} | {mean:.3f} | {share:.3f} |")


if __name__ == "__main__":
    main()
