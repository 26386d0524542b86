"""Ranks: how they identify themselves, and how they share work without messages."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import options, ranks
from common.ranks import VARIABLES, Ranks
from common.runtime import Failure

TORCHRUN, SLURM = VARIABLES


@pytest.fixture(autouse=True)
def _none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SLURM):
        monkeypatch.delenv(name, raising=False)


def given_by(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], *values: object) -> None:
    for name, value in zip(names, values, strict=False):
        monkeypatch.setenv(name, str(value))


def test_a_process_alone_is_rank_0_of_1() -> None:
    assert ranks.of_environment() == Ranks() == (0, 1, 0)


@pytest.mark.parametrize("names", VARIABLES)
def test_an_engine_tells_who_a_process_is(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    given_by(monkeypatch, names, 5, 8)
    assert ranks.of_environment() == (5, 8, 5)
    given_by(monkeypatch, names, 5, 8, 1)
    assert ranks.of_environment() == (5, 8, 1)


def test_torchrun_inside_slurm_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    given_by(monkeypatch, SLURM, 0, 1, 0)
    given_by(monkeypatch, TORCHRUN, 3, 4, 3)
    assert ranks.of_environment() == (3, 4, 3)


def test_a_shell_of_salloc_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")  # and no SLURM_PROCID
    assert ranks.of_environment() == Ranks()


def test_a_batch_script_that_asks_for_no_tasks_is_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_by(monkeypatch, SLURM, 0)  # seen in Slurm 22.05: a rank, and no number of tasks
    assert ranks.of_environment() == Ranks()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (("x", "2"), "RANK: 'x'"), (("-1", "2"), "RANK: '-1'"), (("1.5", "2"), "RANK: '1.5'"),
        (("1",), "WORLD_SIZE: missing"), (("0", "no"), "WORLD_SIZE: 'no'"),
        (("0", "0"), "RANK=0: below WORLD_SIZE"), (("2", "2"), "RANK=2: below WORLD_SIZE"),
        (("0", "2", "?"), "LOCAL_RANK: '?'"),
    ],
)  # fmt: skip
def test_a_value_that_is_none_is_refused(
    values: tuple[str, ...], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_by(monkeypatch, TORCHRUN, *values)
    with pytest.raises(Failure, match="environment variable") as refused:
        options.training("", learner="supervised").parse_args([])
    assert (refused.value.code, named in str(refused.value)) == (2, True)


def test_one_gpu_for_several_ranks_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = options.training("", learner="supervised")
    assert parser.parse_args(["--cuda_device", "1"]).cuda_device == 1
    given_by(monkeypatch, TORCHRUN, 1, 2)
    assert parser.parse_args([]).ranks == (1, 2, 1)
    assert parser.parse_args(["--cuda_device", "-1"]).cuda_device == -1
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--cuda_device", "0"])
    assert ended.value.code == 2
    assert "the 2 ranks would share it" in capsys.readouterr().err


@given(st.integers(1, 12), st.integers(0, 40))
def test_every_rank_tries_every_piece_once_and_begins_with_its_own(world: int, n: int) -> None:
    pieces = list(range(n))
    for rank in range(world):
        order = Ranks(rank, world).order(pieces)
        assert sorted(order) == pieces
        mine = pieces[rank::world]
        assert order[: len(mine)] == mine


def test_one_rank_keeps_the_order() -> None:
    assert Ranks().order("abc") == ["a", "b", "c"]


@given(st.integers(2, 8), st.integers(1, 30), st.randoms(use_true_random=False))
def test_ranks_of_any_speed_make_everything_once(world: int, n: int, draw: random.Random) -> None:
    """In a world where each looks at what is taken, then takes: as behind a lock. Nobody has a
    second piece before another has the first: with equal speeds all work to the end."""
    waiting = [iter(Ranks(rank, world).order(range(n))) for rank in range(world)]
    taken: Counter[int] = Counter()
    while waiting:
        rank = draw.randrange(len(waiting))
        piece = next((piece for piece in waiting[rank] if not taken[piece]), None)
        if piece is None:
            waiting.pop(rank)
        else:
            taken[piece] += 1
    assert taken == Counter(range(n))


def test_other_ranks_print_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    log = tmp_path / "logs" / "rank1.log"
    for line in ("one", "two"):
        ranks.print_to(log)
        print(line)
    assert log.read_text() == "one\ntwo\n"
    assert not sys.stderr.isatty()


def test_a_log_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    (tmp_path / "logs").write_text("mine")
    ranks.print_to(tmp_path / "logs" / "rank1.log")
    print("said to nobody")
    assert capsys.readouterr().out == ""
