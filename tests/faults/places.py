"""The small study that faults are put into, and what of it was good before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faulty import Fault, run
from running import Result

from common import paths
from common.model import checkpoints
from common.runtime import Failure

SHARED = ("--cuda_device", "-1", "--dataset", "digits", "--limit", "100", "--test_limit", "50")
TWO, ONE = ("--models_number", "2"), ("--models_number", "1")
SUP = ("sup_training.py", *SHARED, "--epochs", "4", "--batch_size", "20")
CLR = (
    *("clr_training.py", *SHARED, "--epochs", "2", "--batch_size", "25"),
    *("--head_epochs", "2", "--batch_size_head", "25"),
)
FINETUNE = (
    *("sup_pruning_finetune.py", *SHARED, "--epochs", "3", "--batch_size", "20"),
    *("--pruning_percentages", "0.9"),
)
DETECT = ("sup_pie_kmodels_detection.py", *SHARED, *TWO)
# The networks whose training is disturbed: pruned while they learn, so that masks matter too.
PRUNED = (
    "--pruning_percentages",
    "0.9",
    "--begin_step",
    "0",
    "--end_step",
    "15",
    "--frequency",
    "3",
)
NETWORK = "supervised_dense_s0.00_id01.pt"


def refused(done: Result, code: int, *named: str) -> None:
    """It ended with this code and one line that names all this."""
    assert done.code == code, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert all(words in done.stderr for words in named), done.stderr


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a network and give it a digest that fits, as no accident does."""
    contents = checkpoints.read(path)
    del contents["digest"]
    change(contents)
    checkpoints._dump(contents | {"digest": checkpoints._digest(contents)}, path)


class Place:
    """A folder in which a user works, and which of its files were good before a fault."""

    def __init__(self, folder: Path, threads: int = 1):
        self.threads = threads  # of every command that runs here
        self.folder, self.models = folder, folder / "models" / "digits"
        self.pies = folder / "pies" / "digits"
        self.good: set[str] = set()

    def watch(self) -> None:
        """From here on nothing that is good may be lost."""
        self.good = self.whole()

    def whole(self) -> set[str]:
        """Every network that can be rebuilt, every array that can be read."""
        found = set()
        for cell, ids in paths.networks_present(self.models).items():
            for network_id in ids:
                try:
                    checkpoints.load(self.models, cell, network_id, torch.device("cpu"))
                except Failure:
                    continue
                found.add(paths.network_stem(cell, network_id))
        for path in self.folder.glob("pies/**/*.npz"):
            try:
                with np.load(path, allow_pickle=False) as file:
                    [file[name] for name in file.files]
            except Exception:
                continue
            found.add(str(path.relative_to(self.folder)))
        return found

    def lost(self) -> set[str]:
        return self.good - self.whole()

    def run(self, *command: str, faults: tuple[Fault, ...] = ()) -> Result:
        return run(self.folder, command, *faults, threads=self.threads)

    def finish(self, *command: str) -> Result:
        """Run a command to its good end; nothing temporary may stay."""
        done = self.run(*command)
        assert done.code == 0, done.stderr
        left = [path.name for path in self.models.glob(".*") if path.suffix != ".lock"]
        assert left == []
        return done

    def files(self, pattern: str = "*.pt") -> dict[str, bytes]:
        """The networks' files."""
        found = [path for path in sorted(self.models.glob(pattern)) if path.is_file()]
        return {path.name: path.read_bytes() for path in found if path.name[0] != "."}
