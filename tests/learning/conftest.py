"""A small real data set, and configurations of trainings that take a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from common.data import datasets
from common.data.datasets import Dataset

Config = dict[str, Any]


@pytest.fixture(scope="session")
def data() -> Dataset:
    """44 digits to train (three batches of 16, 16, 12), 30 to test."""
    return datasets.load("digits", Path("unused"), torch.device("cpu"), 44, 30)


@pytest.fixture(scope="session")
def config_of() -> Callable[..., Config]:
    """`config_of(learner, **changes)`: a complete configuration of a training."""

    def config_of(learner: str, **changes: Any) -> Config:
        config = {
            "learner": learner,
            "pruning_method": "dense",
            "sparsity": 0.0,
            "preset": "digits",
            "released_quirks": False,
            "precision": "fp32",
            "seed": 5,
            "model_depth": 10,
            "widen_factor": 1,
            "dropout": 0.0,
            "epochs": 2,
            "batch_size": 16,
            "learning_rate": 0.05,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "cosine_annealing": False,
            "warmup_epochs": 0,
            "begin_step": None,
            "end_step": None,
            "frequency": None,
            "allocation": "uniform",
        }
        if learner == "SupCon":
            config |= {
                "method": "SupCon",
                "temperature": 0.1,
                "base_temperature": 0.07,
                "projection_head": "mlp",
                "head_epochs": 2,
                "batch_size_head": 20,
                "head_views": 0,
            }
        unknown = set(changes) - {*config, "finetune_loss"}
        assert not unknown, f"no such configuration keys: {unknown}"
        return config | changes

    return config_of
