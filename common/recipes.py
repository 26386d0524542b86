"""Every number of the recipes: defaults of the flags, and constants that no flag changes.

`paper` is the released recipe of arXiv 2207.00200 with its faults corrected; `fast` takes an eighth
of the epochs; `digits` is so small that a whole study runs on two CPU cores in minutes. Milestones
and windows are fractions of the training, so that they mean the same at every number of epochs.
This file imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from common import study

Config = dict[str, Any]


class Augmentation(NamedTuple):
    """Random changes to an image, in this order; the defaults change nothing."""

    resized_crop_area: tuple[float, float] | None = None  # RandomResizedCrop, share of the area
    crop_padding: int = 0  # RandomCrop, pixels of black around the image
    horizontal_flip: float = 0.0  # probability
    vertical_flip: float = 0.0  # probability
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # ColorJitter strengths
    jitter_probability: float = 0.0
    grayscale_probability: float = 0.0

    def __str__(self) -> str:
        """The changes that happen: `crop padding 4, horizontal flip 0.5`."""
        given = self._asdict().items()
        defaults = self._field_defaults
        shown = [f"{k.replace('_', ' ')} {v}" for k, v in given if v != defaults[k]]
        return ", ".join(shown) or "no augmentation"


NETWORK = {
    "paper": {"model_depth": 16, "widen_factor": 2, "dropout": 0.0},
    "fast": {"model_depth": 16, "widen_factor": 2, "dropout": 0.0},
    "digits": {"model_depth": 10, "widen_factor": 1, "dropout": 0.0},
}
TRAINING = {
    "supervised": {
        "paper": {
            "epochs": 205,
            "batch_size": 128,
            "learning_rate": 1.0,
            "weight_decay": 5e-4,
            "cosine_annealing": False,
            "warmup_epochs": 0,
            "nesterov": False,
            "decay": "all",
        },
        "fast": {
            "epochs": 25,
            "batch_size": 128,
            "learning_rate": 0.2,
            "weight_decay": 5e-4,
            "cosine_annealing": True,
            "warmup_epochs": 1.25,
            "nesterov": True,
            "decay": "weights",
        },
        "digits": {
            "epochs": 15,
            "batch_size": 64,
            "learning_rate": 0.1,
            "weight_decay": 5e-4,
            "cosine_annealing": True,
            "warmup_epochs": 0,
            "nesterov": False,
            "decay": "all",
        },
    },
    "SupCon": {
        "paper": {
            "epochs": 500,
            "batch_size": 1024,
            "learning_rate": 0.05,
            "weight_decay": 4e-4,
            "cosine_annealing": False,
            "warmup_epochs": 0,
            "nesterov": False,
            "decay": "all",
            "temperature": 0.5,
            "min_crop_area": 0.2,
            "head_epochs": 100,
            "batch_size_head": 256,
            "head_crop_padding": 0.125,
        },
        "fast": {
            "epochs": 60,
            "batch_size": 64,
            "learning_rate": 0.25,
            "weight_decay": 5e-4,
            "cosine_annealing": True,
            "warmup_epochs": 6,
            "nesterov": True,
            "decay": "weights",
            "temperature": 0.1,
            "min_crop_area": 0.7,
            "head_epochs": 20,
            "batch_size_head": 64,
            "head_crop_padding": 0.0,
        },
        "digits": {
            "epochs": 15,
            "batch_size": 128,
            "learning_rate": 0.05,
            "weight_decay": 4e-4,
            "cosine_annealing": True,
            "warmup_epochs": 1,
            "nesterov": False,
            "decay": "all",
            "temperature": 0.1,
            "min_crop_area": 0.6,
            "head_epochs": 20,
            "batch_size_head": 128,
            "head_crop_padding": 0.125,
        },
    },
}
_FINETUNING = {
    "paper": {
        "epochs": 30,
        "batch_size": 128,
        "learning_rate": 1e-3,
        "pruning_percentages": [0.3, 0.5, 0.7, 0.9],
    },
    "fast": {
        "epochs": 5,
        "batch_size": 128,
        "learning_rate": 1e-2,
        "pruning_percentages": [0.3, 0.5, 0.7, 0.9],
    },
    "digits": {
        "epochs": 5,
        "batch_size": 64,
        "learning_rate": 1e-2,
        "pruning_percentages": [0.5, 0.9, 0.97],
    },
}
_CONTRASTIVE = (
    *("temperature", "min_crop_area"),
    *("head_epochs", "batch_size_head", "head_crop_padding"),
)
FINETUNING = {
    "supervised": _FINETUNING,
    "SupCon": {
        preset: flags | {name: TRAINING["SupCon"][preset][name] for name in _CONTRASTIVE}
        for preset, flags in _FINETUNING.items()
    },
}
# The released normalisation of CIFAR-10; its first std swaps two digits of 0.2470.
RELEASED_MEAN = (0.4915, 0.4823, 0.4468)
RELEASED_STD = (0.2047, 0.2435, 0.2616)
# Where the learning rate falls: the released epochs 5/30/50/80 of 205 (times 0.1 each), and for
# SupCon's classifier 60/75/90 of 100 (times 0.2).
SUPERVISED_MILESTONES = (5 / 205, 30 / 205, 50 / 205, 80 / 205)
SUPERVISED_GAMMA = 0.1
HEAD_MILESTONES = (0.60, 0.75, 0.90)
HEAD_GAMMA = 0.2
HEAD_LEARNING_RATE = 0.1
HEAD_MOMENTUM = 0.9
MOMENTUM = 0.9
BASE_TEMPERATURE = 0.07
FINETUNING_MOMENTUM = 0.9

# How images are augmented for classification, and how SupCon's views are made. SupCon's views are
# first cropped to a share of the image, from --min_crop_area to 1. Images to be classified are
# padded by an eighth of the side, 4 of 32, before they are cropped. The fast preset spares SupCon's
# classifier this: the encoder never saw black borders (docs/performance.md has what that gains).
# A digit must stay a digit: it is shifted and resized, never flipped.
CROP_PADDING = 1 / 8
CLASSIFICATION_VIEWS = {
    "paper": Augmentation(horizontal_flip=0.5),
    "fast": Augmentation(horizontal_flip=0.5),
    "digits": Augmentation(),
}
_OF_PHOTOGRAPHS = Augmentation(
    horizontal_flip=0.5,
    jitter=(0.4, 0.4, 0.4, 0.1),
    jitter_probability=0.8,
    grayscale_probability=0.2,
)
CONTRASTIVE_VIEWS = {
    "paper": _OF_PHOTOGRAPHS,
    "fast": _OF_PHOTOGRAPHS,
    "digits": Augmentation(jitter=(0.4, 0.4, 0.0, 0.0), jitter_probability=0.8),
}


class Window(NamedTuple):
    """When gradual pruning happens, as fractions of the training steps."""

    begin: float
    end: float
    n_events: int


# The released schedules: early is supervised's (steps 1,000 to 20,000 every 500 of 80,155), late
# is SupCon's (2,440 to 4,760 every 62 of 24,500). Both serve both learning methods here.
WINDOWS = {study.EARLY: Window(0.0125, 0.25, 39), study.LATER: Window(0.10, 0.194, 38)}

# Flags on which only some networks depend; the configurations of the other networks lack them.
ARCHITECTURE = ("model_depth", "widen_factor", "dropout")
PRUNED_ONLY = ("begin_step", "end_step", "frequency", "allocation", "criterion")
CONTRASTIVE_ONLY = (
    *("temperature", "base_temperature", "min_crop_area"),
    *("head_epochs", "batch_size_head", "head_crop_padding", "head_views"),
)
# A fine-tuned network takes these from its dense parent.
INHERITED = (*ARCHITECTURE, "method", "projection_head")
# Flags that came after the first networks were trained, with the values used for those networks.
INTRODUCED: dict[str, Any] = {
    "head_views": 0,
    "head_crop_padding": CROP_PADDING,
    "released_quirks": False,
    "finetune_loss": "cross_entropy",
    "criterion": study.CRITERIA[0],
    "nesterov": False,
    "decay": "all",
}


def complete(config: Mapping[str, Any]) -> Config:
    """A configuration, completed by the keys that its file lacks. Each gets the value that all
    networks had before the flag was introduced."""
    introduced = INTRODUCED | {
        "image_size": study.dataset_words(str(config.get("dataset"))).image_size,
        "min_crop_area": {"digits": 0.6}.get(str(config.get("preset")), 0.2),
    }
    return introduced | dict(config)


def differences(config: Config, other: Config, but: Iterable[str] = ()) -> str:
    """`epochs 5 (not 3), seed 1 (not 0)`: the keys in which two configurations differ, except those
    in `but`. Empty if the two define the same network."""
    a, b = complete(config), complete(other)
    keys = sorted((a.keys() | b.keys()) - set(but))
    differing = [key for key in keys if a.get(key) != b.get(key)]
    return ", ".join(f"{key} {a.get(key)} (not {b.get(key)})" for key in differing)
