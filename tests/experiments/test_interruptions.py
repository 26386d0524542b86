"""Interrupted work continues, and work on which other processes are busy is left to them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from running import assert_refused, assert_succeeds, files, train

from common import locks, paths
from common.experiments import making
from common.files import append_log
from common.learning import loop
from common.paths import NetworkFiles
from common.study import Cell

GMP = {learner: Cell(learner, "GMP", 0.9) for learner in ("supervised", "SupCon")}
SUPERVISED = GMP["supervised"]
# Ten steps an epoch, pruned in the first four.
PRUNING = ("--pruning_percentages", "0.9", "--begin_step", "0", "--end_step", "39")
ONE = (*PRUNING, "--frequency", "3", "--models_number", "1", "--limit", "100")
TRAIN = {
    "supervised": train("supervised", *ONE, "--epochs", "14", "--batch_size", "10"),
    "SupCon": train(
        "SupCon", *ONE, "--epochs", "8", "--batch_size", "20",
        "--head_epochs", "30", "--batch_size_head", "10",
    ),
}  # fmt: skip
SHORT = (*TRAIN["supervised"], "--epochs", "5")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders, in which the same networks are made in two ways."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    return one, other


def lines_logged(cwd: Path, cell: Cell, network_id: int = 0) -> list[dict[str, Any]]:
    path = paths.log(cwd / "logs" / "digits", cell, network_id)
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def epochs_logged(cwd: Path, cell: Cell) -> list[str]:
    """The stage of every epoch in the log."""
    return [line["stage"] for line in lines_logged(cwd, cell) if "stage" in line]


def stop_at_first(stage: str, signum: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next script get this signal at the end of its first epoch of this stage."""
    end_epoch = loop._end_epoch

    def end_and_stop(progress: Any, *arguments: Any) -> dict[str, Any]:
        if progress.stage.schedule.name == stage:
            signal.raise_signal(signum)
        return end_epoch(progress, *arguments)

    monkeypatch.setattr(loop, "_end_epoch", end_and_stop)


@pytest.mark.parametrize(
    ("learner", "stops"),
    [
        ("supervised", [("network", signal.SIGTERM, 143), ("network", signal.SIGINT, 130)]),
        ("SupCon", [("encoder", signal.SIGUSR1, 75), ("head", signal.SIGTERM, 143)]),
    ],
)
def test_an_interrupted_training_equals_an_uninterrupted_one_bit_for_bit(
    learner: str, stops: list[tuple[str, signal.Signals, int]], folders: tuple[Path, Path]
) -> None:
    """While it is being pruned, too: masks and momentum continue. Signals from other processes, at
    every step, are in faults/."""
    stopped, whole = folders
    state = NetworkFiles(stopped / "models" / "digits", GMP[learner], 0).state
    for stage, signum, code in stops:
        with pytest.MonkeyPatch.context() as patch:
            stop_at_first(stage, signum, patch)
            done = assert_refused(stopped, TRAIN[learner], code, signum.name, may_change="*")
        assert "run the same command again" in done.stderr
        assert state.exists()
        assert paths.networks_present(state.parent) == {}  # nobody takes a state for a network
    for folder in folders:
        assert_succeeds(folder, TRAIN[learner])
    assert files(stopped / "models") == files(whole / "models")  # and the state is gone
    # It continued, rather than starting again: no epoch was run twice.
    assert epochs_logged(stopped, GMP[learner]) == epochs_logged(whole, GMP[learner])


def test_a_network_does_not_depend_on_who_trains_it_or_beside_whom(
    folders: tuple[Path, Path],
) -> None:
    alone, together = folders
    assert_succeeds(alone, (*SHORT, "--index_start", "1"))
    assert_succeeds(together, (*SHORT, "--models_number", "2"))
    assert files(alone / "models").items() < files(together / "models").items()


def test_the_same_network_of_another_folder_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sibling folders share logs: meanwhile a network is made, or fails, in the other folder."""
    take = making._take

    def take_after_others(args: Any, network: making.Missing, n_logged: int) -> Any:
        where = network.files
        for code in (0, 5):
            end = {"models": "elsewhere", "exit_code": code, "failed": "elsewhere"}
            append_log(paths.log(args.logs, where.cell, where.id), end)
        return take(args, network, n_logged)

    monkeypatch.setattr(making, "_take", take_after_others)
    assert_succeeds(tmp_path, (*SHORT, "--overwrite"))
    assert paths.networks_present(tmp_path / "models" / "digits") == {SUPERVISED: {0}}


def test_a_network_that_another_process_works_on_is_left_to_it(tmp_path: Path) -> None:
    models = tmp_path / "models" / "digits"
    models.mkdir(parents=True)
    command = (*SHORT, "--models_number", "3")

    def trainings() -> list[int]:
        """How often the training of each network has begun."""
        return [sum("config" in line for line in lines_logged(tmp_path, SUPERVISED, i))
                for i in range(3)]  # fmt: skip

    with locks.held(NetworkFiles(models, SUPERVISED, 1).state):
        assert_refused(tmp_path, command, 8, "id 1;", may_change="*")
    assert trainings() == [1, 0, 1]
    assert paths.networks_present(models) == {SUPERVISED: {0, 2}}
    assert_succeeds(tmp_path, command)
    assert trainings() == [1, 1, 1]
    assert paths.networks_present(models) == {SUPERVISED: {0, 1, 2}}
