"""Files are replaced whole or not at all; arrays are never unpickled, and damage is noticed."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from running import contents

from common import files
from common.files import Arrays
from common.runtime import Failure


def write(text: str) -> Callable[[Path], object]:
    return lambda temporary: temporary.write_text(text)


def refuse_renames(patch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(self))

    patch.setattr(Path, "replace", refuse)


# Replacing a file


def test_the_check_sees_what_was_written_before_it_is_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"  # its folders are made
    seen = []

    def check(temporary: Path) -> None:
        old = path.read_text() if path.exists() else None
        seen.append((temporary.read_text(), old, temporary.parent, temporary.suffix))

    for text in ("old", "new"):
        files.replace(path, write(text), check)
        assert path.read_text() == text
    assert seen == [("old", None, path.parent, ".txt"), ("new", "old", path.parent, ".txt")]
    assert contents(path.parent) == {"file.txt"}


@pytest.mark.parametrize("step", ["write", "half-way", "check", "rename"])
@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_the_old_file_survives_a_failure(
    step: str, error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise error

    def failing_write(temporary: Path) -> None:
        temporary.write_text("ne" if step == "half-way" else "new")
        if step in ("write", "half-way"):
            fail()

    if step == "rename":
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(error):
        files.replace(path, failing_write, fail if step == "check" else None)
    assert path.read_text() == "old"
    assert contents(tmp_path) == {"file.txt"}


def test_a_file_is_flushed_to_the_disk_before_it_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut may leave an empty file under the final name."""
    path = tmp_path / "file.txt"
    steps = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        steps.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def recorded_replace(self: Path, target: Path) -> Path:
        steps.append("moved")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    files.replace(path, write("new"))
    assert steps[1:] == ["moved", str(tmp_path)]
    assert Path(steps[0]).parent == tmp_path


# Folders and logs that cannot be written


def test_check_writable_makes_the_folder_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "a" / "b")
    assert contents(tmp_path) == {"a", "a/b"}


def test_check_writable_refuses_a_folder_below_a_file_and_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    (tmp_path / "file").write_text("old")
    with pytest.raises(Failure, match="file/models: cannot write") as refused:
        files.check_writable(tmp_path / "file" / "models")
    assert refused.value.code == 7
    assert (tmp_path / "file").read_text() == "old"
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Failure, match="No space left on device") as refused:
        files.check_writable(tmp_path)
    assert refused.value.code == 7


def test_a_log_has_one_json_line_a_record(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "net.jsonl"
    records = [{"epoch": epoch, "loss": random.Random(epoch).random()} for epoch in range(3)]
    for record in records:
        files.append_log(path, record)
    assert [json.loads(line) for line in path.read_text().splitlines()] == records
    with path.open("a") as log:
        log.write('{"epoch": 3, "lo')  # killed
    assert files.read_log(path) == records
    assert files.read_log(tmp_path / "none.jsonl") == []


def test_a_log_that_cannot_be_written_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("a file")
    for path in (tmp_path / "logs" / "net.jsonl", Path("/dev/full")):
        files.append_log(path, {"epoch": 0})
        assert f"log not written: {path}" in capsys.readouterr().err


# Damaged files


def test_damaged_files_are_set_aside_each_under_a_free_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a\n.npz"
    for text, aside in (("torn", "a\n.npz.corrupt"), ("again", "a\n.npz.2.corrupt")):
        path.write_text(text)
        files.set_aside(path, "damaged")
        assert (tmp_path / aside).read_text() == text
        shown = capsys.readouterr().err
        assert shown.endswith(f"damaged; kept as {aside.replace(chr(10), chr(92) + 'n')}\n")
        assert shown.count("\n") == 1
    files.set_aside(path, "damaged")  # by another process, in between
    assert capsys.readouterr().err == ""
    assert contents(tmp_path) == {"a\n.npz.corrupt", "a\n.npz.2.corrupt"}


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_who_may_only_read_leaves_a_damaged_file_and_goes_on(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.npz"
    path.write_text("torn")
    refuse_renames(monkeypatch, code)
    assert files.load_arrays(path) is None
    assert path.read_text() == "torn"
    shown = capsys.readouterr().err
    assert f"not renamed ({os.strerror(code)})" in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), MemoryError()], ids=repr)
def test_trouble_while_a_file_is_read_or_renamed_is_not_damage(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trouble(*_: object, **__: object) -> None:
        raise error

    path = tmp_path / "a.npz"
    files.save_arrays(path, some_arrays())
    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(np, "load", trouble)
        files.load_arrays(path)
    assert contents(tmp_path) == {"a.npz"}
    refuse_renames(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        files.set_aside(path, "damaged")


# Text and tables


def test_a_text_that_says_the_same_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a" / "text"
    files.write_text(path, "Vögel\n")
    os.utime(path, ns=(1, 1))
    files.write_text(path, "Vögel\n")
    assert path.stat().st_mtime_ns == 1
    files.write_text(path, "Vögel")
    assert path.read_bytes() == "Vögel".encode()
    assert path.stat().st_mtime_ns != 1


def test_a_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    assert files.read_csv(path) == []
    files.write_csv(path, [["a", "b"], ['dog, "big"', None], ["two\nlines", 1.5], ["Vögel", 0]])
    lines = [["a", "b"], ['dog, "big"', ""], ["two\nlines", "1.5"], ["Vögel", "0"]]
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == lines
    assert files.read_csv(path) == [dict(zip("ab", line, strict=True)) for line in lines[1:]]


# Arrays


def some_arrays() -> Arrays:
    return {
        "labels": np.arange(6).reshape(2, 3),
        "scores": np.array([0.1, np.nan, -np.inf], dtype=np.float32),
        "is_pie": np.array([True, False]),
        "name": np.array("digits"),
        "classes": np.array(["zero", "one", "zwölf"]),
        "nothing": np.zeros((0, 4)),
        "transposed": np.arange(12.0).reshape(3, 4).T,
    }


def test_arrays_survive_a_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "folder" / "a.npz"
    assert files.load_arrays(path) is None  # a missing file, without a word
    files.save_arrays(path, some_arrays())
    loaded = files.load_arrays(path)
    assert loaded is not None
    assert loaded.keys() == some_arrays().keys()
    for name, expected in some_arrays().items():
        assert loaded[name].dtype == expected.dtype
        np.testing.assert_array_equal(loaded[name], expected)
    assert contents(path.parent) == {"a.npz"}
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_none_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float
) -> None:
    path = tmp_path / "a.npz"
    files.save_arrays(path, some_arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert files.load_arrays(path) is None
    assert str(path) in capsys.readouterr().err
    assert contents(tmp_path) == {"a.npz.corrupt"}


def test_a_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    original = {"scores": np.random.default_rng(0).normal(size=(10, 4))}
    files.save_arrays(path, original)
    whole = path.read_bytes()
    chance = random.Random(0)
    noticed = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        with contextlib.redirect_stderr(io.StringIO()):
            loaded = files.load_arrays(path)  # raises nothing, whatever the archive's layers do
        noticed += loaded is None
        assert loaded is None or files.same_arrays(loaded, original), f"byte {position}"
    assert noticed > len(whole) / 2


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.canary,))


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    path, canary = tmp_path / "a.npz", tmp_path / "canary"
    bomb = Bomb(canary)
    np.savez(path, labels=np.array([bomb], dtype=object))
    assert files.load_arrays(path) is None
    path.write_bytes(pickle.dumps(bomb))
    assert files.load_arrays(path) is None
    assert not canary.exists()
    pickle.loads((tmp_path / "a.npz.2.corrupt").read_bytes())  # noqa: S301 - the bomb does work
    assert canary.exists()


def half(file: Path, **_: np.ndarray) -> None:
    Path(file).write_bytes(b"half")
    raise OSError(28, "No space left on device")


def garbage(file: Path, **_: np.ndarray) -> None:
    Path(file).write_bytes(b"PK garbage")


@pytest.mark.parametrize("broken_save", [half, garbage, None])
def test_what_cannot_be_read_back_does_not_replace_the_previous_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_save: Callable[..., None] | None
) -> None:
    """A full disk, an archive that is none, and objects, which would have to be pickled."""
    path = tmp_path / "a.npz"
    files.save_arrays(path, some_arrays())
    unreadable = np.array([[1], [1, 2]], dtype=object)
    if broken_save is not None:
        monkeypatch.setattr(np, "savez_compressed", broken_save)
        unreadable = np.zeros(3)
    with pytest.raises((OSError, ValueError)):
        files.save_arrays(path, {"new": unreadable})
    assert files.same_arrays(files.load_arrays(path), some_arrays())
    assert contents(tmp_path) == {"a.npz"}


def test_the_same_arrays() -> None:
    a = some_arrays()
    assert files.same_arrays(some_arrays(), a)
    assert files.same_arrays({}, {})
    assert not files.same_arrays(None, a)
    changes = {
        "labels": [a["labels"] + 1, a["labels"].T, a["labels"].astype(np.int32)],
        "scores": [np.array([0.1, 0.0, -np.inf], dtype=np.float32), a["scores"][:2]],
        "classes": [np.array(["zero", "one", "elf"])],
    }
    others = [a | {name: other} for name, values in changes.items() for other in values]
    others += [{}, {k: v for k, v in a.items() if k != "name"}, a | {"more": np.zeros(1)}]
    for other in others:
        assert not files.same_arrays(other, a)
        assert not files.same_arrays(a, other)
