"""The commands that faults disturb, and the places where they run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import faulty
import numpy as np
import pytest
import running
import torch
from faulty import Fault, Faults
from running import Command, Result, detect, finetune, train

from common import paths
from common.learning import resumable
from common.model import checkpoints
from common.paths import NetworkFiles
from common.runtime import Failure
from common.study import Cell

KILLS = int(os.environ.get("FAULT_KILLS", "9"))  # from 100 on the counts are written to a file

# What made the small study, or reads it.
ONE = ("--models_number", "1")
SUP, CLR, FINETUNE = train("supervised"), train("SupCon"), finetune("supervised")
DETECT = detect("supervised", "--pruning_methods", "global", "--pruning_percentages", "0.9")
DENSE, ONE_SHOT = Cell("supervised", "dense", 0.0), Cell("supervised", "global", 0.9)
# A network that the study lacks: four epochs of five steps, pruned while it learns, so that masks
# matter too.
GMP = Cell("supervised", "GMP", 0.8)
TRAIN = train(
    "supervised",
    *("--models_number", "1", "--limit", "100", "--epochs", "4", "--batch_size", "20"),
    *("--pruning_percentages", "0.8", "--begin_step", "0", "--end_step", "15", "--frequency", "3"),
)

# Where faults strike: a step of a training; writing, renaming and flushing a network or a state.
STEP = partial(Fault, "common.learning.loop:_step")
WRITE = partial(Fault, "pathlib:Path.write_bytes", of="*.pt")
RENAME = partial(Fault, "pathlib:Path.replace", of="*.pt")
FLUSH = partial(Fault, "common.files:_flush_folder", of="*models/digits")
SAVE_OFTEN = Fault("common.learning.loop:SECONDS_BETWEEN_SAVES", 0, "= -1")  # after every epoch


def some_slow(variants: Iterable[Any], fast: int = 1) -> list[Any]:
    """Variants of a test; all but the first ones are slow."""
    marks = [()] * fast
    return [
        pytest.param(*(variant if isinstance(variant, tuple) else (variant,)), marks=mark)
        for variant, mark in zip_longest(variants, marks, fillvalue=pytest.mark.slow)
    ]


def file_of(models: Path, cell: Cell, network_id: int) -> Path:
    """The file of a network that has one."""
    return NetworkFiles(models, cell, network_id).parts["network"]


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a file holds and give it a digest that fits, as no accident does."""
    contents = checkpoints.read(path)
    del contents["digest"]
    change(contents)
    torch.save(contents | {"digest": checkpoints._digest(contents)}, path)


class Place:
    """A folder in which a user works, and which of its files were good before a fault."""

    def __init__(self, folder: Path):
        folder.mkdir(exist_ok=True)
        self.folder, self.models = folder, folder / "models" / "digits"
        self.pies, self.logs = folder / "pies" / "digits", folder / "logs" / "digits"
        self.state_path = NetworkFiles(self.models, GMP, 0).state
        self.good: set[str] = set()

    def watch(self) -> None:
        """From here on nothing that is good may be lost."""
        self.good = self.readable()

    def readable(self) -> set[str]:
        """Every network that can be rebuilt, every array that can be read."""
        found = set()
        for cell, ids in paths.networks_present(self.models).items():
            for network_id in ids:
                with contextlib.suppress(Failure):
                    checkpoints.load(
                        NetworkFiles(self.models, cell, network_id), torch.device("cpu")
                    )
                    found.add(paths.network_stem(cell, network_id))
        for path in self.folder.glob("pies/**/*.npz"):
            with contextlib.suppress(Exception), np.load(path, allow_pickle=False) as file:
                [file[name] for name in file.files]
                found.add(str(path.relative_to(self.folder)))
        return found

    def lost(self) -> set[str]:
        return self.good - self.readable()

    def run(self, *command: str, faults: Faults = ()) -> Result:
        return faulty.run(self.folder, *command, faults=faults)

    def assert_refused(
        self, command: Command, code: int, *words: str, faults: Faults = (),
        may_change: str = "",
    ) -> None:  # fmt: skip
        """Run a command that must end with this code and one line that holds these words."""
        runner = partial(faulty.run, faults=faults)
        running.assert_refused(
            self.folder, command, code, *words, runner=runner, may_change=may_change
        )

    def finish(self, *command: str) -> Result:
        """Run a command to its good end; nothing temporary may stay."""
        done = self.run(*command)
        assert done.code == 0, done.stderr
        assert not [path for path in self.models.glob(".*") if path.suffix != ".lock"]
        return done

    def networks(self) -> dict[str, bytes]:
        """The networks' files."""
        found = [path for path in sorted(self.models.glob("[!.]*.pt")) if path.is_file()]
        return {path.name: path.read_bytes() for path in found}

    def step(self) -> int:
        """After how many steps the state of TRAIN was saved; 0 if there is none."""
        state = resumable.read(NetworkFiles(self.models, GMP, 0))
        return state["loop"]["step"] if state else 0

    def log(self, cell: Cell = GMP, network_id: int = 0) -> list[str]:
        """The lines of a network's log."""
        path = paths.log(self.logs, cell, network_id)
        return path.read_text().splitlines() if path.exists() else []

    def trainings(self, cell: Cell = GMP, network_id: int = 0) -> int:
        """How often a training of this network began or was continued."""
        return sum('"config"' in line for line in self.log(cell, network_id))
