"""Data sets against scikit-learn, torchvision and PIL; what is missing or damaged is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import functional as TF

from common import runtime
from common.data import datasets
from common.data.datasets import Dataset
from common.runtime import EXIT_DATA, Failure, Interrupted

CPU = torch.device("cpu")
Pixels = np.ndarray


def load(dataset: str | Path, data_dir: Path = Path("unused"), **limits: int | None) -> Dataset:
    return datasets.load(str(dataset), data_dir, CPU, **limits)


def refusal(dataset: str | Path, data_dir: Path = Path("unused"), **limits: int) -> str:
    with pytest.raises(Failure) as failure:
        load(dataset, data_dir, **limits)
    assert failure.value.code == EXIT_DATA
    assert "\n" not in str(failure.value)
    return str(failure.value)


def noise(size: tuple[int, ...], seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def store(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


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


# The handwritten digits


def test_digits_have_the_documented_shape(digits: Dataset) -> None:
    assert digits.name == "digits"
    assert digits.classes == tuple("0123456789")
    assert digits.n_classes == 10
    for split, n in ((digits.train, 1297), (digits.test, 500)):
        assert len(split) == n
        assert split.images.shape == (n, 3, 8, 8)
        assert split.images.dtype == torch.uint8
        assert split.labels.shape == (n,)
        assert split.labels.dtype == torch.int64
        assert split.images.is_contiguous()


def test_digits_are_all_of_scikit_learns_each_once(digits: Dataset) -> None:
    """Equal multisets of images and labels: pixels are right, and the splits do not overlap."""
    raw = load_digits()
    scaled = (raw.images.astype(int) * 255 + 8) // 16  # rounded, in whole numbers
    expected = Counter(
        (image.astype(np.uint8).tobytes(), int(label))
        for image, label in zip(scaled, raw.target, strict=True)
    )
    found = Counter(
        (image[0].numpy().tobytes(), int(label))
        for split in (digits.train, digits.test)
        for image, label in zip(split.images, split.labels, strict=True)
    )
    assert found == expected
    for split in (digits.train, digits.test):
        assert (split.images == split.images[:, :1]).all()  # grey: all channels are the same
        assert split.images.min() == 0
        assert split.images.max() == 255


def test_digits_are_stratified(digits: Dataset) -> None:
    share = np.bincount(load_digits().target) / 1797
    for split in (digits.train, digits.test):
        counts = np.bincount(split.labels.numpy(), minlength=10)
        assert (np.abs(counts - share * len(split)) < 1).all()


def test_digits_are_the_same_at_every_call(digits: Dataset) -> None:
    np.random.seed(1)  # the split must not depend on it
    again = load("digits")
    assert torch.equal(again.train.images, digits.train.images)
    assert again.train.digest == digits.train.digest
    assert again.test.digest == digits.test.digest != digits.train.digest


# Mean and standard deviation


def test_statistics_are_those_of_the_training_images(digits: Dataset) -> None:
    pixels = digits.train.images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(digits.mean.numpy(), pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(digits.std.numpy(), pixels.std((0, 2, 3)), rtol=1e-6)
    assert digits.mean.dtype == digits.std.dtype == torch.float32


def test_statistics_of_channels_that_differ() -> None:
    images = torch.from_numpy(noise((7, 3, 5, 5), 0)) // torch.tensor([1, 3, 10])[:, None, None]
    mean, std = datasets.channel_statistics(images.to(torch.uint8))
    pixels = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean.numpy(), pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), pixels.std((0, 2, 3)), rtol=1e-6)


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
    data = datasets.load("digits", Path("unused"), CPU, released_normalisation=True)
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


@pytest.mark.parametrize("limit", [None, 10, 25, 500, 1250, 1290, 1297, 5000])
def test_the_count_of_training_digits(limit: int | None) -> None:
    assert datasets.count_train_images("digits", limit) == len(load("digits", limit=limit).train)


@pytest.mark.parametrize("limit", [None, 3, 7, 8, 9, 100])
def test_the_count_of_training_images_of_a_folder(folder: Path, limit: int | None) -> None:
    counted = datasets.count_train_images(str(folder), limit)
    assert counted == len(load(folder, limit=limit).train)


def test_counting_the_images_of_a_missing_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="nowhere") as failure:
        datasets.count_train_images(str(tmp_path / "nowhere"), None)
    assert failure.value.code == EXIT_DATA


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


def test_limits_apply_to_folders(folder: Path) -> None:
    whole, limited = load(folder), load(folder, limit=4, test_limit=3)
    assert limited.train.labels.tolist() == [0, 0, 1, 2]
    assert torch.equal(limited.train.images, whole.train.images[[0, 1, 3, 5]])
    assert torch.equal(limited.test.images, whole.test.images[[0, 2, 4]])


@pytest.mark.parametrize("suffix", ["png", "bmp", "PNG", "tif"])
@pytest.mark.parametrize("size", [(64, 64), (45, 70), (20, 33), (32, 50), (8, 8), (1, 1)])
def test_other_sizes_are_resized(folder: Path, size: tuple[int, int], suffix: str) -> None:
    pixels = noise((*size, 3), sum(size))
    store(folder / "train" / "aster" / f"-first.{suffix}", pixels)
    resized = load(folder).train.images[0]
    expected = TF.resize(torch.from_numpy(pixels).permute(2, 0, 1), [32, 32], antialias=True)
    assert resized.shape == (3, 32, 32)
    assert (resized.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("pixels", "rgb"),
    [
        (noise((32, 32), 1), lambda p: np.stack([p] * 3, axis=-1)),
        (
            np.dstack([noise((32, 32, 3), 2), np.full((32, 32), 255, np.uint8)]),
            lambda p: p[..., :3],
        ),
        (noise((32, 32), 3) > 127, lambda p: np.stack([p * np.uint8(255)] * 3, axis=-1)),
    ],
    ids=["grey", "RGBA", "black and white"],
)
def test_other_modes_become_rgb(
    folder: Path, pixels: Pixels, rgb: Callable[[Pixels], Pixels]
) -> None:
    store(folder / "train" / "aster" / "-first.png", pixels)
    found = load(folder).train.images[0].numpy()
    np.testing.assert_array_equal(found, rgb(pixels).transpose(2, 0, 1))


def test_palette_images_become_rgb(folder: Path) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 200]], dtype=np.uint8)
    index = noise((32, 32), 4) % 3
    image = Image.fromarray(index)
    image.putpalette(colours.flatten().tolist())
    image.save(folder / "train" / "aster" / "-first.png")
    found = load(folder).train.images[0].numpy()
    np.testing.assert_array_equal(found, colours[index].transpose(2, 0, 1))


def test_sixteen_bit_images_are_scaled_or_refused(folder: Path) -> None:
    """Never saturated without a word: a radiograph would become a white square."""
    path = folder / "train" / "aster" / "-first.png"
    pixels = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    Image.fromarray(pixels).save(path)
    try:
        found = load(folder).train.images[0]
    except Failure as failure:
        assert failure.code == EXIT_DATA
        assert str(path) in str(failure)
        return
    expected = torch.from_numpy(pixels / 257).round().int()
    for channel in found:
        assert (channel.int() - expected).abs().max() <= 1


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


def damage_nothing(folder: Path) -> str:
    for path in (folder / "train").rglob("*.png"):
        path.unlink()
    return "train"


def damage_no_train(folder: Path) -> str:
    (folder / "train").rename(folder / "training")
    return str(folder / "train")


def damage_no_test(folder: Path) -> str:
    (folder / "test").rename(folder / "testing")
    return str(folder / "test")


def damage_one_class(folder: Path) -> str:
    for split in ("train", "test"):
        for name in ("rose", "lily"):
            (folder / split / name).rename(folder / f"{split} {name}")
    return str(folder / "train")


def damage_no_images_of_a_class(folder: Path) -> str:
    for path in (folder / "train" / "lily").iterdir():
        path.unlink()
    return str(folder / "train" / "lily")


def damage_class_missing_from_test(folder: Path) -> str:
    (folder / "test" / "lily").rename(folder / "lily")
    return str(folder / "test" / "lily")


def damage_class_only_in_test(folder: Path) -> str:
    store(folder / "test" / "tulip" / "0.png", noise((32, 32, 3), 0))
    return str(folder / "test" / "tulip")


def damage_reserved_name(folder: Path) -> str:
    """The summary calls groups of images so."""
    for split in ("train", "test"):
        (folder / split / "lily").rename(folder / split / "non_pie")
    return str(folder / "train" / "non_pie")


def damage_floating_point(folder: Path) -> str:
    """Pixels whose range nobody knows."""
    path = folder / "train" / "lily" / "2.tif"
    Image.fromarray(noise((32, 32), 0).astype(np.float32) / 255).save(path)
    return str(path)


def damage_text(folder: Path) -> str:
    path = folder / "train" / "lily" / "1.png"
    path.write_text("not an image")
    return str(path)


def damage_empty(folder: Path) -> str:
    path = folder / "test" / "rose" / "0.png"
    path.write_bytes(b"")
    return str(path)


def damage_truncated(folder: Path) -> str:
    path = folder / "train" / "rose" / "3.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return str(path)


def damage_truncated_jpeg(folder: Path) -> str:
    path = folder / "train" / "rose" / "3.jpg"
    store(path, noise((64, 64, 3), 0))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return str(path)


def damage_flipped_bit(folder: Path) -> str:
    """PNG has checksums."""
    path = folder / "train" / "aster" / "0.png"
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 4
    path.write_bytes(contents)
    return str(path)


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing,
        damage_no_train,
        damage_no_test,
        damage_one_class,
        damage_no_images_of_a_class,
        damage_class_missing_from_test,
        damage_class_only_in_test,
        damage_reserved_name,
        damage_floating_point,
        damage_text,
        damage_empty,
        damage_truncated,
        damage_truncated_jpeg,
        damage_flipped_bit,
    ],
    ids=lambda damage: damage.__name__.removeprefix("damage_"),
)
def test_bad_folders_are_refused_and_the_bad_path_is_named(
    folder: Path, damage: Callable[[Path], str]
) -> None:
    load(folder)  # in order before
    named = damage(folder)
    assert named in refusal(folder)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")


# CIFAR-10


class FakeCIFAR10(torchvision.datasets.CIFAR10):
    """As torchvision's, but with 20 training and 10 test images, and nothing to download."""

    def __init__(self, root: str, train: bool = True, download: bool = False):
        n = 20 if train else 10
        self.data = noise((n, 32, 32, 3), n)  # [N,H,W,C] as torchvision has it
        self.targets = [i % 10 for i in range(n)]


def test_cifar10_layout_and_class_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", FakeCIFAR10)
    data = load("cifar10", tmp_path / "new" / "data")
    assert data.name == "cifar10"
    assert " ".join(data.classes) == "airplane automobile bird cat deer dog frog horse ship truck"
    for split, n in ((data.train, 20), (data.test, 10)):
        assert split.images.shape == (n, 3, 32, 32)
        assert split.labels.tolist() == [i % 10 for i in range(n)]
        pixels = noise((n, 32, 32, 3), n)
        for channel in range(3):
            np.testing.assert_array_equal(split.images[:, channel].numpy(), pixels[..., channel])


def raising(error: BaseException) -> type[torchvision.datasets.CIFAR10]:
    class Raising(torchvision.datasets.CIFAR10):
        def __init__(self, *_: object, **__: object):
            raise error

    return Raising


def test_cifar10_without_a_network_says_where_to_put_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", raising(URLError("no route to host")))
    message = refusal("cifar10", tmp_path)
    assert str(tmp_path / "cifar-10-python.tar.gz") in message
    assert "c58f30108f718f92721af3b95e74349a" in message  # its md5
    assert "no route to host" in message


def test_a_signal_while_cifar10_is_read_is_not_a_download_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Interrupted(next(iter(runtime.EXIT_SIGNALS)))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", raising(stop))
    with pytest.raises(Interrupted):
        load("cifar10", tmp_path)


def test_the_count_of_cifar10s_training_images() -> None:
    assert datasets.count_train_images("cifar10", None) == 50_000
    assert datasets.count_train_images("cifar10", 5_000) == 5_000
    assert datasets.count_train_images("cifar10", 90_000) == 50_000
