"""Several processes that share the work of one command. torchrun or Slurm starts them, or a user
does by hand, with the same environment variables.

The ranks send each other no messages: a rank learns from locks and files what the others do, so any
of them may be late, killed, or missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from common.runtime import EXIT_ARGUMENTS, Failure

Piece = TypeVar("Piece")

# Rank, number of ranks, rank on this machine. Slurm sets its own in a batch script too, as rank 0.
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
        """The pieces in the order in which this rank tries them: first its own share r, r+W, …, so
        that ranks which start together do not collide; then the other ranks' shares, each from its
        end, since its owner begins at the start."""
        shares = [pieces[(self.rank + k) % self.world :: self.world] for k in range(self.world)]
        return [*shares[0], *(piece for share in shares[1:] for piece in reversed(share))]


def of_environment() -> Ranks:
    """The ranks as torchrun or Slurm defines them; without either, a single process. A missing
    local rank is taken to be the rank. Raises Failure(EXIT_ARGUMENTS) for an invalid value."""
    for names in VARIABLES:
        rank, world, local = (os.environ.get(name) for name in names)
        # A batch script that did not ask for tasks has Slurm's rank 0, but no number of ranks.
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
    """From now on print into this file, and draw no progress bar: only rank 0 uses the terminal.
    Errors and warnings stay on stderr."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sys.stdout = path.open("a", buffering=1)
    except OSError:  # a log that cannot be written never stops an experiment
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    sys.stderr.isatty = lambda: False  # type: ignore[method-assign]  # tqdm asks this
