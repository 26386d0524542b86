"""Stored networks: equal after a round trip; anything wrong with a file is refused."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import pickle
import platform
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from running import contents
from torch import Tensor, nn

from common.learning import pruning
from common.model import checkpoints, wide_resnet
from common.model.checkpoints import Checkpoint
from common.paths import NetworkFiles
from common.runtime import EXIT_CHECKPOINT, Failure, Interrupted
from common.study import Cell

CPU = torch.device("cpu")
SUPERVISED = Cell("supervised", "global", 0.9)
SUPCON = Cell("SupCon", "GMP", 0.9)
CELLS = (SUPERVISED, SUPCON)
OF_EACH_CELL = pytest.mark.parametrize("cell", CELLS, ids=str)
Modules = dict[str, nn.Module]

RESULTS = {
    "test_accuracy": 0.975,
    "sparsity_by_layer": {"conv1.weight": 0.9},
    "history": [{"stage": "network", "epoch": 0, "loss": 1.25, "train_accuracy": 0.5}],
}
DATA = {"classes": list("0123456789"), "mean": [0.2, 0.5, 0.4], "std": [0.3, 0.25, 0.2]}


def make_modules(cell: Cell, seed: int = 0) -> Modules:
    network = wide_resnet.build(10, 1, 10, 0.0, seed).train()
    with torch.no_grad():  # batch norm sees some images
        network(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(seed)))
    pruning.apply_masks(make_masks(network, cell), wide_resnet.prunable(network))
    # The memory format in which networks are trained.
    modules: Modules = {"network": network.eval().to(memory_format=torch.channels_last)}
    if cell.learner == "SupCon":
        modules["projection"] = wide_resnet.build_projection(64, "mlp", seed)
    return modules


def make_masks(network: nn.Module, cell: Cell) -> dict[str, Tensor]:
    return pruning.magnitude_masks(wide_resnet.prunable(network), cell.sparsity)


def make_config(cell: Cell, **changes: Any) -> dict[str, Any]:
    config = {"model_depth": 10, "widen_factor": 1, "dropout": 0.0, "seed": 3, "begin_step": None}
    return cell._asdict() | config | {"n_classes": 10} | changes


def save(
    models: Path, cell: Cell, network_id: int = 3, modules: Modules | None = None, **config: Any
) -> Modules:
    modules = modules or make_modules(cell)
    masks = make_masks(modules["network"], cell)
    stored = make_config(cell, **config)
    checkpoints.save(NetworkFiles(models, cell, network_id), modules, masks, stored, RESULTS, DATA)
    return modules


def load(models: Path, cell: Cell, network_id: int = 3) -> Checkpoint:
    return checkpoints.load(NetworkFiles(models, cell, network_id), CPU)


def files(models: Path, cell: Cell, network_id: int = 3) -> list[Path]:
    return list(NetworkFiles(models, cell, network_id).parts.values())


def some_images() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (16, 3, 8, 8), generator=generator, dtype=torch.uint8)


@contextlib.contextmanager
def assert_refused(*named: object) -> Iterator[None]:
    """The block ends as Failure with the exit code of checkpoints, in one line with these words."""
    with pytest.raises(Failure) as failure:
        yield
    assert failure.value.code == EXIT_CHECKPOINT
    message = str(failure.value)
    assert "\n" not in message
    for word in named:
        assert str(word) in message


def assert_equal(a: Any, b: Any) -> None:
    """Tensors and plain values of the same types, values and shapes."""
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


@OF_EACH_CELL
def test_round_trip(tmp_path: Path, cell: Cell) -> None:
    """Logits are equal bit for bit, and loading draws no random number."""
    models = tmp_path / "models" / "digits"  # is made
    modules = save(models, cell)
    state = torch.random.get_rng_state()
    found = load(models, cell)
    assert torch.equal(torch.random.get_rng_state(), state)
    images = (some_images().float() / 255).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        before = modules["network"](images, probes=True)
        after = found.network(images, probes=True)
    assert_equal(tuple(after[:2]) + after.probes, tuple(before[:2]) + before.probes)
    assert_equal(dict(found.network.state_dict()), dict(modules["network"].state_dict()))
    assert not found.network.training
    assert_equal(found.masks, make_masks(modules["network"], cell))
    assert_equal((found.config, found.results), (make_config(cell), RESULTS))
    assert_equal(found.data, DATA)
    assert contents(models) == {path.name for path in files(models, cell)}


@pytest.mark.parametrize("kind", ["mlp", "linear", None])
def test_projection_heads_are_rebuilt_as_they_were(tmp_path: Path, kind: str | None) -> None:
    modules: Modules = {"network": make_modules(SUPCON)["network"]}
    if kind:
        modules["projection"] = wide_resnet.build_projection(64, kind, 1)
    save(tmp_path, SUPCON, modules=modules)
    found = load(tmp_path, SUPCON).projection
    if kind is None:
        assert found is None
    else:
        embedding = torch.randn(5, 64)
        assert torch.equal(found(embedding), modules["projection"](embedding))


@OF_EACH_CELL
def test_files_hold_tensors_and_plain_types_only(tmp_path: Path, cell: Cell) -> None:
    """And of a tensor that was cut from a larger one no more than itself."""

    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert all(type(key) is str for key in value)
            value = list(value.values())
        if type(value) is list:
            for part in value:
                check(part)
            return
        assert type(value) in (Tensor, str, int, float, bool, type(None)), type(value)
        if type(value) is Tensor:
            assert value.untyped_storage().nbytes() == value.nbytes

    save(tmp_path, cell)
    for path in files(tmp_path, cell):
        check(torch.load(path, weights_only=True))


def test_the_digest_is_that_of_the_contents(tmp_path: Path) -> None:
    """Equal networks have equal digests, wherever they lie; any difference changes it."""
    modules = save(tmp_path / "a", SUPERVISED)
    changed = copy.deepcopy(modules)
    with torch.no_grad():
        weight = changed["network"].block2.layer[0].conv1.weight
        weight[weight == weight.max()] *= 1 + 2**-23
    save(tmp_path / "b", SUPERVISED)
    save(tmp_path / "c", SUPERVISED, modules=changed)
    save(tmp_path / "d", SUPERVISED, modules=modules, seed=4)
    save(tmp_path / "e", SUPERVISED, 4, modules=modules)
    networks = [("a", 3), ("b", 3), ("c", 3), ("d", 3), ("e", 4)]
    digests = [load(tmp_path / name, SUPERVISED, i).digest for name, i in networks]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


# A network from the path of its file


@pytest.mark.parametrize(
    ("cell", "part"), [(SUPERVISED, "network"), (SUPCON, "encoder"), (SUPCON, "head")]
)
def test_any_file_of_a_network_gives_the_network(tmp_path: Path, cell: Cell, part: str) -> None:
    modules = save(tmp_path, cell)
    path = NetworkFiles(tmp_path, cell, 3).parts[part]
    found = checkpoints.from_path(str(path))
    assert found.digest == load(tmp_path, cell).digest
    assert not found.network.training
    assert_equal((found.config, found.data), (make_config(cell), DATA))
    # `classify` is the forward pass of images as the network saw them.
    images = some_images()
    mean, std = (torch.tensor(DATA[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        expected = modules["network"]((images / 255 - mean) / std).logits.argmax(1)
    assert len(set(expected.tolist())) > 1
    assert torch.equal(found.classify(images), expected)
    assert torch.equal(found.classify(images / 255), expected)


@OF_EACH_CELL
@pytest.mark.parametrize("damage", ["truncated", "missing", "renamed", "unknown name"])
def test_a_file_that_is_no_whole_network_is_refused_and_named(
    tmp_path: Path, cell: Cell, damage: str
) -> None:
    save(tmp_path, cell)
    path = files(tmp_path, cell)[0]
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "missing":
        path.unlink()
    elif damage == "renamed":
        for old, new in zip(files(tmp_path, cell), files(tmp_path, cell, 4), strict=True):
            old.rename(new)
        path = files(tmp_path, cell, 4)[0]
    else:
        path = path.rename(path.with_name("network.pt"))
    with assert_refused(path):
        checkpoints.from_path(path)


@OF_EACH_CELL
def test_files_of_before_data_were_stored_load_but_do_not_classify(
    tmp_path: Path, cell: Cell
) -> None:
    save(tmp_path, cell)
    encoder: dict[str, str] = {}
    for path in files(tmp_path, cell):
        old = checkpoints.read(path)
        del old["data"], old["digest"]
        encoder = {"encoder": checkpoints.write(path, old | encoder)}
    found = checkpoints.from_path(path)
    assert found.data == {}
    assert_equal(found.results, RESULTS)
    with pytest.raises(ValueError, match="mean and std"):
        found.classify(some_images())


# What is known without building a network


@OF_EACH_CELL
def test_describe_tells_what_load_tells_and_reads_an_unchanged_file_once(
    tmp_path: Path, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_read = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal n_read
        n_read += 1
        return real(*args, **kwargs)

    def describe() -> dict[str, Any] | None:
        return checkpoints.describe(NetworkFiles(tmp_path, cell, 3))

    def replace(seed: int) -> None:
        """Also where times say nothing: of the same second, or copied with them."""
        before = [path.stat().st_mtime_ns for path in files(tmp_path, cell)]
        save(tmp_path, cell, modules=make_modules(cell, seed))
        for path, time in zip(files(tmp_path, cell), before, strict=True):
            os.utime(path, ns=(time, time))

    assert describe() is None
    save(tmp_path, cell)
    real = torch.load
    monkeypatch.setattr(torch, "load", counted)
    for seed in (None, 1):
        if seed:
            replace(seed)
        n_read = 0
        described = describe()
        assert described is describe() is not None
        assert n_read == len(files(tmp_path, cell))
        found = load(tmp_path, cell)
        versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
        assert_equal(described["versions"], versions)
        assert described["digest"] == found.digest
        assert_equal((described["config"], described["results"]), (found.config, found.results))
    files(tmp_path, cell)[-1].write_bytes(b"torn")
    with assert_refused(files(tmp_path, cell)[-1]):
        describe()
    files(tmp_path, cell)[0].unlink()
    assert describe() is None


# Files that do not belong together or are not what their name says


@pytest.mark.parametrize("wrong", ["no encoder", "no head", "another head", "another encoder"])
def test_half_a_network_is_refused_and_does_not_count_as_finished(
    tmp_path: Path, wrong: str
) -> None:
    save(tmp_path, SUPCON)
    kind, part = wrong.split()
    if kind == "another":
        save(tmp_path / "b", SUPCON, modules=make_modules(SUPCON, seed=1))
        other = NetworkFiles(tmp_path / "b", SUPCON, 3).parts[part]
        other.replace(NetworkFiles(tmp_path, SUPCON, 3).parts[part])
    else:
        NetworkFiles(tmp_path, SUPCON, 3).parts[part].unlink()
    with assert_refused(files(tmp_path, SUPCON)[0 if wrong == "no encoder" else 1]):
        load(tmp_path, SUPCON)
    assert checkpoints.describe(NetworkFiles(tmp_path, SUPCON, 3)) is None


@OF_EACH_CELL
@pytest.mark.parametrize(
    ("other", "other_id", "key", "n_renamed"),
    [
        ({}, 4, "network_id", 2),
        ({}, 4, "network_id", 1),  # the encoder alone
        ({"sparsity": 0.95}, 3, "sparsity", 2),
        ({"pruning_method": "later_GMP"}, 3, "pruning_method", 2),
    ],
)
def test_files_named_otherwise_than_their_contents_are_refused(
    tmp_path: Path, cell: Cell, other: dict[str, Any], other_id: int, key: str, n_renamed: int
) -> None:
    renamed = cell._replace(**other)
    save(tmp_path, renamed, other_id)
    save(tmp_path, cell)
    pairs = zip(files(tmp_path, cell), files(tmp_path, renamed, other_id), strict=True)
    for old, new in list(pairs)[:n_renamed]:
        old.replace(new)
    for look in (load, lambda *of: checkpoints.describe(NetworkFiles(*of))):
        with assert_refused(key):
            look(tmp_path, renamed, other_id)


@pytest.mark.parametrize(
    "stored",
    [
        {},
        torch.zeros(3),
        {"digest": torch.zeros(3)},
        {"digest": "0" * 32},
        {"digest": "0" * 32, ("a", 1): torch.float32},
        wide_resnet.build(10, 1, 10, 0.0, 0).state_dict(),
        "another architecture",
        "a training state",
    ],
    ids=range(8),
)
def test_other_files_of_torch_are_refused(tmp_path: Path, stored: Any) -> None:
    path = files(tmp_path, SUPERVISED)[0]
    if stored == "another architecture":
        save(tmp_path, SUPERVISED, widen_factor=2)
    elif stored == "a training state":
        checkpoints.write(path, {"config": {}, "modules": {"network": {}}, "masks": {}})
    else:
        torch.save(stored, path)
    with assert_refused(path):
        load(tmp_path, SUPERVISED)


# Damaged files


def test_a_flipped_bit_among_names_and_types_is_refused_or_harmless(tmp_path: Path) -> None:
    """They come first in a file, before the weights."""
    path = tmp_path / "a.pt"
    stored = {
        "sparsity": 0.9,
        "model": {"a.weight": torch.arange(12.0).reshape(4, 3), "steps": torch.tensor(3)},
        "masks": {"a.weight": torch.tensor([[True, False, True]] * 4)},
        "results": {"test_accuracy": 0.5, "history": [{"epoch": 1, "loss": None}]},
    }
    checkpoints.write(path, stored)
    whole, before = path.read_bytes(), checkpoints.read(path)
    chance, n_refused = random.Random(1), 0
    for position in range(900):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch wonders about what it reads
                after = checkpoints.read(path)
        except Failure as failure:
            assert failure.code == EXIT_CHECKPOINT
            assert str(path) in str(failure)
            n_refused += 1
        else:
            assert_equal(after, before)
    assert n_refused > 300


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored["model"]["fc.bias"].__setitem__(0, 1e-40),
        lambda stored: stored["model"]["fc.bias"].__setitem__(9, -0.0),
        lambda stored: stored["masks"]["fc.weight"].logical_not_(),
        lambda stored: stored["results"].update(test_accuracy=0.99),
        lambda stored: stored["results"]["nested"][0]["tensor"].add_(1),
        lambda stored: stored["config"].update(seed=4),
        lambda stored: stored.update(network_id=4),
    ],
    ids=["weight", "sign of zero", "mask", "result", "tensor in a list", "config", "id"],
)
def test_a_changed_value_is_refused(tmp_path: Path, change: Callable[[Any], object]) -> None:
    """Nothing but the digest can know: the file is a perfect archive."""
    save(tmp_path, SUPERVISED)
    path = files(tmp_path, SUPERVISED)[0]
    stored = checkpoints.read(path)
    del stored["digest"]
    stored["results"]["nested"] = [{"tensor": torch.zeros(3)}]
    checkpoints.write(path, stored)
    stored = torch.load(path, weights_only=True)
    change(stored)
    torch.save(stored, path)
    with assert_refused(path, "damaged"):
        checkpoints.read(path)


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.canary,))


@OF_EACH_CELL
def test_a_pickle_bomb_is_refused_and_does_not_go_off(tmp_path: Path, cell: Cell) -> None:
    canary = tmp_path / "canary"
    bomb = Bomb(canary)
    save(tmp_path, cell)
    path = files(tmp_path, cell)[0]
    stored = torch.load(path, weights_only=True)
    archive, old_format = io.BytesIO(), io.BytesIO()
    torch.save(stored | {"config": bomb}, archive)
    torch.save(stored | {"config": bomb}, old_format, _use_new_zipfile_serialization=False)
    for bytes_ in (archive.getvalue(), old_format.getvalue(), pickle.dumps(bomb, protocol=2)):
        path.write_bytes(bytes_)
        for look in (load, lambda *of: checkpoints.describe(NetworkFiles(*of, 3))):
            with assert_refused(path):
                look(tmp_path, cell)
    assert not canary.exists()
    torch.load(io.BytesIO(archive.getvalue()), weights_only=False)
    assert canary.exists()  # the bomb does work


@pytest.mark.parametrize("error", [Interrupted(signal.SIGTERM), MemoryError()], ids=repr)
def test_a_signal_or_a_lack_of_memory_while_a_file_is_read_is_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Else the user would be told to remove a good network."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    save(tmp_path, SUPERVISED)
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(type(error)):
        load(tmp_path, SUPERVISED)


# What is never written, and writes that fail


real_write = Path.write_bytes


def full_disk(path: Path, _: memoryview) -> None:
    real_write(path, b"the first half")
    raise OSError(28, "No space left on device")


def half(path: Path, data: memoryview) -> None:
    real_write(path, data[: len(data) // 2])


def one_bit_wrong(path: Path, data: memoryview) -> None:
    written = bytearray(data)
    written[len(written) // 2] ^= 1
    real_write(path, written)


@pytest.mark.parametrize("broken_write", [full_disk, half, one_bit_wrong])
def test_a_write_that_fails_leaves_the_previous_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_write: Callable[..., None]
) -> None:
    save(tmp_path, SUPERVISED)
    path = files(tmp_path, SUPERVISED)[0]
    before = path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises((OSError, Failure)):
        patch.setattr(Path, "write_bytes", broken_write)
        save(tmp_path, SUPERVISED, modules=make_modules(SUPERVISED, seed=1))
    assert path.read_bytes() == before
    assert contents(tmp_path) == {path.name}


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3),
        torch.zeros(0, 4),
        torch.arange(6).reshape(2, 3).T,
        torch.tensor([True, False]),
        torch.tensor([1.5, -0.0], dtype=torch.bfloat16),
        torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.tensor([torch.nan, 1.0]),
        torch.ones(3, requires_grad=True),
    ],
    ids=["scalar", "empty", "transposed", "bool", "bf16", "channels last", "nan", "grad"],
)
def test_tensors_of_every_kind_survive(tmp_path: Path, tensor: Tensor) -> None:
    path = tmp_path / "a.pt"
    digest = checkpoints.write(path, {"values": [tensor, None, "text"]})
    stored = checkpoints.read(path)
    assert stored["digest"] == digest
    found = stored["values"][0]
    assert found.dtype == tensor.dtype
    assert torch.equal(found.nan_to_num(7), tensor.nan_to_num(7))
