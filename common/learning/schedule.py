"""The schedule of a training, as plain data without a network: epochs, learning rates, pruning."""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.learning import pruning
from common.recipes import Augmentation, Window


@dataclass(frozen=True)
class Pruning:
    """Which share of the weights is pruned, when, and by which rule."""

    window: Window | None  # None: the network is already pruned, and its masks stay as they are
    sparsity: float
    criterion: str
    allocation: str
    # Steps given by flags replace those of the window.
    begin_step: int | None = None
    end_step: int | None = None
    frequency: int | None = None


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
        """The sparsity to reach at each pruning step. Raises Failure(EXIT_ARGUMENTS) if steps given
        by flags do not fit into the stage."""
        plan = self.pruning
        if plan is None or plan.window is None:
            return {}
        steps = (plan.begin_step, plan.end_step, plan.frequency)
        return pruning.pruning_events(plan.window, plan.sparsity, self.n_steps(n_images), *steps)
