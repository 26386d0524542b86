"""Work that is stopped continues, and work that others do is left to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from running import run_here, start

from common import paths
from common.learning import loop
from common.paths import Cell

GMP = {learner: Cell(learner, "GMP", 0.9) for learner in ("supervised", "SupCon")}
SHARED = (
    *("--cuda_device", "-1", "--dataset", "digits", "--limit", "100", "--test_limit", "50"),
    *("--pruning_percentages", "0.9"),
)
TRAIN = {
    "supervised": ("sup_training.py", *SHARED, "--epochs", "14", "--batch_size", "10"),
    "SupCon": (
        *("clr_training.py", *SHARED, "--epochs", "8", "--batch_size", "20"),
        *("--head_epochs", "30", "--batch_size_head", "10"),
    ),
}
ONE = ("--models_number", "1")
PRUNE_ALL_THE_TIME = ("--begin_step", "0", "--end_step", "39", "--frequency", "3")


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until the process has come to where a test wants it."""
    for _ in range(12_000):
        if condition():
            return
        if process.poll() is not None:
            raise AssertionError(f"ended too early: {process.communicate()}")
        time.sleep(0.005)
    process.kill()
    raise AssertionError("never came so far")


def epochs_logged(cwd: Path, cell: Cell, network_id: int = 0) -> list[str]:
    """The stage of every epoch in the log."""
    path = paths.log(cwd / "logs" / "digits", cell, network_id)
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines(keepends=True)
             if line.endswith("\n")]  # fmt: skip
    return [line["stage"] for line in lines if "stage" in line]


def interrupt(cwd: Path, learner: str, stage: str, signum: signal.Signals) -> tuple[int, str]:
    """Train until an epoch of this stage has ended, then send the signal."""
    before = epochs_logged(cwd, GMP[learner]).count(stage)
    process = start(cwd, *TRAIN[learner], *ONE, *PRUNE_ALL_THE_TIME)
    wait_for(lambda: epochs_logged(cwd, GMP[learner]).count(stage) > before, process)
    os.kill(process.pid, signum)
    _, stderr = process.communicate(timeout=120)
    return process.returncode, stderr


def stored(cwd: Path, learner: str, network_id: int = 0) -> list[dict[str, Any]]:
    files = paths.checkpoints(cwd / "models" / "digits", GMP[learner], network_id)
    return [torch.load(path, weights_only=True) for path in files.values()]


def assert_bit_equal(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Weights, running averages, masks, projection, history: everything but the time it took."""
    for part, other in zip(found, expected, strict=True):
        for kind in ("model", "masks", "projection"):
            assert part.get(kind, {}).keys() == other.get(kind, {}).keys()
            for name, tensor in part.get(kind, {}).items():
                assert torch.equal(tensor, other[kind][name]), f"{kind} {name}"
        assert part["config"] == other["config"]
        if "results" in part:
            assert part["results"] | {"seconds": 0} == other["results"] | {"seconds": 0}


@pytest.mark.parametrize(
    ("learner", "stops"),
    [
        ("supervised", [("network", signal.SIGTERM, 143), ("network", signal.SIGINT, 130)]),
        ("SupCon", [("encoder", signal.SIGUSR1, 75), ("head", signal.SIGTERM, 143)]),
    ],
)
def test_an_interrupted_training_equals_an_uninterrupted_one_bit_for_bit(
    learner: str, stops: list[tuple[str, signal.Signals, int]], tmp_path: Path
) -> None:
    """While it is being pruned, too: masks and momentum continue."""
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    stopped.mkdir()
    whole.mkdir()
    command = (*TRAIN[learner], *ONE, *PRUNE_ALL_THE_TIME)
    state = paths.training_state(stopped / "models" / "digits", GMP[learner], 0)
    for stage, signum, code in stops:
        ended = interrupt(stopped, learner, stage, signum)
        assert ended[0] == code, ended
        assert ended[1].count("\n") == 1
        assert signum.name in ended[1]
        assert state.exists()
        assert paths.networks_present(state.parent) == {}  # nobody takes a state for a network
    done = run_here(stopped, *command)
    assert (done.code, done.stderr) == (0, "")
    assert not state.exists()
    assert run_here(whole, *command).code == 0
    assert_bit_equal(stored(stopped, learner), stored(whole, learner))
    # It continued, rather than starting again: no epoch was run twice.
    assert epochs_logged(stopped, GMP[learner]) == epochs_logged(whole, GMP[learner])


SHORT = (*TRAIN["supervised"], "--epochs", "3", *ONE)


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A folder in which a training was stopped after its first epoch."""
    cwd = tmp_path / "stopped"
    cwd.mkdir()
    end_epoch = loop._end_epoch

    def end_and_stop(*arguments: Any) -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        return end_epoch(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_end_epoch", end_and_stop)
        done = run_here(cwd, *SHORT)
    assert done.code == 143
    assert paths.training_state(cwd / "models" / "digits", GMP["supervised"], 0).exists()
    assert len(epochs_logged(cwd, GMP["supervised"])) == 1
    return cwd


def test_a_state_is_continued(stopped: Path) -> None:
    assert run_here(stopped, *SHORT).code == 0
    assert len(epochs_logged(stopped, GMP["supervised"])) == 3


def test_a_network_does_not_depend_on_who_trains_it_or_beside_whom(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    short = (*TRAIN["supervised"], "--epochs", "2")
    assert run_here(alone, *short, *ONE, "--index_start", "1").code == 0
    assert run_here(together, *short, "--models_number", "2").code == 0
    assert_bit_equal(stored(alone, "supervised", 1), stored(together, "supervised", 1))


# Several processes


def trainings_of(cwd: Path, network_id: int) -> int:
    """How often a training of this network has begun."""
    path = paths.log(cwd / "logs" / "digits", GMP["supervised"], network_id)
    return path.read_text().count('"config"') if path.exists() else 0


def test_a_network_that_another_process_works_on_is_left_to_it(tmp_path: Path) -> None:
    models = tmp_path / "models" / "digits"
    models.mkdir(parents=True)
    command = (*TRAIN["supervised"], "--epochs", "2", "--models_number", "3")
    with FileLock(paths.lock(paths.training_state(models, GMP["supervised"], 1))):
        done = run_here(tmp_path, *command)
        assert done.code == 8
        assert done.stderr.count("\n") == 1
        assert "id 1;" in done.stderr
        assert [trainings_of(tmp_path, i) for i in range(3)] == [1, 0, 1]
    assert paths.networks_present(models) == {GMP["supervised"]: {0, 2}}
    assert run_here(tmp_path, *command).code == 0
    assert [trainings_of(tmp_path, i) for i in range(3)] == [1, 1, 1]
    assert paths.networks_present(models) == {GMP["supervised"]: {0, 1, 2}}
