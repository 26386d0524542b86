"""Exit codes, signals, seeds, files that are replaced whole."""

from __future__ import annotations

import csv
import errno
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import ROOT, contents

from common import runtime
from common.data import arrays
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
    assert (
        runtime.EXIT_ARGUMENTS,
        runtime.EXIT_DATA,
        runtime.EXIT_CHECKPOINT,
        runtime.EXIT_NON_FINITE,
        runtime.EXIT_MEMORY,
        runtime.EXIT_WRITE,
        runtime.EXIT_LOCKED,
    ) == (2, 3, 4, 5, 6, 7, 8)
    assert runtime.EXIT_SIGNALS == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}


@pytest.mark.parametrize("code", [0, 1, 17])
def test_a_script_that_ends_well_keeps_its_code(
    code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runtime.main(lambda: code) == code
    assert capsys.readouterr() == ("", "")


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


def test_memory_that_torch_cannot_get_is_out_of_memory(capsys: pytest.CaptureFixture[str]) -> None:
    def script() -> int:
        torch.empty(2**60, dtype=torch.uint8)
        return 0

    assert runtime.main(script) == 6
    assert capsys.readouterr().err.count("\n") == 1


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


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("a bug"), KeyError("a bug")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error), match="a bug"):
        runtime.main(ending(error))


def test_debug_adds_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--debug"])
    assert runtime.main(ending(Failure(4, "net.pt: damaged"))) == 4
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("script.py: net.pt: damaged\n")


# Signals


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_a_script_at_once_unless_it_asks_to_wait(
    signum: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def script() -> int:
        signal.raise_signal(signum)
        return 0

    assert runtime.main(script) == runtime.EXIT_SIGNALS[signum]
    assert signum.name in capsys.readouterr().err


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_waits_for_the_safe_point(signum: signal.Signals) -> None:
    def script() -> int:
        runtime.stop_at_safe_point()
        assert runtime.stop_requested() is None
        signal.raise_signal(signum)
        assert runtime.stop_requested() == signum
        raise Interrupted(runtime.stop_requested())

    assert runtime.main(script) == runtime.EXIT_SIGNALS[signum]


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


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_process_that_is_signalled_reaches_its_safe_point(signum: signal.Signals) -> None:
    process = child()
    os.kill(process.pid, signum)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == runtime.EXIT_SIGNALS[signum]
    assert stdout == "safe point\n"
    assert stderr.count("\n") == 1
    assert signum.name in stderr
    assert "again" in stderr  # what to do: run the same command again


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
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
    """They define every network that has been trained."""
    assert runtime.seed_from(0, 0, "weights") == 5342618503015607053
    assert runtime.seed_from(0) != runtime.seed_from(0, 0)


def test_a_seed_is_the_same_in_another_process() -> None:
    """Python's own hash of strings is not."""
    code = "from common.runtime import seed_from; print(seed_from(1, 'order', 2))"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(shown.stdout) == runtime.seed_from(1, "order", 2)


@settings(max_examples=200)
@given(keys, keys)
def test_seeds_differ_exactly_where_keys_differ(a: list[int | str], b: list[int | str]) -> None:
    assert (runtime.seed_from(*a) == runtime.seed_from(*b)) == (a == b)
    assert 0 <= runtime.seed_from(*a) < 2**63


def test_a_number_is_not_its_text() -> None:
    assert runtime.seed_from(1) != runtime.seed_from("1")
    assert runtime.seed_from(1, 23) != runtime.seed_from(12, 3)


def test_no_two_seeds_of_a_study_are_equal() -> None:
    seeds = {
        runtime.seed_from(seed, network_id, stage, step)
        for seed in range(3)
        for network_id in range(30)
        for stage in ("network", "encoder", "head", "order")
        for step in range(50)
    }
    assert len(seeds) == 3 * 30 * 4 * 50


def test_generators_draw_by_their_keys() -> None:
    first, again, other = (
        torch.rand(8, generator=runtime.generator(0, key)).tolist() for key in ("a", "a", "b")
    )
    assert first == again
    assert first != other


# Devices


def test_minus_one_is_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert runtime.pick_device(-1) == torch.device("cpu")
    assert capsys.readouterr() == ("", "")


def test_without_cuda_the_cpu_is_used_and_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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


# Files


def write(text: str) -> Callable[[Path], None]:
    return lambda temporary: temporary.write_text(text) and None


def accept(temporary: Path) -> None:
    pass


def test_a_file_is_made_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    runtime.replace_file(path, write("new"), accept)
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_the_check_sees_what_was_written_before_it_is_in_place(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    seen = []

    def check(temporary: Path) -> None:
        seen.append((temporary.read_text(), path.read_text(), temporary.parent, temporary.suffix))

    runtime.replace_file(path, write("new"), check)
    assert seen == [("new", "old", tmp_path, ".txt")]
    assert path.read_text() == "new"


@pytest.mark.parametrize("step", ["write", "half-way", "check"])
@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt])
def test_the_old_file_survives_a_failure(
    step: str, error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def failing_write(temporary: Path) -> None:
        if step == "half-way":
            temporary.write_text("ne")
        raise error

    def failing_check(temporary: Path) -> None:
        raise error

    with pytest.raises(error):
        if step == "check":
            runtime.replace_file(path, write("new"), failing_check)
        else:
            runtime.replace_file(path, failing_write, accept)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_a_file_is_flushed_to_the_disk_before_it_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut may leave an empty file under the final name."""
    path = tmp_path / "file.txt"
    steps = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        steps.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def recorded_replace(self: Path, target: Path) -> Path:
        steps.append("moved")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    runtime.replace_file(path, write("new"), accept)
    assert steps[1:] == ["moved", str(tmp_path)]
    assert Path(steps[0]).parent == tmp_path


def test_check_writable_makes_the_folder_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    runtime.check_writable(folder)
    assert list(folder.iterdir()) == []


def test_check_writable_refuses_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(Failure, match="file") as refused:
        runtime.check_writable(tmp_path / "file" / "models")
    assert refused.value.code == 7
    assert (tmp_path / "file").read_text() == "old"


def test_check_writable_notices_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Failure, match="No space left on device") as refused:
        runtime.check_writable(tmp_path)
    assert refused.value.code == 7


def test_a_damaged_file_is_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, aside = tmp_path / "a\n.npz", tmp_path / "a.corrupt"
    path.write_text("torn")
    runtime.set_aside(path, "damaged", aside)
    assert aside.read_text() == "torn"
    assert not path.exists()
    shown = capsys.readouterr().err
    assert shown.endswith("damaged; kept as a.corrupt\n")
    assert shown.count("\n") == 1


def test_a_damaged_file_that_another_process_set_aside_is_no_error(tmp_path: Path) -> None:
    runtime.set_aside(tmp_path / "gone", "damaged", tmp_path / "gone.corrupt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_who_may_only_read_leaves_a_damaged_file_and_goes_on(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(self))

    path = tmp_path / "a.npz"
    path.write_text("torn")
    monkeypatch.setattr(Path, "replace", refuse)
    assert arrays.load(path) is None
    assert path.read_text() == "torn"
    shown = capsys.readouterr().err
    assert f"not renamed ({os.strerror(code)})" in shown
    assert shown.count("\n") == 1


def test_a_log_has_one_json_line_a_record(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "net.jsonl"
    records = [{"epoch": epoch, "loss": Random(epoch).random()} for epoch in range(3)]
    for record in records:
        runtime.append_log(path, record)
    assert [json.loads(line) for line in path.read_text().splitlines()] == records


def test_a_log_that_cannot_be_written_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").write_text("a file")
    runtime.append_log(tmp_path / "logs" / "net.jsonl", {"epoch": 0})
    assert "log not written" in capsys.readouterr().err
    runtime.append_log(Path("/dev/full"), {"epoch": 0})
    assert "/dev/full" in capsys.readouterr().err


@pytest.mark.parametrize("step", ["write", "check"])
def test_files_that_belong_together_are_replaced_together(step: str, tmp_path: Path) -> None:
    """The second one fails: the first one is not moved either."""
    paths = [tmp_path / name for name in ("encoder.pt", "head.pt")]
    for path in paths:
        path.write_text("old")

    def failing(temporary: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def check(temporary: Path) -> None:
        if step == "check" and "head" in temporary.name:
            raise ValueError("torn")

    writes = {paths[0]: write("new"), paths[1]: failing if step == "write" else write("new")}
    with pytest.raises((OSError, ValueError)):
        runtime.replace_files(writes, check)
    assert [path.read_text() for path in paths] == ["old", "old"]
    assert contents(tmp_path) == {"encoder.pt", "head.pt"}
    runtime.replace_files(dict.fromkeys(paths, write("new")), accept)
    assert [path.read_text() for path in paths] == ["new", "new"]
    assert contents(tmp_path) == {"encoder.pt", "head.pt"}


def test_a_text_that_says_the_same_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a" / "text"
    runtime.write_text(path, "Vögel\n")
    os.utime(path, ns=(1, 1))
    runtime.write_text(path, "Vögel\n")
    assert path.stat().st_mtime_ns == 1
    runtime.write_text(path, "Vögel")
    assert path.read_bytes() == "Vögel".encode()
    assert path.stat().st_mtime_ns != 1


def test_a_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [["a", "b"], ['dog, "big"', None], ["two\nlines", 1.5], ["Vögel", 0]]
    runtime.write_csv(tmp_path / "table.csv", rows)
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.reader(file))
    assert read == [["a", "b"], ['dog, "big"', ""], ["two\nlines", "1.5"], ["Vögel", "0"]]


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
