"""Means over networks, intervals of shares, differences and ratios, against scipy."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from common.analysis import statistics as analysis
from common.analysis.statistics import (
    Estimate,
    Mean,
    half_width,
    mean_over_networks,
    share_interval,
)


def test_a_table() -> None:
    """1, 2, 3: sd 1, t(0.975, 2) = 4.302653, half width 4.302653 / sqrt(3)."""
    mean = mean_over_networks([1.0, 2.0, 3.0])
    assert (mean.mean, mean.n, mean.sd) == (2.0, 3, 1.0)
    assert mean.interval == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_agrees_with_scipy(values: list[float]) -> None:
    found = mean_over_networks(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert found.sd == pytest.approx(statistics.stdev(values), abs=1e-9)
    low, high = scipy.stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=max(scipy.stats.sem(values), 1e-300)
    )
    assert found.interval == pytest.approx((low, high), abs=1e-6)


def test_one_network_has_no_spread_and_equal_ones_have_spread_zero() -> None:
    assert mean_over_networks([0.7]) == Mean(0.7, 1, None, None)
    assert mean_over_networks([0.5, 0.5, 0.5]) == Mean(0.5, 3, 0.0, (0.5, 0.5))


def test_integers_and_single_precision_are_averaged_in_double() -> None:
    assert mean_over_networks(np.array([1, 2], dtype=np.int8)).mean == 1.5
    values = np.array([16777216, 1, 1, 1], dtype=np.float32)  # 2^24 + 1 is not a float32
    assert mean_over_networks(values).mean == (16777216 + 3) / 4


@pytest.mark.parametrize("values", [[], np.zeros((0,)), np.zeros((2, 3)), 0.5])
def test_no_values_are_refused(values: ArrayLike) -> None:
    with pytest.raises(ValueError, match="K >= 1"):
        mean_over_networks(values)


# Intervals of shares


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_within_the_unit_interval_and_around_the_mean(values: list[float]) -> None:
    mean, low, high = share_interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert 0 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1


def test_like_the_plain_mean_far_from_the_ends() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.02, 30)
    _, low, high = share_interval(values)
    assert (low, high) == pytest.approx(mean_over_networks(values).interval, abs=1e-4)


def test_all_or_nothing_is_wilsons() -> None:
    for share, k in ((1, 10), (0, 4)):
        low, high = scipy.stats.binomtest(share * k, k).proportion_ci(method="wilson")
        assert share_interval(np.full(k, share)) == pytest.approx((share, low, high), abs=1e-12)


def test_one_network_has_no_interval() -> None:
    assert share_interval([0.7]).value == 0.7
    assert np.isnan(share_interval([0.7])[1:]).all()


@pytest.mark.parametrize("values", [[], [[0.5]], [-0.1, 0.5], [0.5, 1.1], [float("nan"), 0.5]])
def test_what_is_no_share_is_refused(values: list) -> None:
    with pytest.raises(ValueError, match=r"K >= 1|\[0, 1\]"):
        share_interval(values)


# Shares of 500 images: networks near the middle, near 1, and so near 1 that some miss none.
@pytest.mark.parametrize("mean", [0.6, 0.95, 0.995])
@pytest.mark.parametrize("k", [5, 10, 30])
def test_covers(mean: float, k: int) -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        chance = scipy.stats.beta.rvs(200 * mean, 200 * (1 - mean), size=k, random_state=rng)
        _, low, high = share_interval(rng.binomial(500, chance) / 500)
        covered.append(low <= mean <= high)
    assert 0.925 <= np.mean(covered) <= 0.98


# Intervals of differences and ratios


def test_difference_of_symmetric_intervals_adds_variances() -> None:
    found = analysis.difference(Estimate(5, 2, 8), Estimate(1, -3, 5))
    assert found == pytest.approx(Estimate(4, -1, 9))


def test_difference_of_skewed_intervals_uses_the_side_that_matters() -> None:
    found = analysis.difference(Estimate(10, 9, 20), Estimate(4, 0, 5))
    assert found == pytest.approx(Estimate(6, 6 - 2**0.5, 6 + 116**0.5))


def test_difference_covers_at_its_nominal_rate() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        means = [
            mean_over_networks(rng.normal(centre, sd, 10))
            for centre, sd in ((1.0, 2.0), (0.5, 1.0))
        ]
        a, b = (Estimate(mean.mean, *mean.interval) for mean in means)
        _, low, high = analysis.difference(a, b)
        covered.append(low <= 0.5 <= high)
    assert 0.93 <= np.mean(covered) <= 0.98


def test_a_ratio_has_fiellers_interval() -> None:
    """R is in it if a - R b could have mean 0, by Student's test."""
    rng = np.random.default_rng(0)
    b = rng.normal(0.5, 0.1, 8)
    a = 0.3 * b + rng.normal(0, 0.02, 8)
    value, low, high = analysis.ratio(a, b)
    assert value == a.mean() / b.mean()
    for end in (low, high):
        assert scipy.stats.ttest_1samp(a - end * b, 0).pvalue == pytest.approx(0.05)
    assert low < value < high


def test_a_ratio_to_what_may_be_0_has_no_interval() -> None:
    a = np.array([0.3, 0.2, 0.4])
    for b in ([0.1, -0.1, 0.05], [np.nan, 1, 1]):
        assert analysis.ratio(a, b) is None
    assert analysis.ratio(a[:1], a[:1]) is None


# Intervals over images and networks


def test_the_interval_of_a_mean_if_networks_do_not_matter() -> None:
    values = np.random.default_rng(5).normal(size=50)
    expected = 1.96 * values.std() / 50**0.5
    assert half_width(np.tile(values / 50, (6, 1))) == pytest.approx(expected, rel=1e-3)


def test_networks_whose_values_do_not_vary_give_no_degrees_of_freedom() -> None:
    """All images alike, so nearly all variance is of the networks: of 10, only 5 matter."""
    by_network = np.zeros(11)
    by_network[1:6] = np.random.default_rng(6).normal(size=5)
    parts = np.tile(by_network[:, None], 1000)
    of_ten, of_five = half_width(parts), half_width(parts, n_models=5)
    jackknife = (9 / 10 * ((1000 * (by_network[1:] - by_network[1:].mean())) ** 2).sum()) ** 0.5
    assert of_ten == pytest.approx(scipy.stats.t.ppf(0.975, 9) * jackknife, rel=0.01)
    assert of_five == pytest.approx(scipy.stats.t.ppf(0.975, 4) * jackknife, rel=0.01)
