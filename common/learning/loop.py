"""The loop that every training and fine-tuning runs, one stage after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
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

SECONDS_BETWEEN_SAVES = 60.0  # saving a state takes some 64 ms for a SupCon WRN-16-2
SECONDS_OF_A_SAVE = (
    0.6  # where it takes longer, states are rarer: saving stays below 1 % of the time
)
EVALUATIONS = 10  # test accuracies along a training: for its curves only, they decide nothing

State = dict[str, Any]
# From views [V·B,3,H,H] and labels [B] to the loss and the number of images classified correctly.
Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Stage:
    """One optimisation: what is trained, by which loss, for how long, and what is pruned.

    `loss` counts no correct images (None) where nothing is classified. Where only a part of the
    network is trained, `frozen` is the rest, and `loss` gets what it makes of the views.
    Milestones and warm-up are fractions of the stage.
    """

    name: str
    parameters: list[nn.Parameter]
    loss: Loss
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
    frozen: Callable[[Tensor], Tensor] | None = None
    # so many views of each image are drawn and encoded ahead, for the epochs to take in turn;
    # 0: every epoch has its own
    cached_views: int = 0
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
    compile_loss: bool = False,
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
    run = _Run(stage, data.train.images.device, bf16, compile_loss, resume)
    network.train(stage.frozen is None)

    def stop_if_asked() -> None:
        if signum := runtime.stop_requested():
            save(run.state())
            raise Interrupted(signum)

    encoded = list(_encode_ahead(stage, data, bf16, (*seed, stage.name), stop_if_asked))
    save_if_due = _now_and_then(lambda: save(run.state()))
    epochs = range(run.step // steps_per_epoch, stage.epochs)
    for epoch in tqdm(epochs, desc=stage.name, unit="epoch", leave=False, disable=None):
        order = _order(n_images, data.train.images.device, (*seed, stage.name, "order", epoch))
        for step in range(run.step, (epoch + 1) * steps_per_epoch):
            stop_if_asked()
            if step in events:
                _prune(run, masks, events[step])
            run.optimizer.param_groups[0]["lr"] = stage.learning_rate_at(step / n_steps)
            position = step % steps_per_epoch
            batch = order[position * stage.batch_size : (position + 1) * stage.batch_size]
            view = encoded[epoch % len(encoded)] if encoded else None
            _step(run, data, batch, view, masks, (*seed, stage.name, "step", step))
            run.step = step + 1
        run.history.append(_end_epoch(run, network, data, epoch, steps_per_epoch))
        log(run.history[-1])
        _warn_of_collapse(run)
        if epoch + 1 < stage.epochs:
            save_if_due()
    run.optimizer.zero_grad(set_to_none=True)  # memory for the next stage
    return run.history


def _now_and_then(save: Callable[[], None]) -> Callable[[], None]:
    """`save`, where SECONDS_BETWEEN_SAVES have passed since it last ran, or more if it is slow."""
    saved_at, pause = time.monotonic(), SECONDS_BETWEEN_SAVES

    def save_if_due() -> None:
        nonlocal saved_at, pause
        now = time.monotonic()
        if now - saved_at > pause:
            save()
            saved_at = time.monotonic()
            pause = SECONDS_BETWEEN_SAVES * max(1.0, (saved_at - now) / SECONDS_OF_A_SAVE)

    return save_if_due


class _Run:
    """What changes while a stage runs, and what has to be restored to continue it."""

    def __init__(
        self,
        stage: Stage,
        device: torch.device,
        bf16: bool = False,
        compile_loss: bool = False,
        resume: State | None = None,
    ):
        self.stage, self.bf16 = stage, bf16
        self.loss = partial(_in_precision, stage.loss, bf16)
        if compile_loss:
            self.loss = _compiled(self.loss)
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
        self.test_embedding: Tensor | None = None  # [N,D], where the encoder is frozen
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
        """What `resume` takes: tensors and plain values only."""
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


def _in_precision(
    loss: Loss, bf16: bool, inputs: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The loss, in bf16 where that is safe. Autocast is a part of what is compiled: around it, it
    would be compiled into the backward pass too, also where a loss turns it off."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16):
        return loss(inputs, labels)


def _compiled(loss: Loss) -> Loss:
    """The loss and its backward pass compiled, once for each size of batch and for all networks of
    an architecture. A GPU records them as CUDA graphs, for each network anew, and keeps these (and
    its weights) as long as the process lives."""
    return torch.compile(loss, fullgraph=True, dynamic=False, mode="reduce-overhead")


def _prune(run: _Run, masks: pruning.Masks, sparsity: float) -> None:
    """Add to the masks what is pruned now, and set it to zero."""
    stage = run.stage
    masks |= pruning.magnitude_masks(stage.prunable, sparsity, stage.allocation)
    pruning.apply_masks(masks, stage.prunable, run.optimizer)


def _order(n_images: int, device: torch.device, seed: tuple[int | str, ...]) -> Tensor:
    order = torch.randperm(n_images, generator=runtime.generator(*seed))
    return order.to(device, non_blocking=True)


def _inputs(
    stage: Stage, data: Dataset, batch: Tensor, bf16: bool, seed: tuple[int | str, ...]
) -> Tensor:
    """Augmented views of the images `batch`, in float32, or what the frozen part makes of them."""
    images = data.train.images[batch].repeat(stage.n_views, 1, 1, 1)
    views = augment.augment(images, stage.augmentation, runtime.generator(*seed))
    views = data.normalise(views).contiguous(memory_format=torch.channels_last)
    if stage.frozen is None:
        return views
    with torch.no_grad(), torch.autocast(views.device.type, torch.bfloat16, enabled=bf16):
        return stage.frozen(views)


def _encode_ahead(
    stage: Stage,
    data: Dataset,
    bf16: bool,
    seed: tuple[int | str, ...],
    stop_if_asked: Callable[[], None],
) -> Iterator[Tensor]:
    """What the frozen part makes of each of the cached views that epochs take, [N,D] each."""
    batches = torch.arange(len(data.train), device=data.train.images.device)
    for view in range(min(stage.cached_views, stage.epochs)):
        encoded = []
        for i, batch in enumerate(batches.split(evaluation.BATCH_SIZE)):
            stop_if_asked()
            encoded.append(_inputs(stage, data, batch, bf16, (*seed, "view", view, "batch", i)))
        yield torch.cat(encoded)


def _step(
    run: _Run,
    data: Dataset,
    batch: Tensor,
    encoded: Tensor | None,
    masks: pruning.Masks,
    seed: tuple[int | str, ...],
) -> None:
    """One optimizer step on the images `batch`, or on what is `encoded` of them; adds to the totals
    without waiting for a GPU."""
    stage = run.stage
    inputs = _inputs(stage, data, batch, run.bf16, seed) if encoded is None else encoded[batch]
    torch.manual_seed(runtime.seed_from(*seed, "dropout"))
    run.optimizer.zero_grad(set_to_none=True)  # first: a CUDA graph writes over its last results
    loss, correct = run.loss(inputs, data.train.labels[batch])
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
            record["test_accuracy"] = _test_accuracy(run, network, data)
    return record


@torch.no_grad()
def _test_accuracy(run: _Run, network: WideResNet, data: Dataset) -> float:
    """Share of the test images that is classified correctly. A frozen encoder runs only once."""
    if run.stage.frozen is None:
        return evaluation.accuracy(network, data, data.test)
    if run.test_embedding is None:
        outputs = evaluation.outputs(network, data, data.test)
        run.test_embedding = torch.cat([output.embedding for output in outputs])
    predicted = network.fc(run.test_embedding).argmax(1)
    return (predicted == data.test.labels).double().mean().item()
