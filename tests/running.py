"""How the tests run the scripts: as a user does, or (much faster) inside the test process; and what
the small study is that many tests read."""

from __future__ import annotations

import contextlib
import io
import os
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common import runtime

ROOT = Path(__file__).resolve().parent.parent
PREFIXES = {"supervised": "sup", "SupCon": "clr"}
KINDS = ("training", "pruning_finetune", "pie_kmodels_detection", "prediction_depth")
SCRIPTS = tuple(f"{prefix}_{kind}.py" for prefix in PREFIXES.values() for kind in KINDS)

# The small study: two networks a cell, 300 images to learn from, 100 to test.
STUDY = (
    *("--cuda_device", "-1", "--dataset", "digits", "--models_number", "2"),
    *("--limit", "300", "--test_limit", "100"),
)
TRAINING = {
    "supervised": ("--epochs", "2", "--batch_size", "32"),
    "SupCon": (
        *("--epochs", "2", "--batch_size", "50"),
        *("--head_epochs", "1", "--batch_size_head", "50"),
    ),
}
FINETUNING = ("--epochs", "1", "--batch_size", "32", "--pruning_percentages", "0.5,0.9")
KNN = "5"


@dataclass(frozen=True)
class Result:
    """How a script ended."""

    code: int
    stdout: str
    stderr: str


def environment() -> dict[str, str]:
    """One thread a process: the networks are small, and the scripts run side by side."""
    return os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def run(cwd: Path, script: str, *flags: str) -> Result:
    """Run a script in a process of its own, in the folder `cwd`."""
    done = subprocess.run(
        [sys.executable, str(ROOT / script), *flags],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def start(cwd: Path, script: str, *flags: str) -> subprocess.Popen[str]:
    """Start a script and leave it running."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *flags],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_here(cwd: Path, script: str, *flags: str) -> Result:
    """Run a script from its first line to its exit code, but in this process: without the seconds
    that importing torch takes."""
    stdout, stderr = io.StringIO(), io.StringIO()
    handlers = {signum: signal.getsignal(signum) for signum in runtime.EXIT_SIGNALS}
    argv = sys.argv
    runtime._stop_signal = None  # of a script that ran here before
    sys.argv = [str(ROOT / script), *flags]
    try:
        with (
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            runpy.run_path(str(ROOT / script), run_name="__main__")
    except SystemExit as end:
        return Result(int(end.code or 0), stdout.getvalue(), stderr.getvalue())
    finally:
        sys.argv = argv
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    raise AssertionError(f"{script} ended without an exit code")


def contents(folder: Path) -> set[str]:
    """Everything below a folder, files and folders."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@dataclass(frozen=True)
class Study:
    """The folder that a user worked in, and how every script ended, in order."""

    folder: Path
    commands: dict[str, list[tuple[str, ...]]]  # learner -> script and flags
    results: dict[str, list[Result]]

    @property
    def models(self) -> Path:
        return self.folder / "models" / "digits"

    @property
    def pies(self) -> Path:
        return self.folder / "pies" / "digits"


def chain(learner: str) -> list[tuple[str, ...]]:
    """The commands of the whole study for one learning method."""
    prefix = PREFIXES[learner]
    train = (f"{prefix}_training.py", *STUDY, *TRAINING[learner])
    detect = (f"{prefix}_pie_kmodels_detection.py", *STUDY, "--plot_q_score")
    if learner == "supervised":
        detect += ("--plot_umap",)
    return [
        train,
        (*train, "--pruning_method", "GMP", "--pruning_percentages", "0.9"),
        (*train, "--pruning_method", "later_GMP", "--pruning_percentages", "0.9"),
        (f"{prefix}_pruning_finetune.py", *STUDY, *FINETUNING),
        detect,
        (f"{prefix}_prediction_depth.py", *STUDY, "--knn", KNN),
    ]
