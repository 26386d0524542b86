"""Named data sets against scikit-learn and PIL; missing and damaged archives are named."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from loading import Pixels, cut, load, noise, refusal, remove
from PIL import Image
from sklearn.datasets import load_digits

from common import runtime
from common.data.datasets import Dataset
from common.runtime import Interrupted

# The handwritten digits


def test_digits_have_the_documented_shape(digits: Dataset) -> None:
    assert (digits.name, digits.n_classes) == ("digits", 10)
    assert digits.classes == tuple("0123456789")
    for split, n in ((digits.train, 1297), (digits.test, 500)):
        assert len(split) == n
        assert split.images.shape == (n, 3, 8, 8)
        assert (split.images.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
        assert split.labels.shape == (n,)
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


# Archives that torchvision downloads, unpacks and checks

N_CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10}
CIFARS = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
ARCHIVES = {
    "cifar10": {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
    "cifar100": {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"},
    "svhn": {
        "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    },
}
IN_EACH = pytest.mark.parametrize("name", ARCHIVES)


def pixels_and_labels(name: str, split: str) -> tuple[Pixels, np.ndarray]:
    """Images [N,32,32,3] and their labels: two of each class to train, one to test."""
    n = N_CLASSES[name] * (2 if split == "train" else 1)
    return noise((n, 32, 32, 3), n), np.arange(n)[::-1] % N_CLASSES[name]


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def put_svhn(data_dir: Path, patch: pytest.MonkeyPatch) -> None:
    lists = {}
    for split in ("train", "test"):
        images, labels = pixels_and_labels("svhn", split)
        path = data_dir / f"{split}_32x32.mat"
        matrix = {
            "X": images.transpose(1, 2, 3, 0),
            "y": np.where(labels == 0, 10, labels)[:, None],
        }
        scipy.io.savemat(path, matrix)
        lists[split] = ["http://somewhere", path.name, md5(path)]
    patch.setattr(torchvision.datasets.SVHN, "split_list", lists)


def put_cifar(name: str, data_dir: Path, patch: pytest.MonkeyPatch) -> None:
    source = CIFARS[name]
    batches, key = data_dir / source.base_folder, "fine_labels" if name == "cifar100" else "labels"
    batches.mkdir()
    for split, files in (("train", source.train_list), ("test", source.test_list)):
        images, labels = pixels_and_labels(name, split)
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        parts = zip(
            np.array_split(rows, len(files)), np.array_split(labels, len(files)), strict=True
        )
        for (file, _), (data, of_part) in zip(files, parts, strict=True):
            batch = {"data": data, key: of_part.tolist()}
            (batches / file).write_bytes(pickle.dumps(batch))
        listed = [[file, md5(batches / file)] for file, _ in files]
        patch.setattr(source, f"{split}_list", listed)
    meta = batches / source.meta["filename"]
    meta.write_bytes(pickle.dumps({source.meta["key"]: class_names(name)}))
    patch.setattr(source, "meta", source.meta | {"md5": md5(meta)})
    archive = data_dir / source.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(batches, source.base_folder)
    shutil.rmtree(batches)
    patch.setattr(source, "tgz_md5", md5(archive))


def class_names(name: str) -> list[str]:
    return {
        "cifar10": [
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ],
        "cifar100": [f"class {i}" for i in range(100)],
        "svhn": list("0123456789"),
    }[name]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, on a machine without a network."""

    def offline(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.datasets.utils, "_get_redirect_url", offline)
    monkeypatch.setattr(torchvision.datasets.utils, "_urlretrieve", offline)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def put(name: str, data_dir: Path, patch: pytest.MonkeyPatch) -> None:
    """Put archives in place as torchvision expects them, with few images and valid checksums."""
    if name == "svhn":
        put_svhn(data_dir, patch)
    else:
        put_cifar(name, data_dir, patch)


@IN_EACH
def test_archives_are_read_with_labels_and_class_names(
    name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(name, data_dir, monkeypatch)
    for _ in range(2):  # the second time from what was unpacked
        data = load(name, data_dir)
        assert (data.name, data.n_classes) == (name, N_CLASSES[name])
        assert list(data.classes) == class_names(name)
        for split in ("train", "test"):
            pixels, labels = pixels_and_labels(name, split)
            found = getattr(data, split)
            np.testing.assert_array_equal(found.images.numpy(), pixels.transpose(0, 3, 1, 2))
            assert found.labels.tolist() == labels.tolist()


@IN_EACH
@pytest.mark.parametrize("image_size", [8, 24, 48])
def test_images_are_resized_once_as_pil_does_it(
    name: str, image_size: int, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(name, data_dir, monkeypatch)
    data = load(name, data_dir, image_size=image_size)
    square = (image_size, image_size)
    for split in (data.train, data.test):
        pixels, _ = pixels_and_labels(name, "train" if split is data.train else "test")
        resized = [Image.fromarray(image).resize(square, Image.BILINEAR) for image in pixels]
        expected = np.stack([np.asarray(image).transpose(2, 0, 1) for image in resized])
        np.testing.assert_array_equal(split.images.numpy(), expected)
    mean = data.train.images.double().mean((0, 2, 3)) / 255  # of the images as they are now
    torch.testing.assert_close(data.mean.double(), mean)
    assert data.train.digest != load(name, data_dir).train.digest


@IN_EACH
def test_without_a_network_it_is_said_what_to_put_where(name: str, data_dir: Path) -> None:
    message = refusal(name, data_dir)
    assert message.startswith(f"{name} is neither in {data_dir}")
    assert "no route to host" in message
    for archive, checksum in ARCHIVES[name].items():
        assert f"{archive} (md5 {checksum}) at {data_dir / archive}" in message
    assert "damaged" not in message


@pytest.mark.parametrize(
    ("name", "file", "is_unpacked"),
    [
        ("cifar10", "cifar-10-python.tar.gz", False),
        ("cifar10", "cifar-10-batches-py/data_batch_3", True),
        ("cifar10", "cifar-10-batches-py/batches.meta", True),
        ("cifar100", "cifar-100-python.tar.gz", False),
        ("cifar100", "cifar-100-python/test", True),
        ("cifar100", "cifar-100-python/meta", True),
        ("svhn", "test_32x32.mat", False),
    ],
)
@pytest.mark.parametrize("damage", [cut, remove])
def test_damaged_and_missing_files_are_named(
    name: str,
    file: str,
    is_unpacked: bool,
    damage: Callable[[Path], None],
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(name, data_dir, monkeypatch)
    if is_unpacked:
        load(name, data_dir)
        remove(*data_dir.glob("*.tar.gz"))
    damage(data_dir / file)
    message = refusal(name, data_dir)
    assert message.partition("put ")[0].count(str(data_dir / file)) == (
        damage is cut or is_unpacked or name == "svhn"
    )


@IN_EACH
@pytest.mark.parametrize(
    "error", [Interrupted(next(iter(runtime.EXIT_SIGNALS))), MemoryError()], ids=repr
)
def test_a_signal_or_a_lack_of_memory_is_not_a_download_that_failed(
    name: str, error: BaseException, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets.utils, "check_integrity", stop)
    for module in (torchvision.datasets.cifar, torchvision.datasets.svhn):
        monkeypatch.setattr(module, "check_integrity", stop)
    with pytest.raises(type(error)):
        load(name, data_dir)
