"""The files that hold networks: written whole or not at all, verified when read, never unpickled.

A file holds only tensors and plain types, from which its network can be rebuilt. A SupCon network
has two files, encoder and head, which belong together: the head names its encoder.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import files, paths, study
from common.model import released
from common.model.wide_resnet import ProjectionHead, WideResNet
from common.paths import NetworkFiles
from common.recipes import Config
from common.runtime import EXIT_CHECKPOINT, Damaged, Failure, is_trouble

FORMAT = 1
CLASSIFIER = ("fc.weight", "fc.bias")
REMEDY = "remove it and make it again"
Contents = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A stored network, rebuilt in eval mode, with its configuration and results. Early versions
    stored no `data` (classes; mean and std of the training images in [0, 1]); it is empty then."""

    network: WideResNet
    projection: ProjectionHead | None  # of a SupCon network that learned contrastively
    masks: dict[str, Tensor]
    config: dict[str, Any]  # everything that defined its training
    results: dict[str, Any]  # test_accuracy, sparsity_reached, sparsity_by_layer, history, …
    data: dict[str, Any]  # classes, mean, std
    digest: str  # of all its contents

    @torch.no_grad()
    def classify(self, images: Tensor) -> Tensor:
        """Class indices [B] of images [B,3,H,H], uint8 or float32 in [0, 1], with the same size as
        the training images. Raises ValueError if the network's file lacks their mean and std."""
        if not self.data:
            raise ValueError("this file does not tell the mean and std of its training images")
        device = self.network.fc.weight.device
        images = images.to(device).float() / (255 if images.dtype == torch.uint8 else 1)
        mean, std = (images.new_tensor(self.data[key])[:, None, None] for key in ("mean", "std"))
        return self.network((images - mean) / std).logits.argmax(1)


def save(
    where: NetworkFiles,
    modules: Mapping[str, nn.Module],
    masks: Mapping[str, Tensor],
    config: dict[str, Any],
    results: dict[str, Any],
    data: dict[str, Any],
) -> str:
    """Write the files of one network and return its digest. `modules`: "network" and, where there
    is one, "projection"; `data`: classes, mean and std."""
    network = modules["network"]
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    # A mask may be a view into a larger tensor, and torch would write the whole tensor.
    kept = {name: mask.cpu().clone() for name, mask in masks.items()}
    architecture = {
        "depth": config["model_depth"],
        "widen_factor": config["widen_factor"],
        "n_classes": network.fc.out_features,
        "dropout": config["dropout"],
    }
    common = {"format": FORMAT, **where.cell._asdict(), "network_id": where.id, "data": data}
    common |= {"architecture": architecture, "config": config, "versions": versions()}
    if "network" in where.parts:
        whole = common | {"model": state, "masks": kept, "results": results}
        return write(where.parts["network"], whole)
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
    }
    digest = write(where.parts["encoder"], encoder)
    return write(where.parts["head"], head | {"encoder": digest})


def versions() -> dict[str, str]:
    """Python's and torch's versions."""
    return {"python": platform.python_version(), "torch": str(torch.__version__)}


def from_path(path: str | Path, device: str | torch.device = "cpu") -> Checkpoint:
    """The network that this file belongs to (either of a SupCon network's two files), verified, in
    eval mode. Raises Failure(EXIT_CHECKPOINT) naming the file."""
    where = paths.locate(Path(path))
    if where is None:
        raise Failure(EXIT_CHECKPOINT, f"{path}: not named as a network of this project")
    # A network of this project may have the same cell and id as a released one.
    is_ours = paths.network_of(Path(path)) is not None
    parts = read_parts(where) if is_ours else _read_released(where, Path(path))
    return _from_parts(where, parts, torch.device(device))


def load(where: NetworkFiles, device: torch.device) -> Checkpoint:
    """Read, verify and rebuild one network. Raises Failure(EXIT_CHECKPOINT) naming the file."""
    return _from_parts(where, read_parts(where), device)


def _from_parts(
    where: NetworkFiles, parts: dict[Path, Contents] | None, device: torch.device
) -> Checkpoint:
    """The network made of these parts. Raises Failure(EXIT_CHECKPOINT), naming the file that is
    missing or wrong."""
    if parts is None:
        missing = [f"{path}: missing" for path in where.missing]
        reason = f"{where.last}: its encoder is of another training"
        raise Failure(EXIT_CHECKPOINT, (missing or [reason])[0])
    path, last = list(parts.items())[-1]
    try:
        state = {name: tensor for part in parts.values() for name, tensor in part["model"].items()}
        masks = {name: m.bool() for part in parts.values() for name, m in part["masks"].items()}
        network = _rebuild(last, state)
        projection = _projection(next(iter(parts.values())).get("projection"))
        config, results = last["config"], last["results"]
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise _refusal(path, f"its contents are no network's ({reason})") from error
    return Checkpoint(
        network.to(device, memory_format=torch.channels_last).eval(),
        projection if projection is None else projection.to(device),
        {name: mask.to(device) for name, mask in masks.items()},
        config,
        results,
        last.get("data", {}),
        last["digest"],
    )


def _rebuild(contents: Contents, state: dict[str, Tensor]) -> WideResNet:
    """The network with these weights. No memory is allocated for the sizes that a file states
    unless its weights have these sizes. Raises ValueError or RuntimeError."""
    seen = released.architecture(state)
    if contents["architecture"] | {"dropout": 0.0} != seen | {"dropout": 0.0}:
        raise ValueError("its weights do not fit its architecture")
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise ValueError("its weights are not finite")
    with torch.random.fork_rng(devices=[]):  # weights are drawn here, and replaced at once
        network = WideResNet(**contents["architecture"])
    network.load_state_dict(state)
    return network


def _projection(state: dict[str, Tensor] | None) -> ProjectionHead | None:
    if not state:
        return None
    kind = "mlp" if "head.2.weight" in state else "linear"
    n_out, width = (*state["head.2.weight" if kind == "mlp" else "head.0.weight"].shape,)
    with torch.random.fork_rng(devices=[]):
        projection = ProjectionHead(width, kind, n_out)
    projection.load_state_dict(state)
    return projection


def read_parts(where: NetworkFiles) -> dict[Path, Contents] | None:
    """The verified contents of a network's files; None if a file is missing, or if encoder and head
    do not belong together. Raises Failure(EXIT_CHECKPOINT) if a file is damaged or says that it
    holds another network."""
    if where.missing:
        return _read_released(where)
    remedy = f"python {study.script(where.cell)} sets it aside and makes it again"
    parts = {path: read(path, remedy) for path in where.parts.values()}
    asked = {"format": FORMAT, **where.cell._asdict(), "network_id": where.id}
    for path, contents in parts.items():
        for key, value in asked.items():
            found = contents.get(key)
            if not is_plain(found) or found != value:
                raise _refusal(path, f"its {key} is {found}, not {value}")
    *encoder, last = parts.values()
    is_whole = not encoder or last.get("encoder") == encoder[0]["digest"]
    return parts if is_whole else None


def _read_released(where: NetworkFiles, asked: Path | None = None) -> dict[Path, Contents] | None:
    found = released.find(where, asked)
    if not found:
        return None
    return {
        path: contents | {"digest": _digest(contents | {"config": _without_method(contents)})}
        for path, contents in released.read_parts(found, where).items()
    }


def _without_method(contents: Contents) -> Config:
    """The configuration of a released network as earlier versions defined it. Its digest names the
    network in stored predictions and in networks that were fine-tuned from it."""
    return {key: value for key, value in contents["config"].items() if key != "method"}


def describe(where: NetworkFiles) -> Contents | None:
    """A network's `config`, `results`, `versions` and `digest`, without building it; None where
    `read_parts` returns None. A process reads files only once as long as they do not change."""
    parts = released.find(where) if where.missing else where.parts
    found = [(path, path.stat()) for path in parts.values()]
    stamps = ((path, stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in found)
    return _describe_unchanged(where, tuple(stamps))


@cache
def _describe_unchanged(where: NetworkFiles, stamps: tuple[object, ...]) -> Contents | None:
    if (parts := read_parts(where)) is None:
        return None
    path, last = list(parts.items())[-1]
    described = {key: last.get(key) for key in ("config", "results", "versions", "digest")}
    if not is_plain(described) or not all(
        isinstance(described[key], dict) for key in ("config", "results", "versions")
    ):
        raise _refusal(path, "its contents are no network's")
    return described


def write(path: Path, contents: Contents) -> str:
    """Write tensors and plain types, and their digest, atomically; return the digest."""
    digest = _digest(contents)
    # Through memory: given a path, torch does not tell a full disk from other errors, and stores
    # the path's name in the file.
    buffer = io.BytesIO()
    torch.save(_canonical(contents | {"digest": digest}), buffer)
    files.replace(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()), read)
    return digest


def _canonical(value: Any) -> Any:
    """A copy whose pickled bytes depend only on its contents: equal strings are one object, and no
    list or dict occurs twice (pickle writes an object that it saw before as a reference)."""
    if isinstance(value, str):
        return sys.intern(str(value))
    if isinstance(value, dict):
        return {_canonical(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_canonical(item) for item in value)
    return value


def read(path: Path, remedy: str = REMEDY) -> Contents:
    """Read a file that `write` wrote and verify its digest (torch does not check a file's
    checksums). Raises runtime.Damaged, which says what to do, or Failure(EXIT_CHECKPOINT) if the
    file is missing."""
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
    """True if this holds no tensors, which cannot be compared with other values."""
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


def _digest(contents: Contents) -> str:
    """BLAKE2 over the plain values as JSON and over every tensor's name, type, shape and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    plain = json.dumps(
        contents, sort_keys=True, default=lambda value: [str(value.dtype), list(value.shape)]
    )
    digest.update(plain.encode())
    for name, tensor in sorted(_tensors(contents), key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
