"""Arrays on disk: equal after a round trip, never unpickled, damaged files noticed."""

from __future__ import annotations

import contextlib
import io
import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from common.data import arrays


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.canary,))


def some_arrays() -> arrays.Arrays:
    return {
        "labels": np.arange(6).reshape(2, 3),
        "scores": np.array([0.1, np.nan, -np.inf], dtype=np.float32),
        "is_pie": np.array([True, False]),
        "name": np.array("digits"),
        "classes": np.array(["zero", "one", "zwölf"]),
        "nothing": np.zeros((0, 4)),
        "transposed": np.arange(12.0).reshape(3, 4).T,
    }


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.npz"
    arrays.save(path, some_arrays())
    loaded = arrays.load(path)
    assert loaded is not None
    assert loaded.keys() == some_arrays().keys()
    for name, expected in some_arrays().items():
        assert loaded[name].dtype == expected.dtype
        np.testing.assert_array_equal(loaded[name], expected)
    assert [p.name for p in path.parent.iterdir()] == ["a.npz"]


def test_a_missing_file_is_none_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert arrays.load(tmp_path / "missing.npz") is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_none_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float
) -> None:
    path = tmp_path / "a.npz"
    arrays.save(path, some_arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert arrays.load(path) is None
    assert str(path) in capsys.readouterr().err
    assert path.with_name("a.npz.corrupt").exists()


def test_a_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    original = {"scores": np.random.default_rng(0).normal(size=(10, 4))}
    arrays.save(path, original)
    whole = path.read_bytes()
    chance = random.Random(0)
    noticed, differing, escaped = 0, [], []
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                loaded = arrays.load(path)
        except Exception as error:  # any kind: `load` promises None
            escaped.append(f"{type(error).__name__} at byte {position}")
            continue
        noticed += loaded is None
        if loaded is not None and not arrays.same(loaded, original):
            differing.append(position)
    assert not differing
    assert not escaped
    assert noticed > len(whole) / 2


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    path, canary = tmp_path / "a.npz", tmp_path / "canary"
    bomb = Bomb(canary)
    np.savez(path, labels=np.array([bomb], dtype=object))
    assert arrays.load(path) is None
    path.write_bytes(pickle.dumps(bomb))
    assert arrays.load(path) is None
    assert not canary.exists()
    pickle.loads((tmp_path / "a.npz.2.corrupt").read_bytes())  # noqa: S301 - the bomb does work
    assert canary.exists()


def test_a_failing_write_leaves_the_previous_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    arrays.save(path, some_arrays())

    def half(file: Path, **_: np.ndarray) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(OSError, match="No space left"):
        arrays.save(path, {"labels": np.zeros(3)})
    assert arrays.same(arrays.load(path), some_arrays())
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_what_cannot_be_read_back_does_not_replace_the_previous_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    arrays.save(path, some_arrays())
    garbage = lambda file, **_: Path(file).write_bytes(b"PK garbage")  # noqa: E731
    monkeypatch.setattr(np, "savez_compressed", garbage)
    with contextlib.suppress(Exception):  # how it says so is not the point
        arrays.save(path, {"labels": np.zeros(3)})
    assert arrays.same(arrays.load(path), some_arrays())


def test_objects_are_not_stored(tmp_path: Path) -> None:
    """They would be pickled, and `load` would refuse them for ever."""
    path = tmp_path / "a.npz"
    arrays.save(path, some_arrays())
    with contextlib.suppress(Exception):
        arrays.save(path, {"ragged": np.array([[1], [1, 2]], dtype=object)})
    assert arrays.same(arrays.load(path), some_arrays())


def test_same() -> None:
    a = some_arrays()
    assert arrays.same(some_arrays(), a)
    assert not arrays.same(None, a)
    assert not arrays.same({}, a)
    assert arrays.same({}, {})
    changes = {
        "labels": [a["labels"] + 1, a["labels"].T, a["labels"].astype(np.int32)],
        "scores": [np.array([0.1, 0.0, -np.inf], dtype=np.float32), a["scores"][:2]],
        "classes": [np.array(["zero", "one", "elf"])],
    }
    for name, others in changes.items():
        for other in others:
            assert not arrays.same(a | {name: other}, a)
            assert not arrays.same(a, a | {name: other})
    assert not arrays.same({k: v for k, v in a.items() if k != "name"}, a)
    assert not arrays.same(a | {"more": np.zeros(1)}, a)
