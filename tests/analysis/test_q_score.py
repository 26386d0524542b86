"""Q-Score against closed forms and a naive loop."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.analysis.q_score import low_score_detects, q_score

embeddings = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(3, 12)),
    elements=st.floats(-10, 10, width=32, allow_subnormal=False),
)


def naive(embedding: np.ndarray) -> list[tuple[float, float, float]]:
    """The definition, one number at a time."""
    scores = []
    for h in embedding.astype(float).tolist():
        norm = math.sqrt(sum(x * x for x in h))
        h = [x / norm for x in h]
        mean = sum(h) / len(h)
        std = math.sqrt(sum((x - mean) ** 2 for x in h) / len(h))
        z, l1 = (max(h) - mean) / std, sum(abs(x) for x in h)
        scores.append((z / l1, z, l1))
    return scores


@given(st.integers(2, 200).flatmap(lambda d: st.tuples(st.integers(1, d - 1), st.just(d))))
def test_k_equal_active_features_of_d(k_of_d: tuple[int, int]) -> None:
    k, d = k_of_d
    rng = np.random.default_rng(k * d)
    h = np.zeros((1, d), dtype=np.float32)
    h[0, rng.permutation(d)[:k]] = rng.uniform(0.1, 50)
    scores = q_score(h)
    assert scores.q[0] == pytest.approx(math.sqrt(d - k) / k, rel=1e-9)
    assert scores.z[0] == pytest.approx(math.sqrt((d - k) / k), rel=1e-9)
    assert scores.l1[0] == pytest.approx(math.sqrt(k), rel=1e-9)


@given(embeddings)
def test_agrees_with_a_loop(embedding: np.ndarray) -> None:
    embedding = embedding + np.linspace(0, 1, embedding.shape[1], dtype=np.float32)  # not constant
    before = embedding.copy()
    scores = q_score(embedding)
    assert np.array_equal(embedding, before)
    assert {score.dtype for score in scores} == {np.dtype(np.float64)}
    assert np.stack(scores, axis=1) == pytest.approx(np.array(naive(embedding)), rel=1e-6)


@pytest.mark.parametrize("value", [0, 1, 3.7, -2, 1e-30, 1e10])
@pytest.mark.parametrize("width", [1, 2, 7, 128])
def test_constant_embeddings_are_undefined(value: float, width: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = q_score(np.full((2, width), value, dtype=np.float32))
    for score in scores:
        assert np.isnan(score).all()


def test_undefined_rows_leave_the_others_alone() -> None:
    rng = np.random.default_rng(0)
    h = rng.uniform(size=(5, 8)).astype(np.float32)
    alone = q_score(h[[0, 2, 4]])
    h[1], h[3] = 0, 2.5
    for score, expected in zip(q_score(h), alone, strict=True):
        assert np.isnan(score).tolist() == [False, True, False, True, False]
        assert score[[0, 2, 4]].tolist() == expected.tolist()


@pytest.mark.parametrize("shape", [(8,), (2, 3, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[N,D\]"):
        q_score(np.ones(shape))


# The score as a detector


def naive_auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Share of the pairs of a positive and another in which the positive scores lower."""
    pairs = [
        (a < b) + (a == b) / 2 for a in score[positive].tolist() for b in score[~positive].tolist()
    ]
    return sum(pairs) / len(pairs)


def test_detection_of_a_table() -> None:
    """Ranked by rising score: positive, other, positive, other."""
    score, positive = np.array([3.0, 1.0, 4.0, 2.0]), np.array([True, True, False, False])
    found = low_score_detects(score, positive)
    assert found.auroc == 3 / 4
    assert found.average_precision == pytest.approx((1 / 1 + 2 / 3) / 2)


@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_auroc_is_the_share_of_pairs_in_order(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    score = rng.integers(5, size=n).astype(float)  # with ties
    positive = rng.permutation(n) < rng.integers(1, n)
    found = low_score_detects(score, positive)
    assert found.auroc == pytest.approx(naive_auroc(score, positive))
    score[0] = np.nan
    if positive[1:].any() and not positive[1:].all():
        expected = naive_auroc(score[1:], positive[1:])
        assert low_score_detects(score, positive).auroc == pytest.approx(expected)


@pytest.mark.parametrize(
    ("score", "positive"),
    [([1.0, 2.0], [True, True]), ([1.0, 2.0], [False, False]), ([np.nan, 2.0], [True, False])],
)
def test_nothing_to_tell_apart(score: list[float], positive: list[bool]) -> None:
    assert low_score_detects(np.array(score), np.array(positive)) is None
