"""Statistics, limits, sizes and folders of images, against numpy, torchvision and PIL; what is
missing or damaged in a folder is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import CPU, Pixels, cut, load, noise, refusal, remove
from PIL import Image
from torchvision.transforms import functional as TF

from common.data import datasets
from common.data.datasets import Dataset
from common.runtime import EXIT_DATA, Failure


def store(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes; 4, 3 and 2 images to train, 2 of each to test; all 32x32."""
    root = tmp_path / "flowers"
    seed = 0
    for split, counts in (("train", (4, 3, 2)), ("test", (2, 2, 2))):
        for name, count in zip(("rose", "aster", "lily"), counts, strict=True):
            for i in range(count):
                store(root / split / name / f"{i}.png", noise((32, 32, 3), seed))
                seed += 1
    return root


# Mean and standard deviation


def test_statistics_are_those_of_each_channel() -> None:
    images = torch.from_numpy(noise((7, 3, 5, 5), 0)) // torch.tensor([1, 3, 10])[:, None, None]
    mean, std = datasets.channel_statistics(images.to(torch.uint8))
    pixels = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean.numpy(), pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), pixels.std((0, 2, 3)), rtol=1e-6)
    assert mean.dtype == std.dtype == torch.float32


def test_a_channel_of_one_colour_is_refused() -> None:
    images = torch.from_numpy(noise((7, 3, 5, 5), 0))
    images[:, 1] = 77
    with pytest.raises(Failure, match="one colour") as failure:
        datasets.channel_statistics(images)
    assert failure.value.code == EXIT_DATA


def test_normalised_training_images_have_mean_0_and_variance_1(folder: Path) -> None:
    data = load(folder)
    normalised = data.normalise(data.train.images.float() / 255).double()
    assert normalised.mean((0, 2, 3)).abs().max() < 1e-5
    assert (normalised.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_the_released_normalisation_replaces_this_datas_own() -> None:
    data = datasets.load_dataset("digits", Path(), CPU, 8, released_normalisation=True)
    assert data.mean.tolist() == pytest.approx([0.4915, 0.4823, 0.4468], rel=1e-6)
    assert data.std.tolist() == pytest.approx([0.2047, 0.2435, 0.2616], rel=1e-6)


# Limits


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    limit=st.none() | st.integers(1, 50),
)
def test_the_first_of_each_class(labels: list[int], limit: int | None) -> None:
    chosen = datasets.first_of_each_class(np.array(labels), 4, limit)
    if limit is None:
        assert chosen.tolist() == list(range(len(labels)))
        return
    expected = []
    taken = [0] * 4
    for i, label in enumerate(labels):
        quota = limit // 4 + (1 if label < limit % 4 else 0)
        if taken[label] < quota:
            taken[label] += 1
            expected.append(i)
    assert chosen.tolist() == expected


def test_limits_take_the_first_of_each_class(digits: Dataset) -> None:
    limited = load("digits", limit=25, test_limit=12)
    assert np.bincount(limited.train.labels).tolist() == [3] * 5 + [2] * 5
    assert np.bincount(limited.test.labels).tolist() == [2] * 2 + [1] * 8
    for label in range(10):
        for split, whole in ((limited.train, digits.train), (limited.test, digits.test)):
            few = split.images[split.labels == label]
            assert torch.equal(few, whole.images[whole.labels == label][: len(few)])
    assert limited.train.digest != digits.train.digest
    pixels = limited.train.images.numpy() / 255
    np.testing.assert_allclose(limited.mean.numpy(), pixels.mean((0, 2, 3)), rtol=1e-6)


def test_a_limit_that_cannot_cover_the_classes_is_refused() -> None:
    assert "--limit" in refusal("digits", limit=9)
    assert "--test_limit" in refusal("digits", test_limit=9)


@pytest.mark.parametrize(
    ("dataset", "limit", "n_more"),
    [
        *(("digits", limit, 0) for limit in (None, 10, 25, 1250, 5000)),
        *(("folder", limit, 0) for limit in (None, 3, 7, 100)),
        # Some classes have fewer images than their share of the limit.
        *(("digits", 1297, 7), ("folder", 9, 1)),
    ],
)
def test_the_size_is_known_before_the_images_are_read(
    dataset: str, limit: int | None, n_more: int, folder: Path
) -> None:
    name = str(folder) if dataset == "folder" else dataset
    found = load(name, limit=limit)
    expected = (len(found.train) + n_more, len(found.test), found.n_classes)
    assert datasets.size(name, limit) == expected


@pytest.mark.parametrize(
    ("dataset", "n", "n_test", "n_classes"),
    [("cifar10", 50_000, 10_000, 10), ("cifar100", 50_000, 10_000, 100),
     ("svhn", 73_257, 26_032, 10)],
)  # fmt: skip
def test_the_size_of_a_downloaded_data_set(
    dataset: str, n: int, n_test: int, n_classes: int
) -> None:
    sizes = [datasets.size(dataset, limit, limit) for limit in (None, 5_000, 90_000)]
    whole = (n, n_test, n_classes)
    assert sizes == [whole, (5_000, 5_000, n_classes), whole]


# Folders of images


def test_a_folder_is_read_in_order_of_names(folder: Path) -> None:
    (folder / "train" / "rose" / "notes.txt").write_text("not an image")
    (folder / "train" / ".cache").mkdir()
    data = load(folder)
    assert data.name == "flowers"
    assert data.classes == ("aster", "lily", "rose")
    for split, name in ((data.train, "train"), (data.test, "test")):
        images, labels = [], []
        for label, of_class in enumerate(data.classes):
            for path in sorted((folder / name / of_class).glob("*.png")):
                images.append(np.asarray(Image.open(path)).transpose(2, 0, 1))
                labels.append(label)
        np.testing.assert_array_equal(split.images.numpy(), np.stack(images))
        assert split.labels.tolist() == labels


def test_large_images_are_read_in_the_order_of_their_names(folder: Path) -> None:
    rng, of_class = np.random.default_rng(0), folder / "train" / "aster"
    for path in of_class.glob("*.png"):
        store(path, rng.integers(0, 256, (96, 96, 3), dtype=np.uint8))
    files = sorted(of_class.glob("*.png"))
    assert files[0].stat().st_size > datasets.THREADS_FROM_BYTES
    found = load(folder, image_size=96).train.images[: len(files)].numpy()
    expected = [np.asarray(Image.open(path)).transpose(2, 0, 1) for path in files]
    assert np.array_equal(found, np.stack(expected))


def test_limits_apply_to_folders(folder: Path) -> None:
    whole, limited = load(folder), load(folder, limit=4, test_limit=3)
    assert limited.train.labels.tolist() == [0, 0, 1, 2]
    assert torch.equal(limited.train.images, whole.train.images[[0, 1, 3, 5]])
    assert torch.equal(limited.test.images, whole.test.images[[0, 2, 4]])


@pytest.mark.parametrize(
    ("size", "suffix"),
    [((64, 64), "png"), ((45, 70), "bmp"), ((20, 33), "PNG"), ((32, 50), "tif"), ((1, 1), "png")],
)
@pytest.mark.parametrize("image_size", [16, 32])
def test_other_sizes_are_resized(
    folder: Path, size: tuple[int, int], suffix: str, image_size: int
) -> None:
    pixels = noise((*size, 3), sum(size))
    store(folder / "train" / "aster" / f"-first.{suffix}", pixels)
    data = load(folder, image_size=image_size)
    assert data.train.images.shape == (10, 3, image_size, image_size)
    square = [image_size, image_size]
    expected = TF.resize(torch.from_numpy(pixels).permute(2, 0, 1), square, antialias=True)
    assert (data.train.images[0].int() - expected.int()).abs().max() <= 1


SIDE = st.integers(1, 40)


@settings(max_examples=30)
@given(n=st.integers(1, 5), side=SIDE, size=SIDE, seed=st.integers(0))
def test_images_resized_together_are_those_resized_alone(
    n: int, side: int, size: int, seed: int
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (n, 3, side, side), dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "RESIZED_AT_ONCE", 2)
        together = datasets._resized(images, size)
    for image, found in zip(images, together, strict=True):
        alone = Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), datasets.BILINEAR)
        assert np.array_equal(found, np.asarray(alone).transpose(2, 0, 1))


GREY, COLOURS = noise((32, 32), 1), noise((32, 32, 3), 2)
DEEP = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
PALETTE = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 200]], dtype=np.uint8)


def of_palette() -> Image.Image:
    image = Image.fromarray(GREY % 3)
    image.putpalette(PALETTE.flatten().tolist())
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(GREY), np.stack([GREY] * 3, axis=-1)),
        (Image.fromarray(np.dstack([COLOURS, np.full_like(GREY, 255)])), COLOURS),
        (Image.fromarray(GREY > 127), np.stack([(GREY > 127) * np.uint8(255)] * 3, axis=-1)),
        (of_palette(), PALETTE[GREY % 3]),
        # Never saturated without a word: a radiograph would become a white square.
        (Image.fromarray(DEEP), np.stack([np.round(DEEP / 257)] * 3, axis=-1)),
    ],
    ids=["grey", "RGBA", "black and white", "palette", "16 bits"],
)
def test_other_modes_become_rgb(folder: Path, image: Image.Image, expected: Pixels) -> None:
    image.save(folder / "train" / "aster" / "-first.png")
    found = load(folder).train.images[0].numpy()
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))


def test_the_digest_tells_data_apart(folder: Path) -> None:
    before = load(folder)
    again = load(folder)
    assert (again.train.digest, again.test.digest) == (before.train.digest, before.test.digest)
    path = folder / "train" / "lily" / "0.png"
    pixels = np.array(Image.open(path))
    pixels[5, 6, 1] ^= 1
    store(path, pixels)
    changed = load(folder)
    assert changed.train.digest != before.train.digest
    assert changed.test.digest == before.test.digest


def test_the_digest_depends_on_the_labels(folder: Path) -> None:
    """The last image of the first class becomes the first of the second: equal pixels in order."""
    before = load(folder).train
    train = folder / "train"
    (train / "aster" / "2.png").rename(train / "lily" / "-first.png")
    after = load(folder).train
    assert torch.equal(after.images, before.images)
    assert after.digest != before.digest


def move(root: Path, old: str, new: str) -> None:
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    (root / old).rename(root / new)


def one_class(root: Path) -> None:
    for split in ("train", "test"):
        for name in ("rose", "lily"):
            move(root, f"{split}/{name}", f"{split} {name}")


def reserved_name(root: Path) -> None:
    """A class with a name that the summary uses for a group of images."""
    for split in ("train", "test"):
        move(root, f"{split}/lily", f"{split}/non_pie")


def cut_jpeg(root: Path) -> None:
    store(root / "train/rose/3.jpg", noise((64, 64, 3), 0))
    cut(root / "train/rose/3.jpg")


def flipped_bit(root: Path) -> None:
    """A flipped bit in a PNG, which has checksums."""
    path = root / "train/aster/0.png"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 4
    path.write_bytes(whole)


def pixels_of_unknown_range(root: Path) -> None:
    store(root / "train/lily/2.tif", noise((32, 32), 0).astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda root: remove(*(root / "train").rglob("*.png")), "train"),
        (lambda root: move(root, "train", "training"), "train"),
        (lambda root: move(root, "test", "testing"), "test"),
        (one_class, "train"),
        (lambda root: remove(*(root / "train/lily").iterdir()), "train/lily"),
        (lambda root: move(root, "test/lily", "lily"), "test/lily"),
        (lambda root: move(root, "lily", "test/tulip"), "test/tulip"),
        (reserved_name, "train/non_pie"),
        (pixels_of_unknown_range, "train/lily/2.tif"),
        (lambda root: (root / "train/lily/1.png").write_text("no image"), "train/lily/1.png"),
        (lambda root: (root / "test/rose/0.png").write_bytes(b""), "test/rose/0.png"),
        (lambda root: cut(root / "train/rose/3.png"), "train/rose/3.png"),
        (cut_jpeg, "train/rose/3.jpg"),
        (flipped_bit, "train/aster/0.png"),
    ],
    ids=[
        *("no images", "no train", "no test", "one class", "no images of a class"),
        *("class missing from test", "class only in test", "reserved name", "floating point"),
        *("text", "empty", "truncated", "truncated JPEG", "flipped bit"),
    ],
)
def test_bad_folders_are_refused_and_the_bad_path_is_named(
    folder: Path, damage: Callable[[Path], object], named: str
) -> None:
    (folder / "lily").mkdir()
    load(folder)  # in order before
    damage(folder)
    assert f"{folder / named}" in refusal(folder)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")
    with pytest.raises(Failure, match="nowhere") as failure:
        datasets.size(str(tmp_path / "nowhere"))
    assert failure.value.code == EXIT_DATA
