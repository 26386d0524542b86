"""The loop that every training and fine-tuning runs, one stage after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from common import runtime
from common.data import augment
from common.data.datasets import Dataset
from common.learning import pruning
from common.learning.schedule import Schedule
from common.model import evaluation
from common.model.wide_resnet import WideResNet
from common.runtime import EXIT_NON_FINITE, Failure, Interrupted

SECONDS_BETWEEN_SAVES = 60.0  # saving a state takes some 64 ms for a SupCon WRN-16-2
# Test accuracies during training serve only its curves. They are measured about so many times, or
# fewer if the images evaluated would exceed this share of the training images seen.
EVALUATIONS, EVALUATED_SHARE = 10, 0.1

State = dict[str, Any]
Record = dict[str, Any]  # of an epoch: stage, epoch, loss, learning_rate, accuracies
# From views [V·B,3,H,H] and labels [B] to the loss and the number of images classified correctly.
Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Stage:
    """A schedule and what it trains.

    If nothing is classified, `loss` returns None in place of the number of correct images. If only
    a part of the network is trained, `frozen` is the rest, and `loss` gets the output of `frozen`.
    """

    schedule: Schedule
    parameters: list[nn.Parameter]
    loss: Loss
    frozen: Callable[[Tensor], Tensor] | None = None
    prunable: Mapping[str, Tensor] = field(default_factory=dict)


class Run(NamedTuple):
    """Settings of a training, whatever its stages: randomness, precision, and the functions that
    receive states and records. `resume` is a state that was passed to `save`."""

    seed: tuple[int, int]  # seed and network id
    bf16: bool = False
    compile_loss: bool = False
    resume: State | None = None
    save: Callable[[State], None] = lambda state: None
    log: Callable[[Record], None] = lambda record: None


def train(
    stages: list[Stage],
    modules: dict[str, nn.Module],
    masks: pruning.Masks,
    data: Dataset,
    run: Run,
) -> list[Record]:
    """Train `modules` in place through all stages; return the history, one record per epoch.

    A resumed training equals an uninterrupted one, bit for bit on a CPU. Raises Failure like `fit`,
    and Failure(EXIT_MEMORY) if memory does not suffice.
    """
    device = data.train.images.device
    for module in modules.values():
        module.to(device, memory_format=torch.channels_last)
    history: list[Record] = []
    resume = run.resume
    if resume is not None:
        history = resume["finished"]
        masks |= {name: mask.to(device) for name, mask in resume["masks"].items()}
        for name, module in modules.items():
            module.load_state_dict(resume["modules"][name])
    done = {record["stage"] for record in history}
    for stage in stages:
        name = stage.schedule.name
        if name in done:
            continue

        def save_all(state: State, finished: list[Record] = history) -> None:
            weights = {name: module.state_dict() for name, module in modules.items()}
            run.save({"loop": state, "finished": finished, "masks": masks, "modules": weights})

        resumed = resume["loop"] if resume and resume["loop"]["stage"] == name else None
        of_stage = run._replace(resume=resumed, save=save_all)
        with runtime.memory_for(stage.schedule.batch_size_flag, stage.schedule.batch_size):
            history = history + fit(stage, modules["network"], data, masks, of_stage)
    return history


def fit(
    stage: Stage, network: WideResNet, data: Dataset, masks: pruning.Masks, run: Run
) -> list[Record]:
    """Train one stage in place; return its history, one record per epoch.

    Everything random derives from `run.seed`, the epoch and the step. `masks` is updated at pruning
    events. `run.save` gets the state of the stage at intervals, and before runtime.Interrupted is
    raised. Raises Failure(EXIT_NON_FINITE) if the loss or a weight is not finite.
    """
    n_images, schedule = len(data.train), stage.schedule
    steps_per_epoch = schedule.steps_per_epoch(n_images)
    n_steps = schedule.n_steps(n_images)
    events = schedule.pruning_events(n_images)
    progress = _Progress(stage, data.train.images.device, run)
    network.train(stage.frozen is None)

    def stop_if_asked() -> None:
        if signum := runtime.stop_requested():
            run.save(progress.state())
            raise Interrupted(signum)

    encoded = list(_encode_ahead(stage, data, run.bf16, (*run.seed, schedule.name), stop_if_asked))
    saved_at = time.monotonic()
    epochs = range(progress.step // steps_per_epoch, schedule.epochs)
    for epoch in tqdm(epochs, desc=schedule.name, unit="epoch", leave=False, disable=None):
        order = _order(
            n_images, data.train.images.device, (*run.seed, schedule.name, "order", epoch)
        )
        for step in range(progress.step, (epoch + 1) * steps_per_epoch):
            stop_if_asked()
            if step in events:
                _prune(progress, masks, events[step], run.seed)
            for group in progress.optimizer.param_groups:
                group["lr"] = schedule.learning_rate_at(step / n_steps)
            position = step % steps_per_epoch
            batch = order[position * schedule.batch_size : (position + 1) * schedule.batch_size]
            view = encoded[epoch % len(encoded)] if encoded else None
            _step(progress, data, batch, view, masks, (*run.seed, schedule.name, "step", step))
            progress.step = step + 1
        progress.history.append(_end_epoch(progress, network, data, epoch, steps_per_epoch))
        run.log(progress.history[-1])
        _warn_of_collapse(progress)
        is_due = time.monotonic() - saved_at > SECONDS_BETWEEN_SAVES
        if is_due and epoch + 1 < schedule.epochs:
            run.save(progress.state())
            saved_at = time.monotonic()
    progress.optimizer.zero_grad()  # free memory for the next stage
    return progress.history


class _Progress:
    """Everything that changes while a stage runs; `state` holds what a resumed stage restores."""

    def __init__(self, stage: Stage, device: torch.device, run: Run):
        schedule = stage.schedule
        self.stage, self.bf16 = stage, run.bf16
        self.loss = partial(_in_precision, stage.loss, run.bf16)
        if run.compile_loss:
            # Together with the backward pass, once for each batch size and architecture. On a GPU
            # each network records its own CUDA graphs, which stay in memory, with the network's
            # weights, as long as the process lives.
            self.loss = torch.compile(
                self.loss, fullgraph=True, dynamic=False, mode="reduce-overhead"
            )
        self.optimizer = torch.optim.SGD(
            _parameter_groups(stage),
            lr=schedule.learning_rate,
            momentum=schedule.momentum,
            weight_decay=schedule.weight_decay,
            nesterov=schedule.nesterov,
            fused=True,
        )
        self.step = 0
        self.history: list[Record] = []
        self.test_embedding: Tensor | None = None  # [N,D], where the encoder is frozen
        # sums over the current epoch: loss x images, correct, images, steps with a finite loss
        self.totals = torch.zeros(4, dtype=torch.float64, device=device)
        if (resume := run.resume) is not None:
            self.step = resume["step"]
            self.history = resume["history"]
            self.totals = resume["totals"].to(device)
            for parameter, momentum in zip(stage.parameters, resume["momentum"], strict=True):
                if momentum is not None:
                    buffer = torch.empty_like(parameter).copy_(momentum)
                    self.optimizer.state[parameter]["momentum_buffer"] = buffer

    def state(self) -> State:
        """The state that `Run.resume` takes: tensors and plain values only."""
        momentum = [
            self.optimizer.state[parameter].get("momentum_buffer")
            for parameter in self.stage.parameters
        ]
        return {
            "stage": self.stage.schedule.name,
            "step": self.step,
            "history": self.history,
            "totals": self.totals,
            "momentum": momentum,
        }


def _parameter_groups(stage: Stage) -> list[dict[str, Any]]:
    """All parameters in one group, or two groups: weights, and the rest without weight decay."""
    if not stage.schedule.decays_weights_only:
        return [{"params": stage.parameters}]
    weights = [parameter for parameter in stage.parameters if parameter.ndim > 1]
    rest = [parameter for parameter in stage.parameters if parameter.ndim <= 1]
    return [{"params": weights}, {"params": rest, "weight_decay": 0.0}]


def _in_precision(
    loss: Loss, bf16: bool, inputs: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The loss, in bf16 where that is safe. Autocast stands inside the compiled function: outside,
    autocast would also act on the compiled backward pass, even where a loss turns autocast off."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16):
        return loss(inputs, labels)


def _prune(
    progress: _Progress, masks: pruning.Masks, sparsity: float, seed: tuple[int | str, ...]
) -> None:
    """Update the masks to this sparsity, and set the pruned weights to zero."""
    weights, plan = progress.stage.prunable, progress.stage.schedule.pruning
    masks |= pruning.CRITERIA[plan.criterion](weights, sparsity, plan.allocation, *seed)
    pruning.apply_masks(masks, weights, progress.optimizer)


def _order(n_images: int, device: torch.device, seed: tuple[int | str, ...]) -> Tensor:
    order = torch.randperm(n_images, generator=runtime.generator(*seed))
    return order.to(device, non_blocking=True)


def _inputs(
    stage: Stage, data: Dataset, batch: Tensor, bf16: bool, seed: tuple[int | str, ...]
) -> Tensor:
    """Augmented float32 views of the images `batch`, or the frozen part's output for the views."""
    images = data.train.images[batch].repeat(stage.schedule.n_views, 1, 1, 1)
    views = augment.augment(images, stage.schedule.augmentation, runtime.generator(*seed))
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
    """For each cached view, the embeddings [N,D] that the frozen part computes."""
    batches = torch.arange(len(data.train), device=data.train.images.device)
    for view in range(min(stage.schedule.cached_views, stage.schedule.epochs)):
        encoded = []
        for i, batch in enumerate(batches.split(evaluation.BATCH_SIZE)):
            stop_if_asked()
            encoded.append(_inputs(stage, data, batch, bf16, (*seed, "view", view, "batch", i)))
        yield torch.cat(encoded)


def _step(
    progress: _Progress,
    data: Dataset,
    batch: Tensor,
    encoded: Tensor | None,
    masks: pruning.Masks,
    seed: tuple[int | str, ...],
) -> None:
    """Take one optimizer step on the images `batch`, or on their embeddings if `encoded` has them.
    Add to the totals without waiting for a GPU."""
    stage = progress.stage
    inputs = _inputs(stage, data, batch, progress.bf16, seed) if encoded is None else encoded[batch]
    runtime.seed_torch(inputs.device, *seed, "dropout")
    progress.optimizer.zero_grad()  # before the loss: a CUDA graph overwrites its last results
    loss, correct = progress.loss(inputs, data.train.labels[batch])
    loss.backward()
    progress.optimizer.step()
    pruning.apply_masks(masks, stage.prunable, progress.optimizer)
    with torch.no_grad():
        loss = loss.detach().double()
        correct = torch.full_like(loss, torch.nan) if correct is None else correct.double()
        count = torch.full_like(loss, len(batch))
        progress.totals += torch.stack([loss * count, correct, count, loss.isfinite().double()])


def _warn_of_collapse(progress: _Progress) -> None:
    schedule, last = progress.stage.schedule, progress.history[-1]
    if schedule.collapsed_loss is None or last["epoch"] + 1 < schedule.epochs:
        return
    if last["loss"] > 0.99 * schedule.collapsed_loss:
        tqdm.write(
            f"{schedule.name}: the loss ended at {last['loss']:.3f}, and equal embeddings have "
            f"{schedule.collapsed_loss:.3f}: try --warmup_epochs or a lower --learning_rate"
        )


def _end_epoch(
    progress: _Progress, network: WideResNet, data: Dataset, epoch: int, steps_per_epoch: int
) -> Record:
    """The record of an epoch: means over its images, the learning rate of its last step and, for
    some epochs, test accuracy. Resets the totals."""
    loss, correct, images, finite_steps = progress.totals.tolist()
    progress.totals.zero_()
    weights = [parameter.detach().isfinite().all() for parameter in progress.stage.parameters]
    if finite_steps < steps_per_epoch or not torch.stack(weights).all():
        step = epoch * steps_per_epoch + int(finite_steps)
        last = f", after a loss of {progress.history[-1]['loss']:.4g}" if progress.history else ""
        rate = progress.optimizer.param_groups[0]["lr"]
        raise Failure(
            EXIT_NON_FINITE,
            f"{progress.stage.schedule.name}: loss or weights are not finite at epoch {epoch}, "
            f"step {step} (learning rate {rate:.4g}{last}); try a lower --learning_rate",
        )
    record: Record = {
        "stage": progress.stage.schedule.name,
        "epoch": epoch,
        "loss": loss / images,
        "learning_rate": progress.optimizer.param_groups[0]["lr"],
    }
    if not math.isnan(correct):
        record["train_accuracy"] = correct / images
        epochs = progress.stage.schedule.epochs
        affordable = int(EVALUATED_SHARE * epochs * len(data.train) / len(data.test))
        every = math.ceil(epochs / max(1, min(EVALUATIONS, affordable)))
        if epoch + 1 == epochs or epoch % every == 0:
            record["test_accuracy"] = _test_accuracy(progress, network, data)
    return record


@torch.no_grad()
def _test_accuracy(progress: _Progress, network: WideResNet, data: Dataset) -> float:
    """Share of the test images classified correctly. A frozen encoder runs only once."""
    if progress.stage.frozen is None:
        return evaluation.accuracy(network, data, data.test)
    if progress.test_embedding is None:
        outputs = evaluation.outputs(network, data, data.test)
        progress.test_embedding = torch.cat([output.embedding for output in outputs])
    predicted = network.fc(progress.test_embedding).argmax(1)
    return (predicted == data.test.labels).double().mean().item()
