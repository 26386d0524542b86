"""F1: SIGKILL at random instants. FAULT_KILLS says how many, in all; a few in CI."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty import SAVE_OFTEN, Child
from places import CLR, FINETUNE, ONE, PRUNED, SUP, TWO, Place
from rows import FULL, Row, json_path
from running import ROOT

KILLS = int(os.environ.get("FAULT_KILLS", "9"))
IN_A_ROW = 3  # so many kills before a training may end
COMMANDS = {
    "supervised": (*SUP, *PRUNED, *ONE, "--epochs", "16"),
    "SupCon": (*CLR, *PRUNED[:2], *ONE, "--epochs", "8", "--head_epochs", "8", "--head_views", "2"),
    "fine-tuning": (*FINETUNE, *TWO, "--pruning_percentages", "0.5", "--epochs", "10"),
}
# Sums of several threads are the same again, too; on a busy machine they take minutes.
THREADS = {"supervised": 2} if FULL else {}
ROWS = [
    Row("faults", "F1", "SIGKILL at random instants", "final files equal bit for bit", print, name)
    for name in COMMANDS
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_killed_at_random_instants_the_final_files_are_the_same(
    row: Row,
    tmp_path: Path,
    study_of_two: Path,
    whole: Callable[..., dict[str, bytes]],
    counts: dict[str, Any],
) -> None:
    command = COMMANDS[row.variant]
    start = study_of_two if row.variant == "fine-tuning" else None
    threads = THREADS.get(row.variant, 1)
    began = time.monotonic()
    expected = whole(*command, start=start, threads=threads)
    seconds = time.monotonic() - began
    draw = random.Random(row.variant)
    index = list(COMMANDS).index(row.variant)
    left = KILLS // len(COMMANDS) + (index < KILLS % len(COMMANDS))
    folder = 0
    while left:
        place = Place(tmp_path / f"work{folder}", threads)
        folder += 1
        if start is not None:
            shutil.copytree(start, place.folder)
        place.watch()
        states = kill_some_times(place, command, min(left, IN_A_ROW), seconds, draw)
        killed = len(states)
        counts["kills"] += killed
        counts["kills_with_a_state"] += sum(states)
        lost = len(place.lost())
        place.finish(*command)
        counts["files_lost"] += lost
        assert not lost
        assert place.files() == expected
        counts["kills_bit_exact"] += killed
        left -= killed


def test_only_the_full_run_writes_its_counts_beside_the_readme() -> None:
    assert json_path(True, None) == ROOT / "faults.json"
    assert json_path(False, None) is None
    assert json_path(False, "here.json") == json_path(True, "here.json") == Path("here.json")


def kill_some_times(
    place: Place, command: tuple[str, ...], times: int, seconds: float, draw: random.Random
) -> list[bool]:
    """Kill it so often, or until it ends before that; for each kill, whether a state was there."""
    states: list[bool] = []
    while len(states) < times:
        child = Child(place.folder, command, SAVE_OFTEN, threads=place.threads)
        done = child.kill(draw.uniform(0, seconds))
        assert done.code in (0, -signal.SIGKILL), done.stderr
        if done.code == 0:
            break
        states.append(any(place.models.glob(".*.state*.pt")))
        place.good |= place.whole()  # what was finished before a kill may not be lost by the next
    return states
