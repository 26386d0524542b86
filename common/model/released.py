"""Networks saved by the released code of arXiv 2207.00200, read as if this project had made them.

The files hold bare state dicts; everything else follows from names and shapes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import recipes, released_names
from common.data.named import CIFAR10_CLASSES
from common.model import wide_resnet
from common.model.wide_resnet import WideResNet
from common.paths import NetworkFiles
from common.runtime import EXIT_CHECKPOINT, Failure, is_trouble

State = dict[str, Tensor]
# Prefixes to the names of our parameters, from wrappers of torch and from the released modules.
_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|base|encoder)\.)+")


def read_parts(files: dict[str, Path], where: NetworkFiles) -> dict[Path, dict[str, Any]]:
    """The contents of a network's released files, in the form of `checkpoints.read_parts`.

    Raises Failure(EXIT_CHECKPOINT), naming file and keys, for a file that is damaged or does not
    hold exactly one Wide ResNet.
    """
    path = next(iter(files.values()))
    state, projection = _read_states(files)
    try:
        found = architecture(state)
    except ValueError as error:
        raise Failure(EXIT_CHECKPOINT, f"{_file_of(str(error), files)}: {error}") from error
    model = _fit(files, state, found)
    weights = {name: model[name] for name in wide_resnet.prunable(WideResNet(**found))}
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    total = sum(weight.numel() for weight in weights.values())
    config = where.cell._asdict() | {
        "released": True,
        "released_quirks": True,  # its normalisation
        "dataset": None,  # unknown
        "train_images": None,
        "limit": None,
        "n_classes": found["n_classes"],
        "model_depth": found["depth"],
        "widen_factor": found["widen_factor"],
        "dropout": found["dropout"],
    }
    if "head" in files and (method := released_names.method(path)) != "SupCon":
        config["method"] = method  # without this key, the method is SupCon
    contents = {
        "network_id": where.id,
        "architecture": found,
        "model": model,
        "masks": {n: weight != 0 for n, weight in weights.items()} if where.cell.sparsity else {},
        "projection": projection,
        "config": config,
        "results": {"sparsity_reached": zeros / total},
        "versions": {},
        "data": {
            "classes": list(CIFAR10_CLASSES),
            "mean": list(recipes.RELEASED_MEAN),
            "std": list(recipes.RELEASED_STD),
        },
    }
    return {path: contents}


def _read_states(files: dict[str, Path]) -> tuple[State, State]:
    """The weights of encoder and classifier, and those of the projection head if there is one."""
    path = next(iter(files.values()))
    if "head" not in files:
        return _plain_names(path, _load(path)), {}
    encoder = _plain_names(path, _part(path, "model"))
    projection = {name: tensor for name, tensor in encoder.items() if name.startswith("head.")}
    state = {name: tensor for name, tensor in encoder.items() if name not in projection}
    return state | _plain_names(files["head"], _part(files["head"], "head")), projection


def _load(path: Path) -> dict[str, Any]:
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises one of a dozen kinds
        if is_trouble(error):
            raise
        raise Failure(EXIT_CHECKPOINT, f"{path}: damaged, or not a checkpoint") from error
    if not isinstance(contents, dict):
        raise Failure(EXIT_CHECKPOINT, f"{path}: holds no state dict")
    return contents


def _part(path: Path, key: str) -> dict[str, Any]:
    contents = _load(path)
    if not isinstance(contents.get(key), dict):
        raise Failure(
            EXIT_CHECKPOINT, f"{path}: has no {key!r}, but {sorted(map(str, contents))[:3]}"
        )
    return contents[key]


def _plain_names(path: Path, state: dict[str, Any]) -> State:
    """The state without wrappers' prefixes; each pair of `_orig` and `_mask` becomes one weight."""
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise Failure(EXIT_CHECKPOINT, f"{path}: holds more than names and weights")
    plain = {_WRAPPERS.sub("", name): tensor for name, tensor in state.items()}
    for name in [name for name in plain if name.endswith("_orig")]:
        stem = name.removesuffix("_orig")
        mask = plain.pop(f"{stem}_mask", None)
        if mask is not None and mask.shape == plain[name].shape:
            plain[stem] = plain.pop(name) * mask
    return plain


def architecture(state: State) -> dict[str, Any]:
    """The architecture of these weights. Raises ValueError if they are no Wide ResNet's."""
    blocks = {name.split(".")[2] for name in state if name.startswith("block1.layer.")}
    try:
        widen_factor = len(state["block1.layer.0.conv1.weight"]) // 16
        n_classes = len(state["fc.weight"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"has no parameter {error}") from error
    if not blocks or not widen_factor:
        raise ValueError("its weights are no Wide ResNet's")
    # Dropout changes nothing once a network is trained.
    depth = 6 * len(blocks) + 4
    return {"depth": depth, "widen_factor": widen_factor, "n_classes": n_classes, "dropout": 0.0}


def _file_of(parameter: str, files: dict[str, Path]) -> Path:
    """The file that holds a parameter, or should hold it: SupCon's classifier is in the head."""
    return files["head"] if "head" in files and "fc." in parameter else next(iter(files.values()))


def _fit(files: dict[str, Path], state: State, architecture: dict[str, Any]) -> State:
    """The state in the order of our network, after checking names, shapes and values."""
    with torch.random.fork_rng(devices=[]):
        expected = WideResNet(**architecture).state_dict()
    # Old versions of torch did not save the counters of batch norm; nothing here reads them.
    counters = {name: t for name, t in expected.items() if name.endswith("num_batches_tracked")}
    state = counters | state
    for what, names in (
        ("lacks", [name for name in expected if name not in state]),
        ("has unknown", [name for name in state if name not in expected]),
        (
            "has another shape or non-finite values in",
            [
                name
                for name in expected
                if name in state
                and (state[name].shape != expected[name].shape or not state[name].isfinite().all())
            ],
        ),
    ):
        if names:
            path = _file_of(names[0], files)
            raise Failure(EXIT_CHECKPOINT, f"{path}: {what} {', '.join(names[:3])} …")
    return {name: state[name].to(tensor.dtype) for name, tensor in expected.items()}


def find(where: NetworkFiles, asked: Path | None = None) -> dict[str, Path]:
    """The released files of a network; empty if there are none. Raises Failure(EXIT_CHECKPOINT) if
    several sets of files fit (of different epochs, say) and `asked` does not tell which to read."""
    found = released_names.networks(where.models).get((where.cell, where.id), [])
    found = [files for files in found if asked is None or asked in files.values()]
    if len(found) > 1:
        folder = where.models.parent
        candidates = {path for files in found for path in files.values()}
        names = sorted(str(path.relative_to(folder)) for path in candidates)
        message = f"{folder}: several files could be {where}; keep one of {', '.join(names)}"
        raise Failure(EXIT_CHECKPOINT, message)
    return found[0] if found else {}
