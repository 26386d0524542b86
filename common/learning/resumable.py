"""Run the stages of one training; one that was interrupted continues where it stopped."""

from __future__ import annotations

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
from common.runtime import Failure

History = list[dict[str, Any]]


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
) -> History:
    """Train `modules` in place through all stages and return the history.

    The state on disk (runtime.Interrupted leaves one) is continued if its configuration is this
    one, else it is ignored. The result is the same as without an interruption, bit for bit on a
    CPU. The caller removes the state once the finished network is stored.
    """
    path = paths.training_state(models, cell, network_id)
    log_path = paths.log(logs, cell, network_id)
    device = data.train.images.device
    bf16 = config["precision"] == "bf16"
    for module in modules.values():
        module.to(device, memory_format=torch.channels_last)
    resume = _read_state(path, config)
    history: History = []
    if resume is not None:
        history = resume["finished"]
        masks |= {name: mask.to(device) for name, mask in resume["masks"].items()}
        for name, module in modules.items():
            module.load_state_dict(resume["modules"][name])
    runtime.append_log(
        log_path, {"config": config, "models": str(models), "continued": resume is not None}
    )
    done = {record["stage"] for record in history}
    for stage in stages:
        if stage.name in done:
            continue

        def save(state: loop.State, finished: History = history) -> None:
            checkpoints.write(
                path,
                {
                    "config": config,
                    "loop": state,
                    "finished": finished,
                    "masks": masks,
                    "modules": {name: module.state_dict() for name, module in modules.items()},
                },
            )

        here = resume["loop"] if resume and resume["loop"]["stage"] == stage.name else None
        history = history + loop.fit(
            stage,
            modules["network"],
            data,
            (config["seed"], network_id),
            masks,
            bf16,
            resume=here,
            save=save,
            log=lambda record: runtime.append_log(log_path, record),
        )
    return history


def _read_state(path: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        state = checkpoints.read(path)
    except Failure as failure:
        print(f"{failure}: training starts from the beginning")
        return None
    return state if state["config"] == config else None
