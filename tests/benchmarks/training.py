"""Augmentation, steps and the classifier: how fast training is, and where its time goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from common import recipes, runtime, study
from common.data import augment, datasets
from common.data.datasets import Dataset, Split
from common.learning import loop, methods
from common.learning.loop import Run, Stage
from common.model import wide_resnet
from common.model.wide_resnet import ProjectionHead, WideResNet
from common.recipes import Augmentation
from tests.benchmarks import measuring, released
from tests.benchmarks.measuring import Bench, Settings

STEP_GFLOP = 0.6066  # a WRN-16-2 on one image of 32 x 32, forward and backward
PAPER = recipes.NETWORK["paper"] | recipes.TRAINING["SupCon"]["paper"]
CONFIG = recipes.complete(PAPER) | {
    "learner": "SupCon",
    "pruning_method": "dense",
    "sparsity": 0.0,
    "preset": "paper",
    "dataset": "cifar10",
    "seed": 0,
    "momentum": recipes.MOMENTUM,
    "base_temperature": recipes.BASE_TEMPERATURE,
    "projection_head": "mlp",
    "head_views": 5,
}
SUPERVISED = CONFIG | {"learner": "supervised", "batch_size": 128}
CONTRASTIVE = methods.contrastive_views(CONFIG)
CLASSIFICATION = methods.classification_views(CONFIG)


def run(bench: Bench) -> dict[str, Any]:
    """All stages of training; returns the ceilings of the hardware and the profiles of a step."""
    quick = bench.settings.quick
    gpu = bench.settings.cuda_device >= 0
    n = 32 if quick else 1024  # images of a SupCon batch
    bench.compare(
        "SupCon augmentation",
        augmentation,
        goal=100 if gpu else 10,
        work=512,
        unit="views/s",
        n=256,
    )
    goals = {"fp32": 2.0, "bf16": 2.0} if gpu else {"fp32": 1.5, "bf16": 3.0}
    shown = {"work": 2 * n, "unit": "views/s", "n": n}
    compare_steps(bench, "SupCon", contrastive, goals, 30 if gpu else 1.05, **shown)
    goals = {"fp32": 4.0, "bf16": 4.0} if gpu else {"fp32": 1.4, "bf16": 2.5}
    shown = {"work": 128, "unit": "images/s"}
    compare_steps(bench, "supervised", supervised, goals, 15 if gpu else 1, **shown)
    bench.compare(
        "classifier, 100 epochs, 5 views ahead",
        classifier,
        goal=30 if gpu else 20,
        released_times=100,
        n=128 if quick else 512,
    )
    return {
        "ceilings": ceilings(bench),
        "profiles": profiles(bench.settings, n=16 if quick else 128),
    }


def compare_steps(
    bench: Bench,
    name: str,
    factory: Callable[..., Any],
    goals: dict[str, float],
    goal_with_data: float,
    **shown: Any,
) -> None:
    """Steps in each precision of the hardware, without and with the making of their views; unless
    quick, compiled ones too (a minute of compiling each)."""
    for precision in ["fp32"] + ["bf16"] * measuring.has_bf16(bench.settings.device):
        shown |= {"precision": precision}
        bench.compare(f"{name} step, {precision}", factory, goal=goals[precision], **shown)
        stage = f"{name} step with its data, {precision}"
        bench.compare(stage, factory, goal=goal_with_data, end_to_end=True, **shown)
        if not bench.settings.quick:
            stage = f"{name} step, {precision}, compiled"
            bench.compare(stage, factory, goal=goals[precision], compiled=True, **shown)


@cache
def load(settings: Settings, n: int) -> Dataset:
    """n training and up to n test images of 32 x 32; digits are enlarged fourfold, and repeated."""
    limit = None if settings.dataset == "digits" else n
    data = load_as_it_is(settings.dataset, settings.device, limit)
    return replace(data, train=_resized(data.train, n), test=_resized(data.test, n))


def load_as_it_is(dataset: str, device: torch.device, limit: int | None) -> Dataset:
    size = study.dataset_words(dataset).image_size
    return datasets.load_dataset(dataset, Path("data"), device, size, limit, limit)


def _resized(split: Split, n: int) -> Split:
    chosen = torch.arange(n, device=split.labels.device) % len(split)
    images = split.images[chosen].float()
    images = F.interpolate(images, size=32, mode="bilinear").round().byte()
    return Split(images, split.labels[chosen], split.digest)


def new_modules(settings: Settings) -> tuple[WideResNet, ProjectionHead]:
    network = wide_resnet.build(16, 2, 10, 0.0, 0, 0).to(settings.device)
    return network, wide_resnet.build_projection(128, "mlp", 0, 0).to(settings.device)


def optimizer_of(*modules: torch.nn.Module) -> torch.optim.SGD:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=4e-4)


def augmentation(side: str, settings: Settings, n: int) -> Callable[[], list[int]]:
    """Two views of n images; returns their shape."""
    data = load(settings, n)
    if side == "released":
        loader = released.loader(data, CONTRASTIVE, n, n_views=2)
        return lambda: list(released.first_batch(loader, settings.device)[0].shape)
    images = data.train.images.repeat(2, 1, 1, 1)
    steps = count()

    def work() -> list[int]:
        made = augment.augment(images, CONTRASTIVE, runtime.generator("benchmark", next(steps)))
        views = data.normalise(made).contiguous(memory_format=torch.channels_last)
        return list(views.shape)

    return work


def our_steps(
    data: Dataset, stage: Stage, precision: str, compiled: bool = False, n_steps: int = 1
) -> Callable[[], float]:
    """Steps of the training loop on the first images; returns the mean loss so far."""
    steps = count()
    device = data.train.images.device
    progress = loop._Progress(stage, device, Run((0, 0), precision == "bf16", compiled))
    batch = torch.arange(stage.schedule.batch_size, device=device)

    def work(n_steps: int = n_steps) -> float:
        for step in islice(steps, n_steps):
            loop._step(progress, data, batch, None, {}, ("benchmark", step))
        return (progress.totals[0] / progress.totals[2]).item()

    if compiled:
        work(2)  # a CUDA graph is recorded in the second step

    return work


def contrastive(
    side: str,
    settings: Settings,
    n: int,
    precision: str,
    end_to_end: bool = False,
    compiled: bool = False,
) -> Callable[[], object]:
    """A step on two views of n images; the released one is always fp32."""
    data = load(settings, n)
    network, projection = new_modules(settings)
    if side == "released":
        optimizer = optimizer_of(network, projection)
        loader = released.loader(data, CONTRASTIVE, n, n_views=2)
        views, labels = released.first_batch(loader, settings.device)

        def work() -> float:
            batch = released.first_batch(loader, settings.device) if end_to_end else (views, labels)
            return released.contrastive_step(network.train(), projection, optimizer, *batch)

        return work
    modules = {
        "network": network.to(memory_format=torch.channels_last).train(),
        "projection": projection,
    }
    stage = methods.stages(modules, CONFIG | {"batch_size": n})[0]
    stage = stage if end_to_end else _without_augmentation(stage)
    return our_steps(data, stage, precision, compiled)


def supervised(
    side: str,
    settings: Settings,
    precision: str,
    end_to_end: bool = False,
    compiled: bool = False,
) -> Callable[[], object]:
    """A step on 128 images."""
    data = load(settings, 128)
    network, _ = new_modules(settings)
    if side == "released":
        optimizer = optimizer_of(network)
        loader = released.loader(data, CLASSIFICATION, 128)
        images, labels = released.first_batch(loader, settings.device)

        def work() -> float:
            batch = (
                released.first_batch(loader, settings.device) if end_to_end else (images, labels)
            )
            return released.classification_step(network.train(), optimizer, *batch)

        return work
    modules = {"network": network.to(memory_format=torch.channels_last).train()}
    (stage,) = methods.stages(modules, SUPERVISED)
    stage = stage if end_to_end else _without_augmentation(stage)
    return our_steps(data, stage, precision, compiled)


def _without_augmentation(stage: Stage) -> Stage:
    return replace(stage, schedule=replace(stage.schedule, augmentation=Augmentation()))


def classifier(side: str, settings: Settings, n: int) -> Callable[[], object]:
    """The released way: one epoch (they are all alike); ours: all 100, and the encoding ahead."""
    data = load(settings, n)
    network, projection = new_modules(settings)
    if side == "released":
        loader = released.loader(data, CLASSIFICATION, 256)
        test = released.plain_loader(data, Split(*_fifth(data.test)))
        optimizer = optimizer_of(network.fc)
        return lambda: released.head_epoch(network, optimizer, loader, test, settings.device)
    network.to(memory_format=torch.channels_last)
    modules = {"network": network, "projection": projection}
    config = CONFIG | {"batch_size": n, "batch_size_head": min(256, n)}
    stage = methods.stages(modules, config)[1]
    data = replace(data, test=Split(*_fifth(data.test)))
    return lambda: loop.fit(stage, network, data, {}, Run((0, 0)))


def _fifth(split: Split) -> tuple[Tensor, Tensor, str]:
    """A fifth, as CIFAR-10 has 10,000 test images for 50,000 to train."""
    n = len(split) // 5
    return split.images[:n], split.labels[:n], split.digest


def ceilings(bench: Bench) -> dict[str, float]:
    """The best speed that the hardware can reach, and the share of it that our SupCon step uses."""
    device = bench.settings.device
    size = 8192 if device.type == "cuda" else 2048
    source = torch.empty(2**26, device=device).normal_()
    target = torch.empty_like(source)
    found = {"copy_GB_per_s": 2 * source.nbytes / _seconds(device, lambda: target.copy_(source))}
    found["copy_GB_per_s"] /= 1e9
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if name == "bf16" and not measuring.has_bf16(device):
            continue
        a = torch.randn(size, size, device=device).to(dtype)
        seconds = _seconds(device, lambda a=a: a @ a)
        found[f"matmul_{name}_GFLOP_per_s"] = 2 * size**3 / seconds / 1e9
    for row in bench.rows:
        for name in ("fp32", "bf16"):
            ceiling = found.get(f"matmul_{name}_GFLOP_per_s")
            if row["stage"] == f"SupCon step, {name}" and ceiling:
                found[f"SupCon_step_{name}_share_of_matmul"] = row["ours"] * STEP_GFLOP / ceiling
    for name, value in found.items():
        print(f"  {name}: {value:.4g}")
    return found


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    times = []
    for _ in range(6):
        measuring.wait(device)
        started = time.perf_counter()
        work()
        measuring.wait(device)
        times.append(time.perf_counter() - started)
    return median(times[1:])


PARTS = {  # of a step, by what PyTorch calls its operations
    "convolution backward": ("convolution_backward",),
    "convolution forward": ("mkldnn_convolution", "cudnn_convolution"),
    "batch norm": ("batch_norm",),
    "ReLU": ("clamp_min", "threshold", "relu"),
    "additions": ("aten::add",),
    "optimizer": ("sgd", "_foreach"),
}


def profiles(settings: Settings, n: int) -> dict[str, dict[str, float]]:
    """The time of one SupCon step on two views of n images, by operation: percent of the
    processor's (on a GPU the device's) own time."""
    found = {}
    for side, precision in (("released", "fp32"), ("ours", "fp32"), ("ours", "bf16")):
        if precision == "bf16" and not measuring.has_bf16(settings.device):
            continue
        work = contrastive(side, settings, n, precision, end_to_end=True)
        work()
        activities = [ProfilerActivity.CPU]
        if settings.cuda_device >= 0:
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities) as profiled:
            work()
        found[f"{side} {precision}"] = shares = _shares(profiled, settings.cuda_device >= 0)
        text = ", ".join(f"{part} {share:.0f} %" for part, share in shares.items())
        print(f"  a step, {side} {precision}: {text}")
    return found


def _shares(profiled: Any, cuda: bool) -> dict[str, float]:
    totals = dict.fromkeys([*PARTS, "the rest (data, loss, copies)"], 0.0)
    for event in profiled.key_averages():
        part = next(
            (part for part, names in PARTS.items() if any(name in event.key for name in names)),
            "the rest (data, loss, copies)",
        )
        totals[part] += event.self_device_time_total if cuda else event.self_cpu_time_total
    whole = sum(totals.values())
    return {part: round(100 * total / whole, 1) for part, total in totals.items()}
