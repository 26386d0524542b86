"""Every file name of the study. Nothing else in the project spells one.

Names are built from fixed words and numbers only, never from the contents of a file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

LEARNERS = ("supervised", "SupCon")
DENSE = "dense"
PRUNING_METHODS = ("GMP", "later_GMP", "global")


class Cell(NamedTuple):
    """One population of the study: how it learned, how and how much it was pruned."""

    learner: str
    pruning_method: str
    sparsity: float

    def __str__(self) -> str:
        return f"{self.learner} {self.pruning_method} {format_sparsity(self.sparsity)}"


def dense_cell(learner: str) -> Cell:
    """The population that `learner`'s pruned networks are compared with."""
    return Cell(learner, DENSE, 0.0)


def training_script(learner: str) -> str:
    """The script that makes this learner's dense networks."""
    return "clr_training.py" if learner == "SupCon" else "sup_training.py"


def making_script(cell: Cell) -> str:
    """The script that makes the networks of this cell."""
    if cell.pruning_method == "global":
        return training_script(cell.learner).replace("training", "pruning_finetune")
    return training_script(cell.learner)


def format_sparsity(sparsity: float) -> str:
    """As many decimals as the number needs, two at least: 0.90, 0.975."""
    text = f"{sparsity:.10f}".rstrip("0")
    return text + "0" * max(0, 2 - len(text.partition(".")[2]))


def network_stem(cell: Cell, network_id: int) -> str:
    """`supervised_global_s0.90_id03`: the name of one network, in files, logs and figures."""
    sparsity = format_sparsity(cell.sparsity)
    return f"{cell.learner}_{cell.pruning_method}_s{sparsity}_id{network_id:02d}"


def checkpoints(models: Path, cell: Cell, network_id: int) -> dict[str, Path]:
    """The files of one network by part: the whole network, or SupCon's encoder and head."""
    stem = network_stem(cell, network_id)
    if cell.learner == "SupCon":
        return {part: models / f"{stem}_{part}.pt" for part in ("encoder", "head")}
    return {"network": models / f"{stem}.pt"}


def training_state(models: Path, cell: Cell, network_id: int) -> Path:
    """Where an interrupted training of this network waits to be continued."""
    return models / f".{network_stem(cell, network_id)}.state.pt"


def previous(state: Path) -> Path:
    """Where the training state before this one is kept."""
    return state.with_name(f"{state.stem}.previous{state.suffix}")


def corrupt(damaged: Path) -> Path:
    """A free name for a damaged file: `<name>.corrupt`, else `<name>.2.corrupt` and so on. No
    pattern that looks for results matches it."""
    free, n = damaged.with_name(f"{damaged.name}.corrupt"), 1
    while free.exists():
        n += 1
        free = damaged.with_name(f"{damaged.name}.{n}.corrupt")
    return free


def lock(target: Path) -> Path:
    """The lock file that guards `target`."""
    return target.with_name(f".{target.name}.lock")


_NETWORK = re.compile(
    r"(?P<learner>supervised|SupCon)_(?P<pruning>dense|GMP|later_GMP|global)"
    r"_s(?P<sparsity>0\.\d{2,10})_id(?P<id>\d{2,7})(?:_encoder)?\.pt",
    re.ASCII,
)


# The released code of arXiv 2207.00200 put CIFAR-10 networks flat into models/, and named them so:
_RELEASED_SUPERVISED = re.compile(
    r"wideResNet_(?P<tag>global_|)(?P<sparsity>0(?:\.\d{1,10})?)pruning_\d+epochs_\d+depth_[\d.]+dropout"
    r"_id(?P<id>\d{1,6})\.pt",
    re.ASCII,
)
_RELEASED_SUPCON = re.compile(
    r"WideResNet_encoder_(?:SupCon|SimCLR)_(?P<sparsity>0(?:\.\d{1,10})?)pruning(?P<tag>_later|_global|)"
    r"_\d+batch_[\d.]+temperature_\d+epochs_id(?P<id>\d{1,6})\.pt",
    re.ASCII,
)
_RELEASED_TAGS = {"": "GMP", "_later": "later_GMP", "_global": "global", "global_": "global"}


def released_networks(models: Path) -> dict[tuple[Cell, int], list[dict[str, Path]]]:
    """Files of the released code that lie beside the folder `models` of CIFAR-10, by network."""
    found: dict[tuple[Cell, int], list[dict[str, Path]]] = {}
    if models.name != "cifar10":
        return found
    for path in sorted(models.parent.glob("?ideResNet_*.pt")):
        files = {"network": path}
        learner, match = "supervised", _RELEASED_SUPERVISED.fullmatch(path.name)
        if match is None:
            learner, match = "SupCon", _RELEASED_SUPCON.fullmatch(path.name)
            head = path.with_name(path.name.replace("_encoder_", "_head_", 1))
            files = {"encoder": path, "head": head}
        if match is not None and all(file.exists() for file in files.values()):
            sparsity = float(match["sparsity"])
            pruning = _RELEASED_TAGS[match["tag"]] if sparsity or match["tag"] else DENSE
            key = Cell(learner, pruning, sparsity), int(match["id"])
            found.setdefault(key, []).append(files)
    return found


def networks_present(models: Path) -> dict[Cell, set[int]]:
    """The ids of the networks that lie in `models`, by cell, sparsities ascending; those of the
    released code too."""
    found: dict[Cell, set[int]] = {}
    for cell, network_id in released_networks(models):
        found.setdefault(cell, set()).add(network_id)
    for path in sorted(models.glob("*.pt")):
        if match := _NETWORK.fullmatch(path.name):
            cell = Cell(match["learner"], match["pruning"], float(match["sparsity"]))
            network_id = int(match["id"])
            if all(part.exists() for part in checkpoints(models, cell, network_id).values()):
                found.setdefault(cell, set()).add(network_id)
    return dict(sorted(found.items()))


def log(logs: Path, cell: Cell, network_id: int) -> Path:
    """The JSON-lines file of one network's training."""
    return logs / f"{network_stem(cell, network_id)}.jsonl"


def curves(pies: Path, cell: Cell, network_id: int) -> Path:
    """The figure of one network's loss and accuracy by epoch."""
    return pies / cell.learner / "training" / f"{network_stem(cell, network_id)}.png"


def summary(pies: Path) -> Path:
    """The long table with one row a number."""
    return pies / "summary.csv"


def test_labels(pies: Path) -> Path:
    """The labels of the test images that the last analysis saw."""
    return pies / "test_labels.npz"


def claims(pies: Path) -> Path:
    """The paper's claims and what these networks say to them."""
    return pies / "claims.csv"


def main_table(pies: Path) -> Path:
    """The table that the scripts print, of both learners."""
    return pies / "table.csv"


def recipes(pies: Path, learner: str) -> Path:
    """What was analysed: configuration, ids, versions, hardware, by cell."""
    return pies / learner / "recipes.json"


def report(pies: Path) -> Path:
    """The page to look at."""
    return pies / "index.html"


def predictions(pies: Path, cell: Cell, network_id: int) -> Path:
    """The cached test predictions and Q-Scores of one network."""
    return pies / cell.learner / "predictions" / f"{network_stem(cell, network_id)}.npz"


def probe_predictions(pies: Path, cell: Cell, network_id: int) -> Path:
    """The cached k-NN probe predictions of one network."""
    return pies / cell.learner / "predictions" / f"{network_stem(cell, network_id)}_probes.npz"


def pie_table(pies: Path, cell: Cell) -> Path:
    """The table with one row an example: its votes in the dense and in the pruned population."""
    name = f"pies_{cell.pruning_method}_s{format_sparsity(cell.sparsity)}.csv"
    return pies / cell.learner / "pies_distribution" / name


def umap_array(pies: Path, cell: Cell, network_id: int) -> Path:
    """The cached two-dimensional map of one network."""
    return pies / cell.learner / "umap" / f"{network_stem(cell, network_id)}.npz"


# The names below are those of the released code, so that its users find their figures.
def pies_distribution(pies: Path, cell: Cell, kind: str = "PIEs_distribution") -> Path:
    """PIEs by class; or, as `kind`, another figure about the PIEs of a cell: `class_impact`,
    `vote_distance`, `PIEs_by_population_size`."""
    learner, pruning, sparsity = cell.learner, cell.pruning_method, format_sparsity(cell.sparsity)
    name = f"{kind}_{learner}_{sparsity}sparsity_{pruning}_pruning.png"
    return pies / learner / "pies_distribution" / name


_PIES = re.compile(
    r"PIEs_distribution_(?P<learner>supervised|SupCon)_(?P<sparsity>\d\.\d{2,10})sparsity"
    r"_(?P<pruning>GMP|later_GMP|global)_pruning\.npz"
)


def cell_of_pies(path: Path) -> Cell | None:
    """The cell whose PIEs lie in this .npz, None for another file."""
    match = _PIES.fullmatch(path.name)
    return match and Cell(match["learner"], match["pruning"], float(match["sparsity"]))


def overlap(pies: Path) -> Path:
    """Overlap of the PIEs of every two cells; the table has the suffix .csv."""
    return pies / "comparison" / "overlap.png"


def learner_comparison(pies: Path, kind: str, pruning_method: str, sparsity: float) -> Path:
    """A figure about both learners: `kind` is `common_PIEs` or `disagreement`."""
    name = f"{kind}_{format_sparsity(sparsity)}sparsity_{pruning_method}_pruning.png"
    return pies / "comparison" / name


def q_score(pies: Path, cell: Cell, score: str) -> Path:
    """Dense against pruned score by example: `score` is `Q-SCORE`, `Z-SCORE` or `L1_NORM`."""
    learner, pruning, sparsity = cell.learner, cell.pruning_method, format_sparsity(cell.sparsity)
    return pies / learner / "q_score" / f"{score}_{pruning}_sparsity{sparsity}_{learner}.png"


def umap(pies: Path, cell: Cell) -> Path:
    """The two-dimensional map of one network's embeddings."""
    learner, pruning, sparsity = cell.learner, cell.pruning_method, format_sparsity(cell.sparsity)
    name = f"UMAP_Classes_{learner}_sparsity{sparsity}_{pruning}_pruning.png"
    return pies / learner / "umap" / name


def prediction_depth(pies: Path, cell: Cell, knn: int, kind: str = "PIEs") -> Path:
    """Prediction depth by example: `kind` is `PIEs`, `Q-SCORE` or `probe_accuracy`."""
    learner, pruning, sparsity = cell.learner, cell.pruning_method, format_sparsity(cell.sparsity)
    name = f"Prediction_Depth_{kind}_{learner}_{pruning}_{sparsity}sparsity_{knn}knn.png"
    return pies / learner / "prediction_depth" / name
