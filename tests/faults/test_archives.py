"""F29 to F31: archives of CIFAR-10 that are damaged or hostile, or that two processes unpack."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import shutil
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets.utils as utils
from faulty import Child
from places import ONE, Place
from torchvision.datasets import CIFAR10

from common.data.named import CIFAR10_CLASSES

fault, slow = pytest.mark.fault, pytest.mark.slow
TRAIN = (
    *("sup_training.py", "--cuda_device", "-1", "--preset", "digits", "--epochs", "1"),
    *("--batch_size", "50", *ONE),
)


def cifar(folder: Path) -> tuple[Path, dict[str, str]]:
    """An archive like CIFAR-10's with fewer images, and the checksums of its parts by name."""
    rng, labels = np.random.default_rng(0), [*range(10)] * 2
    parts: dict[str, dict[str, object]] = {
        name: {"data": rng.integers(0, 256, (20, 3072), np.uint8), "labels": labels}
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    }
    parts["batches.meta"] = {"label_names": [*CIFAR10_CLASSES]}
    archive, md5s = folder / "served.tar.gz", {}
    with tarfile.open(archive, "w:gz") as file:
        for name, contents in parts.items():
            data = pickle.dumps(contents)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
            md5s[name] = hashlib.md5(data).hexdigest()
    return archive, md5s | {"archive": hashlib.md5(archive.read_bytes()).hexdigest()}


def serve(archive: Path, md5s: dict[str, str], log: Path) -> None:
    """Serve this archive in place of the download; a log counts the extractions."""
    CIFAR10.tgz_md5 = md5s["archive"]
    CIFAR10.train_list = [[name, md5s[name]] for name, _ in CIFAR10.train_list]
    CIFAR10.test_list = [[name, md5s[name]] for name, _ in CIFAR10.test_list]
    CIFAR10.meta = CIFAR10.meta | {"md5": md5s["batches.meta"]}
    utils._get_redirect_url = lambda url, max_hops: url
    utils._urlretrieve = lambda url, path: shutil.copy(archive, path)
    extract = utils.extract_archive

    def counted(*args: Any, **kwargs: Any) -> Any:
        with log.open("a") as file:
            file.write("extracted\n")
        return extract(*args, **kwargs)

    utils.extract_archive = counted


@slow
@fault("F29", "two processes prepare the data set at once", "one extracts, both read it")
def test_two_prepare_the_data(place: Place, tmp_path: Path) -> None:
    fault = partial(serve, *cifar(tmp_path), tmp_path / "extractions")
    children = [Child(place.folder, *TRAIN, "--index_start", i, faults=(fault,)) for i in "01"]
    assert [child.ended().code for child in children] == [0, 0]
    assert (tmp_path / "extractions").read_text() == "extracted\n"
    assert len(list((place.folder / "models" / "cifar10").glob("*.pt"))) == 2


@pytest.mark.slow
@fault("F30", "a CIFAR-10 batch that is damaged", "exit 3 naming the file; mended by the archive")
def test_a_damaged_batch(place: Place, tmp_path: Path) -> None:
    archive, md5s = cifar(tmp_path)
    with tarfile.open(archive) as file:
        file.extractall(place.folder / "data", filter="data")
    os.truncate(place.folder / "data" / "cifar-10-batches-py" / "data_batch_3", 1000)
    gone, served = (
        partial(serve, path, md5s, tmp_path / "log") for path in (tmp_path / "gone", archive)
    )
    place.assert_refused(TRAIN, 3, "cifar-10-batches-py/data_batch_3", faults=(gone,))
    assert place.run(*TRAIN, faults=(served,)).code == 0


def hostile_archive(path: Path, outside: Path) -> None:
    """An archive whose members would all lie, or point, outside the folder into which it is
    unpacked."""
    with tarfile.open(path, "w:gz") as file:
        for name, kind, target in (
            ("cifar-10-batches-py/../../../outside", tarfile.REGTYPE, ""),
            (str(outside), tarfile.REGTYPE, ""),
            ("cifar-10-batches-py", tarfile.SYMTYPE, str(outside)),
            ("cifar-10-batches-py", tarfile.LNKTYPE, str(outside)),
            ("cifar-10-batches-py/device", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.devmajor, info.devminor = kind, target, 1, 3
            info.size = 4 if kind == tarfile.REGTYPE else 0
            file.addfile(info, io.BytesIO(b"evil"))


@fault("F31", "an archive with ../, an absolute path, links, a device", "refused by its hash")
def test_a_hostile_archive(place: Place, tmp_path: Path) -> None:
    """In place of the download or offered as the download, it is never extracted."""
    _, md5s = cifar(tmp_path)
    archive = place.folder / "data" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    hostile_archive(archive, tmp_path / "outside")
    shutil.copy(archive, tmp_path / "evil.tar.gz")
    for url in ("gone", "evil.tar.gz"):
        offered = partial(serve, tmp_path / url, md5s, tmp_path / "extractions")
        place.assert_refused(TRAIN, 3, archive.name, faults=(offered,), may_change="data/*.tar.gz")
        assert not (tmp_path / "outside").exists()
        assert not (tmp_path / "extractions").exists()
        assert {path.name for path in archive.parent.iterdir()} <= {archive.name, ".cifar10.lock"}
