"""Do the null and the interval keep their promises? By hand, by brute force and by simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from common.analysis import pie, resampling


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


def test_paired_null_is_the_exact_distribution_over_all_exchanges() -> None:
    dense, pruned = two_populations(0, k=5)
    exact = []
    for swaps in itertools.product([False, True], repeat=5):
        swap = np.array(swaps)[:, None]
        exact.append(count(np.where(swap, pruned, dense), np.where(swap, dense, pruned)))
    rng = np.random.default_rng(1)
    null = resampling.permutation_null(dense, pruned, 4, True, 4000, rng)
    assert set(null.counts) <= set(exact)
    assert null.mean == pytest.approx(np.mean(exact), abs=4 * np.std(exact) / 4000**0.5)
    observed = count(dense, pruned)
    assert null.p_value == pytest.approx(np.mean(np.array(exact) >= observed), abs=0.03)


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


def test_p_value_is_never_zero_and_counts_the_observed_arrangement() -> None:
    dense, pruned = np.zeros((10, 50), int), np.ones((10, 50), int)
    null = resampling.permutation_null(dense, pruned, 2, False, 99, np.random.default_rng(0))
    assert null.p_value >= 0.01


def test_a_population_against_itself_has_no_excess() -> None:
    dense, _ = two_populations(3, k=6)
    null = resampling.permutation_null(dense, dense, 4, True, 100, np.random.default_rng(0))
    np.testing.assert_array_equal(null.counts, 0)
    assert null.p_value == 1


def test_pairs_need_equal_sizes() -> None:
    dense, pruned = two_populations(0, k=5)
    with pytest.raises(ValueError, match="pairs"):
        resampling.permutation_null(dense, pruned[:3], 4, True, 10, np.random.default_rng(0))


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


# Few PIEs (about 10 of 1,000 images), many (about 100), networks that err together (about 34).
SETTINGS = {"few": (0.05, 0.0), "many": (1.0, 0.0), "correlated": (0.4, 0.7)}


@pytest.mark.parametrize("name", SETTINGS)
def test_interval_covers_the_expected_count_of_fresh_populations(name: str) -> None:
    shift, common = SETTINGS[name]
    rng = np.random.default_rng(1)
    k, n = 30, 1000
    loading = rng.normal(size=(4, n))
    target = rng.integers(10, size=n)
    margin, lost = rng.normal(2.2, 1.2, size=n), np.abs(rng.normal(0, shift, size=n))

    def study() -> tuple[np.ndarray, np.ndarray]:
        shared = rng.normal(size=(k, 4)) @ loading * common
        noise = rng.normal(size=(k, n))
        other = 0.7 * noise + 0.51**0.5 * rng.normal(size=(k, n))
        logits = (margin + shared + noise, margin - lost + shared + other)
        dense, pruned = (np.where(m > 0, target, (target + 1) % 10) for m in logits)
        return dense, pruned

    truth = np.mean([count(*study()) for _ in range(600)])
    covered = []
    for _ in range(400):
        low, high = resampling.count_interval(*study(), 10, True, 100, rng)
        covered.append(low <= truth <= high)
    assert 0.92 <= np.mean(covered) <= 0.98


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
