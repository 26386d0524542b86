"""Data sets: images as one uint8 tensor on the training device, labels beside it."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common import paths, recipes, study
from common.data import named
from common.data.named import Splits
from common.runtime import EXIT_DATA, Failure

# These name groups of images in the summary, so no class may have them.
RESERVED_NAMES = {"all", "pie", "non_pie"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".ppm", ".tif", ".tiff"}
THREADS_FROM_BYTES = 4096
BILINEAR = Image.Resampling.BILINEAR  # with antialiasing, as Pillow does it
RESIZED_AT_ONCE = 1000


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
    """A training and a test split; mean and std [3] of the training images, scaled to [0, 1]."""

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


def load_dataset(
    dataset: str,
    data_dir: Path,
    device: torch.device,
    image_size: int,
    limit: int | None = None,
    test_limit: int | None = None,
    released_normalisation: bool = False,
    name: str = "",
) -> Dataset:
    """Read a data set by its name in study.DATASETS, or from a folder. Raises Failure(EXIT_DATA),
    which names the bad file.

    image_size: side in pixels; images of another size are resized once, here.
    limit, test_limit: use so many images, class-balanced, the first of each class.
    released_normalisation: normalise by constants of the released code, not this data's mean, std.
    name: the data set's name in files (default: paths.dataset_name).
    """
    limits = (limit, test_limit)
    if dataset in named.LOADERS:
        classes, splits = named.LOADERS[dataset](data_dir)
    else:
        classes, splits = _folder(Path(dataset), limits, image_size)
    train, test = (
        _split(images, labels, len(classes), at_most, flag, image_size, device)
        for (images, labels), at_most, flag in zip(
            splits, limits, ("--limit", "--test_limit"), strict=True
        )
    )
    mean, std = channel_statistics(train.images)
    if released_normalisation:
        mean, std = mean.new_tensor(recipes.RELEASED_MEAN), std.new_tensor(recipes.RELEASED_STD)
    return Dataset(name or paths.dataset_name(dataset), tuple(classes), train, test, mean, std)


class Size(NamedTuple):
    """The number of images and classes of a data set."""

    n_train: int
    n_test: int
    n_classes: int


def size(dataset: str, limit: int | None = None, test_limit: int | None = None) -> Size:
    """The size of the data set that `load_dataset` would return, without reading an image. If
    classes differ in size, a limit may leave fewer images than this says."""
    if dataset in named.LOADERS:
        words = study.DATASETS[dataset]
        found = [words.n_train, words.n_test]
        n_classes = words.n_classes
    else:
        root, classes = Path(dataset), _classes(Path(dataset))
        found = [
            sum(len(_image_files(root / split / name)) for name in classes)
            for split in ("train", "test")
        ]
        n_classes = len(classes)
    pairs = zip(found, (limit, test_limit), strict=True)
    return Size(*(n if at_most is None else min(n, at_most) for n, at_most in pairs), n_classes)


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation by channel of uint8 images [N,C,H,W], as [0, 1].

    Exact: each of the 256 possible values is counted, so no rounding errors accumulate.
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
    """Indices, ascending, of the first limit/C images of each class. If C does not divide limit,
    the first classes get one more; if a class has too few, no other class fills the gap."""
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
    image_size: int,
    device: torch.device,
) -> Split:
    chosen = first_of_each_class(labels, n_classes, limit)
    if len(np.unique(labels[chosen])) < n_classes:
        raise Failure(
            EXIT_DATA, f"{limit} images cannot cover {n_classes} classes; use a higher {flag}"
        )
    images = np.ascontiguousarray(_resized(images[chosen], image_size))
    labels = labels[chosen].astype(np.int64)
    digest = hashlib.blake2b(digest_size=16)
    for array in (np.array(images.shape), labels, images):
        digest.update(array.data)
    return Split(
        torch.from_numpy(images).to(device),
        torch.from_numpy(labels).to(device),
        digest.hexdigest(),
    )


def _folder(
    root: Path, limits: tuple[int | None, int | None], image_size: int
) -> tuple[tuple[str, ...], Splits]:
    """A folder with train/<class>/* and test/<class>/* images of any size."""
    classes = _classes(root)
    unknown = sorted(set(_class_folders(root / "test")) - set(classes))
    if unknown:
        raise Failure(EXIT_DATA, f"{root / 'test' / unknown[0]}: no such class in train/")
    arrays = [
        _read_split(root / split, classes, limit, image_size)
        for split, limit in zip(("train", "test"), limits, strict=True)
    ]
    return classes, (arrays[0], arrays[1])


def _classes(root: Path) -> tuple[str, ...]:
    """The names of the classes in a folder, after checking that the folder holds a data set."""
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
    split: Path, classes: tuple[str, ...], limit: int | None, image_size: int
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
    images = _read_images([files[i] for i in chosen], image_size)
    return images, np.array(labels)[chosen]


def _read_images(files: list[Path], size: int) -> np.ndarray:
    """[N,3,size,size] uint8. Threads share the work if the first file is large.

    Pillow releases the interpreter's lock while it decodes, but a small file is decoded sooner than
    two threads hand the lock over: with 2 cores, threads read JPEG files of 32x32 pixels (1 KB) in
    1.6 times the time of a loop, of 96x96 (3.5 KB) in 0.95 times, of 256x256 (18 KB) in 0.6 times.
    """
    read = partial(_read_image, size=size)
    if files[0].stat().st_size < THREADS_FROM_BYTES:
        return np.stack([read(file) for file in files])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(read, files)))


def _image_files(folder: Path) -> list[Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale up to 16 bits a pixel, which Pillow would clip at 255, to 8. Else raises ValueError."""
    values = np.asarray(image)
    if not (image.mode.startswith("I") and values.min() >= 0 and values.max() < 65536):
        raise ValueError(f"pixels of mode {image.mode}")
    deep = "16" in image.mode or values.max() > 255
    return Image.fromarray(np.round(values / (257 if deep else 1)).astype(np.uint8))


def _read_image(path: Path, size: int) -> np.ndarray:
    """[3,size,size] uint8."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                image = _eight_bits(image)
            pixels = _resized_image(image.convert("RGB"), size)
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise Failure(EXIT_DATA, f"{path}: not a readable image ({error})") from error
    return np.asarray(pixels).transpose(2, 0, 1)


def _resized_image(image: Image.Image, size: int) -> Image.Image:
    """The image, resized bilinearly with antialiasing to a square of this size if necessary."""
    shape = (size, size)
    return image if image.size == shape else image.resize(shape, BILINEAR)


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """images [N,3,H,H] uint8 -> [N,3,size,size], each as `_resized_image` makes it."""
    if images.shape[2:] == (size, size):
        return images
    chunks = range(0, len(images), RESIZED_AT_ONCE)
    return np.concatenate(
        [_resized_together(images[i : i + RESIZED_AT_ONCE], size) for i in chunks]
    )


def _resized_together(images: np.ndarray, size: int) -> np.ndarray:
    """Pillow resizes a square first along its rows, then along its columns, and rounds after both.
    So squares stacked below each other, then beside each other, are resized like single ones, with
    two calls in all."""
    n, _, side, _ = images.shape
    below = images.transpose(0, 2, 3, 1).reshape(n * side, side, 3)
    narrow = np.asarray(Image.fromarray(below).resize((size, n * side), BILINEAR))
    beside = narrow.reshape(n, side, size, 3).swapaxes(0, 1).reshape(side, n * size, 3)
    resized = np.asarray(Image.fromarray(beside).resize((n * size, size), BILINEAR))
    return resized.reshape(size, n, size, 3).transpose(1, 3, 0, 2)
