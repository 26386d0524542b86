"""Without a GPU, still sure of it: no step waits for the device, nothing is left on the host.

The `meta` device has shapes and no values, so nothing can be read there; `OneDevice` also sees what
lies on the host, and copies for which the host waits. Meta lacks autocast and the fused optimizer:
these are replaced. The last test shows the same steps to a GPU's driver.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.analysis import probes
from common.data import augment
from common.data.datasets import Dataset, Split
from common.learning import loop, methods, pruning
from common.learning.loop import Run, Stage
from common.model import evaluation, wide_resnet
from common.recipes import Config

ConfigOf = Callable[..., Config]
Fault = Callable[[Tensor], object]
META = torch.device("meta")
GRADUAL = {"pruning_method": "GMP", "sparsity": 0.9, "begin_step": 1, "end_step": 5, "frequency": 2}
ONE_SHOT = {"pruning_method": "global", "sparsity": 0.9}
TRAININGS = {
    "supervised": ("supervised", GRADUAL),
    "supervised, dropout": ("supervised", {"dropout": 0.3, "decay": "weights", "nesterov": True}),
    "SupCon": ("SupCon", GRADUAL),
    "SimCLR": ("SupCon", {"method": "SimCLR", "projection_head": "linear"}),
    "SupCon, cached views": ("SupCon", GRADUAL | {"head_views": 2}),
    "fine-tuning": ("supervised", ONE_SHOT),
    "fine-tuning by supcon": ("SupCon", ONE_SHOT | {"finetune_loss": "supcon"}),
}
# What meta itself refuses, and what OneDevice does.
REFUSALS = (AssertionError, RuntimeError, TypeError)
SEEN = "(?i)meta|tensors on|waits|a mask|of numbers"


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of several devices (a GPU takes numbers from the host, not
    more), masks as indices, which have to be counted, and copies for which the host waits."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.ndim > 0}
        if name == "_to_copy" and "device" in kwargs:
            to_other = kwargs["device"].type not in devices
            assert not to_other or kwargs.get("non_blocking"), "a copy for which the host waits"
        else:
            assert len(devices) <= 1, f"{name}: tensors on {devices}"
        if name in ("index", "index_put_", "_index_put_impl_") and "meta" in devices:
            indices = [index for index in args[1] if index is not None]
            assert all(index.dtype != torch.bool for index in indices), "a mask as an index"
        return func(*args, **kwargs)


class NothingFromNumbers(TorchFunctionMode):
    """Refuses tensors made of Python's numbers on the device: they are copied, and the host waits.
    No dispatched operation shows it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor):
            assert made.device != META, "a tensor of numbers on the device"
        return made


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], ExitStack]:
    """`with checked():` what runs is checked. Replaces what meta lacks."""
    monkeypatch.setattr(torch, "autocast", lambda *of, **more: nullcontext())
    monkeypatch.setattr(torch.optim, "SGD", _plain_sgd)

    def checked() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(OneDevice())
        stack.enter_context(NothingFromNumbers())
        return stack

    return checked


def _plain_sgd(*arguments: Any, fused: bool, sgd: Any = torch.optim.SGD, **more: Any) -> Any:
    return sgd(*arguments, **more)


def on(device: torch.device, data: Dataset) -> Dataset:
    train, test = (
        Split(split.images.to(device), split.labels.to(device), split.digest)
        for split in (data.train, data.test)
    )
    mean, std = data.mean.to(device), data.std.to(device)
    return dataclasses.replace(data, train=train, test=test, mean=mean, std=std)


@pytest.fixture
def on_meta(data: Dataset) -> Dataset:
    return on(META, data)


class Training:
    """One of TRAININGS on a device, with all that may happen to an image."""

    def __init__(self, config_of: ConfigOf, name: str, device: torch.device = META, **more: Any):
        learner, changes = TRAININGS[name]
        paper = {"preset": "paper", "dataset": "cifar10", "image_size": 8}
        small = {"model_depth": 10, "widen_factor": 1, "batch_size": 16, "precision": "bf16"}
        small |= {"head_epochs": 3, "batch_size_head": 20} if learner == "SupCon" else {}
        config = config_of(learner, **paper | small | changes | more)
        self.modules = methods.new_modules(config, 10, 0)
        weights = wide_resnet.prunable(self.modules["network"])
        is_pruned = config["pruning_method"] == "global"
        self.masks = pruning.magnitude_masks(weights, 0.9) if is_pruned else {}
        for module in self.modules.values():
            module.to(device, memory_format=torch.channels_last)
        self.masks = {key: mask.to(device) for key, mask in self.masks.items()}
        self.stages = methods.stages(self.modules, config)

    def run(self, data: Dataset) -> list[dict[str, Any]]:
        return loop.train(self.stages, self.modules, self.masks, data, Run((5, 0), bf16=True))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The last steps of epochs, by stage. Training reads values from the device only there and at
    pruning events; here these reads are replaced, and the rest of the loop is unchanged."""
    asked: list[tuple[str, int]] = []

    def end_epoch(progress: Any, network: Any, data: Any, epoch: int, steps: int) -> Any:
        asked.append((progress.stage.schedule.name, progress.step))
        return {"stage": progress.stage.schedule.name, "epoch": epoch, "loss": 0.0}

    def masks(tensors: dict[str, Tensor], *plan: Any) -> pruning.Masks:
        return {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in tensors.items()}

    monkeypatch.setattr(loop, "_end_epoch", end_epoch)
    monkeypatch.setitem(pruning.CRITERIA, "magnitude", masks)
    return asked


@pytest.mark.parametrize("name", TRAININGS)
def test_no_step_asks_the_device_or_leaves_it(
    config_of: ConfigOf,
    on_meta: Dataset,
    checked: Callable[[], ExitStack],
    asked: list[tuple[str, int]],
    name: str,
) -> None:
    """Every stage from its first step to its last: order, views, frozen encoder, loss, gradients,
    momentum, masks, totals."""
    training = Training(config_of, name)
    with checked():
        training.run(on_meta)
    expected = {"network": [3, 6], "finetune": [3, 6], "encoder": [3, 6], "head": [3, 6, 9]}
    names = [stage.schedule.name for stage in training.stages]
    assert asked == [(name, step) for name in names for step in expected[name]]
    weights = wide_resnet.prunable(training.modules["network"])
    is_pruned = any(stage.schedule.pruning for stage in training.stages)
    assert training.masks.keys() == (weights.keys() if is_pruned else set())


@pytest.mark.parametrize(
    ("changes", "n_steps"),
    [({"sparsity": 0.0}, 3), ({"begin_step": 0, "end_step": 2, "frequency": 2}, 2)],
)
def test_values_are_asked_for_where_an_epoch_ends_and_where_is_pruned(
    config_of: ConfigOf,
    on_meta: Dataset,
    checked: Callable[[], ExitStack],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    n_steps: int,
) -> None:
    """And not before: so many steps are done by then (the event at step 0 prunes nothing yet)."""
    step, done = loop._step, []
    monkeypatch.setattr(loop, "_step", lambda *of: (step(*of), done.append(of)))
    training = Training(config_of, "supervised", **changes)
    with checked(), pytest.raises(REFUSALS, match=SEEN):
        training.run(on_meta)
    assert len(done) == n_steps


# Faults that must be seen


ASKING: dict[str, Fault] = {
    "item": lambda views: views.sum().item(),
    "truth": lambda views: bool((views > 0).all()),
    "cpu": lambda views: views.cpu(),
    "nonzero": lambda views: views.nonzero(),
    "where": lambda views: torch.where(views > 0),
    "mask as an index": lambda views: views[views > 0],
    "mask assigned to": lambda views: views.clone().__setitem__(views > 0, 0.0),
    "equal": lambda views: torch.equal(views, views),
    "repeat": lambda views: views.repeat_interleave(torch.ones_like(views[:, 0, 0, 0]).long(), 0),
    "blocking copy": lambda views: torch.zeros(3).to(views.device),
    "numbers": lambda views: torch.tensor([0.5, 0.5], device=views.device),
    "new numbers": lambda views: views.new_tensor([0.5, 0.5]),
}
MIXING: dict[str, Fault] = {
    "sum": lambda views: views + torch.zeros(views.shape),
    "mean": lambda views: views - torch.zeros(3)[:, None, None],
    "product": lambda views: views.flatten(1) @ torch.zeros(192, 2),
    "convolution": lambda views: torch.nn.functional.conv2d(views, torch.zeros(4, 3, 3, 3)),
    "index": lambda views: views[torch.arange(2)],
    "assignment": lambda views: views.clone().__setitem__(slice(1), torch.zeros(1, 3, 8, 8)),
    "in place": lambda views: views.clone().mul_(torch.zeros(3, 1, 1)),
    "labels": lambda views: torch.nn.functional.cross_entropy(
        views.flatten(1), torch.zeros(len(views)).long()
    ),
}


@pytest.mark.parametrize("fault", [*ASKING.values(), *MIXING.values()], ids=[*ASKING, *MIXING])
def test_a_fault_in_a_step_is_seen(
    config_of: ConfigOf,
    on_meta: Dataset,
    checked: Callable[[], ExitStack],
    asked: list[tuple[str, int]],
    fault: Fault,
) -> None:
    training = Training(config_of, "supervised")

    def with_fault(stage: Stage) -> Stage:
        return dataclasses.replace(
            stage, loss=lambda views, labels: (fault(views), stage.loss(views, labels))[1]
        )

    training.stages = [with_fault(stage) for stage in training.stages]
    with checked(), pytest.raises(REFUSALS, match=SEEN):
        training.run(on_meta)
    assert asked == []


class TotalsOnTheHost(loop._Progress):
    def __init__(self, *of: Any):
        super().__init__(*of)
        self.totals = torch.zeros(4, dtype=torch.float64)


def left_on_the_host(place: str, training: Training, data: Dataset, patch: Any) -> Dataset:
    """The data, with one thing that a step needs left on the host."""
    if place == "labels":
        zeros = torch.zeros(len(data.train), dtype=torch.long)
        return dataclasses.replace(data, train=Split(data.train.images, zeros, ""))
    if place == "mean":
        return dataclasses.replace(data, mean=torch.zeros(3))
    if place == "order":
        patch.setattr(loop, "_order", lambda n, *rest: torch.randperm(n))
    if place == "rows":
        patch.setattr(augment, "_rows", lambda chosen, images: chosen.nonzero().squeeze(1))
    if place == "masks":
        shapes = {name: mask.shape for name, mask in training.masks.items()}
        training.masks = {name: torch.ones(shape) for name, shape in shapes.items()}
    if place == "totals":
        patch.setattr(loop, "_Progress", TotalsOnTheHost)
    return data


@pytest.mark.parametrize("place", ["labels", "mean", "order", "rows", "masks", "totals"])
def test_what_was_left_on_the_host_is_seen(
    config_of: ConfigOf,
    on_meta: Dataset,
    checked: Callable[[], ExitStack],
    asked: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    training = Training(config_of, "fine-tuning by supcon")
    faulty = left_on_the_host(place, training, on_meta, monkeypatch)
    with checked(), pytest.raises(REFUSALS, match=SEEN):
        training.run(faulty)
    assert asked == []


# The analysis


def test_a_pass_over_images_asks_the_device_for_nothing(
    config_of: ConfigOf, on_meta: Dataset, checked: Callable[[], ExitStack]
) -> None:
    """Logits, embeddings and probes, of images as they are or augmented."""
    network = Training(config_of, "supervised").modules["network"]
    views = methods.contrastive_views(config_of("SupCon", preset="paper", dataset="cifar10"))
    view = partial(augment.augment, augmentation=views, generator=torch.Generator())
    with checked():
        for more in ({}, {"view": view}):
            found = list(evaluation.outputs(network, on_meta, on_meta.test, 16, True, **more))
            embeddings = evaluation.probe_embeddings(iter(found))
            assert [output.logits.shape for output in found] == [(16, 10), (14, 10)]
            assert {tensor.shape[0] for tensor in embeddings} == {30}
            assert {tensor.device for tensor in embeddings} == {META}


@pytest.mark.parametrize("fault", ["item", "sum"])
def test_a_fault_in_a_pass_is_seen(
    config_of: ConfigOf, on_meta: Dataset, checked: Callable[[], ExitStack], fault: str
) -> None:
    network = Training(config_of, "supervised").modules["network"]
    network.register_forward_pre_hook(
        lambda _, images: (ASKING | MIXING)[fault](images[0]) and None
    )
    with checked(), pytest.raises(REFUSALS, match=SEEN):
        list(evaluation.outputs(network, on_meta, on_meta.test))


def test_nearest_neighbours_are_searched_on_the_device(
    checked: Callable[[], ExitStack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distances, minima of blocks, candidates; exact distances; the search of all. Left out is what
    has to know values: for which queries rounding leaves the neighbours unsure (`nonzero`, once for
    each 2^24 distances), and the votes, which are counted on the host."""
    bank, queries = torch.empty(700, 32, device=META), torch.empty(50, 32, device=META)
    with checked():
        largest = torch.empty((), device=META)
        assert probes._rounding(32, largest, torch.empty(50, device=META)).device == META
        assert probes._search_all(bank, queries, 5).shape == (50, 5)
        of_all = torch.empty(50, 700, dtype=torch.long, device=META)
        beyond = torch.empty(50, device=META)
        assert probes._decide(bank, queries, of_all, beyond, 5).shape == (50, 5)
        with pytest.raises(REFUSALS, match=SEEN):
            probes._neighbours(bank, queries, 5)
        monkeypatch.setattr(probes, "SPARE", 0)
        assert probes._neighbours(bank, queries, 5).shape == (50, 5)
        with pytest.raises(REFUSALS, match=SEEN):
            probes._neighbours(bank, torch.empty(50, 32), 5)


# With a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("name", TRAININGS)
def test_a_step_never_waits_for_the_gpu(
    config_of: ConfigOf, data: Dataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Any step but the first of a stage, in which algorithms are chosen."""
    step, device, n_steps = loop._step, torch.device("cuda"), 0

    def watched(progress: Any, *rest: Any) -> None:
        nonlocal n_steps
        torch.cuda.set_sync_debug_mode("error" if progress.step else "default")
        try:
            step(progress, *rest)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        n_steps += 1

    monkeypatch.setattr(loop, "_step", watched)
    Training(config_of, name, device).run(on(device, data))
    assert n_steps >= 6
