"""Data sets: images as one uint8 tensor on the training device, labels beside it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from common import presets
from common.runtime import EXIT_DATA, Failure

if TYPE_CHECKING:
    from PIL import Image

CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
# Groups of images in the summary, so no names of classes.
RESERVED_NAMES = {"all", "pie", "non_pie"}
FOLDER_IMAGE_SIZE = 32  # pixels; images of a folder data set are resized to this square
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".tif", ".tiff"}


@dataclass(frozen=True)
class Split:
    """N images [N,3,H,H] uint8 and their labels [N] int64, and a digest of both."""

    images: Tensor
    labels: Tensor
    digest: str

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A training and a test split; mean and std [3] are those of the training images in [0, 1]."""

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: Tensor
    std: Tensor

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    def normalise(self, images: Tensor) -> Tensor:
        """float32 images in [0, 1] -> zero mean and unit variance by channel."""
        return (images - self.mean[:, None, None]) / self.std[:, None, None]


def load(
    dataset: str,
    data_dir: Path,
    device: torch.device,
    limit: int | None = None,
    test_limit: int | None = None,
    released_normalisation: bool = False,
) -> Dataset:
    """Load `cifar10`, `digits` or a folder; raises Failure(EXIT_DATA) that names the bad file.

    limit, test_limit: use so many images, class-balanced, the first of each class.
    released_normalisation: the constants of the released code in place of this data's mean, std.
    """
    if dataset == "digits":
        name, classes, splits = "digits", *_digits()
    elif dataset == "cifar10":
        name, classes, splits = "cifar10", *_cifar10(data_dir)
    else:
        name = Path(dataset).resolve().name
        classes, splits = _folder(Path(dataset), (limit, test_limit))
    train, test = (
        _split(images, labels, len(classes), at_most, flag, device)
        for (images, labels), at_most, flag in zip(
            splits, (limit, test_limit), ("--limit", "--test_limit"), strict=True
        )
    )
    mean, std = channel_statistics(train.images)
    if released_normalisation:
        mean, std = mean.new_tensor(presets.RELEASED_MEAN), std.new_tensor(presets.RELEASED_STD)
    return Dataset(name, tuple(classes), train, test, mean, std)


def count_train_images(dataset: str, limit: int | None) -> int:
    """How many training images `load` would give, without reading any."""
    if dataset == "digits":
        labels, n_classes = _digits()[1][0][1], 10
    else:
        sizes = [5_000] * 10
        if dataset != "cifar10":
            train = Path(dataset) / "train"
            sizes = [len(_image_files(train / name)) for name in _classes(Path(dataset))]
        labels, n_classes = np.repeat(np.arange(len(sizes)), sizes), len(sizes)
    return len(first_of_each_class(labels, n_classes, limit))


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation by channel, of images [N,C,H,W] uint8 as [0, 1].

    Exact: the 256 possible values are counted, nothing is accumulated in floating point.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten().int(), minlength=256).cpu().double()
        share /= channel.numel()
        mean = (share * values).sum()
        means.append(mean)
        stds.append((share * (values - mean) ** 2).sum().sqrt())
    mean, std = torch.stack(means).float(), torch.stack(stds).float()
    if not (std > 0).all():
        raise Failure(EXIT_DATA, "the training images are all of one colour in some channel")
    return mean.to(images.device), std.to(images.device)


def first_of_each_class(labels: np.ndarray, n_classes: int, limit: int | None) -> np.ndarray:
    """Indices, ascending, of the first limit/C images of each class (the first classes get one
    more where C does not divide the limit; a class that runs out is not made up for)."""
    if limit is None:
        return np.arange(len(labels))
    quota = limit // n_classes + (np.arange(n_classes) < limit % n_classes)
    chosen = [np.flatnonzero(labels == c)[: quota[c]] for c in range(n_classes)]
    return np.sort(np.concatenate(chosen))


def _split(
    images: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    limit: int | None,
    flag: str,
    device: torch.device,
) -> Split:
    chosen = first_of_each_class(labels, n_classes, limit)
    if len(np.unique(labels[chosen])) < n_classes:
        raise Failure(
            EXIT_DATA, f"{limit} images cannot cover {n_classes} classes; use a higher {flag}"
        )
    images = np.ascontiguousarray(images[chosen])
    labels = labels[chosen].astype(np.int64)
    digest = hashlib.blake2b(digest_size=16)
    for array in (np.array(images.shape), labels, images):
        digest.update(array.data)
    return Split(
        torch.from_numpy(images).to(device),
        torch.from_numpy(labels).to(device),
        digest.hexdigest(),
    )


Arrays = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _digits() -> tuple[tuple[str, ...], Arrays]:
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


def _cifar10(data_dir: Path) -> tuple[tuple[str, ...], Arrays]:
    """CIFAR-10 through torchvision, which reads a batch only after its checksum matched."""
    from torchvision.datasets import CIFAR10

    def by_class_name(train: bool) -> tuple[np.ndarray, np.ndarray]:
        data = CIFAR10(str(data_dir), train=train, download=True)
        return data.data.transpose(0, 3, 1, 2), np.array(data.targets)

    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(data_dir / ".cifar10.lock"):  # several processes may start at once
            arrays = by_class_name(True), by_class_name(False)
    except MemoryError:
        raise
    except Exception as error:  # torchvision raises what its network and archive layers raise
        archive = data_dir / CIFAR10.filename
        raise Failure(
            EXIT_DATA,
            f"CIFAR-10 is neither in {data_dir} nor could it be downloaded ({error});"
            f"{_bad_files(data_dir)} put {CIFAR10.filename} (md5 {CIFAR10.tgz_md5}) at {archive}",
        ) from error
    return CIFAR10_CLASSES, arrays


def _bad_files(data_dir: Path) -> str:
    """Which of the files that are there are not what they should be."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    batches = data_dir / CIFAR10.base_folder
    expected = [(batches / name, md5) for name, md5 in CIFAR10.train_list + CIFAR10.test_list]
    expected += [(batches / CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    if not batches.is_dir():
        expected = [(data_dir / CIFAR10.filename, CIFAR10.tgz_md5)]
    expected = [pair for pair in expected if pair[0].exists() or batches.is_dir()]
    bad = [str(path) for path, md5 in expected if not check_integrity(str(path), md5)]
    return f" missing or damaged: {', '.join(bad)};" if bad else ""


def _folder(root: Path, limits: tuple[int | None, int | None]) -> tuple[tuple[str, ...], Arrays]:
    """A folder with train/<class>/* and test/<class>/* images of any size."""
    classes = _classes(root)
    unknown = sorted(set(_class_folders(root / "test")) - set(classes))
    if unknown:
        raise Failure(EXIT_DATA, f"{root / 'test' / unknown[0]}: no such class in train/")
    arrays = [
        _read_split(root / split, classes, limit)
        for split, limit in zip(("train", "test"), limits, strict=True)
    ]
    return classes, (arrays[0], arrays[1])


def _classes(root: Path) -> tuple[str, ...]:
    """The names of the classes of a folder data set, after checking that it is one."""
    for split in ("train", "test"):
        if not (root / split).is_dir():
            raise Failure(EXIT_DATA, f"{root / split}: missing; expected {split}/<class>/* images")
    classes = _class_folders(root / "train")
    if len(classes) < 2:
        raise Failure(
            EXIT_DATA, f"{root / 'train'}: {len(classes)} class folder(s); at least two are needed"
        )
    if reserved := sorted(RESERVED_NAMES & set(classes)):
        name = reserved[0]
        raise Failure(EXIT_DATA, f"{root / 'train' / name}: no class may be called {name!r}")
    return classes


def _class_folders(split: Path) -> tuple[str, ...]:
    return tuple(
        sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))
    )


def _read_split(
    split: Path, classes: tuple[str, ...], limit: int | None
) -> tuple[np.ndarray, np.ndarray]:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = _image_files(split / name)
        if not images:
            raise Failure(EXIT_DATA, f"{split / name}: no images of this class")
        files += images
        labels += [label] * len(images)
    chosen = first_of_each_class(np.array(labels), len(classes), limit)
    # Decoding releases the interpreter lock, so threads read on every core.
    pixels = _parallel_map(_read_image, [files[i] for i in chosen])
    return np.stack(pixels), np.array(labels)[chosen]


def _image_files(folder: Path) -> list[Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def _parallel_map(function: Callable[[Path], np.ndarray], items: list[Path]) -> list[np.ndarray]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Of up to 16 bits a pixel, which Pillow would cut off at 255. Raises ValueError for others."""
    from PIL import Image

    values = np.asarray(image)
    if not (image.mode.startswith("I") and values.min() >= 0 and values.max() < 65536):
        raise ValueError(f"pixels of mode {image.mode}")
    deep = "16" in image.mode or values.max() > 255
    return Image.fromarray(np.round(values / (257 if deep else 1)).astype(np.uint8))


def _read_image(path: Path) -> np.ndarray:
    """[3,32,32] uint8; other sizes are resized bilinearly with antialiasing."""
    from PIL import Image

    size = (FOLDER_IMAGE_SIZE, FOLDER_IMAGE_SIZE)
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                image = _eight_bits(image)
            pixels = image.convert("RGB")
            if pixels.size != size:
                pixels = pixels.resize(size, Image.Resampling.BILINEAR)
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise Failure(EXIT_DATA, f"{path}: not a readable image ({error})") from error
    return np.asarray(pixels).transpose(2, 0, 1)
