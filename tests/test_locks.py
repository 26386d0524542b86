"""Locks, where flock works, where it is missing, and where it does nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import threading
import time
from pathlib import Path

import pytest

from common import locks, paths


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lustre without flock."""

    def flock(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)


def left_by(target: Path, host: str, process: int, hours: float) -> Path:
    """A lock file that stands for a lock."""
    lock = paths.lock(target)
    lock.write_text(f"{process}\n{host}\n")
    then = time.time() - hours * 3600
    os.utime(lock, (then, then))
    return lock


def test_a_lock_excludes_and_is_free_again(tmp_path: Path) -> None:
    target = tmp_path / "network"
    with locks.held(target) as mine:
        assert mine
        with locks.held(target, wait=False) as second:
            assert not second
    with locks.held(target, wait=False) as mine:
        assert mine
    assert locks.holder(target) == ""


def test_a_good_file_system_is_not_spoken_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locks.check(tmp_path)
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_without_flock_files_stand_for_locks(
    no_flock: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locks.check(tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert str(tmp_path) in said
    assert "no flock here" in said
    assert list(tmp_path.iterdir()) == []
    with locks.held(tmp_path / "a"), locks.held(tmp_path / "a", wait=False) as second:
        assert not second
        assert f"process {os.getpid()} on {platform.node()} 0.0 hours" in locks.holder(
            tmp_path / "a"
        )


def test_the_lock_of_a_lost_machine_is_named_and_can_be_removed(
    no_flock: None, tmp_path: Path
) -> None:
    target = tmp_path / "network"
    lock = left_by(target, "node7", 123, hours=5)
    with locks.held(target, wait=False) as mine:
        assert not mine
    who = locks.holder(target)
    assert "process 123 on node7 5.0 hours ago" in who
    assert f"remove {lock}" in who
    lock.unlink()
    with locks.held(target, wait=False) as mine:
        assert mine


def test_who_waits_long_says_for_whom(
    no_flock: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(locks, "SECONDS_OF_SILENCE", 0.1)
    lock = left_by(tmp_path / "summary.csv", "node7", 123, hours=2)
    threading.Timer(0.5, lock.unlink).start()
    with locks.held(tmp_path / "summary.csv") as mine:
        assert mine
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "123 on node7 2.0 hours ago" in said


def test_the_lock_of_a_process_that_died_here_is_taken_over(no_flock: None, tmp_path: Path) -> None:
    left_by(tmp_path / "network", platform.node(), 2**22 + 1, hours=1)
    with locks.held(tmp_path / "network") as mine:
        assert mine


def test_locks_that_do_nothing_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    locks.check(tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "locks do nothing here" in said


@pytest.mark.parametrize("option", sorted(locks.LOCAL_LOCKS))
def test_locks_of_one_machine_are_noticed(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/a / ext4 rw 0 0\nhost:/x {tmp_path.resolve()} nfs rw,{option},vers=3 0 0\n"
    )
    monkeypatch.setattr(locks, "MOUNTS", mounts)
    locks.check(tmp_path)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"mounted with {option}: a lock holds on one machine only" in said
    monkeypatch.setattr(locks, "MOUNTS", tmp_path / "none")
    locks.check(tmp_path)
    assert capsys.readouterr().err == ""
