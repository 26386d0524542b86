"""The state of an interrupted training: written beside the network to be, continued, removed."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import torch

from common import files, paths
from common.model import checkpoints
from common.recipes import Config
from common.runtime import EXIT_CHECKPOINT, Damaged, Failure
from common.study import Cell

State = dict[str, Any]


def read(models: Path, cell: Cell, network_id: int) -> State | None:
    """The state of this network, None if there is none. Raises runtime.Damaged, or
    Failure(EXIT_CHECKPOINT) for the state of another network."""
    path = paths.training_state(models, cell, network_id)
    if not path.exists():
        return None
    state = checkpoints.read(path)
    keys = ("network_id", "versions", "config", "loop", "finished", "masks", "modules")
    if not state.keys() >= {*keys} or not isinstance(state["config"], dict):
        raise Damaged(path, "not the state of a training", checkpoints.REMEDY)
    if state["network_id"] != network_id or state["config"].get("learner") != cell.learner:
        raise Failure(EXIT_CHECKPOINT, f"{path}: the state of another network; remove it")
    return state


def read_or_set_aside(models: Path, cell: Cell, network_id: int) -> State | None:
    """As `read`, but a damaged state is set aside: the training begins anew."""
    try:
        return read(models, cell, network_id)
    except Damaged as damaged:
        files.set_aside(damaged.path, damaged.reason)
        return None


def write(
    models: Path,
    cell: Cell,
    network_id: int,
    config: Config,
    environment: dict[str, str],
    state: State,
) -> None:
    """Write the state of a training of this recipe in this environment."""
    header = {"network_id": network_id, "config": config, "versions": environment}
    checkpoints.write(paths.training_state(models, cell, network_id), header | state)


def remove(models: Path, cell: Cell, network_id: int) -> None:
    """Remove the state of a network that is stored by now, or is to be trained anew."""
    paths.training_state(models, cell, network_id).unlink(missing_ok=True)


def environment(device: torch.device, compile_loss: bool) -> dict[str, str]:
    """Everything that can change floating-point results."""
    is_cuda = device.type == "cuda"
    return checkpoints.versions() | {
        "CUDA": str(torch.version.cuda),
        "device": torch.cuda.get_device_name(device) if is_cuda else platform.machine(),
        "threads": str(torch.get_num_threads()),
        "steps": "compiled" if compile_loss else "plain",
    }


def warn_of_another_environment(now: dict[str, str], state: State | None) -> dict[str, Any]:
    """Say on stderr if a training began in another environment than this one; return what its log
    tells about both."""
    begun = state["versions"] if state else now
    differing = [key for key in now if begun.get(key) != now[key]]
    if not differing:
        return {"versions": now}
    shown = [" and ".join(f"{key} {of.get(key)}" for key in differing) for of in (now, begun)]
    line = f"continued under {shown[0]}, begun under {shown[1]}"
    print(f"{line}: the result may differ from an uninterrupted one", file=sys.stderr)
    return {"versions": now, "begun_under": begun}
