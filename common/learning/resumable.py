"""Run the stages of one training; one that was interrupted continues where it stopped."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import paths, runtime
from common.data.datasets import Dataset
from common.learning import loop
from common.learning.loop import Stage
from common.model import checkpoints
from common.paths import Cell
from common.runtime import EXIT_CHECKPOINT, Damaged, Failure

History = list[dict[str, Any]]
State = dict[str, Any]
# What a state holds.
FORM = {
    "network_id": int,
    "versions": dict,
    "config": dict,
    "loop": dict,
    "finished": list,
    "masks": dict,
    "modules": dict,
}


def train(
    modules: dict[str, nn.Module],
    stages: list[Stage],
    masks: dict[str, Tensor],
    cell: Cell,
    network_id: int,
    config: dict[str, Any],
    data: Dataset,
    models: Path,
    logs: Path,
    compile_loss: bool = False,
) -> History:
    """Train `modules` in place through all stages and return the history.

    The state on disk (runtime.Interrupted leaves one) is continued if its configuration is this
    one, else it is discarded. The result is the same as without an interruption, bit for bit on a
    CPU. The caller removes the states once the finished network is stored. Raises Failure as
    loop.fit does, and where memory does not suffice.
    """
    path = paths.training_state(models, cell, network_id)
    log_path = paths.log(logs, cell, network_id)
    device = data.train.images.device
    bf16 = config["precision"] == "bf16"
    for module in modules.values():
        module.to(device, memory_format=torch.channels_last)
    here = _what_computes(device, compile_loss)
    resume = read_state(models, cell, network_id, _set_aside)
    if resume is not None and resume["config"] != config:
        resume = None
        remove_states(models, cell, network_id)
    history = _restore(resume, modules, masks, device) if resume else []
    begin = {"config": config, "models": str(models), "continued": resume is not None}
    runtime.append_log(log_path, begin | _versions(here, resume))
    done = {record["stage"] for record in history}
    for stage in stages:
        if stage.name in done:
            continue

        def save(state: loop.State, finished: History = history) -> None:
            training = {"config": config, "loop": state, "finished": finished, "masks": masks}
            _write_state(path, network_id, training | {"versions": here}, modules)

        begun = resume["loop"] if resume and resume["loop"]["stage"] == stage.name else None
        flag = "--batch_size_head" if stage.name == "head" else "--batch_size"
        with runtime.memory_for(flag, stage.batch_size):
            history = history + loop.fit(
                stage,
                modules["network"],
                data,
                (config["seed"], network_id),
                masks,
                bf16,
                compile_loss,
                resume=begun,
                save=save,
                log=lambda record: runtime.append_log(log_path, record),
            )
    return history


def read_state(
    models: Path,
    cell: Cell,
    network_id: int,
    on_damage: Callable[[Damaged], None] = lambda damaged: None,
) -> State | None:
    """The newest state of this network that is whole, None if there is none. `on_damage` learns of
    the others. Nothing in a training is random but by (seed, id, epoch, step), so that the one
    before the newest leads to the same network. Raises Failure(EXIT_CHECKPOINT) for the state of
    another network."""
    newest = paths.training_state(models, cell, network_id)
    for path in (newest, paths.previous(newest)):
        try:
            state = checkpoints.read(path)
            plain = [state.get(key) for key in ("versions", "config", "finished")]
            of_form = all(isinstance(state.get(key), kind) for key, kind in FORM.items())
            if not of_form or not checkpoints.is_plain(plain):
                raise Damaged(path, "not the state of a training", checkpoints.REMEDY)
        except Damaged as damaged:
            on_damage(damaged)
        except Failure:
            continue  # there is none
        else:
            if state["network_id"] != network_id or state["config"].get("learner") != cell.learner:
                raise Failure(EXIT_CHECKPOINT, f"{path}: the state of another network; remove it")
            return state
    return None


def _restore(
    resume: State, modules: dict[str, nn.Module], masks: dict[str, Tensor], device: torch.device
) -> History:
    """Put a state into modules and masks; return the history of the stages that are finished."""
    masks |= {name: mask.to(device) for name, mask in resume["masks"].items()}
    for name, module in modules.items():
        module.load_state_dict(resume["modules"][name])
    return resume["finished"]


def _write_state(
    path: Path, network_id: int, training: State, modules: dict[str, nn.Module]
) -> None:
    if path.exists():  # at every instant one of the two is whole
        path.replace(paths.previous(path))
    weights = {name: module.state_dict() for name, module in modules.items()}
    checkpoints.write(path, {"network_id": network_id} | training | {"modules": weights})


def remove_states(models: Path, cell: Cell, network_id: int) -> None:
    """Of a network that is stored by now, or is to be trained from its beginning."""
    newest = paths.training_state(models, cell, network_id)
    for path in (paths.previous(newest), newest):
        path.unlink(missing_ok=True)


def _set_aside(damaged: Damaged) -> None:
    runtime.set_aside(damaged.path, damaged.reason, paths.corrupt(damaged.path))


def _what_computes(device: torch.device, compile_loss: bool) -> dict[str, str]:
    """All that sums may be rounded differently under."""
    is_cuda = device.type == "cuda"
    return checkpoints.versions() | {
        "CUDA": str(torch.version.cuda),
        "device": torch.cuda.get_device_name(device) if is_cuda else platform.machine(),
        "threads": str(torch.get_num_threads()),
        "steps": "compiled" if compile_loss else "plain",
    }


def _versions(now: dict[str, str], resume: State | None) -> dict[str, dict[str, str]]:
    """What computes now and, if that is another, what computed this training before; says so."""
    begun = resume["versions"] if resume else now
    differing = [key for key in now if begun.get(key) != now[key]]
    if not differing:
        return {"versions": now}
    shown = [" and ".join(f"{key} {of.get(key)}" for key in differing) for of in (now, begun)]
    line = f"continued under {shown[0]}, begun under {shown[1]}"
    print(f"{line}: the result may differ from an uninterrupted one", file=sys.stderr)
    return {"versions": now, "begun_under": begun}
