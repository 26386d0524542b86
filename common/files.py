"""Files that are written whole or not at all: tables, text and arrays. Nothing is unpickled.

A damaged file is renamed to `<name>.corrupt`, never overwritten.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from common import paths
from common.runtime import EXIT_WRITE, Failure, is_trouble, one_line

Arrays = dict[str, np.ndarray]


def check_writable(folder: Path) -> None:
    """Make the folder and write a trial file, so that hours of work do not end with results that
    cannot be written. Raises Failure(EXIT_WRITE)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = paths.temporary(folder / "trial", str(os.getpid()))
        probe.write_bytes(b"0" * 4096)
        probe.unlink(missing_ok=True)  # a process of another machine may have the same id
    except OSError as error:
        raise Failure(EXIT_WRITE, f"{folder}: cannot write there ({error.strerror})") from error


def append_log(path: Path, record: dict[str, Any]) -> None:
    """Add one JSON line to a log. A log that cannot be written never stops an experiment."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as log:
            log.write(json.dumps(record) + "\n")
    except OSError as error:
        print(f"log not written: {path}: {error.strerror}", file=sys.stderr)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log, without any that a kill cut off; none if the log cannot be read."""
    records = []
    try:
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else ()
    except OSError:
        return []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def replace(
    path: Path, write: Callable[[Path], object], check: Callable[[Path], object] | None = None
) -> None:
    """Write a file under a temporary name, flush it to the disk, check it, and move it into place.

    The previous file survives every failure. `write` and `check` get the temporary path; `check`
    must raise if the file cannot be read back.
    """
    temporary = paths.temporary(path, str(os.getpid()))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        if check is not None:
            check(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    """A renamed file is safe on the disk only after its folder has been flushed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside(damaged: Path, reason: str) -> None:
    """Rename a damaged file rather than overwrite it, and say so in one line on stderr. In a
    read-only folder the file stays. If another process has renamed the file, nothing happens."""
    aside = paths.corrupt(damaged)
    try:
        damaged.replace(aside)
        done = f"kept as {aside.name}"
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        done = f"not renamed ({error.strerror})"
    print(one_line(f"{damaged}: {reason}; {done}"), file=sys.stderr)


def write_text(path: Path, text: str) -> None:
    """Write a text file, unless it already holds this text."""
    data = text.encode()
    if path.exists() and path.read_bytes() == data:
        return
    replace(path, lambda temporary: temporary.write_bytes(data))


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a table as `write_text` does; None is an empty field."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    write_text(path, buffer.getvalue())


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a table, each a dict by column; empty if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def load_arrays(path: Path) -> Arrays | None:
    """The arrays of an .npz file; None if the file is missing or damaged (numpy verifies the
    checksums). A damaged file is set aside."""
    try:
        return _read_arrays(path)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged archive raises one of a dozen kinds
        if is_trouble(error):
            raise
        set_aside(path, f"damaged ({type(error).__name__})")
        return None


def save_arrays(path: Path, contents: Arrays) -> None:
    """Write an .npz file, and read it back before moving it into place. Raises ValueError for
    arrays of objects, which would have to be pickled."""
    for name, array in contents.items():
        if np.asarray(array).dtype.hasobject:
            raise ValueError(f"{path}: {name} holds objects")
    replace(path, lambda temporary: np.savez_compressed(temporary, **contents), _read_arrays)


def _read_arrays(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def same_arrays(a: Arrays | None, b: Arrays) -> bool:
    """True if two sets of arrays are equal, NaN counting as equal to NaN."""
    return (
        a is not None
        and a.keys() == b.keys()
        and all(
            a[name].dtype == b[name].dtype
            and np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f")
            for name in a
        )
    )
