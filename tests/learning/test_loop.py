"""The training loop against a hand-written one in float64; its records, pruning, interruptions."""

from __future__ import annotations

import copy
import dataclasses
import math
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from common import runtime
from common.data.augment import Augmentation
from common.data.datasets import Dataset, Split
from common.learning import loop, pruning
from common.learning.loop import Stage
from common.model import evaluation, wide_resnet
from common.model.wide_resnet import WideResNet
from common.runtime import EXIT_NON_FINITE, Failure, Interrupted

SEED = (5, 0)  # seed, network id
Batch = tuple[Tensor, Tensor]
EVERYTHING = Augmentation(
    resized_crop_area=(0.5, 1.0),
    horizontal_flip=0.5,
    jitter=(0.4, 0.4, 0.4, 0.1),
    jitter_probability=0.8,
    grayscale_probability=0.2,
)


def new_network(dropout: float = 0.0) -> WideResNet:
    return wide_resnet.build(10, 1, 10, dropout, "loop").to(memory_format=torch.channels_last)


def make_stage(network: WideResNet, seen: list[Batch] | None = None, **changes: Any) -> Stage:
    """Cross-entropy on plain images, which are kept in `seen`."""

    def loss(views: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if seen is not None:
            seen.append((views.clone(), labels.clone()))
        logits = network(views.to(network.fc.weight.dtype)).logits
        labels = labels.repeat(len(views) // len(labels))
        correct = (logits.argmax(1) == labels).sum()
        return F.cross_entropy(logits, labels), None if logits.dtype == torch.float64 else correct

    stage = {
        "name": "network",
        "parameters": list(network.parameters()),
        "loss": loss,
        "augmentation": Augmentation(),
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 0.05,
        "momentum": 0.9,
    }
    return Stage(**(stage | changes))


def fit(
    stage: Stage, network: WideResNet, data: Dataset, masks: Any = None, **more: Any
) -> list[dict[str, Any]]:
    more = {"seed": SEED} | more
    return loop.fit(stage, network, data, masks={} if masks is None else masks, **more)


def state_of(network: WideResNet) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def train_by_hand(
    network: WideResNet, batches: list[Batch], stage: Stage, masks: dict[str, Tensor]
) -> WideResNet:
    """The same steps in float64, with momentum, weight decay and masks written out."""
    network = copy.deepcopy(network).double().train()
    parameters = dict(network.named_parameters())
    velocity: dict[str, Tensor] = {}
    for step, (views, labels) in enumerate(batches):
        loss = F.cross_entropy(network(views.double()).logits, labels)
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        rate = stage.learning_rate_at(step / len(batches))
        with torch.no_grad():
            for (name, weight), gradient in zip(parameters.items(), gradients, strict=True):
                descent = gradient + stage.weight_decay * weight
                if name in velocity:
                    velocity[name] = stage.momentum * velocity[name] + descent
                else:
                    velocity[name] = descent.clone()
                if stage.nesterov:
                    weight -= rate * (descent + stage.momentum * velocity[name])
                else:
                    weight -= rate * velocity[name]
                if name in masks:
                    weight *= masks[name]
                    velocity[name] *= masks[name]
    return network


# The steps


RECIPES = {
    "plain": {"momentum": 0.0},
    "weight decay": {"momentum": 0.0, "weight_decay": 0.1},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "nesterov": {"momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    "milestone": {"momentum": 0.9, "milestones": (0.5,), "gamma": 0.2},
    "warm-up and cosine": {"momentum": 0.9, "cosine": True, "warmup": 0.4},
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_float32_step_equals_a_hand_written_one_in_float64(
    data: Dataset, recipe: dict[str, Any]
) -> None:
    network, batches = new_network(), []
    start = copy.deepcopy(network)
    stage = make_stage(network, batches, epochs=1, batch_size=44, **recipe)
    fit(stage, network, data)
    assert len(batches) == 1
    expected = train_by_hand(start, batches, stage, {}).state_dict()
    for name, tensor in network.state_dict().items():
        close = torch.isclose(tensor.double(), expected[name].double(), rtol=1e-4, atol=5e-6)
        assert close.all(), name
    moved = (network.fc.weight - start.fc.weight).abs().max()
    if recipe.get("warmup"):
        assert moved == 0  # a warm-up begins with a rate of 0
    else:
        assert moved > 1e-3


@pytest.mark.parametrize("sparsity", [0.0, 0.8])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_many_steps_equal_hand_written_ones(
    data: Dataset, recipe: dict[str, Any], sparsity: float
) -> None:
    """All in float64: in float32 an activation near 0 can fall on the other side."""
    network, batches = new_network().double(), []
    weights = wide_resnet.prunable(network)
    masks = pruning.magnitude_masks(weights, sparsity)
    pruning.apply_masks(masks, weights)
    start = copy.deepcopy(network)
    stage = make_stage(network, batches, prunable=weights, **recipe)
    fit(stage, network, data, masks)
    assert len(batches) == 6
    expected = train_by_hand(start, batches, stage, masks).state_dict()
    for name, tensor in network.state_dict().items():
        close = torch.isclose(tensor.double(), expected[name].double(), rtol=1e-7, atol=1e-9)
        assert close.all(), name
    assert (network.fc.weight - start.fc.weight).abs().max() > 1e-3


def test_every_image_is_seen_once_an_epoch_with_its_label(data: Dataset) -> None:
    network, batches = new_network(), []
    fit(make_stage(network, batches, epochs=3), network, data)
    assert [len(labels) for _, labels in batches] == [16, 16, 12] * 3
    plain = data.normalise(data.train.images.float() / 255)
    place = {image.numpy().tobytes(): i for i, image in enumerate(plain)}
    assert len(place) == 44
    orders = []
    for epoch in range(3):
        order = []
        for views, labels in batches[3 * epoch : 3 * epoch + 3]:
            indices = [place[view.contiguous().numpy().tobytes()] for view in views]
            assert data.train.labels[indices].tolist() == labels.tolist()
            order += indices
        assert sorted(order) == list(range(44))
        orders.append(order)
    assert orders[0] != orders[1] != orders[2] != list(range(44))


def test_views_come_one_after_the_other_each_with_its_own_draw(data: Dataset) -> None:
    network, plain, varied = new_network(), [], []
    fit(make_stage(network, plain, epochs=1, n_views=2), network, data)
    shifts = Augmentation(crop_padding=2)
    fit(make_stage(network, varied, epochs=1, n_views=2, augmentation=shifts), network, data)
    for (same, labels), (shifted, again) in zip(plain, varied, strict=True):
        n = len(labels)
        assert torch.equal(labels, again)  # the order does not depend on the augmentation
        assert same.shape == shifted.shape == (2 * n, 3, 8, 8)
        assert torch.equal(same[:n], same[n:])
        differing = (shifted[:n] != shifted[n:]).flatten(1).any(1)
        assert differing.sum() > n / 2


def test_augmentations_differ_from_step_to_step_and_between_networks(data: Dataset) -> None:
    """One image, so that only its draw can differ."""
    one = Split(data.train.images[:1], data.train.labels[:1], "")
    data = dataclasses.replace(data, train=one)
    shifts = Augmentation(crop_padding=3)
    seen: dict[tuple[int, ...], list[Batch]] = {(5, 0): [], (5, 1): [], (6, 0): []}
    for seed, batches in seen.items():
        network = new_network()
        stage = make_stage(network, batches, epochs=12, batch_size=1, augmentation=shifts)
        fit(stage, network, data, seed=seed)
    draws = {seed: [views.numpy().tobytes() for views, _ in b] for seed, b in seen.items()}
    for of_seed in draws.values():
        assert len(set(of_seed)) > 6
    assert draws[5, 0] != draws[5, 1] != draws[6, 0] != draws[5, 0]


def test_dropout_derives_from_the_seed_alone(data: Dataset) -> None:
    states = []
    for global_seed, seed in ((1, SEED), (2, SEED), (1, (5, 1))):
        torch.manual_seed(global_seed)
        network = new_network(dropout=0.5)
        fit(make_stage(network, epochs=1), network, data, seed=seed)
        states.append(state_of(network))
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["fc.weight"], states[2]["fc.weight"])


def test_bf16_reaches_the_loss_but_neither_weights_nor_evaluation(data: Dataset) -> None:
    enabled: list[bool] = []
    network, exact = new_network(), new_network()

    def loss(views: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        enabled.append(torch.is_autocast_enabled("cpu"))
        logits = network(views).logits
        assert logits.dtype == torch.bfloat16
        return F.cross_entropy(logits.float(), labels), (logits.argmax(1) == labels).sum()

    precisions: set[torch.dtype] = set()
    network.fc.register_forward_hook(
        lambda module, _, output: None if module.training else precisions.add(output.dtype)
    )
    rough = fit(make_stage(network, loss=loss), network, data, bf16=True)
    fine = fit(make_stage(exact), exact, data)
    assert enabled == [True] * 6
    assert precisions == {torch.float32}
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    assert rough[0]["loss"] == pytest.approx(fine[0]["loss"], rel=0.05)
    assert rough[0]["loss"] != fine[0]["loss"]


# What is recorded


def test_records_are_means_over_images(data: Dataset) -> None:
    """The last batch is smaller: means over batches would be others."""
    network, logged = new_network(), []
    values: list[tuple[float, int, int]] = []

    def loss(views: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(views).logits
        mean = F.cross_entropy(logits, labels)
        values.append((mean.item(), int((logits.argmax(1) == labels).sum()), len(labels)))
        return mean, (logits.argmax(1) == labels).sum()

    stage = make_stage(network, loss=loss, epochs=3, cosine=True)
    history = fit(stage, network, data, log=logged.append)
    assert logged == history
    assert len(history) == 3
    for epoch, record in enumerate(history):
        batches = values[3 * epoch : 3 * epoch + 3]
        assert record["stage"] == "network"
        assert record["epoch"] == epoch
        assert record["loss"] == pytest.approx(sum(m * n for m, _, n in batches) / 44, rel=1e-6)
        assert record["train_accuracy"] == pytest.approx(sum(c for _, c, _ in batches) / 44)
        assert record["learning_rate"] == stage.learning_rate_at((3 * epoch + 2) / 9)


def test_the_last_record_has_the_accuracy_of_the_network_as_it_is(data: Dataset) -> None:
    network = new_network()
    history = fit(make_stage(network), network, data)
    with torch.no_grad():
        images = data.normalise(data.test.images.float() / 255)
        predicted = copy.deepcopy(network).eval()(images).logits.argmax(1)
    correct = int((predicted == data.test.labels).sum())
    assert history[-1]["test_accuracy"] == pytest.approx(correct / 30)


@pytest.mark.parametrize(("epochs", "expected"), [(1, [0]), (5, [0, 1, 2, 3, 4]), (23, None)])
def test_test_accuracies_are_few_and_the_last_is_among_them(
    data: Dataset, epochs: int, expected: list[int] | None
) -> None:
    network = new_network()
    history = fit(make_stage(network, epochs=epochs, batch_size=44), network, data)
    measured = [record["epoch"] for record in history if "test_accuracy" in record]
    assert measured == (expected or [*range(0, 22, 3), 22])
    assert len(measured) <= loop.EVALUATIONS + 1


def test_test_data_decide_nothing(data: Dataset) -> None:
    other = dataclasses.replace(data, test=Split(data.test.images, 9 - data.test.labels, ""))
    networks = new_network(), new_network()
    histories = [
        fit(make_stage(network), network, d)
        for network, d in zip(networks, (data, other), strict=True)
    ]
    assert histories[0][-1]["test_accuracy"] != histories[1][-1]["test_accuracy"]
    assert_same(state_of(networks[0]), state_of(networks[1]))


def test_where_nothing_is_classified_there_is_no_accuracy(data: Dataset) -> None:
    network = new_network()
    stage = make_stage(network, loss=lambda v, _: (network(v).embedding.square().mean(), None))
    for record in fit(stage, network, data):
        assert set(record) == {"stage", "epoch", "loss", "learning_rate"}


# Learning rates


def test_steps_of_an_epoch_are_rounded_up() -> None:
    stage = make_stage(new_network(), batch_size=16)
    assert [stage.steps_per_epoch(n) for n in (1, 15, 16, 17, 32, 44)] == [1, 1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("recipe", "table"),
    [
        ({}, {0.0: 2.0, 0.5: 2.0, 0.999: 2.0}),
        (
            {"milestones": (0.25, 0.5), "gamma": 0.1},
            {0.0: 2.0, 0.2499: 2.0, 0.25: 0.2, 0.4999: 0.2, 0.5: 0.02, 0.99: 0.02},
        ),
        ({"warmup": 0.2}, {0.0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.15: 1.5, 0.2: 2.0, 0.9: 2.0}),
        (
            {"cosine": True},
            {0.0: 2.0, 0.25: 1 + math.sqrt(0.5), 0.5: 1.0, 0.75: 1 - math.sqrt(0.5)},
        ),
        (
            {"cosine": True, "warmup": 0.2},
            {0.0: 0.0, 0.1: 1.0, 0.2: 2.0, 0.4: 1 + math.sqrt(0.5), 0.6: 1.0},
        ),
        (
            {"milestones": (0.1, 0.5), "gamma": 0.2, "warmup": 0.3},
            {0.15: 1.0, 0.3: 0.4, 0.5: 0.08},
        ),
        ({"warmup": 1.0}, {0.0: 0.0, 0.5: 1.0, 0.75: 1.5}),
        ({"cosine": True, "warmup": 1.0}, {0.0: 0.0, 0.5: 1.0, 0.75: 1.5}),
    ],
)
def test_learning_rates(recipe: dict[str, Any], table: dict[float, float]) -> None:
    stage = make_stage(new_network(), learning_rate=2.0, **recipe)
    for progress, rate in table.items():
        assert stage.learning_rate_at(progress) == pytest.approx(rate, abs=1e-12), progress


def test_a_half_cosine_ends_near_zero() -> None:
    stage = make_stage(new_network(), learning_rate=1.0, cosine=True, warmup=0.1)
    rates = [stage.learning_rate_at(step / 1000) for step in range(1000)]
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert max(rates) == rates[100] == 1.0
    assert 0 < rates[-1] < 1e-5


# Pruning


def test_sparsity_is_reached_at_each_event_and_kept(data: Dataset) -> None:
    network = new_network()
    weights = wide_resnet.prunable(network)
    total = sum(weight.numel() for weight in weights.values())
    events = {1: 0.3, 3: 0.7, 5: 0.95}
    zeros: list[int] = []

    def loss(views: Tensor, labels: Tensor) -> tuple[Tensor, None]:
        zeros.append(sum(int((weight == 0).sum()) for weight in weights.values()))
        return F.cross_entropy(network(views).logits, labels), None

    asked: list[int] = []
    masks: dict[str, Tensor] = {}
    stage = make_stage(
        network,
        loss=loss,
        epochs=3,
        weight_decay=0.01,
        prunable=weights,
        pruning_events=lambda n_steps: asked.append(n_steps) or events,
        allocation="global",
    )
    fit(stage, network, data, masks)
    assert set(asked) == {9}
    shares = [0.0, 0.3, 0.3, 0.7, 0.7, 0.95, 0.95, 0.95, 0.95]
    assert zeros == [round(share * total) for share in shares]
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.95 * total)
    assert pruning.count_zeros(weights.values())[0] == round(0.95 * total)
    assert all((weights[name] == 0).equal(~mask) for name, mask in masks.items())


@pytest.mark.parametrize("nesterov", [False, True])
def test_pruned_weights_and_their_momentum_stay_exactly_zero(
    data: Dataset, monkeypatch: pytest.MonkeyPatch, nesterov: bool
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", -1.0)  # a state after each epoch
    network = new_network()
    weights = wide_resnet.prunable(network)
    names = [name for name, _ in network.named_parameters()]
    masks: dict[str, Tensor] = {}
    checked: list[int] = []

    def check(state: loop.State) -> None:
        momentum = dict(zip(names, state["momentum"], strict=True))
        for name, weight in network.named_parameters():
            if name in masks:
                assert not weight[~masks[name]].any(), name
                assert not momentum[name][~masks[name]].any(), name
                assert momentum[name][masks[name]].any(), name
            else:
                assert momentum[name].any(), name
        checked.append(state["step"])

    stage = make_stage(
        network,
        epochs=5,
        weight_decay=0.05,
        nesterov=nesterov,
        prunable=weights,
        pruning_events=lambda _: {0: 0.5, 4: 0.8, 7: 0.9},
    )
    fit(stage, network, data, masks, save=check)
    assert checked == [3, 6, 9, 12]
    assert set(masks) == set(weights)


def test_the_smallest_of_all_weights_as_they_are_go_first(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = pruning.magnitude_masks
    events = 0

    def spy(tensors: Any, sparsity: float, allocation: str) -> pruning.Masks:
        nonlocal events
        events += 1
        assert allocation == "global"
        assert all(tensors[name] is weight for name, weight in weights.items())
        masks = rank(tensors, sparsity, allocation)
        kept = torch.cat([tensors[name][mask].abs() for name, mask in masks.items()])
        pruned = torch.cat([tensors[name][~mask].abs() for name, mask in masks.items()])
        assert len(pruned) == 0 or kept.min() >= pruned.max()
        return masks

    monkeypatch.setattr(pruning, "magnitude_masks", spy)
    network = new_network()
    weights = wide_resnet.prunable(network)
    stage = make_stage(
        network,
        epochs=3,
        prunable=weights,
        pruning_events=lambda _: {0: 0.0, 2: 0.5, 4: 0.8, 8: 0.9},
        allocation="global",
    )
    fit(stage, network, data)
    assert events == 4


def test_nothing_is_pruned_that_is_not_named(data: Dataset) -> None:
    network = new_network()
    stage = make_stage(
        network,
        prunable={"fc.weight": network.fc.weight},
        pruning_events=lambda _: {2: 0.9},
        allocation="global",
    )
    masks: dict[str, Tensor] = {}
    fit(stage, network, data, masks)
    assert set(masks) == {"fc.weight"}
    assert int((network.fc.weight == 0).sum()) == round(0.9 * 640)
    for name, weight in wide_resnet.prunable(network).items():
        assert name == "fc.weight" or weight.all()


# Precision


def test_views_do_not_depend_on_the_precision(data: Dataset) -> None:
    """Only the network computes in bfloat16, and its weights stay float32."""
    seen: dict[bool, list[Batch]] = {False: [], True: []}
    for bf16, batches in seen.items():
        network = new_network()
        stage = make_stage(network, batches, augmentation=EVERYTHING, epochs=1)
        fit(stage, network, data, bf16=bf16)
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    for (ours, _), (others, _) in zip(seen[True], seen[False], strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, others)


# Waiting for a GPU


class Questions(TorchDispatchMode):
    """Collects the operations for whose answer the CPU would have to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        needs_value = name in ("_local_scalar_dense", "equal", "masked_select", "_unique2")
        # Where the images that change are looked up: among parameters, which are on the CPU.
        needs_value |= name == "nonzero" and not (args[0].ndim == 1 and args[0].dtype == torch.bool)
        if name in ("index", "index_put_", "_index_put_impl_"):  # a mask has to be counted first
            needs_value |= any(i is not None and i.dtype == torch.bool for i in args[1])
        if needs_value:
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("bf16", [False, True])
def test_a_step_asks_the_device_for_no_value(data: Dataset, bf16: bool) -> None:
    network = new_network()
    weights = wide_resnet.prunable(network)
    stage = make_stage(network, augmentation=EVERYTHING, prunable=weights)
    run = loop._Run(stage, torch.device("cpu"), bf16)
    masks = pruning.magnitude_masks(weights, 0.5)
    with Questions() as questions:
        loop._step(run, data, torch.arange(16), None, masks, SEED)
    assert questions.asked == []
    with Questions() as questions:
        loop._end_epoch(run, network, data, 0, 1)
    assert questions.asked  # which is where it is asked, and shows that this test could fail


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("bf16", [False, True])
def test_a_step_never_waits_for_the_gpu(data: Dataset, bf16: bool) -> None:
    device = torch.device("cuda")
    on_gpu = dataclasses.replace(
        data,
        train=Split(data.train.images.to(device), data.train.labels.to(device), "gpu"),
        mean=data.mean.to(device),
        std=data.std.to(device),
    )
    network = new_network().to(device)
    weights = wide_resnet.prunable(network)
    stage = make_stage(network, augmentation=EVERYTHING, prunable=weights)
    run = loop._Run(stage, device, bf16)
    masks = pruning.magnitude_masks(weights, 0.5)
    batch = torch.arange(16, device=device)
    loop._step(run, on_gpu, batch, None, masks, SEED)  # chooses algorithms
    torch.cuda.set_sync_debug_mode("error")
    try:
        loop._step(run, on_gpu, batch, None, masks, SEED)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.totals[3].item() == 2  # steps with a finite loss


# A frozen encoder


def test_a_frozen_encoder_does_not_change(data: Dataset) -> None:
    network = new_network(dropout=0.5)
    modes: set[bool] = set()

    def frozen(views: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        modes.add(network.training)
        return network(views).embedding

    def loss(embedding: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = network.fc(embedding)
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

    before = state_of(network)
    stage = make_stage(
        network,
        loss=loss,
        parameters=list(network.fc.parameters()),
        frozen=frozen,
        weight_decay=0.1,
    )
    fit(stage, network, data)
    assert modes == {False}
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.startswith("fc."), name


def head_stage(network: WideResNet, loss: Any = None, **changes: Any) -> Stage:
    """A classifier on the embeddings of a frozen encoder."""

    def cross_entropy(embedding: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = network.fc(embedding)
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

    return make_stage(
        network,
        loss=loss or cross_entropy,
        parameters=list(network.fc.parameters()),
        frozen=lambda views: network(views).embedding,
        **changes,
    )


def test_encoded_ahead_a_classifier_learns_the_same(data: Dataset) -> None:
    """As without, where the views do not differ from epoch to epoch."""
    fresh, cached = new_network(), new_network()
    plain = Augmentation()
    histories = [
        fit(head_stage(fresh, epochs=4, augmentation=plain), fresh, data),
        fit(head_stage(cached, epochs=4, augmentation=plain, cached_views=1), cached, data),
    ]
    assert torch.allclose(fresh.fc.weight, cached.fc.weight, atol=1e-6)
    assert not torch.allclose(fresh.fc.weight, new_network().fc.weight, atol=1e-3)
    for key in ("loss", "train_accuracy", "test_accuracy"):
        ours, others = ([record[key] for record in history] for history in histories)
        assert ours == pytest.approx(others, rel=1e-5)


def test_cached_views_are_taken_in_turn(data: Dataset) -> None:
    network = new_network()
    seen: list[Tensor] = []

    def loss(embedding: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(embedding)
        logits = network.fc(embedding)
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

    shifts = Augmentation(crop_padding=1)
    fit(head_stage(network, loss, epochs=5, augmentation=shifts, cached_views=2), network, data)
    # every epoch has three batches, in an order of its own
    epochs = [torch.cat(seen[i : i + 3]).sort(dim=0).values for i in range(0, 15, 3)]
    for i, epoch in enumerate(epochs):
        assert torch.equal(epoch, epochs[i % 2])
    assert not torch.equal(epochs[0], epochs[1])


def test_no_more_views_are_encoded_than_epochs_take(data: Dataset) -> None:
    network, seen = new_network(), []

    def frozen(views: Tensor) -> Tensor:
        seen.append(len(views))
        return network(views).embedding

    stage = dataclasses.replace(head_stage(network, epochs=2, cached_views=5), frozen=frozen)
    fit(stage, network, data)
    assert sum(seen) == 2 * len(data.train)


def test_a_stop_is_answered_while_views_are_encoded(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, saved = new_network(), []
    monkeypatch.setattr(runtime, "stop_requested", lambda: signal.SIGTERM)
    with pytest.raises(Interrupted):
        fit(head_stage(network, cached_views=3), network, data, save=saved.append)
    assert [state["step"] for state in saved] == [0]


def test_a_frozen_encoder_sees_the_test_images_once(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the accuracy is that of the whole network, at every epoch."""
    network, runs = new_network(), []
    outputs = evaluation.outputs
    monkeypatch.setattr(evaluation, "outputs", lambda *a, **k: runs.append(a) or outputs(*a, **k))
    history = fit(head_stage(network, epochs=3), network, data)
    assert len(runs) == 1
    assert history[-1]["test_accuracy"] == evaluation.accuracy(network, data, data.test)
    assert all("test_accuracy" in record for record in history)


def test_an_encoder_that_is_not_frozen_learns_and_counts_batches(data: Dataset) -> None:
    """In training mode also after the evaluations between the epochs."""
    network = new_network()
    before = state_of(network)
    fit(make_stage(network), network, data)
    after = state_of(network)
    assert after["bn1.num_batches_tracked"] == 6
    for name, tensor in after.items():
        assert not torch.equal(tensor, before[name]), name


# Losses that are not finite


@pytest.mark.parametrize("bad_step", [0, 2, 4, 5])
def test_a_loss_that_is_not_finite_ends_the_training_and_is_located(
    data: Dataset, bad_step: int
) -> None:
    network, calls = new_network(), []

    def loss(views: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(views).logits
        factor = torch.nan if len(calls) == bad_step else 1.0
        calls.append(len(labels))
        return factor * F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

    with pytest.raises(Failure) as failure:
        fit(make_stage(network, loss=loss, epochs=4), network, data)
    assert failure.value.code == EXIT_NON_FINITE
    message = str(failure.value)
    assert f"epoch {bad_step // 3}," in message
    assert f"step {bad_step} (" in message
    assert "--learning_rate" in message
    assert "\n" not in message
    assert len(calls) == 3 * (bad_step // 3 + 1)  # not beyond its epoch


def test_a_diverging_training_ends(data: Dataset) -> None:
    network, values = new_network(), []

    def loss(views: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(views).logits
        value = F.cross_entropy(logits, labels)
        values.append(value.item())
        return value, (logits.argmax(1) == labels).sum()

    with pytest.raises(Failure) as failure:
        fit(make_stage(network, loss=loss, learning_rate=1e30, epochs=4), network, data)
    first = next(i for i, value in enumerate(values) if not math.isfinite(value))
    assert failure.value.code == EXIT_NON_FINITE
    assert f"step {first} (" in str(failure.value)


# Interruptions


def stop_at(n: int) -> Callable[[], int | None]:
    """Like `runtime.stop_requested`, with a signal from the question number n on."""
    asked = -1

    def stop_requested() -> int | None:
        nonlocal asked
        asked += 1
        return signal.SIGTERM if asked >= n else None

    return stop_requested


def test_a_signal_is_obeyed_before_the_next_step_and_after_saving(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, batches, saved = new_network(), [], []
    monkeypatch.setattr(runtime, "stop_requested", stop_at(4))
    with pytest.raises(Interrupted) as stop:
        fit(make_stage(network, batches), network, data, save=saved.append)
    assert stop.value.code == 143
    assert len(batches) == 4
    assert [state["step"] for state in saved] == [4]
    assert [record["epoch"] for record in saved[0]["history"]] == [0]


def recipe(network: WideResNet) -> Stage:
    """Everything at once: dropout is in the network."""
    return make_stage(
        network,
        epochs=3,
        augmentation=Augmentation(crop_padding=2, horizontal_flip=0.5),
        weight_decay=0.01,
        cosine=True,
        warmup=0.3,
        prunable=wide_resnet.prunable(network),
        pruning_events=lambda _: {2: 0.5, 4: 0.8, 7: 0.9},
    )


def test_a_training_continues_from_every_state_that_was_saved(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States are saved now and then, for the case that no signal announces the end."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", -1.0)
    network, masks, saved = new_network(dropout=0.3), {}, []

    def save(state: loop.State) -> None:
        saved.append(copy.deepcopy((state, masks, state_of(network))))

    history = fit(recipe(network), network, data, masks, save=save)
    assert [state["step"] for state, _, _ in saved] == [3, 6]
    for state, stored_masks, weights in saved:
        again = new_network(dropout=0.3)
        again.load_state_dict(weights)
        assert fit(recipe(again), again, data, stored_masks, resume=state) == history
        assert_same(state_of(again), state_of(network))
        assert_same(stored_masks, masks)


def test_states_are_not_saved_more_often_than_they_should(data: Dataset) -> None:
    network, saved = new_network(), []
    fit(make_stage(network, epochs=4), network, data, save=saved.append)
    assert saved == []  # it took less than a minute


@pytest.mark.parametrize(("seconds", "epochs"), [(0.5, [2, 4, 6, 8]), (2.0, [2, 7])])
def test_saving_takes_at_most_a_hundredth_of_the_time(
    data: Dataset, monkeypatch: pytest.MonkeyPatch, seconds: float, epochs: list[int]
) -> None:
    """Of epochs of 45 seconds."""
    clock, network, saved = [0.0], new_network(), []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def pass_time(record: dict[str, Any]) -> None:
        clock[0] += 45

    def save(state: loop.State) -> None:
        clock[0] += seconds
        saved.append(len(state["history"]))

    fit(make_stage(network, epochs=10), network, data, save=save, log=pass_time)
    assert saved == epochs
