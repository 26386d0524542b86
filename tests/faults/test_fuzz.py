"""Files and flags that nobody thought of: every one is read, or refused in one line.

FAULT_FUZZ: so many examples a loader, other ones at every run; a few, always the same, in CI.
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

from common import options, paths
from common.data import datasets
from common.experiments import population
from common.learning import resumable
from common.model import checkpoints
from common.paths import Cell
from common.runtime import Damaged, Failure

EXAMPLES = int(os.environ.get("FAULT_FUZZ", "0"))
CPU = torch.device("cpu")
DENSE, ONE_SHOT = Cell("supervised", "dense", 0.0), Cell("supervised", "global", 0.9)
SUPCON = Cell("SupCon", "dense", 0.0)


def fuzz(test: Callable[..., None]) -> Callable[..., None]:
    return settings(
        max_examples=EXAMPLES or 40,
        derandomize=not EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )(test)


@pytest.fixture(scope="module")
def networks(study_of_two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks that may be changed and are put right again."""
    folder = tmp_path_factory.mktemp("fuzz") / "digits"
    shutil.copytree(study_of_two / "models" / "digits", folder)
    return folder


# Bytes


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Cut, change, insert, repeat or drop bytes at some places."""
    edits = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["cut", "flip", "set", "insert", "drop", "repeat"]),
                st.floats(0, 1),
                st.integers(1, 300),
                st.binary(min_size=1, max_size=40),
            ),
            min_size=1,
            max_size=5,
        )
    )

    def damage(data: bytes) -> bytes:
        for how, where, length, new in edits:
            at = int(where * max(len(data) - 1, 0))
            data = {
                "cut": data[:at],
                "flip": data[:at] + bytes(b ^ (1 << length % 8) for b in data[at : at + 1])
                + data[at + 1 :],
                "set": data[:at] + new + data[at + len(new) :],
                "insert": data[:at] + new + data[at:],
                "drop": data[:at] + data[at + length :],
                "repeat": data[: at + length] + data[at:],
            }[how]  # fmt: skip
        return data

    return damage


CELLS = st.sampled_from([DENSE, ONE_SHOT, SUPCON])


@fuzz
@given(cell=CELLS, damage=damages(), part=st.integers(0, 1))
def test_damaged_networks(networks: Path, cell: Cell, damage: Any, part: int) -> None:
    """Whatever happened to its bytes, a network is the one that was saved, or it is refused."""
    files = list(paths.checkpoints(networks, cell, 0).values())
    path = files[part % len(files)]
    expected = checkpoints.load(networks, cell, 0, CPU)
    original = path.read_bytes()
    try:
        path.write_bytes(damage(original))
        with contextlib.suppress(Damaged):
            found = checkpoints.load(networks, cell, 0, CPU)
            assert found.digest == expected.digest
            for name, tensor in expected.network.state_dict().items():
                assert torch.equal(found.network.state_dict()[name], tensor)
    finally:
        path.write_bytes(original)


# Contents that verify


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [path] * bool(path) + [
        found for key, item in items for found in places_in(item, (*path, key))
    ]


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([torch.zeros(0), torch.ones(3, 3), torch.tensor(True), torch.zeros(10, 64)]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


def change(contents: dict[str, Any], where: float, value: Any, drop: bool) -> None:
    """Replace or drop one value, anywhere in it."""
    known = places_in(contents)
    *way, last = known[int(where * (len(known) - 1))]
    for key in way:
        contents = contents[key]
    if drop:
        del contents[last]
    else:
        contents[last] = value


def sealed(path: Path, contents: dict[str, Any]) -> None:
    """As no accident can: with the digest of the wrong contents."""
    contents.pop("digest", None)
    checkpoints._dump(contents | {"digest": checkpoints._digest(contents)}, path)


@fuzz
@given(cell=CELLS, part=st.integers(0, 1), where=st.floats(0, 1), value=PLAIN, drop=st.booleans())
@example(cell=DENSE, part=0, where=0.0, value=torch.zeros(0), drop=False)
@example(cell=DENSE, part=0, where=0.0625, value=torch.zeros(0), drop=False)
@example(cell=DENSE, part=0, where=0.125, value=torch.zeros(0), drop=False)
@example(cell=DENSE, part=0, where=0.125, value=None, drop=False)
@example(cell=DENSE, part=0, where=0.125, value=None, drop=True)
def test_networks_with_wrong_contents(
    networks: Path, cell: Cell, part: int, where: float, value: Any, drop: bool
) -> None:
    files = list(paths.checkpoints(networks, cell, 0).values())
    path = files[part % len(files)]
    original = path.read_bytes()
    contents = checkpoints.read(path)
    change(contents, where, value, drop)
    try:
        sealed(path, contents)
    except (TypeError, ValueError):
        return  # no such file can be sealed
    try:
        with contextlib.suppress(Failure):
            found = checkpoints.load(networks, cell, 0, CPU)
            assert all(tensor.isfinite().all() for tensor in found.network.parameters())
    finally:
        path.write_bytes(original)


@fuzz
@given(damage=damages(), which=st.integers(0, 2))
def test_damaged_states(networks: Path, damage: Any, which: int) -> None:
    """The newest or the one before, or both: what is read is a state that was saved."""
    cell, kept = Cell("supervised", "GMP", 0.5), []
    newest = paths.training_state(networks, cell, 3)
    for step, path in enumerate((paths.previous(newest), newest)):
        state = {
            "network_id": 3,
            "versions": {},
            "loop": {"step": step},
            "finished": [],
            "masks": {},
        }
        state |= {"config": cell._asdict(), "modules": {"a": torch.arange(50.0) + step}}
        checkpoints.write(path, state)
        kept.append(checkpoints.read(path)["digest"])
        if which in (step, 2):
            path.write_bytes(damage(path.read_bytes()))
    found = resumable.read_state(networks, cell, 3)
    assert found is not None or which == 2
    assert found is None or found["digest"] in kept


@fuzz
@given(where=st.floats(0, 1), value=PLAIN, drop=st.booleans())
@example(where=0.5, value=torch.zeros(0), drop=False)
def test_states_with_wrong_contents(networks: Path, where: float, value: Any, drop: bool) -> None:
    cell = Cell("supervised", "GMP", 0.6)
    state = {"network_id": 3, "versions": checkpoints.versions(), "loop": {"step": 5, "stage": "a"}}
    state |= {"finished": [{"stage": "a", "loss": 1.0}], "masks": {"a": torch.ones(3) > 0}}
    state |= {"config": cell._asdict() | {"epochs": 3}, "modules": {"a": {"b": torch.ones(9)}}}
    change(state, where, value, drop)
    try:
        sealed(paths.training_state(networks, cell, 3), state)
    except (TypeError, ValueError):
        return
    with contextlib.suppress(Failure):
        found = resumable.read_state(networks, cell, 3)
        if found is not None:
            assert isinstance(population.differences(found["config"], {"epochs": 4}), str)
            assert isinstance(found["versions"] != checkpoints.versions(), bool)


# Folders of images


def picture(kind: str, mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((9, 7), 60).convert(mode).save(buffer, kind)
    return buffer.getvalue()


PICTURES = [
    picture(kind, mode)
    for kind, mode in (("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("JPEG", "L"), ("GIF", "P"),
                       ("TIFF", "RGB"), ("BMP", "RGB"), ("PPM", "L"), ("WEBP", "RGB"))
]  # fmt: skip
SUFFIXES = sorted(datasets.IMAGE_SUFFIXES)
NAMES = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=12
)


@fuzz
@given(
    classes=st.lists(NAMES, min_size=0, max_size=3, unique=True),
    files=st.lists(
        st.tuples(NAMES, st.sampled_from([*SUFFIXES, ".txt"]), st.sampled_from(PICTURES),
                  st.none() | damages()),
        max_size=4,
    ),
    splits=st.sampled_from([("train", "test"), ("train",), ("test",)]),
    limit=st.none() | st.integers(1, 8),
)  # fmt: skip
def test_folders(
    tmp_path_factory: pytest.TempPathFactory, classes: Any, files: Any, splits: Any, limit: Any
) -> None:
    root = tmp_path_factory.mktemp("folder")
    for split in splits:
        for name in classes:
            with contextlib.suppress(OSError):  # `.`, `..`, or a name too long for a file
                (root / split / name).mkdir(parents=True, exist_ok=True)
                for stem, suffix, data, damage in files:
                    path = root / split / name / f"{stem}{suffix}"
                    path.write_bytes(damage(data) if damage else data)
    try:
        data = datasets.load(str(root), Path("unused"), CPU, limit, limit)
    except Failure as failure:
        assert failure.code == 3
    else:
        assert data.train.images.shape[1:] == (3, 32, 32)
        assert data.train.labels.max() < data.n_classes
    finally:
        shutil.rmtree(root)


# Names and contents of released files

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
    """Whatever lies there, what is found has a sparsity and an id of its own, in the folder."""
    root = tmp_path_factory.mktemp("released")
    for name in names:
        with contextlib.suppress(OSError):
            (root / name).write_bytes(b"")
    for (cell, network_id), files in paths.released_networks(root / "cifar10").items():
        assert 0 <= cell.sparsity < 1
        assert 0 <= network_id <= 10**6
        assert (cell.pruning_method == "dense") == (cell.sparsity == 0) or cell.sparsity == 0
        assert all(path.parent == root for found in files for path in found.values())
    assert isinstance(paths.networks_present(root / "cifar10"), dict)
    shutil.rmtree(root)


RELEASED = "wideResNet_0.9pruning_205epochs_10depth_0.0dropout_id0.pt"


@fuzz
@given(where=st.floats(0, 1), value=PLAIN, drop=st.booleans(), damage=st.none() | damages())
def test_released_files(
    tmp_path_factory: pytest.TempPathFactory, networks: Path, where: float, value: Any, drop: bool,
    damage: Any,
) -> None:  # fmt: skip
    root = tmp_path_factory.mktemp("released")
    contents = checkpoints.read(paths.checkpoints(networks, DENSE, 0)["network"])["model"]
    change(contents, where, value, drop)
    torch.save(contents, root / RELEASED)
    if damage:
        (root / RELEASED).write_bytes(damage((root / RELEASED).read_bytes()))
    with contextlib.suppress(Failure):
        found = checkpoints.load(root / "cifar10", Cell("supervised", "GMP", 0.9), 0, CPU)
        assert all(tensor.isfinite().all() for tensor in found.network.parameters())
    shutil.rmtree(root)


# Flags

SCRIPTS = [
    options.training,
    options.pruning_finetune,
    options.pie_detection,
    options.prediction_depth,
]
FLAGS = sorted(
    {
        action.option_strings[0]
        for script in SCRIPTS
        for action in script("", "SupCon")._actions
        if action.dest != "help"
    }
)
VALUES = (
    st.text(max_size=12)
    | st.integers(-2, 10**7).map(str)
    | st.floats().map(str)
    | st.sampled_from(
        ["", "0.5,0.9", "GMP,global", "digits", "paper", "nan", "1_0", "../x", "-0", "٣"]
    )
)


@fuzz
@given(
    script=st.sampled_from(SCRIPTS),
    learner=st.sampled_from(paths.LEARNERS),
    flags=st.lists(
        st.tuples(st.sampled_from(FLAGS), st.none() | VALUES, st.booleans()), max_size=5
    ),
    more=st.lists(st.text(max_size=6), max_size=2),
)
@example(script=options.training, learner="SupCon", flags=[], more=["--x\ny"])
@example(script=options.training, learner="SupCon", flags=[("--epochs", "9" * 5000, True)], more=[])
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
        assert end.code == 0 or said.getvalue().count("\n") == 1
        assert len(said.getvalue().splitlines()) <= 1
    else:
        assert args.models_number > 0
        assert all(math.isfinite(v) for v in args.recipe.values() if isinstance(v, float))
        assert all(0 <= s < 1 for s in args.pruning_percentages or ())
