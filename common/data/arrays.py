"""Arrays on disk: .npz files that are written atomically and never unpickled."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from common import paths
from common.runtime import is_trouble, replace_file, set_aside

Arrays = dict[str, np.ndarray]


def load(path: Path) -> Arrays | None:
    """The arrays of a file; None if it is missing or damaged (numpy checks its checksums): then it
    is set aside, where it may be."""
    try:
        return _read(path)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged archive raises one of a dozen kinds
        if is_trouble(error):
            raise
        set_aside(path, f"damaged ({type(error).__name__})", paths.corrupt(path))
        return None


def save(path: Path, contents: Arrays) -> None:
    """Write arrays and read them back before they take their place. Raises ValueError for arrays
    of objects, which would have to be pickled."""
    for name, array in contents.items():
        if np.asarray(array).dtype.hasobject:
            raise ValueError(f"{path}: {name} holds objects")
    replace_file(path, lambda temporary: np.savez_compressed(temporary, **contents), _read)


def _read(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


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
