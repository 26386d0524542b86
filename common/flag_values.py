"""The values that the flags accept: functions from text to value, for use as argparse types.

Each raises argparse.ArgumentTypeError, whose message says which values are accepted.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from common import study


def _refuse(text: str, accepted: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"{text!r}: give {accepted}")


# int() and float() would also accept 1_0, " 5" and digits of other scripts.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _number(text: str, accepted: str, is_valid: Callable[[float], bool]) -> float:
    value = float(text) if _DECIMAL.fullmatch(text) else math.nan
    if not (math.isfinite(value) and is_valid(value)):
        _refuse(text, accepted)
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    return _number(text, "a number above 0", lambda value: value > 0)


def not_negative(text: str) -> float:
    """A finite number of at least 0."""
    return _number(text, "a number of at least 0", lambda value: value >= 0)


def epochs(text: str) -> float:
    """A number of at least 0; a whole number stays an int, as in files of earlier versions."""
    value = not_negative(text)
    return int(value) if _WHOLE.fullmatch(text) else value


def fraction(text: str) -> float:
    """A number in [0, 1)."""
    return _number(text, "a number from 0 to below 1", lambda value: 0 <= value < 1)


def share(text: str) -> float:
    """A number in (0, 1]."""
    return _number(text, "a number above 0, at most 1", lambda value: 0 < value <= 1)


def integer(low: int, high: int) -> Callable[[str], int]:
    """A whole number from low to high, in ASCII digits."""

    def within(text: str) -> int:
        # check the length first: Python refuses to read numbers of thousands of digits
        value = int(text) if len(text) <= 20 and _WHOLE.fullmatch(text) else low - 1
        if not low <= value <= high:
            _refuse(text, f"a whole number from {low} to {high}")
        return value

    return within


def depth(text: str) -> int:
    """A number of convolutions that a Wide ResNet can have."""
    value = integer(10, 1000)(text)
    if value % 6 != 4:
        _refuse(text, "a depth of the form 6n+4: 10, 16, 22, 28, …")
    return value


def sparsities(text: str) -> list[float]:
    """Fractions in [0, 1), separated by commas, each once; ten decimals are kept."""
    accepted = "sparsities from 0 to below 1, separated by commas, each once"
    try:
        values = [abs(round(fraction(part.strip()), 10)) for part in text.split(",")]  # -0.0 is 0.0
    except argparse.ArgumentTypeError:
        _refuse(text, accepted)
    if len(set(values)) < len(values) or max(values) == 1:
        _refuse(text, accepted)
    return values


def prunings(text: str) -> list[str]:
    """Names of prunings, separated by commas, each once; a space stands for an underscore."""
    values = [part.strip().replace(" ", "_") for part in text.split(",")]
    if not set(values) <= study.PRUNINGS.keys() or len(set(values)) < len(values):
        _refuse(text, f"some of {', '.join(study.PRUNINGS)}, separated by commas, each once")
    return values


def folder(text: str) -> Path:
    """A folder, or a path at which a folder can be made."""
    if not text or "\0" in text or any(len(part.encode()) > 255 for part in Path(text).parts):
        _refuse(text, "a folder whose name a file system can hold")
    try:
        is_other = Path(text).exists() and not Path(text).is_dir()
    except OSError as error:  # too long as a whole, say
        _refuse(text, f"a folder ({error.strerror})")
    if is_other:
        _refuse(text, "a folder; this is a file")
    return Path(text)


def dataset(text: str) -> str:
    """A known data set, or an existing folder."""
    has_name = text in study.DATASETS or (folder(text).is_dir() and folder(text).resolve().name)
    if not has_name:
        known = ", ".join(study.DATASETS)
        _refuse(text, f"{known}, or an existing folder with train/ and test/")
    return text


def contradiction(flags: dict[str, Any]) -> str | None:
    """A message if flags contradict each other or the ranks of the environment, else None."""
    n_ranks, cuda_device = flags["ranks"].world, flags["cuda_device"]
    if n_ranks > 1 and cuda_device not in (None, -1):
        return (
            f"argument --cuda_device: {cuda_device}: the {n_ranks} ranks would share it; leave it "
            "out, and each takes a GPU by its local rank (-1: all on the CPU)"
        )
    begin, end, frequency = (flags.get(name) for name in ("begin_step", "end_step", "frequency"))
    if (begin is None) != (end is None):
        return "argument --begin_step: give --begin_step and --end_step together or neither"
    if begin is None:
        return None
    if begin >= end:
        return f"argument --begin_step: {begin}: must be less than --end_step {end}"
    if (frequency or 0) > end - begin:
        at_most = f"at most --end_step minus --begin_step, {end - begin}"
        return f"argument --frequency: {frequency}: {at_most}"
    return None
