"""F11, F12, F28: several ranks make what one process makes, each network once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faulty import Child, Fault, Faults
from places import DETECT, GMP, ONE, STEP, TRAIN, Place, some_slow
from running import ROOT, Command, Result, depth

from common import locks, paths
from common.paths import NetworkFiles
from common.ranks import VARIABLES

Whole = Callable[..., dict[str, bytes]]
fault, slow = pytest.mark.fault, pytest.mark.slow
KILLED = -signal.SIGKILL
TORCHRUN, SLURM = VARIABLES
MAKE = (*TRAIN, "--models_number", "3")


def be(names: tuple[str, ...], rank: int, world: int) -> None:
    """Set the variables by which an engine tells a process its rank."""
    os.environ |= {name: str(value) for name, value in zip(names, (rank, world), strict=False)}


def start(
    place: Place, command: Command, rank: int, *faults: Fault,
    names: tuple[str, ...] = TORCHRUN, world: int = 2,
) -> Child:  # fmt: skip
    return Child(place.folder, *command, faults=(partial(be, names, rank, world), *faults))


def run_two(place: Place, command: Command, faults: Faults = ()) -> list[Result]:
    """Run two ranks to their ends, with faults in the second one."""
    children = [start(place, command, 0), start(place, command, 1, *faults)]
    return [child.ended() for child in children]


def logged(place: Place, network_id: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.log(GMP, network_id)]


def begun(place: Place, network_id: int) -> int:
    """How often this network's training started from its initial weights."""
    return sum(line.get("continued") is False for line in logged(place, network_id))


@fault("F28", "ranks of torchrun or Slurm share networks", "each trained once, the same bytes")
@pytest.mark.parametrize(
    ("names", "world"), some_slow([(TORCHRUN, 2), (SLURM, 2), (TORCHRUN, 4), (SLURM, 4)])
)
def test_ranks(names: tuple[str, ...], world: int, place: Place, whole: Whole) -> None:
    children = [start(place, MAKE, rank, names=names, world=world) for rank in range(world)]
    first, *others = [child.ended() for child in children]
    assert {(done.code, done.stderr) for done in (first, *others)} == {(0, "")}
    assert place.networks() == whole(*MAKE)
    assert [begun(place, i) for i in range(3)] == [1, 1, 1]
    assert "pruned top-1 %" in first.stdout
    for rank, other in enumerate(others, start=1):
        assert other.stdout == ""
        said = paths.rank_log(place.logs, rank).read_text()
        assert "networks finished" in said
        assert "pruned top-1 %" not in said


@fault("F11", "one of two ranks is killed", "the other makes its network too, the same bytes")
def test_one_rank_is_killed(place: Place, whole: Whole) -> None:
    first, second = run_two(place, MAKE, faults=(STEP(3, "SIGKILL"),))
    assert (first.code, second.code) == (0, KILLED)
    assert place.networks() == whole(*MAKE)


@fault("F12", "a network of one rank fails", "named; all others made; the code at the end")
def test_a_network_of_another_rank_fails(place: Place, whole: Whole) -> None:
    """A network of rank 1 fails, and rank 1 says so; nobody tries it again; rank 0 returns the
    code."""
    nan = Fault("torch.nn.functional:cross_entropy", 1, "NaN")
    first, second = run_two(place, MAKE, faults=(nan,))
    assert (first.code, second.code) == (5, 0)
    for said in (first.stderr, second.stderr):
        assert said.count("\n") == 1
        assert f"{GMP} id 1: network: loss or weights are not finite" in said
    assert place.networks().items() < whole(*MAKE).items()
    assert [begun(place, i) for i in range(3)] == [1, 1, 1]
    place.finish(*MAKE)
    assert place.networks() == whole(*MAKE)


@fault("F23", "NaN in the loss of the first of three networks", "the others are made, exit 5")
def test_a_network_fails_and_the_others_are_made(place: Place, whole: Whole) -> None:
    nan = Fault("torch.nn.functional:cross_entropy", 1, "NaN")
    done = place.run(*MAKE, faults=(nan,))
    assert (done.code, done.stderr.count("\n")) == (5, 1)
    assert f"{GMP} id 0: network: loss" in done.stderr
    assert place.networks().items() < whole(*MAKE).items()
    assert len(place.networks()) == 2


@fault("F9", "SIGUSR2 or SIGHUP while a rank waits for another", "exit 75 at once")
@pytest.mark.parametrize("signum", some_slow([signal.SIGUSR2, signal.SIGHUP, signal.SIGTERM]))
def test_a_rank_that_waits_is_asked_to_end(signum: signal.Signals, place: Place) -> None:
    command = (*TRAIN, *ONE)
    place.models.mkdir(parents=True)
    with locks.held(NetworkFiles(place.models, GMP, 0).state):
        child = start(place, command, 0)
        until(
            lambda: "waiting for" in child.said[0].read_text() if child.said[0].exists() else False
        )
        os.kill(child.process.pid, signum)
        done = child.ended()
    assert done.code == (143 if signum == signal.SIGTERM else 75)
    assert (done.stderr.count("\n"), place.networks()) == (1, {})


@fault("F36", "an analysis by two ranks", "the same numbers, tables and page")
@pytest.mark.parametrize("command", some_slow([(DETECT,), (depth("supervised", *DETECT[-4:]),)]))
def test_an_analysis(command: Command, copy: Place) -> None:
    shutil.rmtree(copy.pies)
    alone = Place(Path(shutil.copytree(copy.folder, copy.folder.with_name("alone"))))
    assert alone.run(*command).code == 0
    first, second = run_two(copy, command)
    assert (first.code, second.code, first.stderr, second.stderr) == (0, 0, "", "")
    for pattern in ("**/*.npz", "**/*.csv", "index.html"):
        assert made(copy.pies, pattern) == made(alone.pies, pattern) != {}
    assert "dense top-1" in first.stdout
    assert second.stdout == ""


def made(folder: Path, pattern: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob(pattern)}


@slow
@fault("F36", "predictions and maps made anew by two ranks", "the same bytes")
def test_an_analysis_overwrites(copy: Place) -> None:
    before = {name: made(copy.pies, f"supervised/{name}/*.npz") for name in ("predictions", "umap")}
    first, second = run_two(copy, (*DETECT, "--plot_umap", "--overwrite"))
    assert (first.code, second.code, first.stderr, second.stderr) == (0, 0, "", "")
    for name, arrays in before.items():
        assert made(copy.pies, f"supervised/{name}/*.npz") == arrays != {}


# Under torchrun itself

LONG = (*TRAIN, "--models_number", "2", "--epochs", "60")


def torchrun(place: Place, *flags: str) -> subprocess.Popen[str]:
    engine = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script, *rest = LONG
    return subprocess.Popen(
        [*engine, *flags, str(ROOT / script), *rest], cwd=place.folder, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=300)
    return process.returncode


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happens():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)


def until_both_learn(place: Place) -> None:
    until(lambda: all(any("epoch" in line for line in logged(place, i)) for i in range(2)))


def process_of(rank: int, place: Place) -> int:
    """The id of the process that torchrun started as this rank, in this folder."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_rank = f"\0RANK={rank}\0" in (folder / "environ").read_bytes().decode()
            if is_rank and (folder / "cwd").resolve() == place.folder.resolve():
                return int(folder.name)
        except (OSError, UnicodeDecodeError):
            continue
    raise AssertionError(f"no rank {rank}")


@slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
@fault("F11", "torchrun --max-restarts 1, a rank is killed", "both start again, the same bytes")
def test_torchrun_restarts_a_rank_that_was_killed(place: Place, whole: Whole) -> None:
    process = torchrun(place, "--max-restarts=1")
    until_both_learn(place)
    os.kill(process_of(1, place), signal.SIGKILL)
    assert ended(process) == 0
    assert place.networks() == whole(*LONG)
    assert [sum("finished_after_seconds" in line for line in logged(place, i)) for i in (0, 1)] == [
        1,
        1,
    ]
    assert begun(place, 0) == 1  # rank 0 was asked to end, and saved


@slow
@fault("F11", "SIGTERM to torchrun", "both ranks save within its 30 s, and continue exactly")
def test_torchrun_is_asked_to_end(place: Place, whole: Whole) -> None:
    process = torchrun(place)
    until_both_learn(place)
    process.send_signal(signal.SIGTERM)
    assert ended(process) != 0
    assert place.networks() == {}
    assert all(NetworkFiles(place.models, GMP, i).state.exists() for i in range(2))
    assert ended(torchrun(place)) == 0
    assert place.networks() == whole(*LONG)
    assert [begun(place, i) for i in range(2)] == [1, 1]
