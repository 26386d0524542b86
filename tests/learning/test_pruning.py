"""Masks against sorting, torch.nn.utils.prune and exact counts; random ones; the schedule."""

from __future__ import annotations

import copy
import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils import prune

from common.learning import pruning
from common.model import wide_resnet
from common.model.wide_resnet import WideResNet
from common.study import ALLOCATIONS

SPARSITIES = [0.3, 0.5, 0.9, 0.95, 0.99]
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module", params=[(16, 2), (10, 1)], ids=["WRN-16-2", "WRN-10-1"])
def network(request: pytest.FixtureRequest) -> WideResNet:
    return wide_resnet.build(*request.param, 10, 0.0, "pruning")


def n_pruned(masks: Tensors) -> int:
    return sum(int((~mask).sum()) for mask in masks.values())


def by_sorting(tensors: Tensors, k: int) -> Tensors:
    """The k smallest magnitudes, equal ones in order of position, pruned one by one."""
    places = [
        (abs(value), i, name, position)
        for i, (name, tensor) in enumerate(tensors.items())
        for position, value in enumerate(tensor.flatten().tolist())
    ]
    masks = {name: torch.ones(tensor.numel(), dtype=torch.bool) for name, tensor in tensors.items()}
    for _, _, name, position in sorted(places, key=lambda p: (p[0], p[1], p[3]))[:k]:
        masks[name][position] = False
    return {name: mask.view(tensors[name].shape) for name, mask in masks.items()}


def untied(network: WideResNet) -> WideResNet:
    """The network with weights whose magnitudes are all different, with either sign."""
    network = copy.deepcopy(network)
    weights = wide_resnet.prunable(network)
    total = sum(weight.numel() for weight in weights.values())
    generator = torch.Generator().manual_seed(0)
    values = (torch.randperm(total, generator=generator) + 1).float()
    values *= torch.randint(0, 2, (total,), generator=generator) * 2 - 1
    with torch.no_grad():
        for weight, part in zip(
            weights.values(), values.split([w.numel() for w in weights.values()]), strict=True
        ):
            weight.copy_(part.view_as(weight))
    return network


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_masks_equal_torchs(network: WideResNet, sparsity: float, allocation: str) -> None:
    """For the uniform allocation, torch prunes as many weights of each layer as our masks do."""
    network = untied(network)
    weights = wide_resnet.prunable(network)
    total = sum(weight.numel() for weight in weights.values())
    masks = pruning.magnitude_masks(weights, sparsity, allocation)
    assert n_pruned(masks) == round(sparsity * total)
    modules = {name: network.get_submodule(name.removesuffix(".weight")) for name in weights}
    if allocation == "global":
        of_all = [(module, "weight") for module in modules.values()]
        prune.global_unstructured(of_all, pruning_method=prune.L1Unstructured, amount=sparsity)
    for name, module in modules.items():
        if allocation == "uniform":
            of_layer = n_pruned({name: masks[name]})
            assert abs(of_layer - sparsity * masks[name].numel()) < 1, name
            prune.l1_unstructured(module, "weight", amount=of_layer)
        assert masks[name].dtype == torch.bool
        assert torch.equal(masks[name], module.weight_mask.bool()), name


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    sparsity=st.floats(0, 1, exclude_max=True),
    levels=st.integers(0, 6),
    allocation=st.sampled_from(ALLOCATIONS),
    seed=st.integers(0, 10_000),
)
def test_masks_equal_sorting_where_much_is_tied(
    sizes: list[int], sparsity: float, levels: int, allocation: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        f"layer{i}": torch.randint(-levels, levels + 1, (size,), generator=generator).float()
        for i, size in enumerate(sizes)
    }
    masks = pruning.magnitude_masks(tensors, sparsity, allocation)
    k = round(sparsity * sum(sizes))
    assert n_pruned(masks) == k
    if allocation == "global":
        expected = by_sorting(tensors, k)
        assert all(torch.equal(masks[name], expected[name]) for name in tensors)
        return
    for name, tensor in tensors.items():
        of_layer = n_pruned({name: masks[name]})
        assert abs(of_layer - sparsity * len(tensor)) < 1 + 1e-9
        assert torch.equal(masks[name], by_sorting({name: tensor}, of_layer)[name])


def test_a_table_by_hand() -> None:
    tensors = {"a": torch.tensor([[0.5, -0.1], [0.3, 2.0]]), "b": torch.tensor([-0.2, 0.4, 0.1])}
    before = copy.deepcopy(tensors)
    whole = pruning.magnitude_masks(tensors, 0.5)  # round(3.5) = 4 of 7
    assert whole["a"].tolist() == [[True, False], [False, True]]
    assert whole["b"].tolist() == [False, True, False]
    by_layer = pruning.magnitude_masks(tensors, 0.5, "uniform")  # 2 and 1.5, so 2 and 2
    assert by_layer["a"].tolist() == [[True, False], [False, True]]
    assert by_layer["b"].tolist() == [False, True, False]
    third = pruning.magnitude_masks(tensors, 3 / 7, "uniform")  # 1.71 and 1.29: 3 in all
    assert n_pruned({"a": third["a"]}) == 2
    assert n_pruned({"b": third["b"]}) == 1
    assert all(torch.equal(tensors[name], before[name]) for name in tensors)


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_the_extremes(allocation: str) -> None:
    tensors = {"a": torch.zeros(4), "b": torch.arange(5.0)}
    nothing = pruning.magnitude_masks(tensors, 0.0, allocation)
    assert all(mask.all() for mask in nothing.values())
    for sparsity in (1.0, 1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match="sparsity"):
            pruning.magnitude_masks(tensors, sparsity, allocation)


def test_pruned_weights_stay_pruned_while_others_shrink() -> None:
    """Weights are ranked as they are now: pruned ones are zero, so they are the first to go."""
    generator = torch.Generator().manual_seed(0)
    tensors = {"a": torch.randn(40, generator=generator), "b": torch.randn(60, generator=generator)}
    before = pruning.magnitude_masks(tensors, 0.3)
    pruning.apply_masks(before, tensors)
    for tensor in tensors.values():
        tensor *= 1 + torch.rand(tensor.shape, generator=generator)
    after = pruning.magnitude_masks(tensors, 0.6)
    for name in tensors:
        assert not (after[name] & ~before[name]).any()


def test_applying_masks_zeroes_weights_and_momentum() -> None:
    weight = torch.nn.Parameter(torch.arange(1.0, 7.0))
    free = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight, free], lr=0.1, momentum=0.9)
    (weight.sum() + free.sum()).backward()
    optimizer.step()
    mask = torch.tensor([True, False, True, False, False, True])
    before = weight.detach().clone()
    pruning.apply_masks({"weight": mask}, {"weight": weight, "free": free}, optimizer)
    assert torch.equal(weight.detach(), torch.where(mask, before, 0))
    momentum = optimizer.state[weight]["momentum_buffer"]
    assert torch.equal(momentum, mask.float())
    assert optimizer.state[free]["momentum_buffer"].all()
    assert free.all()


def test_what_was_reached_is_what_is_zero() -> None:
    """Layer by layer and in all; one weight more or less is rounding, more is a fault."""
    weights = {"a": torch.tensor([0.0, -0.0, 1.0, 1e-30]), "b": torch.eye(3)}
    masks = {name: weight != 0 for name, weight in weights.items()}
    for sparsity in (7 / 13, 8 / 13, 9 / 13):
        reached = pruning.reached(weights, masks, sparsity)
        assert reached["sparsity_reached"] == pytest.approx(8 / 13)
        assert reached["sparsity_by_layer"] == pytest.approx({"a": 0.5, "b": 2 / 3})
    with pytest.raises(RuntimeError, match=r"8 of 13 weights are pruned, not a share of 0\.45"):
        pruning.reached(weights, masks, 0.45)
    weights["b"][0, 1] = 1e-20
    with pytest.raises(RuntimeError, match=r"not zero in b$"):
        pruning.reached(weights, masks, 8 / 13)
    dense = pruning.reached(weights, {}, 0.0)
    assert dense["sparsity_reached"] == pytest.approx(7 / 13)  # zero by chance, not by a mask


# Random pruning


@settings(max_examples=100)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    shares=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2),
    allocation=st.sampled_from(ALLOCATIONS),
    seed=st.integers(0, 10_000),
)
def test_random_masks_have_the_counts_of_magnitude_and_are_nested(
    sizes: list[int], shares: tuple[float, float], allocation: str, seed: int
) -> None:
    """A higher sparsity prunes the same weights and more. With one sparsity for all layers,
    rounding may leave a tensor one weight more at a higher sparsity."""
    draws = torch.Generator().manual_seed(seed)
    tensors = {f"layer{i}": torch.randn(n, generator=draws) for i, n in enumerate(sizes)}
    low, high = (
        pruning.random_masks(tensors, share, allocation, seed, 0) for share in sorted(shares)
    )
    for masks, share in zip((low, high), sorted(shares), strict=True):
        for name, mask in pruning.magnitude_masks(tensors, share, allocation).items():
            assert int(masks[name].sum()) == int(mask.sum()), name
    for name in tensors:
        more = int(low[name].sum()) - int(high[name].sum())
        assert more >= (0 if allocation == "global" else -1)
        few, many = (low, high) if more >= 0 else (high, low)
        assert not (many[name] & ~few[name]).any()


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_random_masks_depend_on_seed_id_and_name_alone(allocation: str) -> None:
    draws = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(20, 30, generator=draws) for name in "ab"}
    torch.manual_seed(1)
    masks = pruning.random_masks(tensors, 0.5, allocation, 5, 0)
    torch.manual_seed(2)
    # values in another order: as many of each tensor are small
    turned = {name: -tensors[name].flip(0, 1) for name in "ba"}
    again = pruning.random_masks(turned, 0.5, allocation, 5, 0)
    assert all(torch.equal(masks[name], again[name]) for name in "ab")
    assert n_pruned(masks) == 600
    others = [pruning.random_masks(tensors, 0.5, allocation, *of)["a"] for of in ((5, 1), (6, 0))]
    different = [masks["a"], masks["b"], *others]
    for one, other in itertools.combinations(different, 2):
        assert 0.4 < (one == other).double().mean() < 0.6


def test_random_masks_prefer_no_weight() -> None:
    """Neither by size nor by position, which are the same here."""
    n = 10_000
    masks = pruning.random_masks({"a": torch.arange(n) / n}, 0.5, "global", 0)
    mean = float((~masks["a"]).nonzero().double().mean())
    assert mean == pytest.approx(n / 2, abs=4 * n * math.sqrt(1 / 24 / n))


# The schedule


@settings(max_examples=100)
@given(
    begin=st.integers(0, 1000),
    length=st.integers(1, 1000),
    final=st.floats(0.01, 0.99),
    initial=st.floats(0, 0.9),
    step=st.integers(-10, 2100),
)
def test_sparsity_follows_zhu_and_gupta(
    begin: int, length: int, final: float, initial: float, step: int
) -> None:
    sparsity = pruning.gmp_sparsity(step, begin, begin + length, final, initial)
    if step <= begin:
        expected = Fraction(initial)
    elif step >= begin + length:
        expected = Fraction(final)
    else:
        share = Fraction(step - begin, length)
        expected = Fraction(final) + (Fraction(initial) - Fraction(final)) * (1 - share) ** 3
    assert sparsity == pytest.approx(float(expected), abs=1e-12)
