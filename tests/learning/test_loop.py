"""The training loop against a hand-written one in float64; its records, pruning, interruptions."""

from __future__ import annotations

import copy
import dataclasses
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common import runtime
from common.data.datasets import Dataset, Split
from common.learning import loop, pruning
from common.learning.loop import Run, Stage
from common.learning.schedule import Pruning, Schedule
from common.model import evaluation, wide_resnet
from common.model.wide_resnet import WideResNet
from common.recipes import Augmentation, Window
from common.runtime import EXIT_NON_FINITE, Failure, Interrupted

SEED = (5, 0)  # seed, network id
STAGE = ("parameters", "loss", "frozen", "prunable")
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
    """Cross-entropy on plain images, which are kept in `seen`. `changes` are of the stage or of its
    schedule."""

    def loss(views: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        if seen is not None:
            seen.append((views.clone(), labels.clone()))
        logits = network(views.to(network.fc.weight.dtype)).logits
        labels = labels.repeat(len(views) // len(labels))
        correct = (logits.argmax(1) == labels).sum()
        return F.cross_entropy(logits, labels), None if logits.dtype == torch.float64 else correct

    of_stage = {"parameters": list(network.parameters()), "loss": loss}
    of_stage |= {name: changes.pop(name) for name in [*STAGE] if name in changes}
    plain = {"name": "network", "augmentation": Augmentation(), "epochs": 2, "batch_size": 16}
    schedule = Schedule(**plain | {"learning_rate": 0.05, "momentum": 0.9} | changes)
    return Stage(schedule, **of_stage)


def gradual(sparsity: float, begin: int, end: int, frequency: int) -> Pruning:
    """Pruning at these steps, with one ranking of all weights."""
    return Pruning(Window(0, 1, 2), sparsity, "magnitude", "global", begin, end, frequency)


def fit(
    stage: Stage, network: WideResNet, data: Dataset, masks: Any = None, **run: Any
) -> list[dict[str, Any]]:
    return loop.fit(
        stage, network, data, {} if masks is None else masks, Run(**{"seed": SEED} | run)
    )


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
    parameters, schedule = dict(network.named_parameters()), stage.schedule
    velocity: dict[str, Tensor] = {}
    for step, (views, labels) in enumerate(batches):
        loss = F.cross_entropy(network(views.double()).logits, labels)
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        rate = schedule.learning_rate_at(step / len(batches))
        with torch.no_grad():
            for (name, weight), gradient in zip(parameters.items(), gradients, strict=True):
                is_decayed = weight.ndim > 1 or not schedule.decays_weights_only
                descent = gradient + is_decayed * schedule.weight_decay * weight
                if name in velocity:
                    velocity[name] = schedule.momentum * velocity[name] + descent
                else:
                    velocity[name] = descent.clone()
                if schedule.nesterov:
                    weight -= rate * (descent + schedule.momentum * velocity[name])
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
    "decay of weights only": {"weight_decay": 0.1, "decays_weights_only": True, "cosine": True},
    "milestone": {"momentum": 0.9, "milestones": (0.5,), "gamma": 0.2},
    "warm-up and cosine": {"momentum": 0.9, "cosine": True, "warmup": 0.4},
}


@pytest.mark.parametrize(
    ("dtype", "batch_size", "sparsity", "rtol", "atol"),
    [
        (torch.float32, 44, 0.0, 1e-4, 5e-6),
        (torch.float64, 16, 0.0, 1e-7, 1e-9),
        (torch.float64, 16, 0.8, 1e-7, 1e-9),
    ],
)
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_steps_equal_hand_written_ones_in_float64(
    data: Dataset,
    recipe: dict[str, Any],
    dtype: torch.dtype,
    batch_size: int,
    sparsity: float,
    rtol: float,
    atol: float,
) -> None:
    """Two steps on all images, or six smaller ones; the latter only in float64, since in float32 an
    activation near 0 can fall on the other side."""
    network, batches = new_network().to(dtype), []
    weights = wide_resnet.prunable(network)
    masks = pruning.magnitude_masks(weights, sparsity)
    pruning.apply_masks(masks, weights)
    start = copy.deepcopy(network)
    stage = make_stage(network, batches, prunable=weights, batch_size=batch_size, **recipe)
    fit(stage, network, data, masks)
    assert len(batches) == (2 if batch_size == 44 else 6)
    expected = train_by_hand(start, batches, stage, masks).state_dict()
    for name, tensor in network.state_dict().items():
        close = torch.isclose(tensor.double(), expected[name].double(), rtol=rtol, atol=atol)
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


def test_bf16_reaches_the_loss_but_neither_views_nor_weights_nor_evaluation(data: Dataset) -> None:
    seen: dict[bool, list[Batch]] = {False: [], True: []}
    computed: dict[bool, set[tuple[bool, torch.dtype]]] = {False: set(), True: set()}
    losses = []
    for bf16, batches in seen.items():
        network = new_network()
        network.fc.register_forward_hook(
            lambda module, _, output, of=computed[bf16]: of.add((module.training, output.dtype))
        )
        stage = make_stage(network, batches, augmentation=EVERYTHING)
        losses.append(fit(stage, network, data, bf16=bf16)[0]["loss"])
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert computed[False] == {(True, torch.float32), (False, torch.float32)}
    assert computed[True] == {(True, torch.bfloat16), (False, torch.float32)}
    for (ours, _), (others, _) in zip(seen[True], seen[False], strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, others)
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[1] != losses[0]


# What is recorded


def test_records_are_means_over_images(data: Dataset) -> None:
    """The last batch is smaller, so means over batches would be different."""
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
        assert record["learning_rate"] == stage.schedule.learning_rate_at((3 * epoch + 2) / 9)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, [0]), (5, [0, 4]), (23, [0, 8, 16, 22]), (100, [*range(0, 100, 10), 99])],
)
def test_test_accuracies_are_few_and_the_last_is_among_them(
    data: Dataset, epochs: int, expected: list[int]
) -> None:
    """About ten, or fewer if 30 test images each time would exceed a tenth of the training images
    seen."""
    network = new_network()
    history = fit(make_stage(network, epochs=epochs, batch_size=44), network, data)
    assert [record["epoch"] for record in history if "test_accuracy" in record] == expected


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


# Pruning


def test_sparsity_is_reached_at_each_event_and_kept(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event prunes the weights that are smallest at that moment."""
    network = new_network()
    weights = wide_resnet.prunable(network)
    total = sum(weight.numel() for weight in weights.values())
    zeros: list[int] = []
    asked: list[float] = []

    def loss(views: Tensor, labels: Tensor) -> tuple[Tensor, None]:
        zeros.append(sum(int((weight == 0).sum()) for weight in weights.values()))
        return F.cross_entropy(network(views).logits, labels), None

    def spy(tensors: Any, sparsity: float, allocation: str, *seed: Any) -> pruning.Masks:
        assert (allocation, seed) == ("global", SEED)
        assert all(tensors[name] is weight for name, weight in weights.items())
        masks = pruning.magnitude_masks(tensors, sparsity, allocation)
        kept = torch.cat([tensors[name][mask].abs() for name, mask in masks.items()])
        pruned = torch.cat([tensors[name][~mask].abs() for name, mask in masks.items()])
        assert len(pruned) == 0 or kept.min() >= pruned.max()
        asked.append(sparsity)
        return masks

    monkeypatch.setitem(pruning.CRITERIA, "magnitude", spy)
    masks: dict[str, Tensor] = {}
    plan = {"prunable": weights, "pruning": gradual(0.95, 1, 7, 2)}
    fit(make_stage(network, loss=loss, epochs=3, weight_decay=0.01, **plan), network, data, masks)
    assert asked == pytest.approx([0, 0.95 * 19 / 27, 0.95 * 26 / 27, 0.95])
    shares = [0.0, *(share for share in asked for _ in range(2))]
    assert zeros == [round(share * total) for share in shares]
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.95 * total)
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
        pruning=gradual(0.9, 0, 9, 3),
    )
    fit(stage, network, data, masks, save=check)
    assert checked == [3, 6, 9, 12]
    assert set(masks) == set(weights)


# A frozen encoder


def head_stage(network: WideResNet, seen: list[Tensor] | None = None, **changes: Any) -> Stage:
    """A classifier on the embeddings of a frozen encoder, which are kept in `seen`."""

    def loss(embedding: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if seen is not None:
            seen.append(embedding)
        logits = network.fc(embedding)
        return F.cross_entropy(logits, labels), (logits.argmax(1) == labels).sum()

    frozen = {"frozen": lambda views: network(views).embedding}
    of_head = {"loss": loss, "parameters": list(network.fc.parameters())}
    return make_stage(network, **of_head | frozen | changes)


def test_encoded_ahead_a_classifier_learns_the_same(data: Dataset) -> None:
    """Encoding in advance changes nothing if the views are the same in every epoch."""
    fresh, cached = new_network(), new_network()
    histories = [
        fit(head_stage(fresh, epochs=4), fresh, data),
        fit(head_stage(cached, epochs=4, cached_views=1), cached, data),
    ]
    assert torch.allclose(fresh.fc.weight, cached.fc.weight, atol=1e-6)
    assert not torch.allclose(fresh.fc.weight, new_network().fc.weight, atol=1e-3)
    for ours, others in zip(*histories, strict=True):
        for key in ours.keys() - {"stage"}:
            assert ours[key] == pytest.approx(others[key], rel=1e-5)


@pytest.mark.parametrize(("epochs", "cached_views"), [(5, 2), (2, 5)])
def test_cached_views_are_taken_in_turn(data: Dataset, epochs: int, cached_views: int) -> None:
    """No more views are encoded than epochs use."""
    network, seen, encoded = new_network(), [], []

    def frozen(views: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not network.training
        encoded.append(len(views))
        return network(views).embedding

    more = {"augmentation": Augmentation(crop_padding=1), "frozen": frozen}
    stage = head_stage(network, seen, epochs=epochs, cached_views=cached_views, **more)
    fit(stage, network, data)
    assert sum(encoded) == 2 * len(data.train)
    # every epoch has three batches, in an order of its own
    of_epochs = [torch.cat(seen[i : i + 3]).sort(dim=0).values for i in range(0, 3 * epochs, 3)]
    for i, epoch in enumerate(of_epochs):
        assert torch.equal(epoch, of_epochs[i % 2])
    assert not torch.equal(of_epochs[0], of_epochs[1])


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
    assert "test_accuracy" in history[0]


def test_an_encoder_that_is_not_frozen_learns_and_counts_batches(data: Dataset) -> None:
    """It is in training mode even after the evaluations between epochs."""
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


# Interruptions


def stop_at(n: int) -> Callable[[], int | None]:
    """Like `runtime.stop_requested`, but reports a signal from the n-th call on."""
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


@pytest.mark.parametrize(
    ("of_epoch", "epochs"), [(45, [2, 4, 6, 8]), (61, list(range(1, 10))), (5, [])]
)
def test_a_state_is_saved_once_a_minute_has_passed(
    data: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    of_epoch: float,
    epochs: list[int],
) -> None:
    """At the end of an epoch, but not of the last one."""
    clock, network, saved = [0.0], new_network(), []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def pass_time(record: dict[str, Any]) -> None:
        clock[0] += of_epoch

    def save(state: loop.State) -> None:
        clock[0] += 0.5
        saved.append(len(state["history"]))

    fit(make_stage(network, epochs=10), network, data, save=save, log=pass_time)
    assert saved == epochs
