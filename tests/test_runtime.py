"""Exit codes, signals, seeds, devices, memory."""

from __future__ import annotations

import errno
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import ROOT

from common import runtime
from common.runtime import Failure, Interrupted

keys = st.lists(st.integers(-(2**40), 2**40) | st.text(max_size=8), min_size=1, max_size=4)


@pytest.fixture(autouse=True)
def _handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`runtime.main` takes the process's signals; give them back."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/script.py"])
    monkeypatch.setattr(runtime, "_stop_signal", None)
    before = {signum: signal.getsignal(signum) for signum in runtime.EXIT_SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def ending(error: BaseException) -> Callable[[], int]:
    def script() -> int:
        raise error

    return script


# Exit codes


def test_the_exit_codes_of_the_contract() -> None:
    ends = ("ARGUMENTS", "DATA", "CHECKPOINT", "NON_FINITE", "MEMORY", "WRITE", "LOCKED")
    assert [getattr(runtime, f"EXIT_{end}") for end in ends] == [2, 3, 4, 5, 6, 7, 8]
    requeue = dict.fromkeys((signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP), 75)
    assert {signal.SIGTERM: 143, signal.SIGINT: 130} | requeue == runtime.EXIT_SIGNALS


def test_a_script_that_ends_well_keeps_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert [runtime.main(lambda code=code: code) for code in (0, 1, 17)] == [0, 1, 17]
    output = capsys.readouterr()
    assert re.fullmatch(r"took 0:00:00, at most \d+\.\d GB of memory\n", output.out)
    assert output.err == ""


def test_the_peak_of_memory_is_that_of_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    def gigabytes() -> float:
        assert runtime.main(lambda: 0) == 0
        return float(capsys.readouterr().out.split()[-4])

    ballast = bytes(range(1, 200)) * 5_000_000
    assert gigabytes() >= round(len(ballast) / 1e9, 1)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (Failure(3, "data/x.png: not an image"), 3, "data/x.png: not an image"),
        (Failure(5, "the loss is not finite"), 5, "the loss is not finite"),
        (Interrupted(signal.SIGTERM), 143, "SIGTERM"),
        (Interrupted(signal.SIGINT), 130, "SIGINT"),
        (Interrupted(signal.SIGUSR1), 75, "SIGUSR1"),
        (OSError(errno.ENOSPC, "No space left on device", "models/a.pt"), 7, "models/a.pt"),
        (OSError(errno.ENOSPC, "No space left on device"), 7, "No space left on device"),
        (OSError("torn"), 7, "torn"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 7, "/x: Permission denied"),
        (MemoryError(), 6, "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried 2 GiB"), 6, "--batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate\nmemory"), 6, "out of memory"),
    ],
    ids=repr,
)
def test_a_foreseen_end_is_one_line_and_a_code(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runtime.main(ending(error)) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("script.py: ")
    assert message in shown.err


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (PermissionError(errno.EACCES, "Permission denied"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (OSError(errno.EINVAL, "Invalid argument"), False),  # of a file that is cut
        (IsADirectoryError(errno.EISDIR, "Is a directory"), False),
        (OSError("torn"), False),
        (EOFError(), False),
        (RuntimeError("PytorchStreamReader failed"), False),
    ],
    ids=repr,
)
def test_trouble_with_memory_or_disk_says_nothing_about_a_file(
    error: BaseException, trouble: bool
) -> None:
    assert runtime.is_trouble(error) == trouble


@pytest.mark.parametrize(("size", "half"), [(256, 128), (1, 1)])
def test_running_out_of_memory_names_the_flag_and_half_of_it(size: int, half: int) -> None:
    message = f"--batch_size {size}: .*; try --batch_size {half}$"
    with pytest.raises(Failure, match=message) as end, runtime.memory_for("--batch_size", size):
        torch.empty(2**60, dtype=torch.uint8)
    assert end.value.code == 6


def test_a_name_cannot_break_the_line_or_steer_the_terminal() -> None:
    text = "Vögel a\nb \x1b[31mred \u202e\0"
    assert runtime.one_line(text) == r"Vögel a\nb \x1b[31mred \u202e\x00"


@pytest.mark.parametrize("error", [ValueError, RuntimeError, KeyError])
def test_a_bug_keeps_its_traceback(error: type[Exception]) -> None:
    with pytest.raises(error, match="a bug"):
        runtime.main(ending(error("a bug")))
    with pytest.raises(error, match="a bug"), runtime.memory_for("--batch_size", 1):
        raise error("a bug")


def test_debug_adds_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--debug"])
    assert runtime.main(ending(Failure(4, "net.pt: damaged"))) == 4
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("script.py: net.pt: damaged\n")


# Signals


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # USR2 and HUP mean the same


def test_a_terminal_that_closes_does_not_end_what_nohup_started() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def script() -> int:
        runtime.stop_at_safe_point()
        signal.raise_signal(signal.SIGHUP)
        return 17 if runtime.stop_requested() is None else 0

    assert runtime.main(script) == 17


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_ends_a_script_at_once_unless_it_asks_to_wait(
    signum: signal.Signals, waits: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    reached = []

    def script() -> int:
        if waits:
            runtime.stop_at_safe_point()
        assert runtime.stop_requested() is None
        signal.raise_signal(signum)
        reached.append(runtime.stop_requested())
        raise Interrupted(runtime.stop_requested())

    assert runtime.main(script) == runtime.EXIT_SIGNALS[signum]
    assert reached == [signum] * waits
    assert signum.name in capsys.readouterr().err


CHILD = """
import sys, time
from common import runtime

def script():
    runtime.stop_at_safe_point()
    print("ready", flush=True)
    while runtime.stop_requested() is None:
        time.sleep(0.01)
    print("safe point", flush=True)
    if "--slow" in sys.argv:
        time.sleep(60)
    raise runtime.Interrupted(runtime.stop_requested())

sys.exit(runtime.main(script))
"""


def child(*flags: str) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", CHILD, *flags],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout.readline() == "ready\n"
    return started


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_process_that_is_signalled_reaches_its_safe_point(signum: signal.Signals) -> None:
    process = child()
    os.kill(process.pid, signum)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == runtime.EXIT_SIGNALS[signum]
    assert stdout == "safe point\n"
    assert stderr.count("\n") == 1
    assert signum.name in stderr
    assert "again" in stderr  # what to do: run the same command again


@pytest.mark.parametrize("first", SIGNALS)
def test_only_ctrl_c_after_a_first_signal_does_not_wait(first: signal.Signals) -> None:
    """Schedulers send theirs twice, or one after the other."""
    process = child("--slow")
    os.kill(process.pid, first)
    assert process.stdout.readline() == "safe point\n"
    for signum in (signal.SIGTERM, signal.SIGUSR1):
        os.kill(process.pid, signum)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=50)
    assert process.returncode == 130


# Seeds


def test_seeds_never_change() -> None:
    """They define every network that has been trained, in every process."""
    assert runtime.seed_from(0, 0, "weights") == 5342618503015607053
    assert len({runtime.seed_from(*keys) for keys in ((0,), (0, 0), ("0",), (1, 23), (12, 3))}) == 5


@settings(max_examples=200)
@given(keys, keys)
def test_seeds_differ_exactly_where_keys_differ(a: list[int | str], b: list[int | str]) -> None:
    assert (runtime.seed_from(*a) == runtime.seed_from(*b)) == (a == b)
    assert 0 <= runtime.seed_from(*a) < 2**63


def test_dropout_draws_what_it_would_draw_after_torchs_own_seeding() -> None:
    torch.manual_seed(runtime.seed_from(3, "dropout"))
    expected = torch.nn.functional.dropout(torch.ones(100))
    runtime.seed_torch(torch.device("cpu"), 3, "dropout")
    assert torch.equal(torch.nn.functional.dropout(torch.ones(100)), expected)
    runtime.seed_torch(torch.device("cpu"), 4, "dropout")
    assert not torch.equal(torch.nn.functional.dropout(torch.ones(100)), expected)


def test_generators_draw_by_their_keys() -> None:
    first, again, other = (
        torch.rand(8, generator=runtime.generator(0, key)).tolist() for key in ("a", "a", "b")
    )
    assert first == again
    assert first != other


# Devices


def test_without_cuda_the_cpu_is_used_and_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runtime.pick_device(-1) == torch.device("cpu")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.pick_device(3) == torch.device("cpu")
    shown = capsys.readouterr()
    assert (shown.out + shown.err).count("\n") == 1
    assert "CPU" in shown.out + shown.err


def test_a_gpu_that_is_not_there_is_a_bad_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(Failure, match="--cuda_device: 2") as refused:
        runtime.pick_device(2)
    assert refused.value.code == 2
    assert runtime.pick_device(1) == torch.device("cuda", 1)


def test_ranks_take_the_gpus_of_their_machine_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [runtime.pick_device(None, local).index for local in range(5)] == [0, 1, 0, 1, 0]
    assert runtime.pick_device(None) == torch.device("cuda", 0)
    assert runtime.pick_device(-1, 1) == torch.device("cpu")


def test_one_rank_says_that_there_is_no_cuda(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert {runtime.pick_device(None, local).type for local in range(3)} == {"cpu"}
    assert capsys.readouterr().err == "no CUDA: running on the CPU instead of GPU 0\n"


def test_auto_is_single_precision_on_a_cpu() -> None:
    picked = {a: runtime.pick_precision(a, torch.device("cpu")) for a in ("auto", "fp32", "bf16")}
    assert picked == {"auto": "fp32", "fp32": "fp32", "bf16": "bf16"}


# Memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again() -> None:
    """Ten arrays of 64 MB, one after the other, need the pages of one."""
    script = """
import resource, sys
import numpy as np
from common import runtime
if sys.argv[1] == "reuse":
    runtime.reuse_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", script, how], cwd=ROOT))
        for how in ("reuse", "return")
    }
    assert faults["reuse"] < faults["return"] / 10
