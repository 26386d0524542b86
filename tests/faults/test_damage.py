"""F13 to F18, F34: files that are damaged, hostile, missing or not what was asked for."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import (
    CLR,
    DENSE,
    DETECT,
    FINETUNE,
    ONE,
    ONE_SHOT,
    SAVE_OFTEN,
    STEP,
    SUP,
    TRAIN,
    Place,
    file_of,
    rewrite,
    some_slow,
)
from running import PREFIXES, detect, finetune

from common import paths
from common.model import checkpoints
from common.paths import NetworkFiles
from common.report import rows
from common.study import Cell, dense_cell

Contents = dict[str, Any]
fault, slow = pytest.mark.fault, pytest.mark.slow


def one_bit(data: bytes, within: torch.Tensor) -> bytes:
    """Change one bit in the middle of this tensor's bytes."""
    inside = within.numpy().tobytes()
    at = data.index(inside) + len(inside) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# From the bytes of a file and what it holds to damaged bytes.
DAMAGE: dict[str, Callable[[bytes, Contents], bytes]] = {
    "cut in half": lambda data, _: data[: len(data) // 2],
    "one bit of a weight": lambda data, network: one_bit(data, network["model"]["fc.weight"]),
    "one bit of a mask": lambda data, network: one_bit(data, network["masks"]["fc.weight"]),
    "one bit of the recipe": lambda data, _: data.replace(b"learning_rate", b"learning_ratd"),
    "empty": lambda data, _: b"",
    "last byte gone": lambda data, _: data[:-1],
    "zeros": lambda data, _: bytes(len(data)),
    "noise": lambda data, _: np.random.default_rng(0).bytes(len(data)),
}


@fault("F13", "a network cut", "detected, kept as .corrupt, made again")
@fault("F14", "one bit of a network's weights, masks, recipe", "detected, made again")
@fault("F15", "zeros, noise or a folder as network", "detected, made again")
@pytest.mark.parametrize("how", some_slow([*DAMAGE, "a folder"]))
def test_a_network_is_damaged(how: str, copy: Place) -> None:
    """An analysis refuses the network; the script that makes it sets it aside and remakes it."""
    whole, path = copy.networks(), file_of(copy.models, ONE_SHOT, 0)
    damaged = DAMAGE[how](path.read_bytes(), checkpoints.read(path)) if how in DAMAGE else None
    path.unlink()
    path.mkdir() if damaged is None else path.write_bytes(damaged)
    copy.watch()
    copy.assert_refused(DETECT, 4, path.name, "damaged", "sup_pruning_finetune.py")
    done = copy.finish(*FINETUNE)
    aside = path.with_name(f"{path.name}.corrupt")
    assert done.stderr.count("\n") == done.stderr.count(aside.name) == 1
    assert damaged is None or aside.read_bytes() == damaged
    assert copy.networks() == whole


@slow
@fault("F13", "encoder or head of a SupCon network cut", "both kept as .corrupt, made again")
@pytest.mark.parametrize("part", ["encoder", "head"])
def test_half_of_a_pair_is_cut(part: str, copy: Place) -> None:
    whole, pair = copy.networks(), NetworkFiles(copy.models, dense_cell("SupCon"), 0).parts
    os.truncate(pair[part], 1000)
    copy.watch()
    done = copy.finish(*CLR)
    assert done.stderr.count("\n") == 2
    assert all(path.with_name(f"{path.name}.corrupt").exists() for path in pair.values())
    assert copy.networks() == whole


@fault("F13", "a dense network cut that is to be pruned", "named, the others pruned, exit 4")
@pytest.mark.parametrize("learner", some_slow(["supervised", "SupCon"]))
def test_a_dense_network_that_cannot_be_pruned(learner: str, copy: Place) -> None:
    """A supervised network is cut; SupCon's encoder is not the one that the head belongs to."""
    first, *rest = (*NetworkFiles(copy.models, dense_cell(learner), 0).parts.values(),)
    if rest:
        rewrite(first, lambda contents: contents.update(versions={}))
    else:
        os.truncate(first, 1000)
    copy.watch()
    asked = finetune(learner, "--pruning_percentages", "0.7")
    done = copy.run(*asked)
    assert done.code == 4
    named, summed_up = done.stderr.splitlines()
    assert (rest or [first])[-1].name in named
    assert f"python {PREFIXES[learner]}_training.py" in named
    assert "only 1 of the 2 networks" in summed_up
    made = paths.networks_present(copy.models)[Cell(learner, "global", 0.7)]
    assert made == {1}
    copy.assert_refused((*asked, "--models_number", "1"), 4, *named.split(": ")[1:])


@fault("F13", "a network of the cell cut that nobody asked for", "named, left alone, not counted")
def test_another_network_is_cut(copy: Place) -> None:
    """The cell's summary is made without the truncated network."""
    path = file_of(copy.models, DENSE, 1)
    os.truncate(path, 1000)
    damaged = path.read_bytes()
    done = copy.run(*SUP, *ONE)
    assert done.code == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert path.name in done.stderr
    assert path.read_bytes() == damaged
    reached = [row for row in rows.read(copy.pies) if row.metric == "sparsity_reached"]
    assert [row.n_models for row in reached if row.cell == DENSE] == [1]


STATE_DAMAGE = {
    "cut in half": DAMAGE["cut in half"],
    "empty": DAMAGE["empty"],
    "one bit of the optimizer": lambda data, state: one_bit(data, state["loop"]["momentum"][-2]),
}


@fault("F13", "a state cut", "kept as .corrupt, the training begins anew")
@fault("F14", "one bit of the optimizer in a state", "detected, the training begins anew")
@pytest.mark.parametrize("how", some_slow(STATE_DAMAGE))
def test_a_state_is_damaged(how: str, place: Place, whole: Callable[..., Any]) -> None:
    path = place.state_path
    place.run(*TRAIN, faults=(SAVE_OFTEN, STEP(18, "SIGKILL")))
    damaged = STATE_DAMAGE[how](path.read_bytes(), checkpoints.read(path))
    path.write_bytes(damaged)
    done = place.run(*TRAIN)
    assert done.code == 0
    aside = path.with_name(f"{path.name}.corrupt")
    assert done.stderr.count("\n") == done.stderr.count(aside.name) == 1
    assert aside.read_bytes() == damaged
    assert '"epoch": 0' in place.log()[-5]
    assert place.networks() == whole(*TRAIN)


class Canary:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


@fault("F16", "a pickle that runs something, as network, state or array", "nothing runs")
@pytest.mark.parametrize("where", some_slow(["torch", "pickle", "array", "state"]))
def test_a_hostile_pickle(where: str, copy: Place) -> None:
    canary = Canary(copy.folder / "canary")
    path, command = file_of(copy.models, DENSE, 1), SUP
    if where == "array":
        path, command = paths.predictions(copy.pies, DENSE, 0), DETECT
        with path.open("wb") as file:
            np.savez(file, labels=np.array([canary], dtype=object), allow_pickle=True)
    elif where == "pickle":
        path.write_bytes(pickle.dumps(canary))
    else:
        path, command = (copy.state_path, TRAIN) if where == "state" else (path, command)
        torch.save({"model": canary}, path)
    if command == SUP:
        copy.assert_refused(DETECT, 4, path.name)
    assert copy.run(*command).code == 0
    assert path.with_name(f"{path.name}.corrupt").exists()
    assert not Path(canary.path).exists()


# Whole files that are not what was asked for

# What is changed in a network, the words of the analysis' refusal, and whether training refuses too
# (weights that do not fit are seen only when the network is built).
OTHERS: dict[str, tuple[Callable[[Contents], object], tuple[str, ...], bool]] = {
    "id": (lambda c: c.update(network_id=7), ("network_id", "7", "not 1"), True),
    "shape": (
        lambda c: c["model"].update({"conv1.weight": torch.zeros(1, 3, 3, 3)}),
        ("its contents are no network's",),
        False,
    ),
    "sparsity": (lambda c: c.update(sparsity=0.5), ("sparsity", "0.5", "0.0"), True),
    "width": (lambda c: c["config"].update(widen_factor=2), ("widen_factor", "2"), True),
    "format": (lambda c: c.update(format=2), ("format", "2", "not 1"), True),
    "data set": (lambda c: c["config"].update(dataset="mnist"), ("dataset", "mnist"), True),
    "recipe": (lambda c: c["config"].update(epochs=9), ("epochs", "9"), True),
    "classes": (lambda c: c["config"].update(n_classes=9), ("n_classes", "9", "not 10"), True),
    "not finite": (lambda c: c["model"]["fc.bias"].fill_(torch.nan), ("not finite",), False),
}


@fault("F17", "a network of another sparsity, id, width, …", "exit 4 naming both values")
@fault("F18", "weights that are not finite in a whole file", "refused")
@pytest.mark.parametrize("what", some_slow(OTHERS, fast=2))
def test_a_network_of_another_kind(what: str, copy: Place) -> None:
    change, named, is_refused_by_training = OTHERS[what]
    path = file_of(copy.models, DENSE, 1)
    rewrite(path, change)
    gradual = detect("supervised", "--pruning_methods", "GMP")  # not made from this network
    copy.assert_refused(gradual, 4, path.name, *named)
    if is_refused_by_training:
        copy.assert_refused(SUP, 4, path.name, *named)


@slow
@fault("F17", "a network of another id, --overwrite", "made again in its place; it is no damage")
def test_a_network_of_another_kind_is_overwritten(copy: Place) -> None:
    whole, path = copy.networks(), file_of(copy.models, DENSE, 1)
    rewrite(path, OTHERS["id"][0])
    copy.finish(*SUP, "--overwrite")
    assert copy.networks() == whole
    assert not list(copy.models.glob("*.corrupt"))


@slow
@fault("F34", "dense and pruned networks with other ids", "refused, or only the common ones")
def test_other_ids(copy: Place) -> None:
    file_of(copy.models, ONE_SHOT, 0).unlink()
    file_of(copy.models, DENSE, 1).unlink()
    copy.assert_refused(DETECT, 4, "supervised dense 0.00", "id 1")
    done = copy.run(*DETECT, "--allow_missing")
    assert done.code == 0
    assert "supervised global 0.90: 0 of the 1 network asked for are there" in done.stdout
