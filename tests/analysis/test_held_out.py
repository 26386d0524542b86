"""Effects on PIEs, held out and referenced, in worlds where PIEs are merely unstable images and in
one where pruning picks out images with a trait."""

import numpy as np
import pytest

from common.analysis import held_out
from common.analysis.held_out import Referenced, referenced_effect
from common.analysis.statistics import half_width
from tests.analysis.pie_worlds import World, logits

C = 5


def make(name: str, n: int, seed: int) -> tuple[World, np.ndarray]:
    """A world, and the true score of its images: high near a boundary, and with the trait."""
    rng = np.random.default_rng(seed)
    mean = logits(n, C, rng)
    top = np.sort(mean, axis=1)
    unstable = -np.minimum(top[:, -1] - top[:, -2], 6)
    trait = rng.normal(size=n)
    pruned = mean.copy()
    if name == "trait":
        pruned[np.arange(n), mean.argmax(axis=1)] -= np.where(trait > 1, 3, 0)
    noise = (1.0, 1.6 if name == "noisy" else 1.0)
    return World(mean, pruned, noise, shared=0.2), unstable + (2 * trait if name == "trait" else 0)


def study(name: str, k: int, seed: int, n: int = 500, n_scored: int | None = None) -> Referenced:
    world, score = make(name, n, seed)
    rng = np.random.default_rng(seed)
    dense, pruned = world.sample(k, rng)
    by_network = rng.normal(0, 0.3, (2, k, 1))
    scores, dense_scores = score * (1 + by_network) + rng.normal(size=(2, k, n))
    scores[n_scored or k :] = np.nan
    return referenced_effect(dense, pruned, scores, dense_scores, C, rng, 20)


def test_images_that_are_only_unstable_have_an_effect_but_no_excess() -> None:
    found = study("unstable", 10, 1, 2000)
    assert found.effect.low > 1
    assert found.reference.low > 1
    assert found.excess.low < 0 < found.excess.high
    assert abs(found.excess.value) < 0.03 * found.effect.value
    assert found.within_bins.value < 0.4 * found.effect.value


def test_noise_that_pruning_adds_is_no_excess() -> None:
    """Flips among pruned networks alone would leave one of 7 % of the effect here."""
    found = study("noisy", 10, 0, 2000)
    assert found.effect.low > 1
    assert found.excess.low < 0 < found.excess.high
    assert abs(found.excess.value) < 0.03 * found.effect.value


def test_a_trait_that_pruning_chooses_is_an_excess() -> None:
    found = study("trait", 10, 0, 2000)
    assert found.excess.low > 0
    assert found.excess.value == pytest.approx(found.effect.value - found.reference.value)
    assert found.within_bins.low > 0


@pytest.mark.slow
def test_intervals_cover() -> None:
    """200 studies, each with fresh networks and images: the mean over studies, and no excess."""
    found = np.array([study("unstable", 10, seed) for seed in range(200)])
    mean = found[:, :, 0].mean(axis=0)
    mean[2] = 0
    covered = ((found[:, :, 1] <= mean) & (mean <= found[:, :, 2])).mean(axis=0)
    assert (covered >= 0.91).all(), covered
    assert (covered[:3] <= 0.99).all(), covered


def test_only_some_networks_have_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    found = study("unstable", 12, 1, n_scored=5)
    assert np.isfinite(found).all()
    assert found.effect.low > 0
    monkeypatch.setattr(held_out, "half_width", lambda parts, n_models: half_width(parts))
    assert np.diff(study("unstable", 12, 1, n_scored=5).effect[1:]) < np.diff(found.effect[1:])


def test_too_few_networks_or_nothing_to_compare_is_none() -> None:
    assert [study("unstable", k, 0, 100) for k in (1, 2, 5)] == [None] * 3
    assert study("unstable", 10, 0, 100, n_scored=3) is None
    labels, scores = np.zeros((8, 50), int), np.ones((8, 50))
    rng = np.random.default_rng(0)
    assert referenced_effect(labels, labels, scores, scores, C, rng) is None


def test_parts_share_no_ids_and_scores_are_held_out() -> None:
    scored = np.arange(11) < 5
    parts, part_b = held_out._split(scored, 50, np.random.default_rng(0))
    assert (parts.sum(axis=1) + part_b <= 1).all()
    assert (part_b.sum(axis=1) == 2).all()
    assert not part_b[:, ~scored].any()
    assert (parts.sum(axis=2) == 4).all()


def test_the_comparison_by_hand() -> None:
    """Bins of 3 and 2 images and one without a bin; weights of one half count half on both sides.
    Bin 0: others (2 + .5 * 4) / 1.5; bin 1: others 7."""
    weight = np.array([[1, 0, 0.5, 1, 0, 1]])
    score = np.array([[5.0, 2, 4, 9, 7, 100]])
    bins = np.array([0, 0, 0, 1, 1, -1])
    top, bottom = held_out._compare(weight, score, bins)
    other = (2 + 0.5 * 4) / 1.5
    assert top.sum() == pytest.approx((5 - other) + 0.5 * (4 - other) + (9 - 7))
    assert bottom.sum() == 2.5


def test_images_without_a_score_are_left_out() -> None:
    weight, bins = np.array([[1, 1, 0, 0]]), np.zeros(4, int)
    top, bottom = held_out._compare(weight, np.array([[3.0, np.nan, 1, 2]]), bins)
    assert top.sum() / bottom.sum() == pytest.approx(1.5)
