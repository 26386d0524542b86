"""Several processes that share the work of one command: those of torchrun, of Slurm, or started by
hand with the same variables.

They form no group and wait for no signal of each other: a rank learns from locks and files what the
others do, so each may be late, killed, or missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from common.runtime import EXIT_ARGUMENTS, Failure

Piece = TypeVar("Piece")

# Rank, number of ranks, rank on this machine. A batch script has Slurm's too, as rank 0 of all.
VARIABLES = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
)


class Ranks(NamedTuple):
    """Which of W processes this one is: `rank` of `world`, and `local` on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    def order(self, pieces: Sequence[Piece]) -> list[Piece]:
        """The pieces as this rank tries them: r, r+W, …, so that ranks which start together do not
        meet; then those of the others, which begin at the other end of theirs."""
        shares = [pieces[(self.rank + k) % self.world :: self.world] for k in range(self.world)]
        return [*shares[0], *(piece for share in shares[1:] for piece in reversed(share))]


def of_environment() -> Ranks:
    """The ranks that torchrun or Slurm tells; else one process. A local rank that is missing is the
    rank. Raises Failure(EXIT_ARGUMENTS) for a value that is none."""
    for names in VARIABLES:
        rank, world, local = (os.environ.get(name) for name in names)
        # A batch script that did not ask for tasks has Slurm's rank 0, but no number of them.
        if rank is None or (world is None and names[0].startswith("SLURM")):
            continue
        found = Ranks(
            *(_number(*one) for one in zip(names, (rank, world, local or rank), strict=True))
        )
        if found.rank >= found.world:
            said = f"{names[0]}={rank}: below {names[1]}, which is {world}"
            raise Failure(EXIT_ARGUMENTS, f"environment variable {said}")
        return found
    return Ranks()


def _number(name: str, text: str | None) -> int:
    if text is None or not text.isdecimal():
        shown = "missing" if text is None else f"{text!r}"
        raise Failure(EXIT_ARGUMENTS, f"environment variable {name}: {shown}: a number from 0 on")
    return int(text)


def print_to(path: Path) -> None:
    """Print into this file from now on, and draw no progress bar: only rank 0 has the terminal.
    Errors and warnings stay on stderr."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sys.stdout = path.open("a", buffering=1)
    except OSError:  # as any log: it never stops an experiment
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr.isatty = lambda: False  # type: ignore[method-assign]  # what tqdm asks
