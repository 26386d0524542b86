"""Do the null and the interval keep their promises? By hand, by brute force and by simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from common.analysis import pie, resampling
from tests.analysis import worlds
from tests.benchmarks import coverage


def count(dense: np.ndarray, pruned: np.ndarray) -> int:
    n_classes = int(max(dense.max(), pruned.max())) + 1
    return int(pie.find_pies(dense, pruned, n_classes).sum())


def two_populations(seed: int, k: int, n: int = 40, shift: float = 0.0) -> list[np.ndarray]:
    """K networks of accuracy by image, the second population worse by `shift`."""
    rng = np.random.default_rng(seed)
    target, chance = rng.integers(4, size=n), rng.random(n)
    made = []
    for worse in (0.0, shift):
        right = rng.random((k, n)) < chance - worse
        made.append(np.where(right, target, (target + 1) % 4))
    return made


def naive_splits(k: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    halves = list(itertools.combinations(range(k), k // 2))
    return [(a, b) for a, b in itertools.product(halves, halves) if a < b and not set(a) & set(b)]


def naive_corrected(dense: np.ndarray, pruned: np.ndarray) -> float:
    """By counting, one split after another."""
    found = [
        count(dense[list(a)], pruned[list(b)])
        + count(dense[list(b)], pruned[list(a)])
        - count(dense[list(a)], dense[list(b)])
        - count(pruned[list(a)], pruned[list(b)])
        for a, b in naive_splits(len(dense))
    ]
    return np.mean(found) / 2


@pytest.mark.parametrize(("k", "n_splits"), [(2, 1), (3, 3), (4, 3), (5, 15), (6, 10), (7, 70)])
def test_corrected_count_is_the_mean_over_all_splits(k: int, n_splits: int) -> None:
    dense, pruned = two_populations(11, k, shift=0.3)
    assert len(naive_splits(k)) == n_splits
    rng = np.random.default_rng(0)
    found = resampling.corrected_pies(dense, pruned, 4, n_splits, rng)
    assert found.value == pytest.approx(naive_corrected(dense, pruned))
    assert found.half == k // 2
    assert (found.interval is None) == (k < 4)


def test_random_splits_are_a_sample_of_all() -> None:
    dense, pruned = two_populations(11, 7, shift=0.3)
    exact = resampling.corrected_pies(dense, pruned, 4, 70, np.random.default_rng(0))
    few = [
        resampling.corrected_pies(dense, pruned, 4, 30, np.random.default_rng(seed))
        for seed in range(200)
    ]
    values = np.array([found.value for found in few])
    assert values.std() > 0
    assert values.mean() == pytest.approx(exact.value, abs=4 * values.std() / 200**0.5)
    width = np.mean([np.ptp(found.interval) for found in few])
    assert width == pytest.approx(np.ptp(exact.interval), rel=0.15)


def test_corrected_counts_of_subsets_are_those_of_their_networks() -> None:
    """Two networks have one split; the three of four, random ones, are all met in 300."""
    dense, pruned = two_populations(2, 7, shift=0.3)
    rows = [0, 3], [1, 2, 4, 6]
    subsets = np.array([np.isin(np.arange(7), of) for of in rows])
    rng = np.random.default_rng(0)
    two, four = resampling.corrected_counts(dense, pruned, subsets, 4, 300, rng)
    assert two == pytest.approx(naive_corrected(dense[rows[0]], pruned[rows[0]]))
    assert four == pytest.approx(naive_corrected(dense[rows[1]], pruned[rows[1]]), abs=0.5)


@pytest.mark.parametrize("k", range(2, 10))
def test_images_that_all_networks_change_are_all_counted(k: int) -> None:
    unsure, _ = two_populations(12, k)
    dense = np.concatenate([np.zeros((k, 7), int), unsure], axis=1)
    pruned = np.concatenate([np.ones((k, 7), int), unsure], axis=1)
    rng = np.random.default_rng(0)
    only = resampling.corrected_pies(dense[:, :7], pruned[:, :7], 4, 50, rng)
    assert only.value == 7
    assert k < 4 or only.interval == (7, 7)
    # The other images are the same before and after: they count 0 whatever they are.
    assert resampling.corrected_pies(dense, pruned, 4, 50, rng).value == 7


def test_corrected_count_is_zero_on_average_if_pruning_does_nothing() -> None:
    rng = np.random.default_rng(0)
    for k in (4, 5, 10):
        studies = [worlds.make(worlds.WORLDS["null"])(k, rng) for _ in range(200)]
        values = [resampling.corrected_pies(*study, 10, 20, rng).value for study in studies]
        assert np.mean(values) == pytest.approx(0, abs=4 * np.std(values) / 200**0.5)
        assert np.mean([count(*study) for study in studies]) > 10


@pytest.mark.parametrize("k", [4, 5, 6])
def test_interval_of_the_corrected_count_is_the_jackknife_over_networks(k: int) -> None:
    dense, pruned = two_populations(15, k, n=200, shift=0.3)
    rng = np.random.default_rng(0)
    found = resampling.corrected_pies(dense, pruned, 4, 20, rng)
    without = []
    for i in range(k):
        of_splits = []
        for a, b in naive_splits(k):
            a, b = ([j for j in half if j != i] for half in (a, b))
            d_a, d_b, p_a, p_b = dense[a], dense[b], pruned[a], pruned[b]
            across = count(d_a, p_b) + count(d_b, p_a)
            of_splits.append((across - count(d_a, d_b) - count(p_a, p_b)) / 2)
        without.append(np.mean(of_splits))
    error = ((k - 1) * np.var(without)) ** 0.5
    half_width = stats.t.ppf(0.975, k - 1) * error
    assert found.interval == pytest.approx((found.value - half_width, found.value + half_width))
    swapped = resampling.corrected_pies(pruned, dense, 4, 20, rng)
    assert swapped.value == pytest.approx(found.value)
    assert swapped.interval == pytest.approx(found.interval)


def test_a_single_network_is_no_error() -> None:
    dense, pruned = two_populations(16, 1, shift=0.3)
    n_differ = count(dense, pruned)
    rng = np.random.default_rng(0)
    value, interval, half = resampling.corrected_pies(dense, pruned, 4, 10, rng)
    assert np.isnan(value)
    assert (interval, half) == (None, 0)
    for paired in (True, False):
        null = resampling.permutation_null(dense, pruned, 4, paired, 9, rng)
        assert set(null.counts) == {n_differ}
        assert (null.p_value, null.floor) == (1, 1 if paired else 0.1)
        assert resampling.count_interval(dense, pruned, 4, paired, 9, rng) is None
        by_size = resampling.counts_by_population_size(dense, pruned, 4, paired, [1], 9, rng)
        assert (by_size == n_differ).all()
    assert resampling.replicate_count([(dense, pruned)], 4, 9, rng) == (n_differ, None)


def test_replicates_are_counted_by_hand() -> None:
    studies = (two_populations(seed, 5, shift=0.3) for seed in (17, 18))
    (dense, pruned), (fresh_dense, fresh_pruned) = studies
    for pairs in ([(dense, fresh_dense)], [(dense, fresh_pruned), (fresh_dense, pruned)]):
        rng = np.random.default_rng(0)
        value, (low, high) = resampling.replicate_count(pairs, 4, 100, rng)
        assert value == np.mean([count(*pair) for pair in pairs])
        assert low < value < high


@pytest.mark.parametrize("k", [2, 5, 6])
def test_paired_null_is_all_exchanges(k: int) -> None:
    dense, pruned = two_populations(0, k, shift=0.2)
    exact = []
    for swaps in itertools.product([False, True], repeat=k):
        swap = np.array(swaps)[:, None]
        exact.append(count(np.where(swap, pruned, dense), np.where(swap, dense, pruned)))
    null = resampling.permutation_null(dense, pruned, 4, True, 10, np.random.default_rng(1))
    assert sorted([*null.counts, *null.counts]) == sorted(exact)
    assert null.mean == pytest.approx(np.mean(exact))
    assert null.p_value == np.mean(np.array(exact) >= count(dense, pruned))
    assert null.floor == 2.0 ** (1 - k)


def test_clear_effects_reach_the_floor() -> None:
    for k, floor in ((1, 1), (5, 1 / 16), (12, 1 / 2048), (13, 1 / 501)):
        rng = np.random.default_rng(0)
        dense, pruned = rng.random((k, 2000)) < 0.3, rng.random((k, 2000)) < 0.7
        null = resampling.permutation_null(dense, pruned, 2, True, 500, rng)
        assert null.p_value == null.floor == floor


def test_random_exchanges_are_a_sample_of_all() -> None:
    dense, pruned = two_populations(0, k=13)
    both = np.concatenate([dense, pruned])
    swapped = np.array(list(itertools.product([False, True], repeat=13)))
    first = np.concatenate([~swapped, swapped], axis=1)
    exact = resampling._count_subsets(both, first, both, ~first, 4)
    null = resampling.permutation_null(dense, pruned, 4, True, 4000, np.random.default_rng(1))
    assert len(null.counts) == 4000
    assert null.mean == pytest.approx(exact.mean(), abs=4 * exact.std() / 4000**0.5)
    assert null.p_value == pytest.approx(np.mean(exact >= count(dense, pruned)), abs=0.03)


def test_free_null_is_the_exact_distribution_over_all_deals() -> None:
    dense, pruned = two_populations(2, k=3)
    both = np.concatenate([dense, pruned])
    exact = [
        count(both[list(first)], np.delete(both, first, axis=0))
        for first in itertools.combinations(range(6), 3)
    ]
    rng = np.random.default_rng(1)
    null = resampling.permutation_null(dense, pruned, 4, False, 4000, rng)
    assert set(null.counts) <= set(exact)
    assert null.mean == pytest.approx(np.mean(exact), abs=4 * np.std(exact) / 4000**0.5)


def test_pairs_need_equal_sizes() -> None:
    dense, pruned = two_populations(0, k=5)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="pairs"):
        resampling.permutation_null(dense, pruned[:3], 4, True, 10, rng)
    with pytest.raises(ValueError, match="pairs"):
        resampling.corrected_pies(dense, pruned[:3], 4, 10, rng)


def test_p_value_is_uniform_when_pruning_does_nothing() -> None:
    """Kolmogorov-Smirnov over 300 studies; ties between counts make p-values only larger, so each
    is spread over the probability of its tie before the comparison."""
    rng = np.random.default_rng(0)
    spread = []
    for study in range(300):
        dense, pruned = two_populations(1000 + study, k=8, n=60)
        null = resampling.permutation_null(dense, pruned, 4, False, 199, rng)
        observed = count(dense, pruned)
        above, tied = (null.counts > observed).sum(), (null.counts == observed).sum()
        assert null.p_value == pytest.approx((1 + above + tied) / 200)
        spread.append((above + rng.random() * (1 + tied)) / 200)
    assert stats.kstest(spread, "uniform").pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["few", "many", "correlated"])
def test_intervals_cover_the_expected_counts_of_fresh_populations(name: str) -> None:
    """Loosely: coverage.py says it to a percent. 3 standard errors of 150 studies are 5 %."""
    found = coverage.measure(name, k=10, n_studies=150, n_truth=250, seed=0)
    assert (found.covered > 0.90).all()
    assert (found.width > 0.9).all()
    assert (found.width < 2).all()


def test_interval_contains_the_count_and_needs_four_networks() -> None:
    dense, pruned = two_populations(5, k=9, shift=0.3)
    low, high = resampling.count_interval(dense, pruned, 4, False, 200, np.random.default_rng(0))
    assert 0 <= low <= count(dense, pruned) <= high
    few = resampling.count_interval(dense[:3], pruned[:3], 4, True, 10, np.random.default_rng(0))
    assert few is None


def test_all_networks_give_the_count_itself() -> None:
    dense, pruned = two_populations(6, k=6, shift=0.3)
    counts = resampling.counts_by_population_size(
        dense, pruned, 4, True, [2, 6], 50, np.random.default_rng(0)
    )
    assert counts.shape == (2, 2, 50)
    assert (counts[0, 1] == count(dense, pruned)).all()
    assert counts[0, 0].std() > 0


@pytest.mark.parametrize("paired", [True, False])
def test_null_by_population_size_ends_at_the_null(paired: bool) -> None:
    dense, pruned = two_populations(8, k=6, shift=0.3)
    rng = np.random.default_rng(0)
    counts = resampling.counts_by_population_size(dense, pruned, 4, paired, [3, 6], 2000, rng)
    null = resampling.permutation_null(dense, pruned, 4, paired, 2000, rng)
    error = 2**0.5 * null.counts.std() / 2000**0.5
    assert counts[1, 1].mean() == pytest.approx(null.mean, abs=4 * error)


def test_subsets_of_one_network_are_disagreements_of_pairs() -> None:
    dense, pruned = two_populations(7, k=4)
    counts = resampling.counts_by_population_size(
        dense, pruned, 4, True, [1], 200, np.random.default_rng(0)
    )
    pairs = {int((a != b).sum()) for a, b in zip(dense, pruned, strict=True)}
    assert set(counts[0, 0]) == pairs
