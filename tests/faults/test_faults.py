"""Faults F1 to F40, each as a row: what is injected, what is expected. F1 is in test_kills.py."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faulty import SAVE_OFTEN, Child, Fault
from places import (
    CLR,
    DETECT,
    FINETUNE,
    NETWORK,
    ONE,
    PRUNED,
    SHARED,
    SUP,
    TWO,
    Place,
    refused,
    rewrite,
)
from rows import ROWS, Row, fault

from common import paths
from common.data import datasets
from common.learning import resumable
from common.model import checkpoints
from common.paths import Cell

Whole = Callable[..., dict[str, bytes]]
GMP = Cell("supervised", "GMP", 0.9)
DENSE = Cell("supervised", "dense", 0.0)
TRAIN = (*SUP, *PRUNED, *ONE)  # 4 epochs of 5 steps
STEP, DUMP = "common.learning.loop:_step", "common.model.checkpoints:_dump"
REPLACE, FLUSH = "pathlib:Path.replace", "common.runtime:_flush_folder"
KILLED = -signal.SIGKILL


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_fault(row: Row, request: pytest.FixtureRequest) -> None:
    """The fixtures that a row asks for by name: place (an empty folder), copy (of the study),
    whole (files of an undisturbed run)."""
    wanted = [name for name in row.check.__annotations__ if name in ("place", "copy", "whole")]
    given = {name: request.getfixturevalue(name) for name in wanted}
    arguments = () if row.variant is None else (row.variant,)
    row.check(*arguments, **given)


def state_of(place: Place, network_id: int = 0) -> dict[str, Any]:
    state = resumable.read_state(place.models, GMP, network_id)
    assert state is not None
    return state


def stopped(place: Place, step: int = 7) -> Path:
    """A training that was stopped before this step; where its state is."""
    done = place.run(*TRAIN, faults=(Fault(STEP, step, "SIGTERM"),))
    assert done.code == 143, done.stderr
    return paths.training_state(place.models, GMP, 0)


# Ends without a warning


@fault("F2", "SIGKILL before each step 1 … 20", "bit-equal files", (*range(20, 0, -1),), 2)
def killed_before_a_step(n: int, *, place: Place, whole: Whole) -> None:
    place.watch()
    done = place.run(*TRAIN, faults=(SAVE_OFTEN, Fault(STEP, n, "SIGKILL")))
    assert done.code == KILLED
    place.finish(*TRAIN)
    assert place.files() == whole(*TRAIN)


@fault("F3", "SIGKILL half-way through writing a file", "the file before it whole; orphan removed",
       (4, 1, 2, 3), 2)  # fmt: skip
def killed_while_writing(n: int, *, place: Place, whole: Whole) -> None:
    """The fourth file is the network, those before are states."""
    done = place.run(*TRAIN, faults=(SAVE_OFTEN, Fault(DUMP, n, "half, then SIGKILL")))
    assert done.code == KILLED
    assert len(list(place.models.glob(".*.tmp.pt"))) == 1
    if n > 1:
        assert state_of(place)["loop"]["step"] == 5 * (n - 1)
    place.finish(*TRAIN)
    assert place.files() == whole(*TRAIN)


@fault("F3", "a half-written file of another network", "left alone: it may be being written")
def orphan_of_another(*, place: Place) -> None:
    place.models.mkdir(parents=True)
    other = place.models / ".supervised_GMP_s0.90_id01.123.tmp.pt"
    other.write_bytes(b"half")
    assert place.run(*TRAIN).code == 0
    assert other.read_bytes() == b"half"


@fault("F3", "SIGKILL while a finished network is replaced", "the old one stays", (1,))
def killed_while_overwriting(n: int, *, copy: Place) -> None:
    before = copy.files()
    copy.watch()
    done = copy.run(*SUP, *TWO, "--overwrite", faults=(Fault(DUMP, n, "half, then SIGKILL"),))
    assert done.code == KILLED
    assert copy.files() == before
    copy.finish(*SUP, *TWO)
    assert copy.files() == before


@fault("F4", "SIGKILL between writing and each renaming", "as F3", (6, 3, 1, 2, 4, 5), 2)
def killed_before_renaming(n: int, *, place: Place, whole: Whole) -> None:
    """States move to the name of the one before, new files to their own: six times."""
    done = place.run(*TRAIN, faults=(SAVE_OFTEN, Fault(REPLACE, n, "SIGKILL")))
    assert done.code == KILLED
    assert n == 1 or state_of(place)
    place.finish(*TRAIN)
    assert place.files() == whole(*TRAIN)


@fault("F5", "SIGKILL between each renaming and flushing the folder", "old or new, both verify",
       (4, 2, 1, 3), 2)  # fmt: skip
def killed_before_flushing(n: int, *, place: Place, whole: Whole) -> None:
    done = place.run(*TRAIN, faults=(SAVE_OFTEN, Fault(FLUSH, n, "SIGKILL")))
    assert done.code == KILLED
    assert state_of(place)
    place.watch()
    place.finish(*TRAIN)
    assert place.files() == whole(*TRAIN)


@fault("F6", "SIGKILL between moving encoder and head", "not done; the pair is made again")
def killed_within_a_pair(*, place: Place, whole: Whole) -> None:
    command = (*CLR, *ONE)
    done = place.run(*command, faults=(Fault(REPLACE, 2, "SIGKILL"),))
    assert done.code == KILLED
    assert checkpoints.read_parts(place.models, paths.dense_cell("SupCon"), 0) is None
    place.finish(*command)
    assert place.files() == whole(*command)


@fault("F6", "SIGKILL while a pair replaces another", "one of the two pairs is whole",
       ("SIGKILL 2", "SIGKILL 1", "SIGKILL 3", "then SIGKILL 3"))  # fmt: skip
def killed_while_replacing_a_pair(when: str, *, copy: Place) -> None:
    """Renamed are: a copy of the old encoder, the new encoder, the new head."""
    before, cell = copy.files(), paths.dense_cell("SupCon")
    copy.watch()
    command = (*CLR, *ONE, "--overwrite", "--seed", "1")
    how, n = when.rsplit(" ", 1)
    assert copy.run(*command, faults=(Fault(REPLACE, int(n), how),)).code == KILLED
    seed = checkpoints.load(copy.models, cell, 0, torch.device("cpu")).config["seed"]
    assert seed == (1 if how == "then SIGKILL" else 0)
    copy.finish(*CLR, *ONE, *(("--seed", "1") if seed else ()))
    assert (copy.files() == before) == (seed == 0)


@fault("F6", "as before, and the copy of the old encoder is damaged",
       "nobody needs it beside a whole pair; beside half a pair it is kept as .corrupt",
       ("then SIGKILL", "SIGKILL"))  # fmt: skip
def copy_of_an_encoder_damaged(when: str, *, copy: Place) -> None:
    before = copy.files()
    pair = paths.checkpoints(copy.models, paths.dense_cell("SupCon"), 0)
    old = paths.previous(pair["encoder"])
    command = (*CLR, *ONE, "--overwrite", "--seed", "1")
    assert copy.run(*command, faults=(Fault(REPLACE, 3, when),)).code == KILLED
    truncate(old, 0.5)
    done = copy.run(*CLR, *ONE, *(("--seed", "1") if when == "then SIGKILL" else ()))
    assert done.code == 0, done.stderr
    assert done.stderr.count(f"{old.name}.corrupt") == done.stderr.count("\n")
    assert old.with_name(f"{old.name}.corrupt").exists() == (when == "SIGKILL")
    assert not old.exists()
    assert (copy.files() == before) == (when == "SIGKILL")


# Signals


@fault("F7", "SIGTERM within a step", "saved within 5 s, exit 143, no step lost")
def asked_to_end(*, place: Place, whole: Whole) -> None:
    began = time.monotonic()
    stopped(place, 7)
    assert time.monotonic() - began < 5  # of the whole run
    assert state_of(place)["loop"]["step"] == 7
    place.finish(*TRAIN)
    assert place.files() == whole(*TRAIN)


@fault("F8", "SIGINT once, or after another signal",
       "130 after saving, or at once with the old files whole",
       ("SIGINT", "SIGINT SIGINT", "SIGTERM SIGINT"))  # fmt: skip
def interrupted(signals: str, *, copy: Place) -> None:
    before = copy.files()
    copy.watch()
    faults = (Fault(STEP, 7, signals),)
    done = copy.run(*TRAIN, faults=faults)
    assert done.code == 130
    assert (resumable.read_state(copy.models, GMP, 0) is not None) == (signals == "SIGINT")
    assert copy.files() == before


@fault("F8", "SIGTERM twice, or after SIGUSR1, as schedulers do", "saved once, exit code of the "
       "first", ("SIGTERM SIGTERM", "SIGUSR1 SIGTERM", "SIGINT SIGTERM"))  # fmt: skip
def asked_again(signals: str, *, place: Place, whole: Whole) -> None:
    done = place.run(*TRAIN, faults=(Fault(STEP, 7, signals),))
    first = signals.split()[0]
    refused(done, {"SIGTERM": 143, "SIGUSR1": 75, "SIGINT": 130}[first], first)
    assert state_of(place)["loop"]["step"] == 7
    place.finish(*TRAIN)
    assert place.files() == whole(*TRAIN)


@fault("F9", "SIGUSR1, as Slurm sends it", "saved, exit 75, continued exactly")
def asked_to_requeue(*, place: Place, whole: Whole) -> None:
    done = place.run(*TRAIN, faults=(Fault(STEP, 12, "SIGUSR1"),))
    refused(done, 75, "SIGUSR1", "run the same command again")
    assert state_of(place)["loop"]["step"] == 12
    place.finish(*TRAIN)
    assert place.files() == whole(*TRAIN)


@fault("F10", "SIGTERM while a state is saved", "the save completes, exit 143", (1, 2, 3), 1)
def asked_to_end_while_saving(n: int, *, place: Place, whole: Whole) -> None:
    done = place.run(*TRAIN, faults=(SAVE_OFTEN, Fault(DUMP, n, "SIGTERM")))
    assert done.code == 143
    assert state_of(place)["loop"]["step"] == 5 * n
    place.finish(*TRAIN)
    assert place.files() == whole(*TRAIN)


@fault("F10", "SIGTERM again while the state for the first is saved", "the save completes, 143")
def asked_again_while_saving(*, place: Place, whole: Whole) -> None:
    done = place.run(*TRAIN, faults=(Fault(STEP, 7, "SIGTERM"), Fault(DUMP, 1, "SIGTERM")))
    assert done.code == 143
    assert state_of(place)["loop"]["step"] == 7
    place.finish(*TRAIN)
    assert place.files() == whole(*TRAIN)


# Damaged files


def truncate(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def made_again(place: Place, path: Path, damaged: bytes | None = None) -> None:
    """An analysis refuses the damaged network; training sets it aside and makes it again."""
    expected, damaged = place.files(), path.read_bytes() if path.is_file() else None
    place.watch()
    refused(place.run(*DETECT), 4, path.name, "damaged", "sup_training.py")
    assert path.exists()
    done = place.finish(*SUP, *TWO)
    assert done.stderr.count("\n") == 1
    assert f"{path.name}.corrupt" in done.stderr
    aside = path.with_name(f"{path.name}.corrupt")
    assert damaged is None or aside.read_bytes() == damaged
    assert place.run(*DETECT).code == 0
    assert set(place.files()) >= set(expected)


SHARES = (0.5, 0.0, 0.1, 0.9, 0.999)


@fault("F13", "network cut to 0 … 99.9 %", "detected, kept as .corrupt, made again", SHARES, 2)
def network_cut(share: float, *, copy: Place) -> None:
    whole = copy.files()
    truncate(copy.models / NETWORK, share)
    made_again(copy, copy.models / NETWORK)
    assert copy.files() == whole


@fault("F13", "encoder or head of a SupCon network cut", "both kept as .corrupt, made again",
       ("encoder", "head"))  # fmt: skip
def half_of_a_pair_cut(part: str, *, copy: Place) -> None:
    whole, cell = copy.files(), paths.dense_cell("SupCon")
    pair = paths.checkpoints(copy.models, cell, 0)
    truncate(pair[part], 0.5)
    copy.watch()
    done = copy.finish(*CLR, *TWO)
    assert done.stderr.count("\n") == 2
    assert all(path.with_name(f"{path.name}.corrupt").exists() for path in pair.values())
    assert copy.files() == whole


@fault("F13", "a network of the cell cut that nobody asked for", "named, left alone, not counted")
def another_network_cut(*, copy: Place) -> None:
    """Its cell's summary is made without it, and the cells after it are made as well."""
    path = copy.models / NETWORK
    truncate(path, 0.5)
    damaged = path.read_bytes()
    done = copy.run(*SUP, *ONE)
    assert done.code == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert NETWORK in done.stderr
    assert path.read_bytes() == damaged
    assert n_models(copy, DENSE, "sparsity_reached") == {"1"}


@fault("F13", "newest state cut to 0 … 99.9 %", "the one before is continued", SHARES, 2)
def state_cut(share: float, *, place: Place, whole: Whole) -> None:
    place.run(*TRAIN, faults=(SAVE_OFTEN, Fault(STEP, 18, "SIGKILL")))
    path = paths.training_state(place.models, GMP, 0)
    truncate(path, share)
    assert state_of(place)["loop"]["step"] == 10
    done = place.run(*TRAIN)
    assert done.code == 0
    assert f"{path.name}.corrupt" in done.stderr
    assert json.loads(_log(place)[-2])["epoch"] == 3
    assert place.files() == whole(*TRAIN)


def _log(place: Place) -> list[str]:
    return paths.log(place.folder / "logs" / "digits", GMP, 0).read_text().splitlines()


def flip(path: Path, within: bytes) -> None:
    """Change one bit in the middle of where these bytes are."""
    data = bytearray(path.read_bytes())
    start = data.find(within)
    assert start >= 0
    data[start + len(within) // 2] ^= 1
    path.write_bytes(data)


@fault("F14", "one bit of weights, masks, metadata", "detected, made again",
       ("model", "masks", "metadata"))  # fmt: skip
def bit_of_a_network(where: str, *, copy: Place) -> None:
    cell = Cell("supervised", "global", 0.9)
    path = paths.checkpoints(copy.models, cell, 0)["network"]
    contents, whole = checkpoints.read(path), copy.files()
    within = b"learning_rate"
    if where != "metadata":
        within = contents[where]["block2.layer.0.conv1.weight"]
        stored = [within, within.permute(0, 2, 3, 1)]  # channels last, or not
        shapes = [tensor.contiguous().numpy().tobytes() for tensor in stored]
        within = next(found for found in shapes if found in path.read_bytes())
    flip(path, within)
    refused(copy.run(*DETECT), 4, path.name, "sup_pruning_finetune.py")
    copy.watch()
    done = copy.finish(*FINETUNE, *TWO)
    assert f"{path.name}.corrupt" in done.stderr
    assert copy.files() == whole


@fault("F14", "one bit of the optimizer in a state", "detected, training starts again")
def bit_of_the_optimizer(*, place: Place, whole: Whole) -> None:
    path = stopped(place)
    momentum = state_of(place)["loop"]["momentum"][-2]
    flip(path, momentum.numpy().tobytes())
    done = place.run(*TRAIN)
    assert done.code == 0
    assert f"{path.name}.corrupt" in done.stderr
    assert place.files() == whole(*TRAIN)


def _jpeg() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    return buffer.getvalue()


JUNK = {
    "zeros": lambda: bytes(5000),
    "noise": lambda: np.random.default_rng(0).bytes(5000),
    "JPEG": _jpeg,
    "directory": None,
}


@fault("F15", "zeros, noise, a JPEG or a directory as network", "detected, made again", (*JUNK,))
def junk_as_network(what: str, *, copy: Place) -> None:
    path, make, whole = copy.models / NETWORK, JUNK[what], copy.files()
    path.unlink()
    path.mkdir() if make is None else path.write_bytes(make())
    made_again(copy, path)
    assert copy.files() == whole


class Canary:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


@fault("F16", "a pickle that runs something, as network, state or array", "nothing runs",
       ("torch", "pickle", "state", "array"))  # fmt: skip
def hostile_pickle(where: str, *, copy: Place, whole: Whole) -> None:
    canary = copy.folder / "canary"
    path, command = copy.models / NETWORK, (*SUP, *TWO)
    if where == "state":
        path, command = paths.training_state(copy.models, GMP, 0), TRAIN
    if where == "array":
        path, command = paths.predictions(copy.pies, DENSE, 0), DETECT
        with path.open("wb") as file:
            np.savez(file, labels=np.array([Canary(canary)], dtype=object), allow_pickle=True)
    elif where == "pickle":
        path.write_bytes(pickle.dumps(Canary(canary)))
    else:
        torch.save({"model": Canary(canary)}, path)
    if where in ("torch", "pickle"):
        refused(copy.run(*DETECT), 4, NETWORK)
    done = copy.run(*command)
    assert done.code == 0
    assert path.with_name(f"{path.name}.corrupt").exists()
    assert not canary.exists()
    if where == "state":
        assert copy.files()["supervised_GMP_s0.90_id00.pt"] == (*whole(*TRAIN).values(),)[0]


# Whole files that are not what was asked for


OTHERS: dict[str, tuple[Callable[[dict[str, Any]], object], tuple[str, ...]]] = {
    "sparsity": (lambda c: c.update(sparsity=0.5), ("sparsity", "0.5", "0.0")),
    "id": (lambda c: c.update(network_id=7), ("network_id", "7", "not 1")),
    "width": (lambda c: c["config"].update(widen_factor=2), ("widen_factor", "2", "not 1")),
    "classes": (lambda c: c["config"].update(n_classes=9), ("n_classes", "9", "not 10")),
    "schema": (lambda c: c.update(format=2), ("format", "2", "not 1")),
    "data set": (lambda c: c["config"].update(dataset="mnist"), ("dataset", "mnist", "digits")),
    "recipe": (lambda c: c["config"].update(epochs=9), ("epochs", "9", "not 4")),
    "shape": (
        lambda c: c["model"].update({"conv1.weight": torch.zeros(1, 3, 3, 3)}),
        ("its weights do not fit its architecture",),
    ),
    "masks": (
        lambda c: c.update(masks={"fc.weight": torch.zeros(10, 64, dtype=torch.bool)}),
        ("masks",),
    ),
}


@fault("F17", "network of another sparsity, id, width, …", "exit 4 naming both values", (*OTHERS,))
def network_of_another_kind(what: str, *, copy: Place) -> None:
    change, named = OTHERS[what]
    path = copy.models / NETWORK
    rewrite(path, change)
    copy.watch()
    before = copy.files()
    refused(copy.run(*DETECT, "--overwrite", "--pruning_methods", "GMP"), 4, NETWORK, *named)
    if what not in ("shape", "masks"):  # seen only when weights are looked at
        refused(copy.run(*SUP, *TWO), 4, NETWORK, *named)
    assert copy.files() == before


@fault("F18", "NaN or infinite weights in a whole file", "refused", (torch.nan, torch.inf))
def weights_that_are_not_finite(value: float, *, copy: Place) -> None:
    rewrite(copy.models / NETWORK, lambda c: c["model"]["fc.bias"].fill_(value))
    flags = ("--overwrite", "--pruning_methods", "GMP")
    refused(copy.run(*DETECT, *flags), 4, NETWORK, "not finite")


@fault("F18", "masks of another sparsity than the file says, revived weights", "exit 4",
       ("masks", "weights"))  # fmt: skip
def masks_that_lie(what: str, *, copy: Place) -> None:
    path = paths.checkpoints(copy.models, Cell("supervised", "global", 0.9), 0)["network"]
    name = "block2.layer.0.conv1.weight"
    if what == "masks":
        rewrite(path, lambda c: c["masks"][name].fill_(True))
    else:
        rewrite(path, lambda c: c["model"][name].fill_(1.0))
    done = copy.run(*DETECT, "--overwrite")
    refused(done, 4, path.name, "0.9" if what == "masks" else "not zero")


@fault("F19", "newest state and the one before damaged", "both kept aside, training starts again")
def both_states_damaged(*, place: Place, whole: Whole) -> None:
    place.run(*TRAIN, faults=(SAVE_OFTEN, Fault(STEP, 18, "SIGKILL")))
    newest = paths.training_state(place.models, GMP, 0)
    for path in (newest, paths.previous(newest)):
        truncate(path, 0.5)
    done = place.run(*TRAIN)
    assert done.code == 0
    assert done.stderr.count(".corrupt") == 2
    assert len(list(place.models.glob(".*.corrupt"))) == 2
    assert place.files() == whole(*TRAIN)


# Disks


@fault("F20", "no space left, on a real full device", "exit 7, last good whole, nothing left over",
       ("network", "state", "finished"))  # fmt: skip
def disk_full(what: str, *, copy: Place) -> None:
    before = copy.files()
    copy.watch()
    command = (*SUP, *TWO, "--overwrite") if what == "finished" else TRAIN
    often = (SAVE_OFTEN,) if what == "state" else ()
    n = 2 if what == "state" else 1
    done = copy.run(*command, faults=(*often, Fault(DUMP, n, "full disk")))
    refused(done, 7, "No space left on device")
    assert copy.files() == before
    assert not list(copy.models.glob(".*.tmp.pt"))
    if what == "state":
        assert state_of(copy)["loop"]["step"] == 5
    copy.finish(*command)


@fault("F21", "no space left for log, figure or results", "the network is kept",
       ("log", "figure", "results"))  # fmt: skip
def disk_full_for_the_rest(what: str, *, place: Place, whole: Whole) -> None:
    faults: tuple[Fault, ...] = ()
    if what == "log":
        log = paths.log(place.folder / "logs" / "digits", GMP, 0)
        log.parent.mkdir(parents=True)
        log.symlink_to("/dev/full")
    elif what == "figure":
        faults = (Fault("matplotlib.figure:Figure.savefig", 1, "ENOSPC"),)
    else:
        faults = (Fault("common.analysis.summary:write_csv", 1, "ENOSPC"),)
    done = place.run(*TRAIN, faults=faults)
    assert done.code == (0 if what == "log" else 7)
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert place.files() == whole(*TRAIN)


@fault("F22", "target that may only be read, or is a file", "exit 7 before any training",
       ("EROFS", "models", "pies"))  # fmt: skip
def target_not_writable(what: str, *, place: Place) -> None:
    place.folder.mkdir()
    faults = (Fault("pathlib:Path.write_bytes", 1, "EROFS"),) if what == "EROFS" else ()
    flags: tuple[str, ...] = ()
    if what != "EROFS":
        (place.folder / "file").write_text("mine")
        flags = (f"--{what}_dir", "file/below")
    done = place.run(*TRAIN, *flags, faults=faults)
    refused(done, 7, "Read-only file system" if what == "EROFS" else "file/below")
    assert not (place.folder / "logs").exists()


@fault("F22", "a network or array that cannot be read now", "exit 7 or 6; nothing is set aside",
       ("EIO", "ESTALE", "EMFILE", "ENOMEM", "CPU"))  # fmt: skip
def cannot_be_read_now(error: str, *, copy: Place) -> None:
    """Unlike a damaged file, a good one of days of work is not made again."""
    copy.watch()
    before, code = copy.files(), 6 if error == "CPU" else 7
    refused(copy.run(*SUP, *TWO, faults=(Fault("torch:load", 0, error),)), code)
    refused(copy.run(*DETECT, faults=(Fault("numpy:load", 0, error),)), code)
    assert copy.files() == before
    assert not list(copy.folder.rglob("*.corrupt"))


# Trouble in a training


@fault("F23", "NaN in the loss at step 12", "exit 5 with epoch, step, rate; last good state kept")
def loss_not_finite(*, place: Place, whole: Whole) -> None:
    faults = (SAVE_OFTEN, Fault("torch.nn.functional:cross_entropy", 13, "NaN"))
    done = place.run(*TRAIN, faults=faults)
    refused(done, 5, "epoch 2, step 12", "learning rate", "after a loss of", "--learning_rate")
    assert state_of(place)["loop"]["step"] == 10
    assert place.files() == {}
    place.finish(*TRAIN)
    assert place.files() == whole(*TRAIN)


@fault("F24", "an infinite gradient, loss finite", "noticed within the epoch, as F23", (20, 8))
def gradient_not_finite(n: int, *, copy: Place) -> None:
    """Also in the very last step, after which there is no loss any more."""
    before = copy.files()
    copy.watch()
    faults = (Fault("torch.optim:SGD.step", n, "inf gradient"),)
    done = copy.run(*TRAIN, faults=faults)
    refused(done, 5, "not finite")
    assert copy.files() == before


@fault("F25", "no memory left: CUDA, CPU allocator, Python", "exit 6 with batch size and flag",
       ("CUDA", "CPU", "MemoryError"))  # fmt: skip
def out_of_memory(error: str, *, copy: Place) -> None:
    copy.watch()
    done = copy.run(*TRAIN, faults=(Fault(STEP, 3, error),))
    refused(done, 6, "--batch_size 20", "try --batch_size 10")
    head = (*CLR, *TWO, "--overwrite", "--batch_size_head", "20")
    done = copy.run(*head, faults=(Fault("common.learning.methods:F.cross_entropy", 2, error),))
    refused(done, 6, "--batch_size_head 20", "try --batch_size_head 10")
    forward = Fault("common.model.evaluation:classify", 1, error)
    done = copy.run(*DETECT, "--overwrite", "--batch_size", "30", faults=(forward,))
    refused(done, 6, "--batch_size 30", "try --batch_size 15")


# Several processes


def trainings(place: Place, cell: Cell, network_id: int) -> int:
    """How often a training of this network began."""
    log = paths.log(place.folder / "logs" / "digits", cell, network_id)
    return log.read_text().count('"config"') if log.exists() else 0


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("never came so far")


@fault("F26", "two processes, one network", "one trains it, the other exits 8")
def one_network_twice(*, place: Place, whole: Whole) -> None:
    first = Child(place.folder, TRAIN, Fault(STEP, 3, "SIGSTOP"))
    wait_for(lambda: trainings(place, GMP, 0) == 1)
    refused(place.run(*TRAIN), 8, "another process", "id 0")
    _continue(first)
    assert first.ended().code == 0
    assert trainings(place, GMP, 0) == 1
    assert place.files() == whole(*TRAIN)


def _continue(child: Child) -> None:
    """Wake a stopped process; it may not have stopped yet."""
    for _ in range(100):
        os.kill(child.process.pid, signal.SIGCONT)
        child.process.join(0.05)
        if child.process.exitcode is not None:
            return


@fault("F27", "the claim of a process that is dead", "taken over at the first try")
def stale_claim(*, place: Place, whole: Whole) -> None:
    done = place.run(*TRAIN, faults=(Fault(STEP, 3, "SIGKILL"),))
    assert done.code == KILLED
    assert paths.lock(paths.training_state(place.models, GMP, 0)).exists()
    place.finish(*TRAIN)
    assert trainings(place, GMP, 0) == 2
    assert place.files() == whole(*TRAIN)


@fault("F28", "4 processes share 8 networks", "8 trained, none twice")
def four_processes(*, place: Place) -> None:
    command = (*SUP, "--epochs", "1", "--models_number", "8")
    children = [Child(place.folder, command) for _ in range(4)]
    assert {child.ended().code for child in children} <= {0, 8}
    assert [trainings(place, DENSE, i) for i in range(8)] == [1] * 8
    assert len(place.files()) == 8
    place.finish(*command)


# Data


def cifar(folder: Path, batches: tuple[int, ...] = (20,) * 5 + (20,)) -> tuple[Path, str]:
    """An archive like CIFAR-10's with fewer images, and the checksums of it and its parts."""
    rng = np.random.default_rng(0)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    parts = {
        name: {
            "data": rng.integers(0, 256, (n, 3072), np.uint8),
            "labels": [*range(10)] * (n // 10),
        }
        for name, n in zip(names, batches, strict=True)
    } | {"batches.meta": {"label_names": [*datasets.CIFAR10_CLASSES]}}
    archive = folder / "served.tar.gz"
    folder.mkdir(parents=True, exist_ok=True)
    md5s = []
    with tarfile.open(archive, "w:gz") as file:
        for name, contents in parts.items():
            data = pickle.dumps(contents)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
            md5s.append(hashlib.md5(data).hexdigest())
    whole = hashlib.md5(archive.read_bytes()).hexdigest()
    return archive, ",".join([whole, *md5s])


CIFAR = (
    *("sup_training.py", "--cuda_device", "-1", "--preset", "digits", "--epochs", "1"),
    *("--batch_size", "50"),
)


def served(place: Place, archive: Path, md5s: str) -> Fault:
    log = place.folder.parent / "extractions"
    return Fault("torchvision.datasets:cifar", 0, f"{archive} {md5s} {log}")


@fault("F29", "two processes prepare the data set at once", "one extracts, both read it")
def two_prepare_the_data(*, place: Place) -> None:
    serve = served(place, *cifar(place.folder.parent))
    children = [
        Child(place.folder, (*CIFAR, *ONE, "--index_start", start), serve) for start in "01"
    ]
    assert [child.ended().code for child in children] == [0, 0]
    assert (place.folder.parent / "extractions").read_text() == "extracted\n"
    assert len(list((place.folder / "models" / "cifar10").glob("*.pt"))) == 2


@fault("F30", "a CIFAR-10 batch changed, missing or cut", "exit 3 naming the file",
       ("changed", "missing", "cut"))  # fmt: skip
def damaged_batch(how: str, *, place: Place) -> None:
    archive, md5s = cifar(place.folder.parent)
    serve = served(place, archive, md5s)
    assert place.run(*CIFAR, *ONE, faults=(serve,)).code == 0
    batch = place.folder / "data" / "cifar-10-batches-py" / "data_batch_3"
    if how == "changed":
        flip(batch, batch.read_bytes()[100:200])
    elif how == "missing":
        batch.unlink()
    else:
        truncate(batch, 0.5)
    (place.folder / "data" / "cifar-10-python.tar.gz").unlink()
    gone = served(place, archive.with_name("gone"), md5s)
    refused(place.run(*CIFAR, *TWO, faults=(gone,)), 3, "cifar-10-batches-py/data_batch_3")
    assert place.run(*CIFAR, *TWO, faults=(serve,)).code == 0  # mended by the archive


def hostile_archive(path: Path, how: str, outside: Path) -> None:
    with tarfile.open(path, "w:gz") as file:
        info = tarfile.TarInfo("cifar-10-batches-py/../../../outside")
        if how == "absolute":
            info.name = str(outside)
        elif how in ("symlink", "hard link"):
            info = tarfile.TarInfo("cifar-10-batches-py")
            info.type = tarfile.SYMTYPE if how == "symlink" else tarfile.LNKTYPE
            info.linkname = str(outside)
        elif how == "device":
            info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
        if info.type == tarfile.REGTYPE:
            info.size = 4
        file.addfile(info, io.BytesIO(b"evil"))


@fault("F31", "an archive with ../, an absolute path, links, a device", "refused by its hash, "
       "nothing extracted", ("../", "absolute", "symlink", "hard link", "device"))  # fmt: skip
def evil_archive(how: str, *, place: Place) -> None:
    """In the place of the download, and offered as the download."""
    _, md5s = cifar(place.folder.parent / "honest")
    outside = place.folder.parent / "outside"
    (place.folder / "data").mkdir(parents=True)
    archive = place.folder / "data" / "cifar-10-python.tar.gz"
    hostile_archive(archive, how, outside)
    shutil.copy(archive, place.folder.parent / "evil.tar.gz")
    for url in ("gone", "evil.tar.gz"):
        serve = served(place, place.folder.parent / url, md5s)
        refused(place.run(*CIFAR, *ONE, faults=(serve,)), 3, "cifar-10-python.tar.gz")
        assert not outside.exists()
        assert not (place.folder.parent / "extractions").exists()
        assert {path.name for path in (place.folder / "data").iterdir()} <= {
            archive.name,
            ".cifar10.lock",
        }


@fault("F32", "file times in the future or reversed", "order by name and contents, not by time",
       ("states", "PIEs"))  # fmt: skip
def clock_jumps(what: str, *, copy: Place, whole: Whole) -> None:
    future = time.time() + 10**8
    if what == "states":
        copy.run(*TRAIN, faults=(SAVE_OFTEN, Fault(STEP, 18, "SIGKILL")))
        newest = paths.training_state(copy.models, GMP, 0)
        os.utime(paths.previous(newest), (future, future))
        os.utime(newest, (0, 0))
        assert state_of(copy)["loop"]["step"] == 15
        copy.finish(*TRAIN)
        assert copy.files()["supervised_GMP_s0.90_id00.pt"] == (*whole(*TRAIN).values(),)[0]
        return
    stale = paths.pies_distribution(copy.pies, Cell("supervised", "global", 0.9))
    old = stale.with_suffix(".npz")
    other = old.with_name(old.name.replace("0.90", "0.50"))
    shutil.copy(old, other)
    os.utime(other, (future, future))
    assert copy.run(*DETECT, "--test_limit", "40").code == 0
    from common.data import stored

    assert [cell.sparsity for cell in stored.pies_by_cell(copy.pies)] == [0.9]


# Populations


def n_models(place: Place, cell: Cell, metric: str = "top1") -> set[str]:
    with paths.summary(place.pies).open(newline="") as file:
        return {
            row["n_models"]
            for row in csv.DictReader(file)
            if (row["learner"], row["pruning_method"], row["metric"]) == (*cell[:2], metric)
        }


@fault("F33", "a network of the population is missing", "exit 4; --allow_missing counts those used",
       ("dense", "global", "id 2"))  # fmt: skip
def network_missing(which: str, *, copy: Place) -> None:
    command = DETECT
    if which == "id 2":
        command = (*DETECT, "--models_number", "3")
    else:
        cell = Cell("supervised", which, 0.0 if which == "dense" else 0.9)
        paths.checkpoints(copy.models, cell, 1)["network"].unlink()
    refused(copy.run(*command), 4, "1 of the 2" if which != "id 2" else "2 of the 3",
            "id 2" if which == "id 2" else "id 1", "--allow_missing")  # fmt: skip
    assert copy.run(*command, "--allow_missing").code == 0
    expected = {"2"} if which == "id 2" else {"1"}
    assert n_models(copy, Cell("supervised", "global", 0.9)) == expected


@fault("F34", "dense and pruned networks with other ids", "refused, or only the common ones")
def other_ids(*, copy: Place) -> None:
    cell = Cell("supervised", "global", 0.9)
    paths.checkpoints(copy.models, cell, 0)["network"].unlink()
    paths.checkpoints(copy.models, DENSE, 1)["network"].unlink()
    refused(copy.run(*DETECT), 4, "supervised dense 0.00", "id 1")
    done = copy.run(*DETECT, "--allow_missing", "--pruning_percentages", "0.9")
    assert done.code == 0
    assert "supervised global 0.90: 0 of the 1 networks asked for" in done.stdout


@fault("F35", "predictions kept of a network that was replaced", "computed again")
def stale_cache(*, copy: Place) -> None:
    other = ("--overwrite", "--seed", "5")
    flags = ("--pruning_methods", "GMP")
    cache = paths.predictions(copy.pies, DENSE, 0)
    with np.load(cache) as file:
        before = str(file["key"])
    assert copy.run(*SUP, *TWO, *other).code == 0
    assert copy.run(*DETECT, *flags).code == 0
    with np.load(cache) as file:
        assert str(file["key"]) != before
        digest = checkpoints.describe(copy.models, DENSE, 0)["digest"]
        assert str(file["key"]).startswith(digest)


@fault("F36", "SIGKILL between the networks of an analysis, or in its k-NN",
       "what is finished is kept, the same numbers", ("predictions", "k-NN"))  # fmt: skip
def analysis_killed(where: str, *, copy: Place) -> None:
    command = DETECT
    target = Fault("common.model.evaluation:classify", 3, "SIGKILL")
    if where == "k-NN":
        command = ("sup_prediction_depth.py", *SHARED, *TWO, "--knn", "5")
        target = Fault("common.analysis.probes:knn_predict", 9, "SIGKILL")
    undisturbed = Place(copy.folder.parent / "undisturbed")
    shutil.copytree(copy.folder, undisturbed.folder)
    for place in (copy, undisturbed):
        shutil.rmtree(place.pies)
    assert copy.run(*command, faults=(target,)).code == KILLED
    cached = {path: path.read_bytes() for path in copy.pies.rglob("predictions/*.npz")}
    assert len(cached) >= 2
    copy.watch()
    for place in (copy, undisturbed):
        assert place.run(*command).code == 0
    assert {path: path.read_bytes() for path in cached} == cached
    tables = [paths.summary(place.pies).read_bytes() for place in (copy, undisturbed)]
    assert tables[0] == tables[1]


# Continuing otherwise


BEFORE = {"torch": "2.11.0", "device": "H100", "CUDA": "11.8", "threads": "64"}


@fault("F38", "another torch, device, CUDA or number of threads on continuing",
       "continued; said in one line and in the log", (*BEFORE,))  # fmt: skip
def other_versions(what: str, *, place: Place, whole: Whole) -> None:
    path = stopped(place)
    now = state_of(place)["versions"][what]
    rewrite(path, lambda state: state["versions"].update({what: BEFORE[what]}))
    done = place.finish(*TRAIN)
    assert done.stderr.count("\n") == 1
    assert f"continued under {what} {now}, begun under {what} {BEFORE[what]}: " in done.stderr
    assert "the result may differ from an uninterrupted one" in done.stderr
    assert json.loads(_log(place)[-4])  # the log stays whole
    assert any("begun_under" in json.loads(line) for line in _log(place))
    assert place.files() == whole(*TRAIN)


OTHER_FLAGS = {
    "lr": (("--learning_rate", "0.2"), "learning_rate"),
    "epochs": (("--epochs", "5"), "epochs 4 (not 5)"),
    "seed": (("--seed", "1"), "seed 0 (not 1)"),
    "limit": (("--limit", "90"), "limit 100 (not 90)"),
}


@fault("F39", "continuing with other flags", "exit 4 naming the keys; --overwrite starts again",
       (*OTHER_FLAGS,))  # fmt: skip
def other_recipe(what: str, *, place: Place, whole: Whole) -> None:
    flags, named = OTHER_FLAGS[what]
    path = stopped(place)
    before = path.read_bytes()
    refused(place.run(*TRAIN, *flags), 4, named, path.name, "--overwrite")
    assert path.read_bytes() == before
    place.finish(*TRAIN, *flags, "--overwrite")
    assert place.files() == whole(*TRAIN, *flags)


@fault("F39", "the state of another network", "exit 4 naming the file; kept")
def state_of_another_network(*, place: Place) -> None:
    path = stopped(place)
    shutil.copy(path, paths.training_state(place.models, GMP, 1))
    refused(place.run(*TRAIN, *TWO), 4, "_id01.state.pt", "another network")


@fault("F40", "the same command twice", "the same bytes", ("supervised", "SupCon"))
def twice(learner: str, *, place: Place, whole: Whole) -> None:
    command = (*(SUP if learner == "supervised" else CLR), *ONE)
    expected = whole(*command)
    place.finish(*command)
    assert place.files() == expected
