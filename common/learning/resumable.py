"""The state of an interrupted training, in a file beside that of the network to be made."""

from __future__ import annotations

import platform
import sys
from typing import Any

import torch

from common import files
from common.model import checkpoints
from common.paths import NetworkFiles
from common.recipes import Config
from common.runtime import EXIT_CHECKPOINT, Damaged, Failure

State = dict[str, Any]


def read(where: NetworkFiles) -> State | None:
    """The state of this network's training; None if there is none. Raises runtime.Damaged, or
    Failure(EXIT_CHECKPOINT) if the file holds the state of another network."""
    path = where.state
    if not path.exists():
        return None
    state = checkpoints.read(path)
    keys = ("network_id", "versions", "config", "loop", "finished", "masks", "modules")
    if not state.keys() >= {*keys} or not isinstance(state["config"], dict):
        raise Damaged(path, "not the state of a training", checkpoints.REMEDY)
    if state["network_id"] != where.id or state["config"].get("learner") != where.cell.learner:
        raise Failure(EXIT_CHECKPOINT, f"{path}: the state of another network; remove it")
    return state


def read_or_set_aside(where: NetworkFiles) -> State | None:
    """Like `read`, but set a damaged state aside and return None, so that training starts anew."""
    try:
        return read(where)
    except Damaged as damaged:
        files.set_aside(damaged.path, damaged.reason)
        return None


def write(where: NetworkFiles, config: Config, environment: dict[str, str], state: State) -> None:
    """Write the state of a training with this recipe in this environment."""
    header = {"network_id": where.id, "config": config, "versions": environment}
    checkpoints.write(where.state, header | state)


def environment(device: torch.device, compile_loss: bool) -> dict[str, str]:
    """Everything that can change floating-point results."""
    return checkpoints.versions() | {
        "CUDA": str(torch.version.cuda),
        "device": processor(device),
        "threads": str(torch.get_num_threads()),
        "steps": "compiled" if compile_loss else "plain",
    }


def processor(device: torch.device) -> str:
    """The name of the GPU, or the kind of the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def warn_of_another_environment(now: dict[str, str], state: State | None) -> dict[str, Any]:
    """Warn on stderr if a training began in a different environment; return the entries of its log
    about both environments."""
    begun = state["versions"] if state else now
    differing = [key for key in now if begun.get(key) != now[key]]
    if not differing:
        return {"versions": now}
    shown = [" and ".join(f"{key} {of.get(key)}" for key in differing) for of in (now, begun)]
    line = f"continued under {shown[0]}, begun under {shown[1]}"
    print(f"{line}: the result may differ from an uninterrupted one", file=sys.stderr)
    return {"versions": now, "begun_under": begun}
