"""Probabilities of being a PIE: properties that must always hold, and worlds whose truth is known.
The whole calibration is in tests/benchmarks/calibration.py."""

import numpy as np
import pytest
from pie_worlds import world

from common.analysis import pie, pie_probability, resampling
from common.analysis.pie_probability import tilt, vote_patterns

C = 5


def chances(name: str, k: int, n: int = 1000, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Labels, and the probability of every image."""
    rng = np.random.default_rng(seed)
    dense, pruned = world(name, n, C, seed).sample(k, rng)
    return dense, pruned, pie_probability.pie_probability(dense, pruned, C, rng)


@pytest.mark.slow
def test_clear_votes_are_clear() -> None:
    dense, pruned, chance = chances("many", 30)
    votes = [pie.count_votes(labels, C) for labels in (dense, pruned)]
    same = votes[0].argmax(axis=1) == votes[1].argmax(axis=1)
    clear = np.minimum(*(v.max(axis=1) for v in votes)) >= 26
    assert chance.shape == (1000,)
    assert chance[same & clear].max() < 0.02
    assert (same & clear).sum() > 300
    assert chance[~same].mean() > 10 * chance[same].mean()
    assert ((chance >= 0) & (chance <= 1)).all()


def test_same_random_numbers_same_probabilities() -> None:
    np.testing.assert_array_equal(chances("many", 8, 200)[2], chances("many", 8, 200)[2])


def test_names_of_classes_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    dense, pruned = rng.integers(6, size=(2, 50, C))
    names = rng.permuted(np.tile(np.arange(C), (50, 1)), axis=1)
    renamed = [np.take_along_axis(votes, names, axis=1) for votes in (dense, pruned)]
    first, second = vote_patterns(dense, pruned), vote_patterns(*renamed)
    np.testing.assert_array_equal(first.votes[first.of], second.votes[second.of])
    np.testing.assert_array_equal(first.count, np.bincount(first.of))
    assert (first.votes[first.of].sum(axis=1) == (dense + pruned).sum(axis=1)).all()


@pytest.mark.parametrize("n_classes", [2, 3, 4])
def test_few_classes(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    dense, pruned = rng.integers(n_classes, size=(2, 6, 40))
    chance = pie_probability.pie_probability(dense, pruned, n_classes, rng)
    assert np.isfinite(chance).all()


def test_few_networks_is_none_and_pairs_are_asked_for() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(C, size=(10, 20))
    for k in (1, 2, 3):
        assert pie_probability.pie_probability(labels[:k], labels[:k], C, rng) is None
    with pytest.raises(ValueError, match="pairs"):
        pie_probability.pie_probability(labels, labels[:9], C, rng)


def test_weights_are_tilted_to_a_mean_and_keep_their_order() -> None:
    weights, value = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.0, 0.1, 0.1, 0.3])
    for target in (0.05, weights @ value, 0.25):
        found = tilt(weights, value, target)
        assert found @ value == pytest.approx(target, abs=1e-9)
        assert found.sum() == pytest.approx(1)
        assert found[2] / found[1] == pytest.approx(1.5)  # of equal value: as before
    np.testing.assert_allclose(tilt(weights, value, weights @ value), weights, rtol=1e-6)
    np.testing.assert_allclose(tilt(weights, value, 0.0), [1, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(tilt(weights, value, 1.0), [0, 0, 0, 1], atol=1e-6)


def test_the_corrected_count_of_a_component_is_that_of_its_networks() -> None:
    """Against populations of 6 that are drawn from two components, dense and pruned."""
    p = np.array([[[0.6, 0.3, 0.1], [0.3, 0.6, 0.1]], [[0.9, 0.1, 0], [0.8, 0.2, 0]]])
    log_p = np.log(np.insert(p, 3, 0, axis=2) + 1e-12).reshape(2, 8)  # the fourth: other classes
    found = pie_probability.corrected_by_component(log_p.T[:, :, None].repeat(5, axis=2), 3)
    rng = np.random.default_rng(1)
    for component, value in zip(p, found, strict=True):
        labels = [rng.choice(3, size=(6, 40_000), p=of) for of in component]
        expected = resampling.corrected_pies(*labels, 3, 20, rng).value / 40_000
        assert value == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
def test_thirty_networks_are_calibrated() -> None:
    """Many PIEs, K = 30: the sum of probabilities is the true number to a fifth (PIEs: a third too
    many), and in every third of the scale the share of lost images is as predicted to .2."""
    found = [(world("many", 1000, C, seed), chances("many", 30, seed=seed)) for seed in range(3)]
    lost = np.concatenate([w.dense.argmax(axis=1) != w.pruned.argmax(axis=1) for w, _ in found])
    chance = np.concatenate([made[2] for _, made in found])
    assert chance.sum() == pytest.approx(lost.sum(), rel=0.2)
    for low, high in ((0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1.001)):
        inside = (chance >= low) & (chance < high)
        assert chance[inside].mean() == pytest.approx(lost[inside].mean(), abs=0.2)


@pytest.mark.slow
def test_images_lost_by_chance_are_mostly_told() -> None:
    """Only the noise rises, so no mode changes: fewer than half of the PIEs are expected ones."""
    dense, pruned, chance = chances("noisy", 30, 2000)
    assert chance.sum() < 0.6 * pie.find_pies(dense, pruned, C).sum()
    assert not (chance > 0.95).any()


@pytest.mark.parametrize(("k", "n_split"), [(10, 0), (10, 30), (30, 20)])
def test_unanimous_flips_are_certain_however_many_images_agree(k: int, n_split: int) -> None:
    """15 of 10,000 images change from all votes for one class to all for another; some others are
    split before and after."""
    rng = np.random.default_rng(k)
    dense = np.repeat(rng.integers(0, 10, 10_000)[None], k, axis=0)
    pruned = dense.copy()
    pruned[:, :15] = (dense[:, :15] + 1) % 10
    for labels in (dense, pruned):
        split = labels[:, 15 : 15 + n_split]
        split[rng.random(split.shape) < 0.2] = 0
    for seed in (1, 2):
        found = pie_probability.pie_probability(dense, pruned, 10, np.random.default_rng(seed))
        assert found[:15].min() > 0.99
        assert found.sum() < 15 + n_split / 5
