"""The schedule of a training, as plain data without a network: epochs, learning rates, pruning."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.learning.pruning import gmp_sparsity
from common.recipes import Augmentation, Window
from common.runtime import EXIT_ARGUMENTS, Failure


@dataclass(frozen=True)
class Pruning:
    """The share of the weights that is pruned, the window in which it grows, and the rule."""

    window: Window | None  # None: the network is already pruned, and its masks stay as they are
    sparsity: float
    criterion: str
    allocation: str
    # Steps given by flags replace those of the window.
    begin_step: int | None = None
    end_step: int | None = None
    frequency: int | None = None

    def events(self, n_steps: int) -> dict[int, float]:
        """The sparsity to reach at each pruning step of a stage of n_steps.

        The steps are begin, begin + frequency, … up to end; the last one reaches exactly the
        sparsity. Raises Failure(EXIT_ARGUMENTS) if the steps do not fit into the stage.
        """
        if (window := self.window) is None:
            return {}
        begin, end, frequency = self.begin_step, self.end_step, self.frequency
        if begin is None:
            begin = round(window.begin * n_steps)
        if end is None:
            end = max(round(window.end * n_steps), begin + 1)
        if frequency is None:
            frequency = max(1, (end - begin) // (window.n_events - 1))
        n_intervals = (end - begin) // frequency
        last = begin + n_intervals * frequency
        if n_intervals < 1 or last >= n_steps:
            raise Failure(
                EXIT_ARGUMENTS,
                f"argument --end_step: pruning from step {begin} to {end} every {frequency} steps "
                f"does not fit into a training of {n_steps} steps",
            )
        steps = range(begin, last + 1, frequency)
        return {step: gmp_sparsity(step, begin, last, self.sparsity) for step in steps}


@dataclass(frozen=True)
class Schedule:
    """One stage of a training. Milestones and warm-up are fractions of the stage."""

    name: str
    augmentation: Augmentation
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    weight_decay: float = 0.0
    decays_weights_only: bool = False  # not biases and batch norm
    nesterov: bool = False
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    cosine: bool = False
    warmup: float = 0.0
    n_views: int = 1
    # The number of views of each image that are encoded in advance and that epochs use in turn;
    # 0: every epoch draws its own views.
    cached_views: int = 0
    pruning: Pruning | None = None
    collapsed_loss: float | None = None  # the loss if all embeddings were equal

    @property
    def batch_size_flag(self) -> str:
        """The flag that sets `batch_size`, for messages."""
        return "--batch_size_head" if self.name == "head" else "--batch_size"

    def check(self, n_images: int) -> None:
        """Raises Failure(EXIT_ARGUMENTS) if n_images are too few for a batch or for the pruning."""
        if self.batch_size > n_images:
            what = f"argument {self.batch_size_flag}: {self.batch_size}"
            raise Failure(EXIT_ARGUMENTS, f"{what}: give at most {n_images}, all training images")
        self.pruning_events(n_images)

    def steps_per_epoch(self, n_images: int) -> int:
        """The last batch of an epoch may be smaller than the others."""
        return math.ceil(n_images / self.batch_size)

    def n_steps(self, n_images: int) -> int:
        """Optimizer steps of the whole stage."""
        return self.epochs * self.steps_per_epoch(n_images)

    def learning_rate_at(self, progress: float) -> float:
        """The learning rate when a share `progress` in [0, 1) of the stage is done. After a linear
        warm-up it falls in steps at the milestones, or as a half cosine down to 0."""
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        rate = self.learning_rate * self.gamma ** sum(m <= progress for m in self.milestones)
        if self.cosine:
            done = (progress - self.warmup) / (1 - self.warmup)
            rate *= (1 + math.cos(math.pi * done)) / 2
        return rate

    def pruning_events(self, n_images: int) -> dict[int, float]:
        """The sparsity to reach at each pruning step, as `Pruning.events`."""
        return self.pruning.events(self.n_steps(n_images)) if self.pruning else {}
