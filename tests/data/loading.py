"""Helpers of the tests of data sets: load one, expect a refusal, make noise, damage files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from common import study
from common.data import datasets
from common.data.datasets import Dataset
from common.runtime import EXIT_DATA, Failure

CPU = torch.device("cpu")
Pixels = np.ndarray


def load(
    dataset: str | Path,
    data_dir: Path = Path("unused"),
    image_size: int | None = None,
    **limits: int | None,
) -> Dataset:
    image_size = image_size or study.dataset_words(str(dataset)).image_size
    return datasets.load_dataset(str(dataset), data_dir, CPU, image_size, **limits)


def refusal(dataset: str | Path, data_dir: Path = Path("unused"), **limits: int) -> str:
    with pytest.raises(Failure) as failure:
        load(dataset, data_dir, **limits)
    assert failure.value.code == EXIT_DATA
    assert "\n" not in str(failure.value)
    return str(failure.value)


def noise(size: tuple[int, ...], seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def remove(*files: Path) -> None:
    for file in files:
        file.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
