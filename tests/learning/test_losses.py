"""The contrastive loss against its definition written as loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.learning.losses import collapse_value, supcon_loss


def naive(
    features: Tensor, labels: list[int] | None, temperature: float, base_temperature: float
) -> float:
    """Khosla et al., eq. 2 (L_out), anchor by anchor and pair by pair, in float64."""
    n_images, n_views, _ = features.shape
    z, of_class = [], []
    for i in range(n_images):
        for v in range(n_views):
            vector = features[i, v].double().tolist()
            norm = math.sqrt(sum(x * x for x in vector))
            z.append([x / norm for x in vector])
            of_class.append(i if labels is None else labels[i])
    terms = []
    for i in range(len(z)):
        similarity = [
            sum(a * b for a, b in zip(z[i], z[j], strict=True)) / temperature for j in range(len(z))
        ]
        denominator = math.log(sum(math.exp(similarity[j]) for j in range(len(z)) if j != i))
        positives = [j for j in range(len(z)) if j != i and of_class[j] == of_class[i]]
        if positives:
            terms.append(-sum(similarity[j] - denominator for j in positives) / len(positives))
    mean = sum(terms) / len(terms) if terms else 0.0
    return mean * temperature / base_temperature


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> float:
    """SimCLR's loss as Chen et al. define it: over all 2N views, the other view is the target."""
    n = len(first)
    z = torch.nn.functional.normalize(torch.cat([first, second]).double(), dim=1)
    total = 0.0
    for i in range(2 * n):
        others = [j for j in range(2 * n) if j != i]
        logits = torch.stack([z[i] @ z[j] / temperature for j in others])
        target = others.index((i + n) % (2 * n))
        total += float(torch.nn.functional.cross_entropy(logits[None], torch.tensor([target])))
    return total / (2 * n)


def features(
    n_images: int, n_views: int, width: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_images, n_views, width, generator=generator, dtype=torch.float64).to(dtype)


@settings(max_examples=40)
@given(
    labels=st.none() | st.lists(st.integers(0, 3), min_size=8, max_size=8),
    n_images=st.integers(2, 8),
    n_views=st.integers(1, 3),
    temperature=st.sampled_from([0.07, 0.1, 0.5, 2.0]),
    base_temperature=st.sampled_from([0.07, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_the_loss_equals_its_definition(
    labels: list[int] | None,
    n_images: int,
    n_views: int,
    temperature: float,
    base_temperature: float,
    seed: int,
) -> None:
    x = features(n_images, n_views, seed=seed)
    labels = None if labels is None else labels[:n_images]
    expected = naive(x, labels, temperature, base_temperature)
    given_labels = None if labels is None else torch.tensor(labels)
    loss = supcon_loss(x, given_labels, temperature, base_temperature)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    single = supcon_loss(x.float(), given_labels, temperature, base_temperature)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_without_labels_it_is_simclrs_loss(temperature: float) -> None:
    x = features(7, 2, seed=3)
    loss = supcon_loss(x, None, temperature, temperature)
    assert loss.item() == pytest.approx(nt_xent(x[:, 0], x[:, 1], temperature), rel=1e-9)
    assert torch.equal(loss, supcon_loss(x, torch.arange(7), temperature, temperature))


def test_classes_of_one_sample_contribute_nothing_as_anchors() -> None:
    """With one view of each image, an image alone in its class has no positive."""
    x, labels = features(5, 1, seed=4), [0, 0, 1, 2, 0]
    x.requires_grad_()
    loss = supcon_loss(x, torch.tensor(labels), 0.5, 0.5)
    assert loss.item() == pytest.approx(naive(x.detach(), labels, 0.5, 0.5), rel=1e-9)
    loss.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad[2].any()  # but they are there as negatives


@pytest.mark.parametrize(("n_images", "n_views"), [(1, 1), (2, 1), (4, 1), (1, 2)])
def test_a_batch_with_nothing_to_contrast_has_loss_0(n_images: int, n_views: int) -> None:
    """No positive, or no negative: the last batch of an epoch can be one image in two views."""
    x = features(n_images, n_views).requires_grad_()
    loss = supcon_loss(x, torch.arange(n_images), 0.5, 0.07)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    loss.backward()
    assert x.grad is not None
    assert x.grad.abs().max() < 1e-12


@pytest.mark.parametrize("labels", [None, [0, 1, 0, 2]])
def test_gradients_equal_finite_differences(labels: list[int] | None) -> None:
    given_labels = None if labels is None else torch.tensor(labels)
    for n_views in (1, 2):
        assert torch.autograd.gradcheck(
            lambda x: supcon_loss(x, given_labels, 0.5, 0.07),
            features(4, n_views, width=3, seed=6).requires_grad_(),
        )


def test_gradients_are_finite_where_all_features_are_equal() -> None:
    x = torch.ones(6, 2, 4, requires_grad=True)
    supcon_loss(x, torch.tensor([0, 0, 1, 1, 2, 3]), 0.1, 0.07).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("n_images", "n_views", "temperature", "base_temperature"),
    [(8, 2, 0.5, 0.07), (5, 2, 0.1, 0.07), (4, 3, 0.5, 0.5), (512, 2, 0.5, 0.07)],
)
def test_equal_features_give_the_collapse_value(
    n_images: int, n_views: int, temperature: float, base_temperature: float
) -> None:
    x = torch.randn(1, 1, 16).expand(n_images, n_views, 16).double()
    value = collapse_value(n_images * n_views, temperature, base_temperature)
    labels = torch.arange(n_images) % 3
    for classes in (labels, None):
        loss = supcon_loss(x, classes, temperature, base_temperature)
        assert loss.item() == pytest.approx(value, rel=1e-9)


def test_large_features_and_low_temperatures_do_not_overflow() -> None:
    x = features(8, 2, dtype=torch.float32) * 1e15
    loss = supcon_loss(x, torch.arange(8) % 2, 0.005, 0.005)
    expected = naive(features(8, 2), [i % 2 for i in range(8)], 0.005, 0.005)
    assert loss.item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_autocast_does_not_lower_its_precision(dtype: torch.dtype) -> None:
    x, labels = features(16, 2, 32).to(dtype), torch.arange(16) % 4
    outside = supcon_loss(x, labels)
    with torch.autocast("cpu", torch.bfloat16):
        inside = supcon_loss(x, labels)
    assert torch.equal(inside, outside)
    assert inside.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = supcon_loss(x.double(), labels)
    assert inside.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "of_labels", "named"),
    [
        ((4, 6), (4,), r"\[4, 6\]"),
        ((4, 2, 3, 3), (4,), r"\[4, 2, 3, 3\]"),
        ((4, 2, 6), (8,), r"\[4\], not \[8\]"),
        ((4, 2, 6), (4, 1), r"\[4\], not \[4, 1\]"),
    ],
)
def test_wrong_shapes_are_refused(
    shape: tuple[int, ...], of_labels: tuple[int, ...], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        supcon_loss(torch.zeros(shape), torch.zeros(of_labels, dtype=torch.long))


def test_features_that_are_not_finite_give_no_finite_loss() -> None:
    """Otherwise training would go on with a broken network."""
    x = features(4, 2)
    x[1, 1, 0] = torch.nan
    assert not supcon_loss(x, torch.tensor([0, 0, 1, 1])).isfinite()
