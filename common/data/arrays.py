"""Arrays on disk: .npz files that are written atomically and never unpickled."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from common.runtime import replace_file

Arrays = dict[str, np.ndarray]


def load(path: Path) -> Arrays | None:
    """The arrays of a file; None if it is missing or damaged (numpy checks its checksums)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return None
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile):
        print(f"{path}: damaged; it will be made again")
        return None


def save(path: Path, contents: Arrays) -> None:
    """Write arrays; numpy adds no .npz to a name that has it."""
    replace_file(path, lambda temporary: np.savez_compressed(temporary, **contents), load)


def same(a: Arrays | None, b: Arrays) -> bool:
    """Whether two sets of arrays are equal, NaN counting as equal to NaN."""
    return (
        a is not None
        and a.keys() == b.keys()
        and all(
            a[name].dtype == b[name].dtype
            and np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f")
            for name in a
        )
    )
