"""How votes spread and move: a table made by hand, and what holds for all votes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common.analysis.votes import vote_distance, vote_entropy, vote_margin


def test_margin_entropy_and_distance_by_hand() -> None:
    dense = np.array([[4, 0, 0], [2, 2, 0], [3, 1, 0]])
    pruned = np.array([[0, 4, 0], [2, 2, 0], [1, 3, 0]])
    assert vote_margin(dense).tolist() == [1, 0, 0.5]
    assert vote_entropy(dense) == pytest.approx([0, 1, 0.8112781])
    # the mean of both shares is one half each, for the last image
    divergence = stats.entropy([0.75, 0.25], [0.5, 0.5], base=2)
    assert vote_distance(dense, pruned) == pytest.approx([1, 0, divergence**0.5], abs=1e-7)


@given(st.integers(1, 12), st.integers(2, 6), st.integers(0, 10**6))
def test_vote_measures_stay_in_their_range(k: int, n_classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense, pruned = rng.multinomial(k, np.ones(n_classes) / n_classes, size=(2, 20))
    distance = vote_distance(dense, pruned)
    assert ((distance >= 0) & (distance <= 1 + 1e-9)).all()
    assert distance == pytest.approx(vote_distance(pruned, dense))
    unanimous = dense.max(axis=1) == k
    assert ((vote_margin(dense) == 1) == unanimous).all()
    assert ((vote_entropy(dense) == 0) == unanimous).all()
    assert (vote_entropy(dense) <= np.log2(n_classes) + 1e-9).all()
