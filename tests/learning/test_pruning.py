"""Magnitude pruning against sorting, torch.nn.utils.prune and exact counts; the schedule."""

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
from common.runtime import EXIT_ARGUMENTS, Failure

SPARSITIES = [0.3, 0.5, 0.9, 0.95, 0.99]
ALLOCATIONS = ["global", "uniform"]
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


def prunable_modules(network: WideResNet) -> dict[str, torch.nn.Module]:
    return {
        name: network.get_submodule(name.removesuffix(".weight"))
        for name in wide_resnet.prunable(network)
    }


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_global_masks_equal_torchs(network: WideResNet, sparsity: float) -> None:
    network = untied(network)
    masks = pruning.magnitude_masks(wide_resnet.prunable(network), sparsity, "global")
    modules = prunable_modules(network)
    prune.global_unstructured(
        [(module, "weight") for module in modules.values()],
        pruning_method=prune.L1Unstructured,
        amount=sparsity,
    )
    for name, module in modules.items():
        assert masks[name].dtype == torch.bool
        assert torch.equal(masks[name], module.weight_mask.bool()), name


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_uniform_masks_equal_torchs(network: WideResNet, sparsity: float) -> None:
    """Which weights of each layer, given how many."""
    network = untied(network)
    masks = pruning.magnitude_masks(wide_resnet.prunable(network), sparsity, "uniform")
    for name, module in prunable_modules(network).items():
        prune.l1_unstructured(module, "weight", amount=int((~masks[name]).sum()))
        assert torch.equal(masks[name], module.weight_mask.bool()), name


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_the_count_is_exact_on_real_weights(
    network: WideResNet, sparsity: float, allocation: str
) -> None:
    weights = wide_resnet.prunable(network)
    masks = pruning.magnitude_masks(weights, sparsity, allocation)
    total = sum(weight.numel() for weight in weights.values())
    assert n_pruned(masks) == round(sparsity * total)
    for name, mask in masks.items():
        assert mask.shape == weights[name].shape
        if allocation == "uniform":
            assert abs(n_pruned({name: mask}) - sparsity * mask.numel()) < 1, name


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_a_kept_weight_is_never_smaller_than_a_pruned_one(
    network: WideResNet, sparsity: float
) -> None:
    weights = wide_resnet.prunable(network)
    masks = pruning.magnitude_masks(weights, sparsity, "global")
    kept = torch.cat([weights[name][mask].abs() for name, mask in masks.items()])
    pruned = torch.cat([weights[name][~mask].abs() for name, mask in masks.items()])
    assert kept.min() >= pruned.max()
    masks = pruning.magnitude_masks(weights, sparsity, "uniform")
    for name, mask in masks.items():
        assert weights[name][mask].abs().min() >= weights[name][~mask].abs().max(), name


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    sparsity=st.floats(0, 1, exclude_max=True),
    levels=st.integers(1, 6),
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


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("value", [0.0, 1.5, -1.5])
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_equal_weights_are_pruned_in_order_of_position(
    allocation: str, value: float, sparsity: float
) -> None:
    tensors = {"a": torch.full((3, 11), value), "b": torch.full((67,), value)}
    masks = pruning.magnitude_masks(tensors, sparsity, allocation)
    assert n_pruned(masks) == round(sparsity * 100)
    if allocation == "global":
        flat = torch.cat([mask.flatten() for mask in masks.values()])
        assert flat.tolist() == [i >= round(sparsity * 100) for i in range(100)]
    for mask in masks.values():
        assert mask.flatten().tolist() == sorted(mask.flatten().tolist())


def test_a_table_by_hand() -> None:
    tensors = {"a": torch.tensor([[0.5, -0.1], [0.3, 2.0]]), "b": torch.tensor([-0.2, 0.4, 0.1])}
    whole = pruning.magnitude_masks(tensors, 0.5)  # round(3.5) = 4 of 7
    assert whole["a"].tolist() == [[True, False], [False, True]]
    assert whole["b"].tolist() == [False, True, False]
    by_layer = pruning.magnitude_masks(tensors, 0.5, "uniform")  # 2 and 1.5, so 2 and 2
    assert by_layer["a"].tolist() == [[True, False], [False, True]]
    assert by_layer["b"].tolist() == [False, True, False]
    third = pruning.magnitude_masks(tensors, 3 / 7, "uniform")  # 1.71 and 1.29: 3 in all
    assert n_pruned({"a": third["a"]}) == 2
    assert n_pruned({"b": third["b"]}) == 1


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


def test_masks_do_not_change_the_weights() -> None:
    tensors = {"a": torch.randn(10), "b": torch.randn(3, 3)}
    before = copy.deepcopy(tensors)
    pruning.magnitude_masks(tensors, 0.5)
    assert all(torch.equal(tensors[name], before[name]) for name in tensors)


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


def test_applying_masks_before_the_first_step_and_without_an_optimizer() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    mask = {"weight": torch.tensor([True, False, True])}
    pruning.apply_masks(mask, {"weight": weight}, torch.optim.SGD([weight], lr=0.1, momentum=0.9))
    assert weight.tolist() == [1, 0, 1]
    other = torch.ones(3)
    pruning.apply_masks(mask, {"weight": other})
    assert other.tolist() == [1, 0, 1]


def test_zeros_are_counted_by_layer_and_in_all() -> None:
    tensors = {"a": torch.tensor([0.0, -0.0, 1.0, 1e-30]), "b": torch.eye(3)}
    assert pruning.sparsity_by_layer(tensors) == pytest.approx({"a": 0.5, "b": 2 / 3})
    assert pruning.count_zeros(tensors.values()) == (8, 13)
    assert pruning.count_zeros(iter(tensors.values())) == (8, 13)


# The schedule


@settings(max_examples=100, deadline=None)
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


def test_a_schedule_by_hand() -> None:
    values = [pruning.gmp_sparsity(step, 10, 30, 0.8) for step in (0, 10, 15, 20, 25, 30, 99)]
    assert values == pytest.approx([0, 0, 0.4625, 0.7, 0.7875, 0.8, 0.8], abs=1e-12)


@pytest.mark.parametrize("final", [0.3, 0.7, 0.9, 0.95, 0.99, 0.975, 1 / 3])
@pytest.mark.parametrize(
    ("pruning_method", "n_steps", "steps"),
    [
        ("GMP", 80_155, {}),
        ("later_GMP", 24_500, {}),
        ("GMP", 24_500, {}),
        ("GMP", 315, {}),
        ("later_GMP", 20, {}),
        ("GMP", 5000, {"begin_step": 100, "end_step": 1117, "frequency": 50}),
        ("later_GMP", 5000, {"frequency": 7}),
    ],
)
def test_every_event_follows_the_formula_and_the_last_is_exactly_final(
    pruning_method: str, final: float, n_steps: int, steps: dict[str, int]
) -> None:
    events = pruning.pruning_events(pruning_method, final, n_steps, **steps)
    times = list(events)
    begin, last = times[0], times[-1]
    gaps = {b - a for a, b in itertools.pairwise(times)}
    assert len(gaps) == 1
    for step, sparsity in events.items():
        share = (step - begin) / (last - begin)
        assert sparsity == pytest.approx(final - final * (1 - share) ** 3, abs=1e-12)
    assert events[begin] == 0
    assert events[last] == final  # not approximately
    values = list(events.values())
    assert values == sorted(values)
    assert last < n_steps


def test_given_steps_are_kept() -> None:
    events = pruning.pruning_events("GMP", 0.9, 5000, begin_step=100, end_step=1117, frequency=50)
    assert list(events) == list(range(100, 1101, 50))
    events = pruning.pruning_events("GMP", 0.9, 5000, begin_step=0, end_step=10, frequency=5)
    assert list(events) == [0, 5, 10]
    # The method decides nothing once all three are given.
    again = pruning.pruning_events("later_GMP", 0.9, 5000, 0, 10, 5)
    assert again == events


def test_the_defaults_are_the_released_schedules() -> None:
    early = pruning.pruning_events("GMP", 0.9, 80_155)
    assert len(early) == 39
    times = list(early)
    assert times[0] == 1002
    assert times[1] - times[0] == 500
    assert times[-1] == pytest.approx(20_000, rel=0.001)
    later = pruning.pruning_events("later_GMP", 0.9, 24_500)
    assert list(later) == [2450 + 62 * i for i in range(38)]


@pytest.mark.parametrize("pruning_method", ["GMP", "later_GMP"])
def test_windows_mean_the_same_at_every_length(pruning_method: str) -> None:
    window = pruning.WINDOWS[pruning_method]
    for n_steps in (2_000, 7_777, 80_155, 1_000_000):
        times = list(pruning.pruning_events(pruning_method, 0.9, n_steps))
        assert times[0] / n_steps == pytest.approx(window.begin, abs=1e-3)
        assert times[-1] / n_steps <= window.end + 1e-3
        assert times[-1] / n_steps == pytest.approx(window.end, rel=0.2)


def test_early_pruning_comes_before_later_pruning() -> None:
    early = pruning.pruning_events("GMP", 0.9, 10_000)
    later = pruning.pruning_events("later_GMP", 0.9, 10_000)
    assert min(early) < min(later)
    assert pruning.WINDOWS["GMP"] == (0.0125, 0.25, 39)
    assert pruning.WINDOWS["later_GMP"] == (0.10, 0.194, 38)


@pytest.mark.parametrize(
    ("n_steps", "steps"),
    [
        (1000, {"begin_step": 500, "end_step": 400}),
        (1000, {"begin_step": 500, "end_step": 500}),
        (1000, {"begin_step": 500, "end_step": 1000, "frequency": 100}),
        (1000, {"begin_step": 1000, "end_step": 2000, "frequency": 10}),
        (1000, {"begin_step": 0, "end_step": 50, "frequency": 51}),
        (1000, {"begin_step": 400, "end_step": 500, "frequency": 600}),
        (1, {}),
    ],
)
def test_steps_that_do_not_fit_are_refused(n_steps: int, steps: dict[str, int]) -> None:
    with pytest.raises(Failure) as failure:
        pruning.pruning_events("GMP", 0.9, n_steps, **steps)
    assert failure.value.code == EXIT_ARGUMENTS
    message = str(failure.value)
    assert "--end_step" in message
    assert str(n_steps) in message
    assert "\n" not in message


def test_the_last_event_may_be_the_last_step() -> None:
    events = pruning.pruning_events("GMP", 0.9, 1000, begin_step=0, end_step=999, frequency=333)
    assert list(events) == [0, 333, 666, 999]
