"""The loop that every training and fine-tuning runs, one stage after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common import runtime
from common.data import augment
from common.data.augment import Augmentation
from common.data.datasets import Dataset
from common.learning import pruning
from common.model import evaluation
from common.model.wide_resnet import WideResNet
from common.runtime import EXIT_NON_FINITE, Failure, Interrupted

SECONDS_BETWEEN_SAVES = 60.0  # saving a state takes some 20 ms, so far less than 1 % of the time
EVALUATIONS = 10  # test accuracies along a training: for its curves only, they decide nothing

State = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One optimisation: what is trained, by which loss, for how long, and what is pruned.

    `loss(views [V·B,3,H,H], labels [B])` returns the loss and the number of images classified
    correctly, None where nothing is classified. Milestones and warm-up are fractions of the stage.
    """

    name: str
    parameters: list[nn.Parameter]
    loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
    augmentation: Augmentation
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float = 0.0
    nesterov: bool = False
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    cosine: bool = False
    warmup: float = 0.0
    n_views: int = 1
    encoder_frozen: bool = False
    prunable: Mapping[str, Tensor] = field(default_factory=dict)
    # from the stage's number of steps to {step: sparsity to reach there}
    pruning_events: Callable[[int], dict[int, float]] = lambda n_steps: {}
    allocation: str = "uniform"
    collapsed_loss: float | None = None  # the loss if all embeddings were equal

    def steps_per_epoch(self, n_images: int) -> int:
        """The last batch of an epoch may be smaller than the others."""
        return math.ceil(n_images / self.batch_size)

    def learning_rate_at(self, progress: float) -> float:
        """The learning rate when a share `progress` in [0, 1) of the stage is done: linear
        warm-up, then constant with steps at the milestones, or a half cosine down to 0."""
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        rate = self.learning_rate * self.gamma ** sum(m <= progress for m in self.milestones)
        if self.cosine:
            done = (progress - self.warmup) / (1 - self.warmup)
            rate *= (1 + math.cos(math.pi * done)) / 2
        return rate


def fit(
    stage: Stage,
    network: WideResNet,
    data: Dataset,
    seed: tuple[int, ...],
    masks: pruning.Masks,
    bf16: bool = False,
    resume: State | None = None,
    save: Callable[[State], None] = lambda state: None,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
) -> list[dict[str, Any]]:
    """Train one stage in place; return its history, one record an epoch.

    Everything random derives from `seed` (seed, network id), the epoch and the step. `masks` is
    updated at pruning events. `save` gets the state of the loop now and then, and before
    runtime.Interrupted is raised; `resume` is such a state. Raises Failure(EXIT_NON_FINITE).
    """
    n_images = len(data.train)
    steps_per_epoch = stage.steps_per_epoch(n_images)
    n_steps = stage.epochs * steps_per_epoch
    events = stage.pruning_events(n_steps)
    run = _Run(stage, data.train.images.device, resume)
    network.train(not stage.encoder_frozen)
    saved_at = time.monotonic()
    epochs = range(run.step // steps_per_epoch, stage.epochs)
    for epoch in tqdm(epochs, desc=stage.name, unit="epoch", leave=False, disable=None):
        order = _order(n_images, data.train.images.device, (*seed, stage.name, "order", epoch))
        for step in range(run.step, (epoch + 1) * steps_per_epoch):
            if signum := runtime.stop_requested():
                save(run.state())
                raise Interrupted(signum)
            if step in events:
                masks |= pruning.magnitude_masks(stage.prunable, events[step], stage.allocation)
                pruning.apply_masks(masks, stage.prunable, run.optimizer)
            run.optimizer.param_groups[0]["lr"] = stage.learning_rate_at(step / n_steps)
            position = step % steps_per_epoch
            batch = order[position * stage.batch_size : (position + 1) * stage.batch_size]
            _step(run, data, batch, masks, bf16, (*seed, stage.name, "step", step))
            run.step = step + 1
        run.history.append(_end_epoch(run, network, data, epoch, steps_per_epoch))
        log(run.history[-1])
        _warn_of_collapse(run)
        if time.monotonic() - saved_at > SECONDS_BETWEEN_SAVES and epoch + 1 < stage.epochs:
            save(run.state())
            saved_at = time.monotonic()
    return run.history


class _Run:
    """What changes while a stage runs, and what has to be restored to continue it."""

    def __init__(self, stage: Stage, device: torch.device, resume: State | None):
        self.stage = stage
        self.optimizer = torch.optim.SGD(
            stage.parameters,
            lr=stage.learning_rate,
            momentum=stage.momentum,
            weight_decay=stage.weight_decay,
            nesterov=stage.nesterov,
            fused=True,
        )
        self.step = 0
        self.history: list[dict[str, Any]] = []
        # of the running epoch: loss x images, correct, images, steps with a finite loss
        self.totals = torch.zeros(4, dtype=torch.float64, device=device)
        if resume is not None:
            self.step = resume["step"]
            self.history = resume["history"]
            self.totals = resume["totals"].to(device)
            for parameter, momentum in zip(stage.parameters, resume["momentum"], strict=True):
                if momentum is not None:
                    buffer = torch.empty_like(parameter).copy_(momentum)
                    self.optimizer.state[parameter]["momentum_buffer"] = buffer

    def state(self) -> State:
        momentum = [
            self.optimizer.state[parameter].get("momentum_buffer")
            for parameter in self.stage.parameters
        ]
        return {
            "stage": self.stage.name,
            "step": self.step,
            "history": self.history,
            "totals": self.totals,
            "momentum": momentum,
        }


def _order(n_images: int, device: torch.device, seed: tuple[int | str, ...]) -> Tensor:
    return torch.randperm(n_images, generator=runtime.generator(*seed)).to(device)


def _step(
    run: _Run,
    data: Dataset,
    batch: Tensor,
    masks: pruning.Masks,
    bf16: bool,
    seed: tuple[int | str, ...],
) -> None:
    """One optimizer step on the images `batch`; adds to the totals without waiting for a GPU."""
    stage = run.stage
    images, labels = data.train.images[batch], data.train.labels[batch]
    views = augment.augment(
        images.repeat(stage.n_views, 1, 1, 1), stage.augmentation, runtime.generator(*seed)
    )
    views = data.normalise(views).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(runtime.seed_from(*seed, "dropout"))
    with torch.autocast(views.device.type, torch.bfloat16, enabled=bf16):
        loss, correct = stage.loss(views, labels)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    run.optimizer.step()
    pruning.apply_masks(masks, stage.prunable, run.optimizer)
    with torch.no_grad():
        loss = loss.detach().double()
        correct = torch.full_like(loss, torch.nan) if correct is None else correct.double()
        count = torch.full_like(loss, len(batch))
        run.totals += torch.stack([loss * count, correct, count, loss.isfinite().double()])


def _warn_of_collapse(run: _Run) -> None:
    stage, last = run.stage, run.history[-1]
    if stage.collapsed_loss is None or last["epoch"] + 1 < stage.epochs:
        return
    if last["loss"] > 0.99 * stage.collapsed_loss:
        tqdm.write(
            f"{stage.name}: the loss ended at {last['loss']:.3f}, and equal embeddings have "
            f"{stage.collapsed_loss:.3f}: try --warmup_epochs or a lower --learning_rate"
        )


def _end_epoch(
    run: _Run, network: WideResNet, data: Dataset, epoch: int, steps_per_epoch: int
) -> dict[str, Any]:
    """The epoch's record: means over its images, learning rate of its last step, test accuracy at
    some epochs. Resets the totals."""
    loss, correct, images, finite_steps = run.totals.tolist()
    run.totals.zero_()
    weights = [parameter.detach().isfinite().all() for parameter in run.stage.parameters]
    if finite_steps < steps_per_epoch or not torch.stack(weights).all():
        step = epoch * steps_per_epoch + int(finite_steps)
        last = f", after a loss of {run.history[-1]['loss']:.4g}" if run.history else ""
        rate = run.optimizer.param_groups[0]["lr"]
        raise Failure(
            EXIT_NON_FINITE,
            f"{run.stage.name}: loss or weights are not finite at epoch {epoch}, step {step} "
            f"(learning rate {rate:.4g}{last}); try a lower --learning_rate",
        )
    record: dict[str, Any] = {
        "stage": run.stage.name,
        "epoch": epoch,
        "loss": loss / images,
        "learning_rate": run.optimizer.param_groups[0]["lr"],
    }
    if not math.isnan(correct):
        record["train_accuracy"] = correct / images
        last = epoch + 1 == run.stage.epochs
        if last or epoch % math.ceil(run.stage.epochs / EVALUATIONS) == 0:
            record["test_accuracy"] = evaluation.accuracy(network, data, data.test)
    return record
