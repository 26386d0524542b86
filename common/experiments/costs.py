"""The cost of training and analysing networks, measured on the device that would be used: a few
steps, or one pass, on random images."""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from common import runtime
from common.analysis import probes
from common.analysis.predictions import Population
from common.data.datasets import Dataset, Size, Split
from common.experiments import predictions
from common.learning import loop, methods
from common.model import wide_resnet
from common.model.wide_resnet import WideResNet
from common.recipes import Config
from common.report import pie_rows
from common.study import Cell

MEASURED = {"cpu": 1e11, "cuda": 1e13}  # at most so many FLOPs are timed: a second or two
COUNTED = 32  # images whose FLOPs are counted
COMPARED = 500  # images on which statistics and probes are timed
BYTES_OF_A_PROBE = 0.5  # a label, compressed, on digits


class Cost(NamedTuple):
    """Floating-point operations, seconds, and bytes on the disk that some work needs."""

    flops: float = 0.0
    seconds: float = 0.0
    n_bytes: float = 0.0

    def plus(self, other: Cost, times: float = 1) -> Cost:
        return Cost(*(a + b * times for a, b in zip(self, other, strict=True)))


def of_training(config: Config, size: Size, device: torch.device) -> dict[str, Cost]:
    """The cost of one training image in each stage: all its views, forward and backward."""
    modules = methods.new_modules(config, size.n_classes, network_id=0)
    for module in modules.values():
        module.to(device, memory_format=torch.channels_last)
    run = loop.Run((0, 0), bf16=runtime.pick_precision(config["precision"], device) == "bf16")
    found = {}
    for stage in methods.stages(modules, config):
        # with a learning rate of almost 0, nothing diverges
        only = {"epochs": 1, "learning_rate": 1e-9, "cached_views": 0, "pruning": None}

        def fit(n_images: int, batch_size: int, stage: loop.Stage = stage, only=only) -> None:
            schedule = replace(stage.schedule, batch_size=batch_size, collapsed_loss=None, **only)
            data = random_images(n_images, 1, size.n_classes, config["image_size"], device)
            loop.fit(replace(stage, schedule=schedule), modules["network"], data, {}, run)

        flops = _count(fit, COUNTED, COUNTED) / COUNTED
        affordable = int(MEASURED[device.type] / flops)
        batch_size = max(2, min(stage.schedule.batch_size, affordable))
        n_images = batch_size * max(1, min(20, affordable // batch_size))
        fit(batch_size, batch_size)  # the first step is slower
        found[stage.schedule.name] = Cost(flops, _seconds(fit, n_images, batch_size) / n_images)
    return found


def stored_bytes(config: Config, n_classes: int) -> int:
    """The size of a network's files without configuration and history, which are a few kB."""
    modules = methods.new_modules(config, n_classes, network_id=0)
    states = {name: module.state_dict() for name, module in modules.items()}
    weights = wide_resnet.prunable(modules["network"]) if config["sparsity"] else {}
    buffer = io.BytesIO()
    torch.save([states, {name: weight != 0 for name, weight in weights.items()}], buffer)
    return buffer.tell()


def of_prediction(
    args: argparse.Namespace, network: WideResNet, size: Size, device: torch.device
) -> Cost:
    """The cost of one network's prediction for one image, scores included."""
    buffer = io.BytesIO()

    def predict(n_images: int) -> None:
        data = random_images(2, n_images, size.n_classes, args.image_size, device)
        np.savez_compressed(buffer, **predictions.predict(network, data, args.batch_size))

    flops = _count(predict, COUNTED) / COUNTED
    n_images = max(2, min(size.n_test, int(MEASURED[device.type] / flops)))
    buffer.seek(0), buffer.truncate()
    return Cost(flops, _seconds(predict, n_images) / n_images, buffer.tell() / n_images)


def of_probes(
    args: argparse.Namespace, network: WideResNet, size: Size, device: torch.device
) -> Cost:
    """The cost of asking all probes of a network about one test image; only the search counts."""
    image = torch.zeros(1, 3, args.image_size, args.image_size, device=device)
    widths = [probe.shape[1] for probe in network(image, probes=True).probes]
    labels = np.arange(size.n_train) % size.n_classes

    def ask() -> None:
        for width in widths:
            bank, queries = (torch.randn(n, width, device=device) for n in (size.n_train, COMPARED))
            probes.knn_predict(bank, labels, queries, args.knn, size.n_classes)

    flops = 2.0 * size.n_train * sum(widths)
    return Cost(flops, _seconds(ask) / COMPARED, BYTES_OF_A_PROBE * len(widths))


def of_statistics(args: argparse.Namespace, cell: Cell, n_models: int, size: Size) -> Cost:
    """The cost per test image of a cell's interval, exchanges and corrected count."""
    votes = np.random.default_rng(0).random((2, n_models, COMPARED)) < 0.1
    dense, pruned = (
        Population(cell, list(range(n_models)), labels.astype(np.int16), {}, {}) for labels in votes
    )
    draws = (args.permutations, args.resamples, args.seed)
    count = (pie_rows.of_count, dense, pruned, size.n_classes, True, *draws)
    return Cost(seconds=_seconds(*count) / COMPARED)


def random_images(
    n_train: int, n_test: int, n_classes: int, side: int, device: torch.device
) -> Dataset:
    """Random images with arbitrary labels."""
    train, test = (
        Split(
            torch.randint(256, (n, 3, side, side), dtype=torch.uint8, device=device),
            torch.arange(n, device=device) % n_classes,
            digest="",
        )
        for n in (n_train, n_test)
    )
    zero = torch.zeros(3, device=device)
    return Dataset("", tuple(map(str, range(n_classes))), train, test, zero, zero + 1)


def _count(work: Callable[..., object], *arguments: object) -> int:
    with FlopCounterMode(display=False) as counter:
        work(*arguments)
    return counter.get_total_flops()


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    """Time the work. All work here ends with a copy to the host, so a GPU has finished by then."""
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started
