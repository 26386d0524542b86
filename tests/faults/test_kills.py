"""F1 to F10, F36, F38 to F40: whatever ends a process, the same command makes the same networks.

FAULT_KILLS says how often trainings are killed at random instants, in all.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty import Child, Fault, run
from places import (
    CLR,
    DETECT,
    FINETUNE,
    FLUSH,
    GMP,
    KILLS,
    ONE,
    RENAME,
    SAVE_OFTEN,
    STEP,
    SUP,
    TRAIN,
    WRITE,
    Place,
    rewrite,
    some_slow,
)
from running import Study, depth, detect

from common import paths
from common.model import checkpoints
from common.paths import NetworkFiles
from common.study import dense_cell

Whole = Callable[..., dict[str, bytes]]
fault, slow = pytest.mark.fault, pytest.mark.slow
KILLED = -signal.SIGKILL


# At random instants

IN_A_ROW = 3  # so many kills before a training may end
COMMANDS = {
    "supervised": (*TRAIN, "--epochs", "8"),
    "SupCon": (*CLR, *ONE, "--limit", "100", "--batch_size", "25", "--pruning_percentages", "0.9",
               "--epochs", "8", "--head_epochs", "8", "--head_views", "2"),
    "fine-tuning": (*FINETUNE, "--pruning_percentages", "0.8", "--epochs", "10"),
}  # fmt: skip


@fault("F1", "SIGKILL at random instants", "final files equal bit for bit")
@pytest.mark.parametrize("of", some_slow(COMMANDS))
def test_killed_at_random_instants(
    of: str, tmp_path: Path, study: Study, whole: Whole, counts: dict[str, int]
) -> None:
    run(tmp_path, "sup_training.py", "--help")  # imports torch before anything is timed
    command, start = COMMANDS[of], study.folder if of == "fine-tuning" else None
    began = time.monotonic()
    expected = whole(*command, start=start)
    seconds = time.monotonic() - began
    draw, index = random.Random(of), list(COMMANDS).index(of)
    left = KILLS // len(COMMANDS) + (index < KILLS % len(COMMANDS))
    while left:
        place = Place(tmp_path / str(left))
        if start is not None:
            shutil.copytree(start, place.folder, dirs_exist_ok=True)
        states = kill_some_times(place, command, min(left, IN_A_ROW), seconds, draw)
        left -= len(states)
        counts["kills"] += len(states)
        counts["kills_with_a_state"] += sum(states)
        lost = place.lost()
        counts["files_lost"] += len(lost)
        assert not lost
        place.finish(*command)
        assert place.networks() == expected
        counts["kills_bit_exact"] += len(states)


def kill_some_times(
    place: Place, command: tuple[str, ...], times: int, seconds: float, draw: random.Random
) -> list[bool]:
    """Kill the command so often, or until it ends; return for each kill whether a state existed."""
    states: list[bool] = []
    place.watch()
    while len(states) < times:
        child = Child(place.folder, *command, faults=(SAVE_OFTEN,))
        done = child.kill(draw.uniform(0, seconds))
        assert done.code in (0, KILLED), done.stderr
        if done.code == 0:
            break
        states.append(any(place.models.glob(".*.state.pt")))
        place.good |= place.readable()  # what one kill spared may not be lost by the next
    return states


# At the instants that matter


@fault("F2", "SIGKILL before a step", "bit-equal files")
@fault("F3", "SIGKILL half-way through writing a file", "the file before it is whole")
@fault("F4", "SIGKILL between writing and renaming", "the file before it is whole")
@fault("F5", "SIGKILL between renaming and flushing the folder", "old or new, both verify")
@fault("F27", "the lock of a process that is dead", "taken over at the first try")
@pytest.mark.parametrize(
    ("at", "n", "saved"),
    some_slow(
        [  # the fourth file is the network, those before it are states
            *((STEP, 20, 15), (WRITE, 2, 5), (STEP, 1, 0), (STEP, 6, 5), (STEP, 13, 10)),
            *((WRITE, 1, 0), (WRITE, 4, 15), (RENAME, 4, 15), (RENAME, 1, 0), (RENAME, 2, 5)),
            *((FLUSH, 4, 15), (FLUSH, 1, 5), (FLUSH, 2, 10)),
        ],
        fast=2,
    ),
)
def test_killed_at_an_instant(
    at: Callable[..., Fault], n: int, saved: int, place: Place, whole: Whole
) -> None:
    how = "half, then SIGKILL" if at is WRITE else "SIGKILL"
    assert place.run(*TRAIN, faults=(SAVE_OFTEN, at(n, how))).code == KILLED
    assert len(list(place.models.glob(".*.tmp.pt"))) == (at in (WRITE, RENAME))
    assert place.step() == saved
    assert paths.lock(place.state_path).exists()
    place.watch()
    place.finish(*TRAIN)
    assert place.networks() == whole(*TRAIN)


@slow
@fault("F3", "a half-written file of another network", "left alone: it may be being written")
@fault("F40", "the same command twice", "the same bytes")
def test_a_half_written_file_of_another_network(place: Place, whole: Whole) -> None:
    place.models.mkdir(parents=True)
    other = paths.temporary(NetworkFiles(place.models, GMP, 1).parts["network"], "123")
    other.write_bytes(b"half")
    assert place.run(*TRAIN).code == 0
    assert other.read_bytes() == b"half"
    assert place.networks() == whole(*TRAIN)


@fault("F3", "SIGKILL while a finished network is replaced", "the old one stays")
def test_killed_while_overwriting(copy: Place) -> None:
    before = copy.networks()
    copy.watch()
    half = WRITE(1, "half, then SIGKILL")
    assert copy.run(*SUP, "--overwrite", faults=(half,)).code == KILLED
    assert copy.networks() == before
    copy.finish(*SUP)
    assert copy.networks() == before


@slow
@fault("F6", "SIGKILL between an encoder and a head that replace others", "the half pair counts "
       "as missing: analyses refuse it, training makes it again")  # fmt: skip
def test_killed_within_a_pair(copy: Place) -> None:
    before = copy.networks()
    command = (*CLR, *ONE, "--overwrite", "--seed", "1")
    assert copy.run(*command, faults=(RENAME(2, "SIGKILL"),)).code == KILLED
    assert checkpoints.read_parts(NetworkFiles(copy.models, dense_cell("SupCon"), 0)) is None
    copy.assert_refused(
        detect("SupCon"), 4, "SupCon_dense_s0.00_id00_head.pt: missing or incomplete"
    )
    copy.finish(*CLR)
    assert copy.networks() == before


@slow
@fault("F36", "SIGKILL in the k-NN of an analysis", "what is finished is kept, the same numbers")
def test_an_analysis_is_killed(copy: Place) -> None:
    command = depth("supervised", *DETECT[-4:])
    kill = Fault("common.analysis.probes:knn_predict", 9, "SIGKILL")
    shutil.rmtree(copy.pies)
    undisturbed = Place(Path(shutil.copytree(copy.folder, copy.folder.with_name("undisturbed"))))
    assert copy.run(*command, faults=(kill,)).code == KILLED
    cached = {path: path.read_bytes() for path in copy.pies.rglob("predictions/*.npz")}
    assert len(cached) >= 2
    copy.watch()
    for place in (copy, undisturbed):
        assert place.run(*command).code == 0
    assert {path: path.read_bytes() for path in cached} == cached
    assert paths.summary(copy.pies).read_bytes() == paths.summary(undisturbed.pies).read_bytes()


# Signals that ask


@fault("F7", "SIGTERM within a step", "saved, exit 143, no step lost")
@fault("F8", "SIGINT, or SIGTERM again after a signal", "saved, the exit code of the first")
@fault("F9", "SIGUSR1, SIGUSR2 or SIGHUP", "saved, exit 75, continued exactly")
@pytest.mark.parametrize(
    ("signals", "code"),
    some_slow(
        [
            *(("SIGTERM", 143), ("SIGUSR1", 75), ("SIGINT", 130)),
            *(("SIGTERM SIGTERM", 143), ("SIGUSR1 SIGTERM", 75), ("SIGINT SIGTERM", 130)),
            *(("SIGUSR2", 75), ("SIGHUP", 75)),
        ]
    ),
)
def test_asked_to_end(signals: str, code: int, place: Place, whole: Whole) -> None:
    words = (signals.split()[0], "run the same command again")
    place.assert_refused(TRAIN, code, *words, faults=(STEP(7, signals),), may_change="*")
    assert place.step() == 7
    place.finish(*TRAIN)
    assert place.networks() == whole(*TRAIN)


@fault("F8", "SIGINT after another signal", "130 at once, the old files whole")
@pytest.mark.parametrize("signals", ["SIGINT SIGINT", "SIGTERM SIGINT"])
def test_asked_to_leave_at_once(signals: str, place: Place) -> None:
    """Nothing is saved, and nothing that was saved is lost."""
    assert place.run(*TRAIN, faults=(SAVE_OFTEN, STEP(7, signals))).code == 130
    assert place.step() == 5
    assert place.networks() == {}


@slow
@fault("F10", "SIGTERM while a state is saved, also for a first SIGTERM", "the save completes, 143")
@pytest.mark.parametrize(("first", "step"), [(SAVE_OFTEN, 5), (STEP(7, "SIGTERM"), 7)])
def test_asked_to_end_while_saving(first: Fault, step: int, place: Place, whole: Whole) -> None:
    assert place.run(*TRAIN, faults=(first, WRITE(1, "SIGTERM"))).code == 143
    assert place.step() == step
    place.finish(*TRAIN)
    assert place.networks() == whole(*TRAIN)


# Continuing otherwise

BEFORE = {"torch": "2.11.0", "device": "H100", "CUDA": "11.8", "threads": "64"}


def stopped(place: Place) -> Path:
    """A training that was stopped before a step, and the path of its state."""
    assert place.run(*TRAIN, faults=(STEP(7, "SIGTERM"),)).code == 143
    return place.state_path


@slow
@fault("F38", "another torch, device, CUDA and number of threads on continuing",
       "continued; said in one line and in the log")  # fmt: skip
def test_continued_in_another_environment(place: Place, whole: Whole) -> None:
    rewrite(stopped(place), lambda state: state["versions"].update(BEFORE))
    done = place.finish(*TRAIN)
    assert done.stderr.count("\n") == 1
    begun = done.stderr.partition("begun under ")[2]
    assert all(f"{what} {version}" in begun for what, version in BEFORE.items())
    assert "the result may differ from an uninterrupted one" in done.stderr
    assert any("begun_under" in json.loads(line) for line in place.log())
    assert place.networks() == whole(*TRAIN)


OTHERS = {
    ("--learning_rate", "0.2"): "learning_rate",
    ("--seed", "1"): "seed 0 (not 1)",
    ("--limit", "90"): "limit 100 (not 90)",
    ("--epochs", "5"): "epochs 4 (not 5)",
}


@slow
@fault("F39", "continuing with other flags", "exit 4 naming the keys; --overwrite starts again")
def test_continued_with_other_flags(place: Place, whole: Whole) -> None:
    path = stopped(place)
    for flags, named in OTHERS.items():
        place.assert_refused((*TRAIN, *flags), 4, named, path.name, "--overwrite")
    place.finish(*TRAIN, *flags, "--overwrite")
    assert place.networks() == whole(*TRAIN, *flags)
