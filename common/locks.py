"""Locks between processes, on file systems with and without flock.

With flock, the kernel frees a lock when its holder dies; the empty lock file stays, since removing
the file could give two processes the lock. Without flock, a lock is a file that exists while the
lock is held, and a machine that is lost leaves its lock files behind.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from common import paths
from common.runtime import one_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

WITHOUT_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
SECONDS_OF_SILENCE = 10.0
# Mount options of NFS and Lustre that restrict a lock to one machine.
LOCAL_LOCKS = {"nolock", "local_lock=all", "local_lock=flock", "localflock"}
MOUNTS = Path("/proc/self/mounts")


@contextmanager
def held(target: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock that guards `target`. Yields False, without the lock, if another process holds
    it and `wait` is False. After some seconds of waiting, a line names the holder, if known."""
    path = paths.lock(target)
    lock = _kind(path.parent)(path)
    try:
        lock.acquire(timeout=SECONDS_OF_SILENCE if wait else 0)
    except Timeout:
        if not wait:
            yield False
            return
        if who := holder(target):
            print(one_line(f"waiting for the lock of {target}{who}"), file=sys.stderr)
        lock.acquire()
    try:
        yield True
    finally:
        lock.release()


@cache
def _kind(folder: Path) -> type[FileLock | SoftFileLock]:
    """Locks by flock, or by files where the file system lacks flock. The package filelock would
    change to files by itself, but would then remove a lock file of another process too (3.32)."""
    if fcntl is None:
        return FileLock
    probe = paths.lock(folder / str(os.getpid()))
    try:
        with probe.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return SoftFileLock if error.errno in WITHOUT_FLOCK else FileLock
    finally:
        probe.unlink(missing_ok=True)
    return FileLock


def holder(target: Path) -> str:
    """The process that took the lock of `target`, how long ago, and how to free it, in brackets.
    Only a lock that is a file tells this; empty for a lock of the kernel."""
    path = paths.lock(target)
    if _kind(path.parent) is FileLock:
        return ""
    try:
        process, host, *_ = [*path.read_text().splitlines(), "?", "?"]
        hours = (time.time() - path.stat().st_mtime) / 3600
    except OSError:  # free by now
        return ""
    return (
        f" (taken by process {process} on {host} {hours:.1f} hours ago; if that machine is lost, "
        f"remove {path})"
    )


def check(folder: Path) -> None:
    """Warn in one line on stderr if locks in this folder do not work fully."""
    probe = folder / str(os.getpid())
    with held(probe), held(probe, wait=False) as both:
        pass
    paths.lock(probe).unlink(missing_ok=True)
    local = LOCAL_LOCKS & _mount_options(folder)
    if _kind(folder) is SoftFileLock:
        said = (
            "no flock here: files stand for locks, and what a lost machine leaves must be removed "
            "by hand; mount it with flock, or use another folder"
        )
    elif both:
        said = (
            "locks do nothing here: two processes may make the same network; start one process "
            "only, or use another folder"
        )
    elif local:
        said = (
            f"mounted with {', '.join(sorted(local))}: a lock holds on one machine only; give each "
            "machine ids of its own (--index_start, --models_number), or use another folder"
        )
    else:
        return
    print(one_line(f"{folder}: {said}"), file=sys.stderr)


def _mount_options(folder: Path) -> set[str]:
    """The mount options of this folder's file system; none are known outside Linux."""
    try:
        mounts = [line.split(" ") for line in MOUNTS.read_text().splitlines()]
    except OSError:
        return set()
    options = {mount[1]: mount[3] for mount in mounts}
    there = folder.resolve()
    found = next((str(path) for path in (there, *there.parents) if str(path) in options), "")
    return set(options.get(found, "").split(","))
