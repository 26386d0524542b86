"""Files and flags that nobody thought of: each is read, or refused in one line.

FAULT_FUZZ: so many examples a test, other ones at every run; else a few, always the same.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from places import DENSE, GMP, ONE_SHOT, Place, rewrite
from running import Study

from common import options, released_names, study
from common.data import datasets
from common.learning import resumable
from common.model import checkpoints
from common.paths import NetworkFiles
from common.runtime import Damaged, Failure
from common.study import Cell

EXAMPLES = int(os.environ.get("FAULT_FUZZ", "0"))
CPU = torch.device("cpu")
CELLS = st.sampled_from([DENSE, ONE_SHOT, study.dense_cell("SupCon")])


def fuzz(test: Callable[..., None]) -> Callable[..., None]:
    return settings(
        max_examples=EXAMPLES or 30,
        derandomize=not EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )(test)


@pytest.fixture(scope="module")
def networks(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks, whose files a test changes and puts right again."""
    return Path(shutil.copytree(study.models, tmp_path_factory.mktemp("fuzz") / "digits"))


@contextlib.contextmanager
def put_right(path: Path) -> Any:
    """Restore every file in here afterwards, whatever happens to it."""
    original = path.read_bytes()
    try:
        yield original
    finally:
        path.write_bytes(original)


# Bytes


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Cut, insert, drop or repeat bytes, or change a bit, at some places."""
    kinds = st.sampled_from(["cut", "flip", "insert", "drop", "repeat"])
    places = st.tuples(kinds, st.floats(0, 1), st.integers(1, 300), st.binary(min_size=1))
    edits = draw(st.lists(places, min_size=1, max_size=5))

    def damage(data: bytes) -> bytes:
        for how, where, length, new in edits:
            at = int(where * max(len(data) - 1, 0))
            before, after = data[:at], data[at:]
            data = (
                before
                + {
                    "cut": b"",
                    "flip": bytes(byte ^ (1 << length % 8) for byte in after[:1]) + after[1:],
                    "insert": new + after,
                    "drop": after[length:],
                    "repeat": after[:length] + after,
                }[how]
            )
        return data

    return damage


def a_file(networks: Path, cell: Cell, part: int) -> Path:
    """One of the files of a network."""
    files = list(NetworkFiles(networks, cell, 0).parts.values())
    return files[part % len(files)]


@fuzz
@given(cell=CELLS, damage=damages(), part=st.integers(0, 1))
def test_damaged_networks(networks: Path, cell: Cell, damage: Any, part: int) -> None:
    """Whatever happened to its bytes, a network is read exactly as it was saved, or is refused."""
    path, expected = (
        a_file(networks, cell, part),
        checkpoints.load(NetworkFiles(networks, cell, 0), CPU),
    )
    with put_right(path) as original:
        path.write_bytes(damage(original))
        with contextlib.suppress(Damaged):
            found = checkpoints.load(NetworkFiles(networks, cell, 0), CPU)
            assert found.digest == expected.digest
            for name, tensor in expected.network.state_dict().items():
                assert torch.equal(found.network.state_dict()[name], tensor)


@fuzz
@given(damage=damages())
def test_damaged_states(tmp_path_factory: pytest.TempPathFactory, damage: Any) -> None:
    """A state is read exactly as it was saved, or not at all: then training begins anew."""
    place = Place(tmp_path_factory.mktemp("state"))
    state = {"loop": {"step": 1}, "finished": [], "masks": {}, "modules": {"a": torch.ones(50)}}
    resumable.write(NetworkFiles(place.models, GMP, 0), GMP._asdict(), {}, state)
    saved = resumable.read(NetworkFiles(place.models, GMP, 0))
    place.state_path.write_bytes(damage(place.state_path.read_bytes()))
    found = resumable.read_or_set_aside(NetworkFiles(place.models, GMP, 0))
    assert found is None or found["digest"] == saved["digest"]
    assert place.state_path.exists() == (found is not None)


# Contents that verify


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value in nested dicts and lists."""
    items = {dict: dict.items, list: enumerate}.get(type(value), lambda plain: ())
    below = (places_in(item, (*path, key)) for key, item in items(value))
    return [path] * bool(path) + [found for of_item in below for found in of_item]


PLAIN = (
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(max_size=8)
    | st.sampled_from([torch.zeros(0), torch.ones(3, 3), torch.tensor(True), torch.zeros(10, 64)])
    | st.sampled_from([[], {}, [0.5, None], {"a": [torch.ones(1)]}])
)  # fmt: skip


def change(contents: dict[str, Any], where: float, value: Any, drop: bool) -> None:
    """Replace or drop one value anywhere in nested contents."""
    known = places_in(contents)
    *way, last = known[int(where * (len(known) - 1))]
    for key in way:
        contents = contents[key]
    if drop:
        del contents[last]
    else:
        contents[last] = value


@fuzz
@given(cell=CELLS, part=st.integers(0, 1), where=st.floats(0, 1), value=PLAIN, drop=st.booleans())
@example(cell=DENSE, part=0, where=0.0, value=torch.zeros(0), drop=False)
@example(cell=DENSE, part=0, where=0.125, value=None, drop=True)
def test_networks_with_wrong_contents(
    networks: Path, cell: Cell, part: int, where: float, value: Any, drop: bool
) -> None:
    path = a_file(networks, cell, part)
    with put_right(path):
        with contextlib.suppress(TypeError, ValueError):  # there is no digest of such contents
            rewrite(path, lambda contents: change(contents, where, value, drop))
        with contextlib.suppress(Failure):
            found = checkpoints.load(NetworkFiles(networks, cell, 0), CPU)
            assert all(tensor.isfinite().all() for tensor in found.network.parameters())


# Folders of images


def picture(kind: str, mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((9, 7), 60).convert(mode).save(buffer, kind)
    return buffer.getvalue()


KINDS = {"PNG": "LA", "JPEG": "L", "GIF": "P", "TIFF": "RGB", "BMP": "RGB", "WEBP": "RGB"}
PICTURES = [picture(kind, mode) for kind, mode in KINDS.items()]
SUFFIXES = st.sampled_from([*sorted(datasets.IMAGE_SUFFIXES), ".txt"])
CHARACTERS = st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",))
NAMES = st.text(CHARACTERS, min_size=1, max_size=12)


@fuzz
@given(
    classes=st.lists(NAMES, max_size=3, unique=True),
    files=st.lists(
        st.tuples(NAMES, SUFFIXES, st.sampled_from(PICTURES), st.none() | damages()), max_size=4
    ),
    splits=st.sampled_from([("train", "test"), ("train",), ("test",)]),
    limit=st.none() | st.integers(1, 8),
)
def test_folders(
    tmp_path_factory: pytest.TempPathFactory, classes: Any, files: Any, splits: Any, limit: Any
) -> None:
    root = tmp_path_factory.mktemp("folder")
    for folder in (root / split / name for split in splits for name in classes):
        with contextlib.suppress(OSError):  # `.`, `..`, or a name too long for a file
            folder.mkdir(parents=True, exist_ok=True)
            for stem, suffix, data, damage in files:
                path = folder / f"{stem}{suffix}"
                path.write_bytes(damage(data) if damage else data)
    try:
        data = datasets.load_dataset(str(root), Path("unused"), CPU, 16, limit, limit)
    except Failure as failure:
        assert failure.code == 3
    else:
        assert data.train.images.shape[1:] == (3, 16, 16)
        assert data.train.labels.max() < data.n_classes
    finally:
        shutil.rmtree(root)


# Names of released files

PIECES = st.sampled_from(
    ["wideResNet_", "WideResNet_encoder_", "WideResNet_head_", "global_", "_later", "_global",
     "0.9", "0", "1.0", "0.99999999999999999999", "1e3", "pruning", "_205epochs", "_16depth",
     "_0.0dropout", "_id", "3", "03", "٣", "_SupCon_", "SupCon_", "SimCLR_", "_1024batch",
     "_0.5temperature", "_500epochs", ".pt", "..", "\n", "9" * 60]
)  # fmt: skip


@fuzz
@given(names=st.lists(st.lists(PIECES, min_size=1, max_size=14).map("".join), max_size=6))
@example(names=["wideResNet_0.99999999999999999999pruning_205epochs_16depth_0.0dropout_id3.pt"])
@example(names=["wideResNet_0.9pruning_205epochs_16depth_0.0dropout_id٣.pt"])
def test_released_names(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """Whatever files lie there, every network found has a sparsity and an id of its own, and lies
    in the folder."""
    root = tmp_path_factory.mktemp("released")
    for name in names:
        with contextlib.suppress(OSError):
            (root / name).write_bytes(b"")
    for (cell, network_id), files in released_names.networks(root / "cifar10").items():
        assert 0 <= cell.sparsity < 1
        assert 0 <= network_id <= 10**6
        assert not cell.is_dense or cell.sparsity == 0
        assert all(path.parent == root for found in files for path in found.values())
    shutil.rmtree(root)


# Flags

SCRIPTS = (options.training, options.pruning_finetune)
SCRIPTS += (options.pie_detection, options.prediction_depth)
ACTIONS = [action for script in SCRIPTS for action in script("", "SupCon")._actions]
FLAGS = sorted({action.option_strings[0] for action in ACTIONS if action.dest != "help"})
ODD = ["", "0.5,0.9", "GMP,global", "digits", "paper", "nan", "1_0", "../x", "-0", "٣", "9" * 5000]
VALUES = (
    st.text(max_size=12) | st.integers(-2, 10**7).map(str) | st.floats().map(str)
    | st.sampled_from(ODD)
)  # fmt: skip
# A flag, its value, and whether an equals sign joins them.
GIVEN = st.tuples(st.sampled_from(FLAGS), st.none() | VALUES, st.booleans())


@fuzz
@given(
    script=st.sampled_from(SCRIPTS),
    learner=st.sampled_from(list(study.LEARNERS)),
    flags=st.lists(GIVEN, max_size=5),
    more=st.lists(st.text(max_size=6), max_size=2),
)
@example(script=options.training, learner="SupCon", flags=[], more=["--x\ny"])
def test_flags(script: Any, learner: str, flags: Any, more: list[str]) -> None:
    argv = list(more)
    for flag, value, joined in flags:
        argv += [flag] if value is None else [f"{flag}={value}"] if joined else [flag, value]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            args = script("What it does.", learner).parse_args(argv)
    except SystemExit as end:
        assert end.code == 2 or (end.code == 0 and {"-h", "--help"} & set(argv))
        assert len(said.getvalue().splitlines()) == said.getvalue().count("\n") == (end.code == 2)
    else:
        assert args.models_number > 0
        assert all(math.isfinite(v) for v in args.recipe.values() if isinstance(v, float))
        assert all(0 <= s < 1 for s in args.pruning_percentages or ())
