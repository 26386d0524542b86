"""Intervals of shares stay within [0, 1] and cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import binomtest

from common.analysis import statistics
from common.analysis.shares import share_interval


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_within_the_unit_interval_and_around_the_mean(values: list[float]) -> None:
    mean, low, high = share_interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert 0 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1


def test_like_the_plain_mean_far_from_the_ends() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.02, 30)
    _, low, high = share_interval(values)
    assert (low, high) == pytest.approx(statistics.mean_over_networks(values).interval, abs=1e-4)


def test_all_or_nothing_is_wilsons() -> None:
    for share, k in ((1, 10), (0, 4)):
        low, high = binomtest(share * k, k).proportion_ci(method="wilson")
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
        chance = stats.beta.rvs(200 * mean, 200 * (1 - mean), size=k, random_state=rng)
        _, low, high = share_interval(rng.binomial(500, chance) / 500)
        covered.append(low <= mean <= high)
    assert 0.925 <= np.mean(covered) <= 0.98
