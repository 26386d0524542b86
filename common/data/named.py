"""The data sets that have a name: a loader for each, which names missing and damaged files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common import locks
from common.runtime import EXIT_DATA, Failure

# Of the training and of the test split: images [N,3,H,H] uint8 and labels [N].
Splits = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
# Networks of the released code store no class names: these are theirs.
CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def _digits() -> tuple[tuple[str, ...], Splits]:
    """scikit-learn's 1,797 handwritten digits, 8x8, 1,297 to train and 500 to test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 0 … 16 -> 0 … 255
    images = np.repeat(grey[:, None], 3, axis=1)
    train, test = train_test_split(
        np.arange(len(images)), test_size=500, stratify=digits.target, random_state=0
    )
    train, test = np.sort(train), np.sort(test)
    labels = digits.target
    return tuple("0123456789"), ((images[train], labels[train]), (images[test], labels[test]))


def _torchvision(
    name: str, kind: str, data_dir: Path, read: Callable[[Any, bool], tuple[np.ndarray, np.ndarray]]
) -> Splits:
    """A data set of torchvision, which reads a file only after verifying its checksum. `read` takes
    the class torchvision.datasets.<kind> and gives images [N,3,H,H] and labels [N]."""
    from torchvision import datasets

    source = getattr(datasets, kind)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with locks.held(data_dir / name):  # several processes may start at once
            return read(source, True), read(source, False)
    except MemoryError:
        raise
    except Exception as error:  # whatever torchvision's network and archive layers raise
        archives, expected = _files_of(source, data_dir)
        wanted = ", ".join(f"{path.name} (md5 {md5}) at {path}" for path, md5 in archives)
        raise Failure(
            EXIT_DATA,
            f"{name} is neither in {data_dir} nor could it be downloaded ({error});"
            f"{_bad_files(expected)} put {wanted}",
        ) from error


def _files_of(source: Any, data_dir: Path) -> tuple[list[tuple[Path, str]], list[tuple[Path, str]]]:
    """The archives that a user may put in place by hand, and the files that must be intact: the
    unpacked ones if there are any, else the archives. Each with its md5."""
    if hasattr(source, "split_list"):  # SVHN: a file for each split
        archives = [
            (data_dir / source.split_list[split][1], source.split_list[split][2])
            for split in ("train", "test")
        ]
        return archives, archives
    archives = [(data_dir / source.filename, source.tgz_md5)]
    batches = data_dir / source.base_folder
    if not batches.is_dir():
        return archives, archives
    unpacked = [*source.train_list, *source.test_list]
    unpacked.append([source.meta["filename"], source.meta["md5"]])
    return archives, [(batches / file, md5) for file, md5 in unpacked]


def _bad_files(expected: list[tuple[Path, str]]) -> str:
    """A phrase that names the missing or damaged files; empty if none of the files exists."""
    from torchvision.datasets.utils import check_integrity

    if not any(path.exists() for path, _ in expected):
        return ""
    bad = [str(path) for path, md5 in expected if not check_integrity(str(path), md5)]
    return f" missing or damaged: {', '.join(bad)};" if bad else ""


def _cifar(name: str, kind: str, data_dir: Path) -> tuple[tuple[str, ...], Splits]:
    classes: list[str] = []

    def read(source: Any, train: bool) -> tuple[np.ndarray, np.ndarray]:
        data = source(str(data_dir), train=train, download=True)
        classes[:] = data.classes
        return data.data.transpose(0, 3, 1, 2), np.array(data.targets)

    splits = _torchvision(name, kind, data_dir, read)
    return tuple(classes), splits


def _svhn(data_dir: Path) -> tuple[tuple[str, ...], Splits]:
    """Street View House Numbers, cropped digits 0 … 9."""

    def read(source: Any, train: bool) -> tuple[np.ndarray, np.ndarray]:
        data = source(str(data_dir), split="train" if train else "test", download=True)
        return data.data, data.labels

    return tuple("0123456789"), _torchvision("svhn", "SVHN", data_dir, read)


# By the words of study.DATASETS: from --data_dir to the names of the classes and the two splits.
LOADERS: dict[str, Callable[[Path], tuple[tuple[str, ...], Splits]]] = {
    "cifar10": partial(_cifar, "cifar10", "CIFAR10"),
    "cifar100": partial(_cifar, "cifar100", "CIFAR100"),
    "svhn": _svhn,
    "digits": lambda data_dir: _digits(),
}
