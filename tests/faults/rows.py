"""What a row of a list is: a test that is told apart by its name, and counted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from running import ROOT

# Everything; without it a sample of each row, as in CI.
FULL = int(os.environ.get("FAULT_KILLS", "0")) >= 100


def json_path(full: bool, asked: str | None) -> Path | None:
    """Where the counts go: where one asks for, else those of the full run beside the README."""
    return Path(asked) if asked else ROOT / "faults.json" if full else None


JSON = json_path(FULL, os.environ.get("FAULT_JSON"))

NOT_APPLICABLE = {
    "F11": "nothing here runs under torchrun: a process trains one network at a time",
    "F12": "as F11",
    "F37": "there are no loader workers: a data set is one tensor on the training device",
    "F40, second half": "heads are trained network by network, never batched over networks",
    "schedule without a multiple of the frequency": "events are counted from --begin_step and the "
    "last one is --end_step, so that every frequency up to their distance is right",
    "output path with ../": "accepted: a folder beside the working folder is where users keep "
    "results, and names are never read from files",
}


class Row(NamedTuple):
    """One variant of a fault or of a bad input. Variants of one name hold together or not."""

    kind: str
    name: str
    what: str
    expected: str
    check: Callable[..., None]
    variant: Any = None

    def __str__(self) -> str:
        variant = "" if self.variant is None else f"-{self.variant}"
        return f"{self.name}{variant}".replace("/", "_")


ROWS: list[Row] = []


def fault(
    name: str, what: str, expected: str, variants: tuple[Any, ...] = (), sample: int | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a test to the list of faults: it gets the variant, then the place. `sample`: so many of
    the variants are enough in CI."""

    def add(check: Callable[..., None]) -> Callable[..., None]:
        for variant in variants[: None if FULL else sample] or (None,):
            ROWS.append(Row("faults", name, what, expected, check, variant))
        return check

    return add
