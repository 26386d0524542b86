"""The small study that many tests read, its commands, and functions that run a script inside the
test process (fast) or in a process of its own, as a user does."""

from __future__ import annotations

import contextlib
import io
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from common import runtime, study
from common.study import Cell

ROOT = Path(__file__).resolve().parent.parent
PREFIXES = {"supervised": "sup", "SupCon": "clr"}
KINDS = ("training", "pruning_finetune", "pie_kmodels_detection", "prediction_depth")
SCRIPTS = tuple(f"{prefix}_{kind}.py" for prefix in PREFIXES.values() for kind in KINDS)
Command = tuple[str, ...]  # a script and its flags

# The small study: two networks a cell, 300 images to learn from, 100 to test.
N_TRAIN, N_TEST, IDS = 300, 100, (0, 1)
STUDY = (
    *("--cuda_device", "-1", "--dataset", "digits", "--models_number", "2"),
    *("--limit", str(N_TRAIN), "--test_limit", str(N_TEST)),
)
PRUNED = (("GMP", 0.9), ("later_GMP", 0.9), ("global", 0.5), ("global", 0.9))
CELLS = ((study.DENSE, 0.0), *PRUNED)
FLAGS = {
    "sup_training.py": ("--epochs", "2", "--batch_size", "32"),
    "clr_training.py": (
        *("--epochs", "2", "--batch_size", "50"),
        *("--head_epochs", "1", "--batch_size_head", "50"),
    ),
}
FINETUNING = ("--epochs", "1", "--batch_size", "32", "--pruning_percentages", "0.5,0.9")
KNN = "5"


def command(script: str, *flags: str) -> Command:
    """A script as the small study runs it; of a flag that is given twice the last counts."""
    if script.endswith("finetune.py"):
        return (script, *STUDY, *FINETUNING, *flags)
    if script.endswith("depth.py"):
        return (script, *STUDY, "--knn", KNN, *flags)
    return (script, *STUDY, *FLAGS.get(script, ()), *flags)


def train(learner: str, *flags: str) -> Command:
    return command(f"{PREFIXES[learner]}_training.py", *flags)


def finetune(learner: str, *flags: str) -> Command:
    return command(f"{PREFIXES[learner]}_pruning_finetune.py", *flags)


def detect(learner: str, *flags: str) -> Command:
    return command(f"{PREFIXES[learner]}_pie_kmodels_detection.py", *flags)


def depth(learner: str, *flags: str) -> Command:
    return command(f"{PREFIXES[learner]}_prediction_depth.py", *flags)


def chain(learner: str) -> list[Command]:
    """The commands of the whole study for one learning method."""
    maps = ("--plot_umap",) if learner == "supervised" else ()
    return [
        train(learner),
        train(learner, "--pruning_percentages", "0.9"),
        train(learner, "--pruning_percentages", "0.9", "--pruning_method", "later_GMP"),
        finetune(learner),
        detect(learner, "--plot_q_score", *maps),
        depth(learner),
    ]


def run_chain(folder: Path, learner: str) -> dict[Command, Result]:
    """Run these commands in order, in one process."""
    return {command: assert_succeeds(folder, command) for command in chain(learner)}


@dataclass(frozen=True)
class Result:
    """How a script ended."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Study:
    """The folder that a user worked in, and how every script ended, in order."""

    folder: Path
    results: dict[Command, Result]

    @property
    def models(self) -> Path:
        return self.folder / "models" / "digits"

    @property
    def pies(self) -> Path:
        return self.folder / "pies" / "digits"

    def run(self, command: Command) -> Result:
        """Run a script to its good end, in this process."""
        return assert_succeeds(self.folder, command)


def cells(learner: str) -> list[Cell]:
    """The cells of the small study."""
    return [Cell(learner, *cell) for cell in CELLS]


def run_process(cwd: Path, *command: str) -> Result:
    """Run a script in a process of its own, in the folder `cwd`."""
    done = subprocess.run(
        [sys.executable, str(ROOT / command[0]), *command[1:]],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def run(cwd: Path, *command: str) -> Result:
    """Run a script from its first line to its exit code, but in this process: without the seconds
    that importing torch takes."""
    stdout, stderr = io.StringIO(), io.StringIO()
    handlers = {signum: signal.getsignal(signum) for signum in runtime.EXIT_SIGNALS}
    argv, script = sys.argv, str(ROOT / command[0])
    runtime._stop_signal = None  # of a script that ran here before
    sys.argv = [script, *command[1:]]
    try:
        with (
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(stdout),
            contextlib.redirect_stderr(stderr),
        ):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return Result(int(end.code or 0), stdout.getvalue(), stderr.getvalue())
    finally:
        sys.argv = argv
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    raise AssertionError(f"{script} ended without an exit code")


def assert_succeeds(cwd: Path, command: Command, runner: Callable[..., Result] = run) -> Result:
    """Run a script that must end well, and in silence on stderr."""
    done = runner(cwd, *command)
    assert (done.code, done.stderr) == (0, ""), f"{command}: {done.stderr}"
    return done


def assert_refused(
    cwd: Path,
    command: Command,
    code: int,
    *words: str,
    runner: Callable[..., Result] = run,
    may_change: str = "",
) -> Result:
    """Run a script that must end with this code and one line on stderr that holds these words. It
    leaves everything below `cwd` as it was, but for files whose path matches `may_change`."""
    before = files(cwd)
    done = runner(cwd, *command)
    assert done.code == code, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for said in words:
        assert said in done.stderr
    after = files(cwd)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert {name for name in changed if not fnmatch(name, may_change)} == set()
    return done


def contents(folder: Path) -> set[str]:
    """Everything below a folder, files and folders."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def files(folder: Path) -> dict[str, bytes]:
    """The contents of every file below a folder; locks come and go."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
