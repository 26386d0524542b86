"""The files that hold networks: written whole or not at all, verified when read, never unpickled.

A file holds tensors and plain types only and rebuilds its own network. SupCon networks lie in two
files, encoder and head, which count as one: the head names the encoder that it was trained on.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import paths
from common.model import released, wide_resnet
from common.model.wide_resnet import ProjectionHead, WideResNet
from common.paths import Cell
from common.runtime import (
    EXIT_CHECKPOINT,
    EXIT_NON_FINITE,
    Damaged,
    Failure,
    is_trouble,
    replace_file,
    replace_files,
    set_aside,
)

FORMAT = 1
CLASSIFIER = ("fc.weight", "fc.bias")


@dataclass(frozen=True)
class Checkpoint:
    """A stored network, rebuilt, and what is known about it."""

    network: WideResNet
    projection: ProjectionHead | None  # of a SupCon network that learned contrastively
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
) -> str:
    """Write the files of one network and return its digest. `modules`: "network" and, where there
    is one, "projection".

    Raises Failure(EXIT_NON_FINITE) rather than store weights that are not finite.
    """
    network = modules["network"]
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    kept = {name: mask.cpu() for name, mask in masks.items()}
    common = _heading(cell, network_id, config, network.fc.out_features)
    files = paths.checkpoints(models, cell, network_id)
    if set(files) == {"network"}:
        return write(files["network"], common | {"model": state, "masks": kept, "results": results})
    projection = modules["projection"].state_dict() if "projection" in modules else {}
    encoder = common | {
        "model": {name: tensor for name, tensor in state.items() if name not in CLASSIFIER},
        "masks": {name: mask for name, mask in kept.items() if name not in CLASSIFIER},
        "projection": {name: tensor.detach().cpu() for name, tensor in projection.items()},
    }
    head = common | {
        "model": {name: tensor for name, tensor in state.items() if name in CLASSIFIER},
        "masks": {name: mask for name, mask in kept.items() if name in CLASSIFIER},
        "results": results,
        "encoder": _digest(encoder),
    }
    settle(models, cell, network_id)
    try:
        _write_pair(files, encoder, head)
    finally:
        settle(models, cell, network_id)
    return _digest(head)


def _heading(cell: Cell, network_id: int, config: dict[str, Any], n_classes: int) -> dict[str, Any]:
    architecture = {
        "depth": config["model_depth"],
        "widen_factor": config["widen_factor"],
        "n_classes": n_classes,
        "dropout": config["dropout"],
    }
    return (
        {"format": FORMAT}
        | cell._asdict()
        | {"network_id": network_id, "architecture": architecture, "config": config}
        | {"versions": versions()}
    )


def _write_pair(files: dict[str, Path], encoder: dict[str, Any], head: dict[str, Any]) -> None:
    """Both files of a SupCon network. At every instant one pair is whole: until the new head is in
    place, a copy of the old encoder is there for the old one."""
    before = paths.previous(files["encoder"])
    if files["encoder"].exists():
        copy = partial(shutil.copyfile, files["encoder"])
        replace_file(before, copy, lambda temporary: None)
    _write_together({files["encoder"]: encoder, files["head"]: head})


def settle(models: Path, cell: Cell, network_id: int) -> None:
    """If who replaced a SupCon network got no further than its encoder, bring the old encoder back;
    else remove the copy of it, which is set aside if it is needed, but damaged. Only for who holds
    the network's lock. Raises Failure(EXIT_CHECKPOINT) if the network itself is damaged."""
    files = list(paths.checkpoints(models, cell, network_id).values())
    before = paths.previous(files[0])
    if len(files) == 1 or not before.exists():
        return
    if all(path.exists() for path in files):
        parts = {path: read(path) for path in files}
        if not _belong_together(parts) and _bring_back(before, files[0], parts[files[1]]):
            return
    before.unlink(missing_ok=True)


def _bring_back(before: Path, encoder: Path, head: dict[str, Any]) -> bool:
    """Put the copy of an encoder in its place, if the head was trained on it."""
    try:
        fits = read(before)["digest"] == head.get("encoder")
    except Damaged as damaged:
        set_aside(before, damaged.reason, paths.corrupt(before))
        return False
    if fits:
        before.replace(encoder)
    return fits


def versions() -> dict[str, str]:
    """What computes here."""
    return {"python": platform.python_version(), "torch": str(torch.__version__)}


def load(models: Path, cell: Cell, network_id: int, device: torch.device) -> Checkpoint:
    """Read, verify and rebuild one network. Raises Failure(EXIT_CHECKPOINT) naming the file."""
    parts = read_parts(models, cell, network_id)
    if parts is None:
        path = next(iter(paths.checkpoints(models, cell, network_id).values()))
        raise Failure(
            EXIT_CHECKPOINT, f"{path}: missing, or its encoder and head are not of one network"
        )
    state = {name: tensor for part in parts.values() for name, tensor in part["model"].items()}
    masks = {name: mask for part in parts.values() for name, mask in part["masks"].items()}
    path, last = list(parts.items())[-1]
    network = _rebuild(path, last, state)
    if "format" in last:  # released networks have no masks, but zeros
        _check_masks(path, wide_resnet.prunable(network), masks, cell.sparsity)
    projection = _projection(path, next(iter(parts.values())).get("projection"))
    if projection is not None:
        projection = projection.to(device)
    return Checkpoint(
        network.to(device, memory_format=torch.channels_last).eval(),
        projection,
        {name: mask.to(device) for name, mask in masks.items()},
        last["config"],
        last["results"],
        last["digest"],
    )


def _rebuild(path: Path, contents: dict[str, Any], state: dict[str, Tensor]) -> WideResNet:
    """The network with these weights, after checking that they are what the file says."""
    architecture, config = contents["architecture"], contents["config"]
    dropout = architecture.get("dropout")
    told = released.architecture(path, state) | {"dropout": dropout}
    is_share = isinstance(dropout, int | float) and 0 <= dropout < 1
    if architecture != told or not is_share or config.get("n_classes") != told["n_classes"]:
        raise _refusal(path, "its weights do not fit its architecture")
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise _refusal(path, "its weights are not finite")
    with torch.random.fork_rng(devices=[]):  # weights are drawn here, and replaced at once
        network = WideResNet(**architecture)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:  # its message has a line for every key
        raise _refusal(path, "its weights do not fit its architecture") from error
    return network


def _check_masks(
    path: Path, weights: dict[str, Tensor], masks: dict[str, Tensor], sparsity: float
) -> None:
    """Raises Failure(EXIT_CHECKPOINT) unless a file's masks fit its weights, prune as many of them
    as it says, to one weight, and every pruned weight is zero."""
    shapes = {name: weight.shape for name, weight in weights.items()}
    if masks and {name: mask.shape for name, mask in masks.items()} != shapes:
        raise _refusal(path, "its masks do not fit its weights")
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    total = sum(weight.numel() for weight in weights.values())
    if abs(pruned - sparsity * total) > 1:
        share = f"a share of {pruned / total:.4f}, not {sparsity}"
        raise _refusal(path, f"its masks prune {share}")
    if any(weights[name].detach()[~mask].any() for name, mask in masks.items()):
        raise _refusal(path, "its pruned weights are not zero")


def read_parts(models: Path, cell: Cell, network_id: int) -> dict[Path, dict[str, Any]] | None:
    """The verified contents of a network's files; None if it is missing, or if there is only half
    of it. Raises Failure(EXIT_CHECKPOINT) if a file is damaged or says that it is another one."""
    files = list(paths.checkpoints(models, cell, network_id).values())
    if not all(path.exists() for path in files):
        return _read_released(models, cell, network_id)
    remedy = f"python {paths.making_script(cell)} sets it aside and makes it again"
    parts = {path: read(path, remedy) for path in files}
    before = paths.previous(files[0])
    if not _belong_together(parts) and before.exists():  # see `settle`
        parts[files[0]] = read(before, remedy)
    _check_form(parts)
    asked = {"format": FORMAT, **cell._asdict(), "network_id": network_id}
    for path, contents in parts.items():
        for key, value in asked.items():
            if contents.get(key) != value:
                raise _refusal(path, f"its {key} is {contents.get(key)}, not {value}")
    return parts if _belong_together(parts) else None


def _belong_together(parts: dict[Path, dict[str, Any]]) -> bool:
    contents = list(parts.values())
    return len(contents) == 1 or contents[1].get("encoder") == contents[0]["digest"]


def _check_form(parts: dict[Path, dict[str, Any]]) -> None:
    """Raises Failure(EXIT_CHECKPOINT) for files that `save` never wrote so, though they verify."""
    form = {"model": Tensor, "masks": Tensor, "projection": Tensor}
    *_, last = parts
    for path, contents in parts.items():
        keys = ["model", "masks", "architecture", "config", "versions"]
        keys += ["results"] if path == last else []
        keys += ["projection"] if len(parts) == 2 and path != last else []
        for key in keys:
            values = contents.get(key)
            kind = form.get(key, object)
            if not isinstance(values, dict) or not all(
                isinstance(v, kind) for v in values.values()
            ):
                raise _refusal(path, f"its {key} is not what this project writes")
        if not is_plain({key: contents[key] for key in contents.keys() - form.keys()}):
            raise _refusal(path, "it holds tensors where this project writes none")
        if any(mask.dtype != torch.bool for mask in contents["masks"].values()):
            raise _refusal(path, "its masks are not true or false")


def _read_released(models: Path, cell: Cell, network_id: int) -> dict[Path, dict[str, Any]] | None:
    files = released.find(models, cell, network_id)
    if files is None:
        return None
    parts = released.read_parts(files, cell, network_id)
    return {path: contents | {"digest": _digest(contents)} for path, contents in parts.items()}


def _projection(path: Path, state: dict[str, Tensor] | None) -> ProjectionHead | None:
    if not state:
        return None
    kind = "mlp" if "head.2.weight" in state else "linear"
    try:
        n_out, width = (*state["head.2.weight" if kind == "mlp" else "head.0.weight"].shape,)
        with torch.random.fork_rng(devices=[]):
            projection = ProjectionHead(width, kind, n_out)
        projection.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise _refusal(path, "its projection head is none of this project") from error
    return projection


def describe(models: Path, cell: Cell, network_id: int) -> dict[str, Any] | None:
    """A network's `config`, `results`, `versions` and `digest` without building it; None as
    `read_parts`."""
    parts = read_parts(models, cell, network_id)
    if parts is None:
        return None
    last = list(parts.values())[-1]
    return {key: last[key] for key in ("config", "results", "versions", "digest")}


def write(path: Path, contents: dict[str, Any]) -> str:
    """Write tensors and plain types, atomically, with a digest of them, which is returned. Raises
    Failure(EXIT_NON_FINITE) rather than store weights that are not finite."""
    _write_together({path: contents})
    return _digest(contents)


def _write_together(files: dict[Path, dict[str, Any]]) -> None:
    writes = {}
    for path, contents in files.items():
        weights = {key: contents.get(key) for key in ("model", "projection", "modules")}
        for name, tensor in _tensors(weights):
            if not tensor.isfinite().all():
                raise Failure(EXIT_NON_FINITE, f"{path}: not written, {name[1:]} is not finite")
        writes[path] = partial(_dump, _canonical(contents | {"digest": _digest(contents)}))
    replace_files(writes, read)


def _dump(contents: dict[str, Any], path: Path) -> None:
    """By way of memory: torch writes to a path without telling a full disk from other errors, and
    puts the path's name into the file."""
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    path.write_bytes(buffer.getbuffer())


def _canonical(value: Any) -> Any:
    """A copy whose bytes depend on nothing but its contents: equal strings are one object, and no
    list or dict is used twice (pickle writes what it saw before as a reference)."""
    if isinstance(value, str):
        return sys.intern(str(value))
    if isinstance(value, dict):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_canonical(item) for item in value)
    return value


REMEDY = "remove it and make it again"


def read(path: Path, remedy: str = REMEDY) -> dict[str, Any]:
    """Read what `write` wrote and verify its digest (torch does not check a file's checksums).
    Raises runtime.Damaged, which says what to do; Failure(EXIT_CHECKPOINT) for a missing file."""
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise Failure(EXIT_CHECKPOINT, f"{path}: missing") from error
    except Exception as error:  # a damaged file raises one of a dozen kinds
        if is_trouble(error):
            raise
        raise Damaged(path, "damaged, or not a checkpoint of this project", remedy) from error
    if not isinstance(contents, dict) or not isinstance(contents.get("digest"), str):
        raise Damaged(path, "not a checkpoint of this project", remedy)
    digest = contents.pop("digest")
    try:
        expected = _digest(contents)
    except (AttributeError, TypeError, ValueError) as error:  # holds what `write` never writes
        raise Damaged(path, "not a checkpoint of this project", remedy) from error
    if digest != expected:
        raise Damaged(path, "damaged: its contents do not match their digest", remedy)
    return contents | {"digest": digest}


def _refusal(path: Path, reason: str) -> Failure:
    return Failure(EXIT_CHECKPOINT, f"{path}: {reason}; {REMEDY}")


def is_plain(contents: Any) -> bool:
    """Whether this holds no tensors: those cannot be compared with other values."""
    return not _tensors(contents)


def _tensors(contents: Any, prefix: str = "") -> list[tuple[str, Tensor]]:
    if isinstance(contents, Tensor):
        return [(prefix, contents)]
    if isinstance(contents, dict):
        items = list(contents.items())
    elif isinstance(contents, list | tuple):
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
