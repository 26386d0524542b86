"""Several networks on one device: by which way supervised training of all of them is fastest.

What each way lacks: processes take turns on a GPU unless its owner runs NVIDIA's MPS; threads share
Python's lock and, on a GPU, autograd's one thread; a stack of networks is grouped convolutions in
NCHW.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from common import runtime
from common.data import augment
from common.learning import methods
from common.model import wide_resnet
from common.model.wide_resnet import WideResNet
from tests.benchmarks.measuring import Bench, Settings, Side
from tests.benchmarks.training import CLASSIFICATION, SUPERVISED, load, our_steps

WAYS = ("in turn", "processes", "threads", "stacked")
COMPILED = ("in turn", "processes")
BATCH_SIZE = 128
Work = Callable[[], list[float]]


def run(bench: Bench) -> dict[str, Any]:
    """Images/s of all networks together, for each way; in every round each has its turn."""
    settings = bench.settings
    gpu = settings.cuda_device >= 0
    options = {"n_networks": 8 if gpu else 2, "n_steps": 50 if gpu else 4, "batch": BATCH_SIZE}
    ways = {way: _prepare(way, settings, options, compiled=False) for way in WAYS}
    for way in COMPILED:
        ways[f"{way}, compiled"] = _prepare(way, settings, options, compiled=True)
    rounds = [{way: _seconds(sides) for way, sides in ways.items()} for _ in range(bench.pairs)]
    images = options["n_networks"] * options["n_steps"] * options["batch"]
    found = {
        way: {
            "images_per_s": images / median(times[way] for times in rounds),
            "ratio": median(times["in turn"] / times[way] for times in rounds),
        }
        for way in ways
    }
    for way, measured in found.items():
        print(f"  {way}: {measured['images_per_s']:.4g} images/s, {measured['ratio']:.2f}x")
    return {"options": options, "ways": found}


def _prepare(way: str, settings: Settings, options: dict[str, int], compiled: bool) -> list[Side]:
    """Processes that wait for the command to train."""
    n_networks = options["n_networks"]
    shares = [[i] for i in range(n_networks)] if way == "processes" else [list(range(n_networks))]
    rest = {"n_steps": options["n_steps"], "batch": options["batch"], "compiled": compiled}
    sides = [Side("ours", settings) for _ in shares]
    for side, ids in zip(sides, shares, strict=True):
        side.prepare(train, {"way": way, "ids": ids, "n_networks": n_networks} | rest)
    return sides


def _seconds(sides: list[Side]) -> float:
    """Seconds until all of these processes, working at once, have trained their networks."""
    started = time.perf_counter()
    for side in sides:
        side.start()
    for side in sides:
        side.finish()
    return time.perf_counter() - started


def train(
    side: str,
    settings: Settings,
    way: str,
    ids: Sequence[int],
    n_networks: int,
    n_steps: int,
    batch: int,
    compiled: bool = False,
) -> Work:
    """n_steps steps of the networks `ids`, augmentation included; returns mean losses. Ways that
    run side by side share the cores."""
    share = max(1, (os.cpu_count() or 1) // n_networks)
    if way in ("processes", "threads"):
        torch.set_num_threads(share)
    precision = runtime.pick_precision("auto", settings.device)
    networks = [_network(settings, network_id) for network_id in ids]
    if way == "stacked":
        return _stacked(networks, settings, n_steps, batch, precision == "bf16")
    data = load(settings, batch)
    config = SUPERVISED | {"batch_size": batch}
    stages = [methods.stages({"network": network}, config)[0] for network in networks]
    trainings = [our_steps(data, stage, precision, compiled, n_steps) for stage in stages]
    if way != "threads":
        return lambda: [training() for training in trainings]
    pool = ThreadPoolExecutor(n_networks, initializer=torch.set_num_threads, initargs=(share,))
    streams = [_stream(settings) for _ in trainings]

    def on_its_stream(training: Callable[[], float], stream: Any) -> float:
        with stream:
            return training()

    return lambda: list(pool.map(on_its_stream, trainings, streams))


def _network(settings: Settings, network_id: int) -> WideResNet:
    network = wide_resnet.build(16, 2, 10, 0.0, 0, network_id)
    return network.to(settings.device, memory_format=torch.channels_last).train()


def _stream(settings: Settings) -> Any:
    if settings.cuda_device < 0:
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(settings.device))


def _stacked(
    networks: list[WideResNet], settings: Settings, n_steps: int, batch: int, bf16: bool
) -> Work:
    """Train all networks as one, with stacked weights; convolutions become grouped convolutions."""
    data = load(settings, batch)
    weights, statistics = stack_module_state(networks)  # type: ignore[arg-type]
    skeleton = copy.deepcopy(networks[0]).to("meta")
    optimizer = torch.optim.SGD(
        list(weights.values()), lr=0.05, momentum=0.9, weight_decay=4e-4, fused=True
    )
    labels = data.train.labels[:batch]
    images = data.train.images[:batch].repeat(len(networks), 1, 1, 1)

    def loss(weights: dict[str, Tensor], statistics: dict[str, Tensor], views: Tensor) -> Tensor:
        logits = functional_call(skeleton, (weights, statistics), (views,)).logits
        return F.cross_entropy(logits.float(), labels)

    def step(number: int) -> Tensor:
        made = augment.augment(images, CLASSIFICATION, runtime.generator("benchmark", number))
        views = data.normalise(made).unflatten(0, (len(networks), batch))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(settings.device.type, torch.bfloat16, enabled=bf16):
            losses = vmap(loss)(weights, statistics, views)
        losses.sum().backward()
        optimizer.step()
        return losses.detach()

    return lambda: torch.stack([step(number) for number in range(n_steps)]).mean(0).tolist()
