"""Run scripts in forked children of a process that has imported torch, with faults put into them.

A fault says where, at which call, and what: `Fault("common.learning.loop:_step", 7, "SIGTERM")`.
"""

from __future__ import annotations

import errno
import functools
import importlib
import multiprocessing
import os
import pkgutil
import runpy
import signal
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from running import ROOT, Result

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch", "torchvision.datasets", "matplotlib.figure", "scipy.stats", "sklearn.datasets",
     "sklearn.model_selection", "matplotlib.backends.backend_agg", "faulty",
     *(f"common.experiments.{story}" for story in
       ("training", "pruning_finetune", "pie_detection", "prediction_depth"))]
)  # fmt: skip
DEADLINE = 120  # seconds: a run that takes longer hangs


class Fault(NamedTuple):
    """The fault at call `n` (counted from 1; 0: at every call) of `module:name`. Only calls
    count whose first argument, a path mostly, matches the pattern `of`."""

    target: str
    n: int
    action: str
    of: str = "*"


Faults = tuple[Fault | Callable[[], None], ...]  # a function puts in a fault of its own


class Child:
    """A script that runs, and what it says."""

    def __init__(self, cwd: Path, *command: str, faults: Faults = ()):
        cwd.mkdir(parents=True, exist_ok=True)
        self.said = [
            cwd.parent / f"{cwd.name}.{name}.{time.monotonic_ns()}" for name in ("out", "err")
        ]
        arguments = (str(cwd), command, faults, self.said)
        self.process = CONTEXT.Process(target=_main, args=arguments)
        self.process.start()

    def ended(self, timeout: float = DEADLINE) -> Result:
        """How it ended; a signal that ended it is a negative code."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError("it hangs")
        out, err = (path.read_text() if path.exists() else "" for path in self.said)
        return Result(self.process.exitcode, out, err)

    def kill(self, after: float) -> Result:
        """SIGKILL after so many seconds, if it has not ended by then."""
        self.process.join(after)
        self.process.kill()
        return self.ended()


def run(cwd: Path, *command: str, faults: Faults = ()) -> Result:
    """Run a script to its end."""
    return Child(cwd, *command, faults=faults).ended()


def _main(cwd: str, command: tuple[str, ...], faults: Faults, said: list[Path]) -> None:
    os.chdir(cwd)
    for descriptor, path in zip((1, 2), said, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.path.insert(0, str(ROOT))
    script, *flags = command
    sys.argv = [str(ROOT / script), *flags]
    for fault in faults:
        inject(*fault) if isinstance(fault, Fault) else fault()
    runpy.run_path(sys.argv[0], run_name="__main__")


def inject(target: str, n: int, action: str, of: str) -> None:
    """Replace a function, or with `= value` a constant, by one that has the fault."""
    module, _, name = target.partition(":")
    importlib.import_module(module)
    parent, _, last = name.rpartition(".")
    owner = pkgutil.resolve_name(f"{module}:{parent}")
    if action.startswith("= "):
        setattr(owner, last, float(action[2:]))
        return
    real, calls = getattr(owner, last), 0

    @functools.wraps(real)
    def faulty(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        is_meant = fnmatch(str(args[0]) if args else "", of)
        calls += is_meant
        if not is_meant or n not in (0, calls):
            return real(*args, **kwargs)
        return act(action, lambda: real(*args, **kwargs), args)

    setattr(owner, last, faulty)


def act(action: str, call: Callable[[], Any], args: tuple[Any, ...]) -> Any:
    """Do what a fault does, before, after or in place of the call."""
    import torch

    if action.startswith("SIG"):  # before the call; `SIGINT SIGINT`: twice
        for name in action.split():
            os.kill(os.getpid(), getattr(signal, name))
    elif action == "half, then SIGKILL":
        call()
        os.truncate(args[0], args[0].stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "full disk":  # a real one: every write to this device fails
        args[0].symlink_to("/dev/full")
    elif action == "NaN":
        return call() * torch.nan
    elif action == "inf gradient":
        args[0].param_groups[0]["params"][0].grad[:] = torch.inf
    elif hasattr(errno, action):
        raise OSError(getattr(errno, action), os.strerror(getattr(errno, action)), "somewhere")
    else:
        raise {
            "MemoryError": MemoryError(),
            "CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
            "CPU": RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"
            ),
        }[action]
    return call()
