"""A small real data set, and configurations of trainings that take a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common import recipes
from common.data import datasets
from common.data.datasets import Dataset
from common.recipes import Config


@pytest.fixture(scope="session")
def data() -> Dataset:
    """44 digits to train (three batches of 16, 16, 12), 30 to test."""
    return datasets.load_dataset("digits", Path("unused"), torch.device("cpu"), 8, 44, 30)


@pytest.fixture(scope="session")
def config_of() -> Callable[..., Config]:
    """`config_of(learner, **changes)`: a complete configuration of a training."""

    def config_of(learner: str, preset: str = "digits", **changes: object) -> Config:
        config = {
            "learner": learner,
            "pruning_method": "dense",
            "sparsity": 0.0,
            "preset": preset,
            "dataset": "digits",
            "precision": "fp32",
            "seed": 5,
            "momentum": recipes.MOMENTUM,
            "allocation": "uniform",
            **dict.fromkeys(("begin_step", "end_step", "frequency")),
        }
        config |= recipes.NETWORK[preset] | recipes.TRAINING[learner][preset]
        config |= {"epochs": 2, "batch_size": 16, "learning_rate": 0.05, "weight_decay": 5e-4}
        config |= {"cosine_annealing": False, "warmup_epochs": 0}
        if learner == "SupCon":
            config |= {"method": "SupCon", "base_temperature": 0.07, "projection_head": "mlp"}
            config |= {"head_epochs": 2, "batch_size_head": 20}
        config = recipes.complete(config | {"dataset": changes.get("dataset", "digits")})
        assert changes.keys() <= config.keys(), f"unknown: {changes.keys() - config.keys()}"
        return config | changes

    return config_of
