"""Intervals of differences and proportions, and the number behind a map."""

import numpy as np
import pytest
from scipy import stats

from common.analysis import probes, q_score, statistics
from common.analysis.statistics import Estimate


def test_difference_of_symmetric_intervals_adds_variances() -> None:
    found = statistics.difference(Estimate(5, 2, 8), Estimate(1, -3, 5))
    assert found == pytest.approx(Estimate(4, -1, 9))


def test_difference_of_skewed_intervals_uses_the_side_that_matters() -> None:
    found = statistics.difference(Estimate(10, 9, 20), Estimate(4, 0, 5))
    assert found == pytest.approx(Estimate(6, 6 - 2**0.5, 6 + 116**0.5))


def test_difference_covers_at_its_nominal_rate() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        means = [
            statistics.mean_over_networks(rng.normal(centre, sd, 10))
            for centre, sd in ((1.0, 2.0), (0.5, 1.0))
        ]
        a, b = (Estimate(mean.mean, *mean.interval) for mean in means)
        _, low, high = statistics.difference(a, b)
        covered.append(low <= 0.5 <= high)
    assert 0.93 <= np.mean(covered) <= 0.98


def test_proportion_is_wilsons() -> None:
    found = statistics.proportion(7, 50)
    z = stats.norm.ppf(0.975)
    centre = (7 + z**2 / 2) / (50 + z**2)
    half = z / (50 + z**2) * (7 * 43 / 50 + z**2 / 4) ** 0.5
    assert found == pytest.approx(Estimate(0.14, centre - half, centre + half))
    with pytest.raises(ValueError, match="nothing"):
        statistics.proportion(0, 0)


def test_a_low_score_that_tells_all_positives_is_perfect() -> None:
    score = np.array([0.1, 0.2, np.nan, 0.9, 0.8])
    positive = np.array([True, True, True, False, False])
    assert q_score.low_score_detects(score, positive) == (1.0, 1.0)
    assert q_score.low_score_detects(-score, positive).auroc == 0.0
    assert q_score.low_score_detects(score, np.zeros(5, bool)) is None


def test_detection_counts_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    score, positive = rng.integers(5, size=40).astype(float), rng.random(40) < 0.3
    pairs = [
        (low < high) + 0.5 * (low == high) for low in score[positive] for high in score[~positive]
    ]
    assert q_score.low_score_detects(score, positive).auroc == pytest.approx(np.mean(pairs))


def test_leave_one_out_never_asks_the_image_itself() -> None:
    """Labels that contradict the nearest neighbour: asking oneself would always be right."""
    import torch

    position = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
    label = np.array([0, 1, 0, 1])
    found = probes.knn_predict(position, label, None, 1, 2)
    np.testing.assert_array_equal(found, 1 - label)
    equal = torch.zeros(4, 2)  # every neighbour is as near as the image itself
    assert probes.knn_predict(equal, np.array([0, 0, 0, 1]), None, 3, 2)[3] == 0


def test_released_depth_merges_the_first_two_and_asks_for_the_label() -> None:
    probe_labels = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]])
    assert probes.prediction_depth(probe_labels, np.ones(4, int)).tolist() == [0, 1, 2, 3]
    assert probes.released_depth(probe_labels, np.ones(4, int)).tolist() == [0, 0, 1, 2]
