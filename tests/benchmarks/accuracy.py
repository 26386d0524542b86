"""Whether the fast ways learn as well as the plain ones: top-1 over five seeds, paired by seed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy import stats

from common import recipes, study
from common.data.datasets import Dataset
from common.learning import loop, methods
from common.learning.loop import Run, Stage
from common.model import evaluation
from tests.benchmarks import measuring, released
from tests.benchmarks.measuring import Bench, Settings
from tests.benchmarks.training import CONFIG, load_as_it_is

SEEDS = range(5)
FOLDER_LIMIT = 1000  # training and test images of a folder data set


def run(bench: Bench) -> dict[str, Any]:
    """Digits as they are, and the folder data set if one was given."""
    settings = bench.settings
    found = {}
    for dataset in dict.fromkeys(["digits", settings.dataset]):
        limit = None if dataset == "digits" else FOLDER_LIMIT
        data = load_as_it_is(dataset, settings.device, limit)
        for learner in study.LEARNERS:
            top1 = {name: [] for name in variants(learner, settings)}
            for seed in SEEDS:
                for name in top1:
                    top1[name].append(train(learner, name, data, seed))
                    print(f"  {data.name} {learner} {name}: {100 * top1[name][-1]:.2f}", flush=True)
            found[f"{data.name} {learner}"] = compare(top1)
            for name, numbers in found[f"{data.name} {learner}"].items():
                print(f"  {data.name} {learner} {name}: {numbers}")
    return found


def variants(learner: str, settings: Settings) -> list[str]:
    """The first one is what the others are compared with."""
    names = ["released", "fp32"]
    names += ["bf16"] * measuring.has_bf16(settings.device)
    return names + ["fp32, 5 views ahead"] * (learner == "SupCon")


def compare(top1: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Mean and sd in percent, and the mean difference to the first with its 95 % interval, within
    which no difference is."""
    first = np.array(next(iter(top1.values())))
    found = {}
    for name, values in top1.items():
        difference = 100 * (np.array(values) - first)
        half = stats.t.ppf(0.975, len(first) - 1) * difference.std(ddof=1) / math.sqrt(len(first))
        found[name] = {
            "mean": round(100 * float(np.mean(values)), 2),
            "sd": round(100 * float(np.std(values, ddof=1)), 2),
            "difference": round(float(difference.mean()), 2),
            "half_interval": round(float(half), 2),
            "within_noise": bool(abs(difference.mean()) <= half),
        }
    return found


def train(learner: str, variant: str, data: Dataset, seed: int) -> float:
    """Top-1 of one network, trained as the digits preset says, a classifier for 100 epochs (on a
    folder with the paper's augmentations)."""
    is_digits = data.name == "digits"
    config = CONFIG | recipes.TRAINING[learner]["digits"] | recipes.NETWORK["digits"]
    config |= {"learner": learner, "preset": "digits" if is_digits else "paper"}
    config |= {"dataset": data.name if is_digits else "cifar10", "head_epochs": 100}
    config |= {"image_size": data.train.images.shape[-1]}
    config |= {"head_views": 5 if "ahead" in variant else 0}
    modules = methods.new_modules(config, data.n_classes, seed)
    for module in modules.values():
        module.to(data.train.images.device)
        if variant != "released":
            module.to(memory_format=torch.channels_last)
    torch.manual_seed(seed)
    run = Run((0, seed), bf16=variant == "bf16")
    for stage in methods.stages(modules, config):
        if variant == "released":
            train_as_released(stage, modules, data)
        else:
            loop.fit(stage, modules["network"], data, {}, run)
    return evaluation.accuracy(modules["network"], data, data.test)


def train_as_released(stage: Stage, modules: dict[str, Any], data: Dataset) -> None:
    """With transforms image by image, and the whole batch at once in fp32, NCHW."""
    network, schedule = modules["network"], stage.schedule
    of_views = (schedule.augmentation, schedule.batch_size, schedule.n_views)
    batches = released.loader(data, *of_views)
    optimizer = torch.optim.SGD(
        stage.parameters,
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
    )
    network.train(stage.frozen is None)
    n_steps = schedule.epochs * len(batches)
    step = 0
    for _ in range(schedule.epochs):
        for views, labels in batches:
            optimizer.param_groups[0]["lr"] = schedule.learning_rate_at(step / n_steps)
            inputs, labels = torch.cat(views).to(data.mean.device), labels.to(data.mean.device)
            if stage.frozen is not None:
                with torch.no_grad():
                    inputs = stage.frozen(inputs)
            loss, _ = stage.loss(inputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
