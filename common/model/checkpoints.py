"""The files that hold networks: written whole or not at all, verified when read, never unpickled.

A file holds tensors and plain types only and rebuilds its own network. SupCon networks lie in two
files, encoder and head, which count as one: the head names the encoder that it was trained on.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import paths
from common.model.wide_resnet import WideResNet
from common.paths import Cell
from common.runtime import EXIT_CHECKPOINT, EXIT_NON_FINITE, Failure, replace_file

FORMAT = 1
CLASSIFIER = ("fc.weight", "fc.bias")


@dataclass(frozen=True)
class Checkpoint:
    """A stored network, rebuilt, and what is known about it."""

    network: WideResNet
    masks: dict[str, Tensor]
    config: dict[str, Any]  # everything that defined its training
    results: dict[str, Any]  # test_accuracy, sparsity_reached, sparsity_by_layer, history, …
    digest: str  # of all its contents


def save(
    models: Path,
    cell: Cell,
    network_id: int,
    modules: Mapping[str, nn.Module],
    masks: Mapping[str, Tensor],
    config: dict[str, Any],
    results: dict[str, Any],
) -> None:
    """Write the files of one network. `modules`: "network" and, where there is one, "projection".

    Raises Failure(EXIT_NON_FINITE) rather than store weights that are not finite.
    """
    network = modules["network"]
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    kept = {name: mask.cpu() for name, mask in masks.items()}
    common = {
        "format": FORMAT,
        "learner": cell.learner,
        "pruning_method": cell.pruning_method,
        "sparsity": cell.sparsity,
        "network_id": network_id,
        "architecture": {
            "depth": config["model_depth"],
            "widen_factor": config["widen_factor"],
            "n_classes": network.fc.out_features,
            "dropout": config["dropout"],
        },
        "config": config,
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    files = paths.checkpoints(models, cell, network_id)
    if set(files) == {"network"}:
        write(files["network"], common | {"model": state, "masks": kept, "results": results})
        return
    is_head = {name: name in CLASSIFIER for name in state}
    projection = modules["projection"].state_dict() if "projection" in modules else {}
    encoder_digest = write(
        files["encoder"],
        common
        | {
            "model": {name: tensor for name, tensor in state.items() if not is_head[name]},
            "masks": {name: mask for name, mask in kept.items() if not is_head[name]},
            "projection": {name: tensor.detach().cpu() for name, tensor in projection.items()},
        },
    )
    write(
        files["head"],
        common
        | {
            "model": {name: tensor for name, tensor in state.items() if is_head[name]},
            "masks": {name: mask for name, mask in kept.items() if is_head[name]},
            "results": results,
            "encoder": encoder_digest,
        },
    )


def load(models: Path, cell: Cell, network_id: int, device: torch.device) -> Checkpoint:
    """Read, verify and rebuild one network. Raises Failure(EXIT_CHECKPOINT) naming the file."""
    contents = [read(path) for path in paths.checkpoints(models, cell, network_id).values()]
    path = list(paths.checkpoints(models, cell, network_id).values())[-1]
    last = contents[-1]
    if len(contents) == 2 and last.get("encoder") != contents[0]["digest"]:
        raise _refusal(path, "it does not belong to the encoder beside it")
    asked = {**cell._asdict(), "network_id": network_id}
    for part in contents:
        for key, value in asked.items():
            if part.get(key) != value:
                raise _refusal(path, f"its {key} is {part.get(key)}, its name says {value}")
    architecture = last["architecture"]
    with torch.random.fork_rng(devices=[]):
        network = WideResNet(**architecture)
    state = {name: tensor for part in contents for name, tensor in part["model"].items()}
    masks = {name: mask for part in contents for name, mask in part["masks"].items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise _refusal(path, f"its weights do not fit its architecture ({error})") from error
    network = network.to(device, memory_format=torch.channels_last).eval()
    masks = {name: mask.to(device) for name, mask in masks.items()}
    return Checkpoint(network, masks, last["config"], last["results"], last["digest"])


def describe(models: Path, cell: Cell, network_id: int) -> dict[str, Any] | None:
    """A finished network's `config`, `results` and `digest`, verified, without building it; None
    if it is missing, or if there is only half of it."""
    files = list(paths.checkpoints(models, cell, network_id).values())
    if not all(path.exists() for path in files):
        return None
    contents = [read(path) for path in files]
    if len(contents) == 2 and contents[1].get("encoder") != contents[0]["digest"]:
        return None
    return {key: contents[-1][key] for key in ("config", "results", "digest")}


def write(path: Path, contents: dict[str, Any]) -> str:
    """Write tensors and plain types, atomically, with a digest of them, which is returned."""
    for name, tensor in _tensors(contents.get("model", contents.get("modules"))):
        if not tensor.isfinite().all():
            raise Failure(EXIT_NON_FINITE, f"{path}: not written, {name[1:]} is not finite")
    digest = _digest(contents)
    contents = contents | {"digest": digest}
    replace_file(path, lambda temporary: torch.save(contents, temporary), read)
    return digest


def read(path: Path) -> dict[str, Any]:
    """Read what `write` wrote and verify its digest (torch does not check a file's checksums)."""
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise Failure(EXIT_CHECKPOINT, f"{path}: missing") from error
    except Exception as error:  # a damaged file raises one of a dozen kinds
        raise _refusal(path, "damaged, or not a checkpoint of this project") from error
    if not isinstance(contents, dict) or contents.get("digest") is None:
        raise _refusal(path, "not a checkpoint of this project")
    digest = contents.pop("digest")
    if digest != _digest(contents):
        raise _refusal(path, "damaged: its contents do not match their digest")
    return contents | {"digest": digest}


def _refusal(path: Path, reason: str) -> Failure:
    return Failure(EXIT_CHECKPOINT, f"{path}: {reason}; remove it and make it again")


def _tensors(contents: Any, prefix: str = "") -> list[tuple[str, Tensor]]:
    if isinstance(contents, Tensor):
        return [(prefix, contents)]
    if isinstance(contents, dict):
        items = list(contents.items())
    elif isinstance(contents, list):
        items = list(enumerate(contents))
    else:
        return []
    return [pair for key, value in items for pair in _tensors(value, f"{prefix}/{key}")]


def _digest(contents: dict[str, Any]) -> str:
    """BLAKE2 over the plain values as JSON, and over every tensor's name, type, shape, bytes."""
    digest = hashlib.blake2b(digest_size=16)
    plain = json.dumps(
        contents, sort_keys=True, default=lambda value: [str(value.dtype), list(value.shape)]
    )
    digest.update(plain.encode())
    for name, tensor in sorted(_tensors(contents), key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
