"""The softmax margin against torch's softmax, and what holds for all logits."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.analysis.margin import softmax_margin

logits_nc = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(2, 12)),
    elements=st.floats(-30, 30, width=32, allow_subnormal=False),
)


@given(logits_nc)
def test_it_is_the_lead_of_the_first_class_in_torchs_softmax(logits: np.ndarray) -> None:
    first, second = torch.softmax(torch.from_numpy(logits).double(), 1).topk(2, dim=1).values.T
    found = softmax_margin(logits)
    assert found == pytest.approx((first - second).numpy(), abs=1e-12)
    assert found.dtype == np.float64
    assert ((found >= 0) & (found <= 1)).all()


@given(logits_nc, st.integers(-1000, 1000), st.randoms(use_true_random=False))
def test_a_shift_of_the_logits_and_the_order_of_the_classes_do_not_matter(
    logits: np.ndarray, shift: int, random: Random
) -> None:
    order = random.sample(range(logits.shape[1]), logits.shape[1])
    moved = logits[:, order].astype(np.float64) + shift
    assert softmax_margin(moved) == pytest.approx(softmax_margin(logits), abs=1e-9)


def test_two_classes_are_a_hyperbolic_tangent() -> None:
    lead = np.linspace(0, 20, 9)
    logits = np.stack([np.zeros(9), lead], axis=1)
    assert softmax_margin(logits) == pytest.approx(np.tanh(lead / 2), abs=1e-15)


def test_huge_logits_do_not_overflow() -> None:
    logits = np.array([[3e38, -3e38, 0], [-3e38, -3e38, -3e38], [88, 89, 1000]], np.float32)
    assert softmax_margin(logits).tolist() == [1, 0, 1]
