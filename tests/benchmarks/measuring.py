"""Two ways of doing the same work, timed in turn; and the memory that a process needs."""

from __future__ import annotations

import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from common import runtime

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Settings:
    """The settings that both sides need."""

    cuda_device: int
    quick: bool
    dataset: str

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.cuda_device) if self.cuda_device >= 0 else CPU


# Builds the work of a side, "released" or "ours"; what the work returns is checked against the
# other's.
Factory = Callable[..., Callable[[], Any]]


class Side:
    """One way of doing the work, in a process of its own, so that our settings of the memory
    allocator do not help the other side."""

    def __init__(self, name: str, settings: Settings):
        context = multiprocessing.get_context("spawn")
        self.name, self.settings = name, settings
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(name, other), daemon=True)
        self.process.start()

    def prepare(self, factory: Factory, options: dict[str, Any]) -> Any:
        """Build the work and do it once: the first call chooses algorithms and fills caches."""
        self.pipe.send((factory, self.settings, options))
        return self.pipe.recv()[1]

    def seconds(self) -> float:
        """Do the work once more."""
        self.start()
        return self.finish()

    def start(self) -> None:
        """Do the work once more, in the background."""
        self.pipe.send(None)

    def finish(self) -> float:
        """Wait for the work that was started; return its seconds."""
        return self.pipe.recv()[0]


def _serve(name: str, pipe: Connection) -> None:
    work: Callable[[], Any] = lambda: None  # noqa: E731
    device = CPU
    while True:
        try:
            message = pipe.recv()
        except EOFError:
            return
        if message is not None:
            factory, settings, options = message
            device = settings.device
            if name == "ours":
                runtime.pick_device(settings.cuda_device)
            work = factory(name, settings, **options)
        wait(device)
        started = time.perf_counter()
        result = work()
        wait(device)
        seconds = time.perf_counter() - started
        pipe.send((seconds, result if message is not None else None))


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Bench:
    """Both sides, and all measurements."""

    def __init__(self, settings: Settings, pairs: int):
        self.settings, self.pairs = settings, pairs
        self.sides = [Side(name, settings) for name in ("released", "ours")]
        self.rows: list[dict[str, Any]] = []

    def compare(
        self,
        stage: str,
        factory: Factory,
        *,
        goal: float,
        work: float = 1.0,
        unit: str = "s",
        released_times: float = 1.0,
        check: Callable[[Any, Any], object] = lambda released, ours: None,
        **options: Any,
    ) -> None:
        """Time the two in turn, A B A B …, and keep the median of the ratios of neighbours.

        `work` units are done by one call (shown as units / s); with 1, seconds are shown.
        `released_times`: how often the whole work contains what one released call does.
        `check` gets what both return, and raises if they disagree.
        """
        check(*(side.prepare(factory, options) for side in self.sides))
        times = [
            (self.sides[0].seconds() * released_times, self.sides[1].seconds())
            for _ in range(self.pairs)
        ]
        ratios = [a / b for a, b in times]
        a, b = (median(column) for column in zip(*times, strict=True))
        row = {
            "stage": stage,
            "unit": unit,
            "released": work / a if work != 1 else a,
            "ours": work / b if work != 1 else b,
            "ratio": median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
            "goal": goal,
            "pairs": len(ratios),
            "options": options,
        }
        self.rows.append(row)
        print(format_row(row), flush=True)


def format_row(row: dict[str, Any]) -> str:
    """One line of the table."""
    reached = "yes" if row["ratio"] >= row["goal"] else "NO"
    spread = f"{row['lowest']:.3g}-{row['highest']:.3g}"
    return (
        f"{row['stage']:<44} {row['released']:>10.4g} {row['ours']:>10.4g} {row['unit']:<9}"
        f"{row['ratio']:>8.2f}x {spread:>14} {row['goal']:>5g}x {reached}"
    )


HEADING = (
    f"{'stage':<44} {'released':>10} {'ours':>10} {'unit':<9}"
    f"{'ratio':>9} {'spread':>14} {'goal':>6}"
)


def fit_line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """y = intercept + slope x by least squares, and R²."""
    slope, intercept = np.polyfit(x, y, 1)
    rest = np.asarray(y) - (intercept + slope * np.asarray(x))
    r_squared = 1 - (rest**2).sum() / ((np.asarray(y) - np.mean(y)) ** 2).sum()
    return {"slope": float(slope), "intercept": float(intercept), "r_squared": float(r_squared)}


def run_script(folder: Path, *command: str) -> tuple[float, float]:
    """Run a script of the project, or `-c` a text, in `folder`; its wall time in s and its peak
    memory in MB."""
    started = time.perf_counter()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *_python_arguments(command)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{command}: {(folder / 'output.txt').read_text()[-500:]}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def _python_arguments(command: tuple[str, ...]) -> tuple[str, ...]:
    return command if command[0] == "-c" else (str(ROOT / command[0]), *command[1:])


def hardware(device: torch.device) -> dict[str, Any]:
    """The hardware and versions on which the numbers depend."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "bf16": has_bf16(device),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "date": time.strftime("%Y-%m-%d"),
    }


def has_bf16(device: torch.device) -> bool:
    """Whether the hardware computes in bfloat16 natively rather than by emulation."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
