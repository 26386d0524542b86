"""Stored networks: equal after a round trip; anything wrong with a file is refused."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import platform
import random
import signal
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common import paths
from common.learning import pruning
from common.model import checkpoints, wide_resnet
from common.model.checkpoints import Checkpoint
from common.paths import Cell
from common.runtime import EXIT_CHECKPOINT, EXIT_NON_FINITE, Failure, Interrupted

CPU = torch.device("cpu")
SUPERVISED = Cell("supervised", "global", 0.9)
SUPCON = Cell("SupCon", "GMP", 0.9)
CELLS = (SUPERVISED, SUPCON)
Modules = dict[str, nn.Module]


def make_modules(cell: Cell, seed: int = 0) -> Modules:
    network = wide_resnet.build(10, 1, 10, 0.0, seed).train()
    with torch.no_grad():  # batch norm sees some images
        network(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(seed)))
    weights = wide_resnet.prunable(network)
    pruning.apply_masks(pruning.magnitude_masks(weights, cell.sparsity), weights)
    modules: Modules = {"network": network.eval()}
    if cell.learner == "SupCon":
        modules["projection"] = wide_resnet.build_projection(64, "mlp", seed)
    return modules


def make_masks(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight != 0 for name, weight in wide_resnet.prunable(network).items()}


def make_config(cell: Cell, **changes: Any) -> dict[str, Any]:
    config = {"model_depth": 10, "widen_factor": 1, "dropout": 0.0, "seed": 3, "begin_step": None}
    config["n_classes"] = 10
    return cell._asdict() | config | changes


RESULTS = {
    "test_accuracy": 0.975,
    "sparsity_by_layer": {"conv1.weight": 0.9},
    "history": [{"stage": "network", "epoch": 0, "loss": 1.25, "train_accuracy": 0.5}],
}


def save(
    models: Path, cell: Cell, network_id: int = 3, modules: Modules | None = None, **config: Any
) -> Modules:
    modules = modules or make_modules(cell)
    masks = make_masks(modules["network"])
    stored = make_config(cell, **config)
    checkpoints.save(models, cell, network_id, modules, masks, stored, RESULTS)
    return modules


def load(models: Path, cell: Cell, network_id: int = 3) -> Checkpoint:
    return checkpoints.load(models, cell, network_id, CPU)


def files(models: Path, cell: Cell, network_id: int = 3) -> list[Path]:
    return list(paths.checkpoints(models, cell, network_id).values())


@contextlib.contextmanager
def refused(*named: object) -> Any:
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


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_round_trip(tmp_path: Path, cell: Cell) -> None:
    models = tmp_path / "models" / "digits"  # is made
    modules = save(models, cell)
    found = load(models, cell)
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        before = modules["network"](images.contiguous(memory_format=torch.channels_last))
        after = found.network(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-5, atol=1e-6)
    assert_equal(dict(found.network.state_dict()), dict(modules["network"].state_dict()))
    assert not found.network.training
    assert_equal(found.masks, make_masks(modules["network"]))
    assert_equal(found.config, make_config(cell))
    assert_equal(found.results, RESULTS)
    if cell.learner == "SupCon":
        assert found.projection is not None
        stored = dict(modules["projection"].state_dict())
        assert_equal(dict(found.projection.state_dict()), stored)
    else:
        assert found.projection is None
    assert sorted(p.name for p in models.iterdir()) == sorted(p.name for p in files(models, cell))


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_logits_are_equal_bit_for_bit(tmp_path: Path, cell: Cell) -> None:
    """Of a network in the memory format in which networks are trained."""
    modules = make_modules(cell)
    modules["network"].to(memory_format=torch.channels_last)
    save(tmp_path, cell, modules=modules)
    images = torch.randn(16, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        before = modules["network"](images, probes=True)
        after = load(tmp_path, cell).network(images, probes=True)
    assert torch.equal(after.logits, before.logits)
    assert torch.equal(after.embedding, before.embedding)
    for a, b in zip(after.probes, before.probes, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_projection_heads_are_rebuilt_as_they_were(tmp_path: Path, kind: str) -> None:
    modules = make_modules(SUPCON) | {"projection": wide_resnet.build_projection(64, kind, 1)}
    save(tmp_path, SUPCON, modules=modules)
    found = load(tmp_path, SUPCON).projection
    embedding = torch.randn(5, 64)
    assert found is not None
    assert torch.equal(found(embedding), modules["projection"](embedding))


def test_a_contrastive_network_need_not_have_a_projection(tmp_path: Path) -> None:
    save(tmp_path, SUPCON, modules={"network": make_modules(SUPCON)["network"]})
    assert load(tmp_path, SUPCON).projection is None


def test_loading_draws_nothing(tmp_path: Path) -> None:
    save(tmp_path, SUPCON)
    state = torch.random.get_rng_state()
    load(tmp_path, SUPCON)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_describe_tells_what_load_tells(tmp_path: Path, cell: Cell) -> None:
    save(tmp_path, cell)
    found = load(tmp_path, cell)
    expected = {
        "config": found.config,
        "results": found.results,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "digest": found.digest,
    }
    described = checkpoints.describe(tmp_path, cell, 3)
    assert described is not None
    assert_equal(described, expected)
    assert checkpoints.describe(tmp_path, cell, 4) is None


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_files_hold_tensors_and_plain_types_only(tmp_path: Path, cell: Cell) -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert all(type(key) is str for key in value)
            value = list(value.values())
        if type(value) is list:
            for part in value:
                check(part)
            return
        assert type(value) in (Tensor, str, int, float, bool, type(None)), type(value)

    save(tmp_path, cell)
    for path in files(tmp_path, cell):
        contents = torch.load(path, weights_only=True)
        assert type(contents) is dict
        check(contents)


def test_the_digest_is_that_of_the_contents(tmp_path: Path) -> None:
    """Equal networks have equal digests, wherever they lie; any difference changes it."""
    modules = save(tmp_path / "a", SUPERVISED)
    save(tmp_path / "b", SUPERVISED)
    digest = load(tmp_path / "a", SUPERVISED).digest
    assert load(tmp_path / "b", SUPERVISED).digest == digest
    with torch.no_grad():
        changed = copy.deepcopy(modules)
        weight = changed["network"].block2.layer[0].conv1.weight
        weight[weight == weight.max()] *= 1 + 2**-23
    save(tmp_path / "c", SUPERVISED, modules=changed)
    save(tmp_path / "d", SUPERVISED, modules=modules, seed=4)
    save(tmp_path / "e", SUPERVISED, 4, modules=modules)
    digests = [
        digest,
        load(tmp_path / "c", SUPERVISED).digest,
        load(tmp_path / "d", SUPERVISED).digest,
        load(tmp_path / "e", SUPERVISED, 4).digest,
    ]
    assert len(set(digests)) == 4


# Files that do not belong together or are not what their name says


def test_a_missing_network_is_refused(tmp_path: Path) -> None:
    for cell in CELLS:
        with refused(files(tmp_path, cell)[0]):
            load(tmp_path, cell)


@pytest.mark.parametrize("part", ["encoder", "head"])
def test_half_a_network_is_refused_and_does_not_count_as_finished(
    tmp_path: Path, part: str
) -> None:
    save(tmp_path, SUPCON)
    paths.checkpoints(tmp_path, SUPCON, 3)[part].unlink()
    with refused():
        load(tmp_path, SUPCON)
    assert checkpoints.describe(tmp_path, SUPCON, 3) is None


def test_encoder_and_head_of_different_networks_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a", SUPCON)
    save(tmp_path / "b", SUPCON, modules=make_modules(SUPCON, seed=1))
    head = paths.checkpoints(tmp_path / "b", SUPCON, 3)["head"]
    head.replace(paths.checkpoints(tmp_path / "a", SUPCON, 3)["head"])
    with refused():
        load(tmp_path / "a", SUPCON)
    assert checkpoints.describe(tmp_path / "a", SUPCON, 3) is None


@pytest.mark.parametrize("cell", CELLS, ids=str)
@pytest.mark.parametrize(
    ("other", "other_id", "key"),
    [
        ({}, 4, "network_id"),
        ({"sparsity": 0.95}, 3, "sparsity"),
        ({"pruning_method": "later_GMP"}, 3, "pruning_method"),
    ],
)
def test_files_named_otherwise_than_their_contents_are_refused(
    tmp_path: Path, cell: Cell, other: dict[str, Any], other_id: int, key: str
) -> None:
    save(tmp_path, cell)
    renamed = cell._replace(**other)
    for old, new in zip(files(tmp_path, cell), files(tmp_path, renamed, other_id), strict=True):
        old.rename(new)
    with refused(key):
        load(tmp_path, renamed, other_id)
    with refused(key):
        checkpoints.describe(tmp_path, renamed, other_id)


def test_an_encoder_alone_with_another_name_is_refused(tmp_path: Path) -> None:
    """The head's contents agree with its name, the encoder's do not."""
    save(tmp_path, SUPCON, 3)
    save(tmp_path, SUPCON, 4)
    files(tmp_path, SUPCON, 3)[0].replace(files(tmp_path, SUPCON, 4)[0])
    with refused("network_id"):
        load(tmp_path, SUPCON, 4)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save(tmp_path, SUPERVISED, widen_factor=2)
    with refused(files(tmp_path, SUPERVISED)[0]):
        load(tmp_path, SUPERVISED)


def test_a_training_state_is_no_network(tmp_path: Path) -> None:
    path = files(tmp_path, SUPERVISED)[0]
    checkpoints.write(path, {"config": {}, "modules": {"network": {}}, "masks": {}})
    with refused(path):
        load(tmp_path, SUPERVISED)


@pytest.mark.parametrize(
    "contents",
    [
        {},
        [],
        torch.zeros(3),
        {"digest": None},
        {"digest": "0" * 32},
        {"digest": torch.zeros(3)},
        {"digest": "0" * 32, "dtype": torch.float32},
        {"digest": "0" * 32, ("a", 1): 1},
        {"digest": "0" * 32, "complex": 1j},
        wide_resnet.build(10, 1, 10, 0.0, 0).state_dict(),
    ],
    ids=lambda contents: type(contents).__name__,
)
def test_other_files_of_torch_are_refused(tmp_path: Path, contents: Any) -> None:
    path = files(tmp_path, SUPERVISED)[0]
    torch.save(contents, path)
    with refused(path):
        load(tmp_path, SUPERVISED)


# Damaged files


def flip(path: Path, positions: Iterable[int], seed: int) -> int:
    """Read the file with one bit flipped, at each position in turn; how often it was refused."""
    whole = path.read_bytes()
    before = checkpoints.read(path)
    chance = random.Random(seed)
    n_refused = 0
    for position in positions:
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
    path.write_bytes(whole)
    return n_refused


def test_a_flipped_bit_anywhere_in_a_network_is_refused_or_harmless(tmp_path: Path) -> None:
    save(tmp_path, SUPERVISED)
    path = files(tmp_path, SUPERVISED)[0]
    size = path.stat().st_size
    chance = random.Random(0)
    n_refused = flip(path, [chance.randrange(size) for _ in range(40)], seed=0)
    assert n_refused > 20  # most bytes are weights
    load(tmp_path, SUPERVISED)


def test_a_flipped_bit_among_names_and_types_is_refused_or_harmless(tmp_path: Path) -> None:
    """They come first in a file, before the weights."""
    path = tmp_path / "a.pt"
    contents = {
        "learner": "supervised",
        "sparsity": 0.9,
        "network_id": 3,
        "model": {"a.weight": torch.arange(12.0).reshape(4, 3), "steps": torch.tensor(3)},
        "masks": {"a.weight": torch.tensor([[True, False, True]] * 4)},
        "results": {"test_accuracy": 0.5, "history": [{"epoch": 1, "loss": None}]},
    }
    checkpoints.write(path, contents)
    assert flip(path, range(900), seed=1) > 300


@pytest.mark.parametrize("cell", CELLS, ids=str)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(tmp_path: Path, cell: Cell, share: float) -> None:
    save(tmp_path, cell)
    for path in files(tmp_path, cell):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with refused(path):
            load(tmp_path, cell)
        with refused(path):
            checkpoints.describe(tmp_path, cell, 3)
        path.write_bytes(whole)
    load(tmp_path, cell)


def test_a_changed_weight_is_refused(tmp_path: Path) -> None:
    """Nothing but the digest can know: the file is a perfect archive."""
    save(tmp_path, SUPERVISED)
    path = files(tmp_path, SUPERVISED)[0]
    for change in (
        lambda contents: contents["model"]["fc.bias"].__setitem__(0, 1e-40),
        lambda contents: contents["model"]["fc.bias"].__setitem__(9, -0.0),
        lambda contents: contents["masks"]["fc.weight"].logical_not_(),
        lambda contents: contents["results"].update(test_accuracy=0.99),
        lambda contents: contents["config"].update(seed=4),
        lambda contents: contents.update(network_id=4),
    ):
        contents = torch.load(path, weights_only=True)
        change(contents)
        other = tmp_path / "other.pt"
        torch.save(contents, other)
        with refused(other, "damaged"):
            checkpoints.read(other)


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.canary,))


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_pickle_bomb_is_refused_and_does_not_go_off(tmp_path: Path, cell: Cell) -> None:
    canary = tmp_path / "canary"
    bomb = Bomb(canary)
    save(tmp_path, cell)
    contents = torch.load(files(tmp_path, cell)[0], weights_only=True)
    archive = io.BytesIO()
    torch.save(contents | {"config": bomb}, archive)
    old_format = io.BytesIO()
    torch.save(contents | {"config": bomb}, old_format, _use_new_zipfile_serialization=False)
    for bytes_ in (archive.getvalue(), old_format.getvalue(), pickle.dumps(bomb, protocol=2)):
        files(tmp_path, cell)[0].write_bytes(bytes_)
        with refused(files(tmp_path, cell)[0]):
            load(tmp_path, cell)
        with refused():
            checkpoints.describe(tmp_path, cell, 3)
    assert not canary.exists()
    torch.load(io.BytesIO(archive.getvalue()), weights_only=False)
    assert canary.exists()  # the bomb does work


def test_a_signal_while_a_file_is_read_is_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the user would be told to remove a good network."""
    save(tmp_path, SUPERVISED)

    def interrupt(*_: Any, **__: Any) -> None:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr(torch, "load", interrupt)
    with pytest.raises(Interrupted):
        load(tmp_path, SUPERVISED)


def test_a_lack_of_memory_while_a_file_is_read_is_not_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, SUPERVISED)

    def exhaust(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", exhaust)
    with pytest.raises(MemoryError):
        load(tmp_path, SUPERVISED)


# What is never written, and writes that fail


@pytest.mark.parametrize(
    ("cell", "module", "name", "value"),
    [
        (SUPERVISED, "network", "block2.layer.0.conv1.weight", torch.inf),
        (SUPERVISED, "network", "block3.layer.0.bn2.running_var", torch.nan),
        (SUPERVISED, "network", "fc.bias", -torch.inf),
        (SUPCON, "network", "conv1.weight", torch.nan),
        (SUPCON, "network", "fc.weight", torch.nan),
        (SUPCON, "projection", "head.2.bias", torch.nan),
    ],
    ids=lambda value: value.learner if isinstance(value, Cell) else None,
)
def test_weights_that_are_not_finite_are_never_stored(
    tmp_path: Path, cell: Cell, module: str, name: str, value: float
) -> None:
    save(tmp_path, cell)
    before = load(tmp_path, cell)
    broken = make_modules(cell, seed=1)
    broken[module].state_dict()[name].view(-1)[5] = value
    with pytest.raises(Failure, match=name) as failure:
        save(tmp_path, cell, modules=broken)
    assert failure.value.code == EXIT_NON_FINITE
    after = load(tmp_path, cell)  # the previous network is still there, and whole
    assert after.digest == before.digest
    assert_equal(dict(after.network.state_dict()), dict(before.network.state_dict()))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        p.name for p in files(tmp_path, cell)
    )


def full_disk(contents: Any, path: Path) -> None:
    path.write_bytes(b"the first half")
    raise OSError(28, "No space left on device")


def half_written(contents: Any, path: Path) -> None:
    archive = io.BytesIO()
    torch.serialization.save(contents, archive)
    path.write_bytes(archive.getvalue()[: len(archive.getvalue()) // 2])


def one_bit_wrong(contents: Any, path: Path) -> None:
    archive = io.BytesIO()
    torch.serialization.save(contents, archive)
    written = bytearray(archive.getvalue())
    written[len(written) // 2] ^= 1
    path.write_bytes(written)


@pytest.mark.parametrize("broken_save", [full_disk, half_written, one_bit_wrong])
def test_a_write_that_fails_leaves_the_previous_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_save: Callable[[Any, Path], None]
) -> None:
    save(tmp_path, SUPERVISED)
    path = files(tmp_path, SUPERVISED)[0]
    before = path.read_bytes()
    contents = {"model": {"weight": torch.arange(100_000.0)}}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_dump", broken_save)
        with pytest.raises((OSError, Failure)):
            checkpoints.write(path, contents)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    checkpoints.write(path, contents)
    assert path.read_bytes() != before


def test_a_rename_that_fails_leaves_the_previous_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, SUPERVISED)
    path = files(tmp_path, SUPERVISED)[0]
    before = path.read_bytes()

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        save(tmp_path, SUPERVISED, modules=make_modules(SUPERVISED, seed=1))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_network_replaces_the_previous_one(tmp_path: Path) -> None:
    for cell in CELLS:
        save(tmp_path, cell)
        other = save(tmp_path, cell, modules=make_modules(cell, seed=1))
        stored = load(tmp_path, cell).network.state_dict()
        assert_equal(dict(stored), dict(other["network"].state_dict()))


@pytest.mark.parametrize("half", [False, True])
def test_a_damaged_copy_of_an_encoder_stops_nothing(
    tmp_path: Path, half: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside a pair that belongs together it is not even read."""
    save(tmp_path, SUPCON)
    encoder = paths.checkpoints(tmp_path, SUPCON, 3)["encoder"]
    before = paths.previous(encoder)
    before.write_bytes(encoder.read_bytes()[:100])
    if half:
        save(tmp_path / "b", SUPCON, modules=make_modules(SUPCON, seed=1))
        paths.checkpoints(tmp_path / "b", SUPCON, 3)["encoder"].replace(encoder)
    checkpoints.settle(tmp_path, SUPCON, 3)
    assert not before.exists()
    aside = before.with_name(f"{before.name}.corrupt")
    assert aside.exists() == half
    assert capsys.readouterr().err.count(aside.name) == half


def test_a_second_file_that_cannot_be_written_does_not_cost_the_previous_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoder and head count as one: both are written, or neither."""
    save(tmp_path, SUPCON)
    digest = load(tmp_path, SUPCON).digest
    calls: list[Path] = []
    real_dump = checkpoints._dump

    def second_fails(contents: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            full_disk(contents, path)
        real_dump(contents, path)

    monkeypatch.setattr(checkpoints, "_dump", second_fails)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, SUPCON, modules=make_modules(SUPCON, seed=1))
    assert load(tmp_path, SUPCON).digest == digest


@pytest.mark.parametrize(
    "nest",
    [lambda t: [t], lambda t: [{"a": t}], lambda t: (t,)],
    ids=["list", "list of dicts", "tuple"],
)
def test_the_digest_covers_tensors_wherever_they_are(
    tmp_path: Path, nest: Callable[[Tensor], Any]
) -> None:
    path = tmp_path / "a.pt"
    checkpoints.write(path, {"values": nest(torch.zeros(3))})
    contents = torch.load(path, weights_only=True)
    torch.save(contents | {"values": nest(torch.ones(3))}, path)
    with refused(path):
        checkpoints.read(path)


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
    contents = checkpoints.read(path)
    assert contents["digest"] == digest
    found = contents["values"][0]
    assert found.dtype == tensor.dtype
    assert torch.equal(found.nan_to_num(7), tensor.nan_to_num(7))
