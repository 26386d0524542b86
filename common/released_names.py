"""The names that the released code of arXiv 2207.00200 gave its networks.

It put CIFAR-10 networks directly into models/. The names of encoder and head contain the epochs of
their own stage.
"""

from __future__ import annotations

import re
from pathlib import Path

from common.study import DENSE, EARLY, LATER, ONE_SHOT, Cell

_SPARSITY = r"(?P<sparsity>0(?:\.\d{1,10})?)"
_SUPERVISED = re.compile(
    rf"wideResNet_(?P<tag>global_|){_SPARSITY}pruning_\d+epochs_\d+depth_[\d.]+dropout"
    r"_id(?P<id>\d{1,6})\.pt",
    re.ASCII,
)
_SUPCON = re.compile(
    rf"WideResNet_(?P<part>encoder|head)_(?P<method>SupCon|SimCLR)_{_SPARSITY}pruning"
    r"(?P<tag>_later|_global|)_(?P<batch>\d+)batch_(?P<temperature>[\d.]+)temperature"
    r"_\d+epochs_id(?P<id>\d{1,6})\.pt",
    re.ASCII,
)
_PRUNING = {"": EARLY, "_later": LATER, "_global": ONE_SHOT, "global_": ONE_SHOT}
# Released networks belong to a folder whose name begins with cifar10: `cifar10-jpeg`, for example.
_CIFAR10 = re.compile(r"cifar10(?!\d).*")


def networks(models: Path) -> dict[tuple[Cell, int], list[dict[str, Path]]]:
    """Files of the released code beside or in the folder `models` of CIFAR-10, by network. If there
    are several candidates for one network, all are listed."""
    if not _CIFAR10.fullmatch(models.name):
        return {}
    found: dict[tuple[Cell, int], list[dict[str, Path]]] = {}
    parts: dict[tuple[str, ...], dict[str, list[Path]]] = {}
    for path in sorted([*models.parent.glob("?ideResNet_*.pt"), *models.glob("?ideResNet_*.pt")]):
        if match := _SUPERVISED.fullmatch(path.name):
            found.setdefault(_network("supervised", match), []).append({"network": path})
        elif match := _SUPCON.fullmatch(path.name):
            names = ("method", "sparsity", "tag", "batch", "temperature", "id")
            of_network = parts.setdefault(match.group(*names), {"encoder": [], "head": []})
            of_network[match["part"]].append(path)
            found.setdefault(_network("SupCon", match), [])
    for (_, sparsity, tag, _, _, network_id), files in parts.items():
        network = _cell("SupCon", sparsity, tag), int(network_id)
        found[network] += [
            {"encoder": encoder, "head": head}
            for encoder in files["encoder"]
            for head in files["head"]
        ]
    return {network: candidates for network, candidates in found.items() if candidates}


def method(encoder: Path) -> str:
    """`SupCon` or `SimCLR`, from the name of a released encoder."""
    return _SUPCON.fullmatch(encoder.name)["method"]


def _network(learner: str, match: re.Match[str]) -> tuple[Cell, int]:
    return _cell(learner, match["sparsity"], match["tag"]), int(match["id"])


def _cell(learner: str, sparsity: str, tag: str) -> Cell:
    """The cell that a released name states. In the name of a dense network, the tag of a schedule
    (`_later`) means nothing."""
    pruning = _PRUNING[tag]
    is_dense = float(sparsity) == 0 and pruning != ONE_SHOT
    return Cell(learner, DENSE if is_dense else pruning, float(sparsity))
