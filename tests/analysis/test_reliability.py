"""The overlap of the images that two cells lose: by hand, in worlds where it is known, and its
interval."""

import numpy as np
import pytest
from numpy.random import Generator
from pie_worlds import World, logits, lose

from common.analysis import pie, reliability
from common.analysis.reliability import CorrectedOverlap

C = 5
NOISE = (1.0, 1.4)


def two_cells(name: str, n: int, seed: int, shared: float = 0.0) -> tuple[World, World]:
    """Cells that lose the `same` images, `others`, or in `part` the same (r about .6)."""
    rng = np.random.default_rng(seed)
    mean = logits(n, C, rng)
    x = World(mean, lose(mean, 1.2, rng), NOISE, shared=shared)
    if name == "same":
        return x, x
    mean = logits(n, C, rng) if name == "others" else mean
    return x, World(mean, lose(mean, 1.2, rng), NOISE, shared=shared)


def overlap(
    cells: tuple[World, World], k: int, rng: Generator, n_splits: int = 60
) -> CorrectedOverlap:
    halves = reliability.split_ids(k, n_splits, rng)
    lost = [reliability.lost_by_half(*cell.sample(k, rng), halves, C) for cell in cells]
    return reliability.corrected_overlap(*lost, halves)


def test_halves_are_disjoint_and_lose_the_left_out_id() -> None:
    of, without, other = reliability.split_ids(7, 20, np.random.default_rng(0))
    assert (of.sum(axis=2) == 3).all()
    assert not (of[:, 0] & of[:, 1]).any()
    for i in range(7):
        assert not without[:, i, i].any()
        for split in range(20):
            own = of[split, 1 - other[split, i]].copy()
            own[i] = False
            np.testing.assert_array_equal(without[split, i], own)


def test_the_ratio_of_covariances_by_hand() -> None:
    """Two splits of six images, indicators written down, no splits left to chance."""
    halves = reliability.split_ids(4, 2, np.random.default_rng(0))
    x, y = np.zeros((2, 2, 6, 6), dtype=bool)
    x[:, :2], y[:, :2] = (
        [[[1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]], [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]],
        [[[1, 0, 1, 0, 0, 0], [1, 0, 1, 0, 0, 0]], [[1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 1, 0]]],
    )

    def cov(a: np.ndarray, b: np.ndarray) -> float:
        pairs = [(a[i, j], b[i, 1 - j]) for i in range(2) for j in range(2)]
        return np.mean([np.cov(*pair, ddof=0)[0, 1] for pair in pairs])

    lost = (reliability.Lost(np.packbits(a, axis=2), 6) for a in (x, y))
    found = reliability.corrected_overlap(*lost, halves)
    assert found.r.value == pytest.approx(cov(x, y) / (cov(x, x) * cov(y, y)) ** 0.5)
    assert found.uniqueness.value == pytest.approx(1 - found.r.value**2)


def test_cells_that_lose_the_same_images_overlap_though_their_sets_do_not() -> None:
    rng = np.random.default_rng(1)
    cells = two_cells("same", 2000, 1)
    sets = [pie.find_pies(*cell.sample(10, rng), C) for cell in cells]
    assert (sets[0] & sets[1]).sum() / (sets[0] | sets[1]).sum() < 0.5
    found = overlap(cells, 10, rng)
    assert found.r.value > 0.9
    assert found.r.high > 1
    assert found.uniqueness.low == 0
    assert max(found.reliability) < 0.6


def test_cells_that_lose_other_images_do_not_overlap() -> None:
    found = overlap(two_cells("others", 2000, 2), 10, np.random.default_rng(2))
    assert abs(found.r.value) < 0.1
    assert found.r.low < 0.05
    assert found.uniqueness.low > 0.9


def test_same_random_numbers_same_overlap() -> None:
    cells = two_cells("part", 300, 3)
    first, second = (overlap(cells, 8, np.random.default_rng(3), 20) for _ in range(2))
    assert first == second


def test_few_networks_or_nothing_lost_is_none() -> None:
    rng = np.random.default_rng(4)
    cells = two_cells("same", 200, 4)
    assert [overlap(cells, k, rng, 4) for k in (1, 2, 3)] == [None] * 3
    mean = cells[0].dense
    nothing = World(mean, mean, (0.0, 0.0))
    assert overlap((cells[0], nothing), 6, rng, 4) is None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shared"), [("part", 0.3), ("others", 0.0), ("same", 0.0)])
def test_interval_covers(name: str, shared: float) -> None:
    """200 studies, each with fresh networks and images. True r of `part`: from populations of 500
    halves on 4,000 images."""
    truth = {"part": 0.69, "others": 0.0, "same": 1.0}[name]
    covered = []
    for study in range(200):
        rng = np.random.default_rng(study)
        found = overlap(two_cells(name, 500, study, shared), 10, rng, 30)
        covered.append(found.r.low <= truth <= found.r.high)
    assert np.mean(covered) >= 0.92
