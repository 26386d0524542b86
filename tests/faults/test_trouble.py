"""F20 to F28: disks, numbers and memory that fail, and several processes at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from faulty import Child, Fault
from places import (
    CLR,
    DENSE,
    DETECT,
    GMP,
    ONE,
    SAVE_OFTEN,
    SUP,
    TRAIN,
    WRITE,
    Place,
    some_slow,
)
from running import Command

from common import locks, paths

Whole = Callable[..., dict[str, bytes]]
fault, slow = pytest.mark.fault, pytest.mark.slow


# Disks


@fault("F20", "no space left, on a real full device", "exit 7, the last good file is whole")
@pytest.mark.parametrize(
    ("command", "n", "step"),
    some_slow([(TRAIN, 2, 5), (TRAIN, 4, 15), ((*SUP, "--overwrite"), 2, 0)]),
)
def test_disk_full(command: Command, n: int, step: int, copy: Place) -> None:
    """The disk is full when a state, a network, or its replacement is written."""
    before = copy.networks()
    copy.watch()
    faults = (SAVE_OFTEN, WRITE(n, "full disk"))
    copy.assert_refused(command, 7, "No space left on device", faults=faults, may_change="*")
    assert copy.networks() == before
    assert not list(copy.models.glob(".*.tmp.pt"))
    assert copy.step() == step
    copy.finish(*command)


@fault("F21", "no space left for log, figure or results", "the network is kept")
@pytest.mark.parametrize("what", some_slow(["figure", "log", "results"]))
def test_disk_full_for_the_rest(what: str, place: Place, whole: Whole) -> None:
    faults: tuple[Fault, ...] = ()
    if what == "log":
        log = paths.log(place.logs, GMP, 0)
        log.parent.mkdir(parents=True)
        log.symlink_to("/dev/full")
    elif what == "figure":
        faults = (Fault("matplotlib.figure:Figure.savefig", 1, "ENOSPC"),)
    else:
        faults = (Fault("common.files:write_csv", 1, "ENOSPC"),)
    done = place.run(*TRAIN, faults=faults)
    assert done.code == (0 if what == "log" else 7)
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert place.networks() == whole(*TRAIN)


@fault("F22", "a target that may only be read, or is a file", "exit 7 before any training")
def test_target_not_writable(place: Place) -> None:
    (place.folder / "file").write_text("mine")
    for flag in ("--models_dir", "--pies_dir"):
        place.assert_refused((*TRAIN, flag, "file/below"), 7, "file/below")
    faults = (Fault("pathlib:Path.write_bytes", 1, "EROFS"),)
    place.assert_refused(TRAIN, 7, "Read-only file system", faults=faults)


@fault("F22", "a network or array that cannot be read now", "exit 7 or 6; nothing is set aside")
@pytest.mark.parametrize("error", some_slow(["EIO", "ESTALE", "EMFILE", "CPU"]))
def test_what_cannot_be_read_now(error: str, copy: Place) -> None:
    """A file that is intact but unreadable now may hold days of work, so it is not made again."""
    copy.watch()
    code = 6 if error == "CPU" else 7
    for command, read in ((SUP, "torch:load"), (DETECT, "numpy:load")):
        copy.assert_refused(command, code, faults=(Fault(read, 0, error),))


# Numbers and memory


@fault("F23", "NaN in the loss at step 12", "exit 5 with epoch, step, rate; last good state kept")
def test_a_loss_that_is_not_finite(place: Place, whole: Whole) -> None:
    faults = (SAVE_OFTEN, Fault("torch.nn.functional:cross_entropy", 13, "NaN"))
    words = ("epoch 2, step 12", "learning rate", "after a loss of", "--learning_rate")
    place.assert_refused(TRAIN, 5, *words, faults=faults, may_change="*")
    assert place.step() == 10
    assert place.networks() == {}
    place.finish(*TRAIN)
    assert place.networks() == whole(*TRAIN)


@fault("F24", "an infinite gradient, loss finite", "noticed within the epoch, as F23")
def test_a_gradient_that_is_not_finite(place: Place) -> None:
    """The gradient of the very last step, after which no loss is computed any more."""
    faults = (Fault("torch.optim:SGD.step", 20, "inf gradient"),)
    place.assert_refused(TRAIN, 5, "not finite", faults=faults, may_change="*")
    assert place.networks() == {}


@fault("F25", "no memory left: CUDA, CPU allocator, Python", "exit 6 with batch size and flag")
@pytest.mark.parametrize("error", some_slow(["CUDA", "CPU", "MemoryError"]))
def test_out_of_memory(error: str, copy: Place) -> None:
    before = copy.networks()
    copy.watch()
    at_the_head = (*CLR, *ONE, "--epochs", "1", "--overwrite", "--batch_size_head", "20")
    for command, flag, size, where in (
        (TRAIN, "--batch_size", 20, "common.learning.loop:_step"),
        (at_the_head, "--batch_size_head", 20, "torch.nn.functional:cross_entropy"),
        ((*DETECT, "--overwrite", "--batch_size", "30"), "--batch_size", 30,
         "common.model.evaluation:classify"),
    ):  # fmt: skip
        words = (f"{flag} {size}", f"try {flag} {size // 2}")
        copy.assert_refused(command, 6, *words, faults=(Fault(where, 1, error),), may_change="*")
    assert copy.networks() == before


# Several processes


@fault("F26", "two processes, one network", "one makes it, the other exits 8")
def test_a_network_that_another_process_makes(place: Place) -> None:
    place.models.mkdir(parents=True)
    with locks.held(place.state_path):
        place.assert_refused(TRAIN, 8, "another process", "id 0", may_change="*")
    assert place.trainings() == 0
    place.finish(*TRAIN)


@slow
@fault("F28", "4 processes share 8 networks", "8 trained, none twice")
def test_four_processes(place: Place) -> None:
    command = (*SUP, "--limit", "100", "--epochs", "1", "--models_number", "8")
    children = [Child(place.folder, *command) for _ in range(4)]
    assert {child.ended().code for child in children} <= {0, 8}
    assert [place.trainings(DENSE, i) for i in range(8)] == [1] * 8
    assert len(place.networks()) == 8
    place.finish(*command)
