"""Every file name of the study. Nothing else in the project spells one, but `released_names`, which
reads those of the released code.

Names are built from fixed words and numbers only, never from the contents of a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from common import released_names
from common.study import DATASETS, DENSE, LEARNERS, PRUNINGS, Cell, format_sparsity


def dataset_name(dataset: str, models_dir: Path | None = None) -> str:
    """The word of a data set; for a folder, the last component of the path as the user wrote it.

    For a link, earlier versions took the name of its target. That name is kept where networks exist
    under it and none under the link's own.
    """
    if dataset in DATASETS:
        return dataset
    written = Path(os.path.normpath(Path.cwd() / dataset)).name
    target = Path(dataset).resolve().name
    if models_dir and (models_dir / target).is_dir() and not (models_dir / written).exists():
        return target
    return written


def network_stem(cell: Cell, network_id: int) -> str:
    """`supervised_global_s0.90_id03`: the name of one network, in files, logs and figures."""
    return f"{cell_stem(cell)}_id{network_id:02d}"


def cell_stem(cell: Cell) -> str:
    """`supervised_global_s0.90`: the name of a cell in files."""
    return "{}_{}_s{}".format(*cell.words)


class NetworkFiles(NamedTuple):
    """The files of one network in the folder `models`, whether or not they exist."""

    models: Path
    cell: Cell
    id: int

    def __str__(self) -> str:
        return f"{self.cell} id {self.id}"

    @property
    def parts(self) -> dict[str, Path]:
        """The file of each part: of the whole network, or of SupCon's encoder and head."""
        stem, parts = network_stem(self.cell, self.id), LEARNERS[self.cell.learner].parts
        if len(parts) == 1:
            return {parts[0]: self.models / f"{stem}.pt"}
        return {part: self.models / f"{stem}_{part}.pt" for part in parts}

    @property
    def last(self) -> Path:
        """The file that is written last; messages use it to name the network."""
        return list(self.parts.values())[-1]

    @property
    def missing(self) -> list[Path]:
        """The files of parts that do not exist."""
        return [path for path in self.parts.values() if not path.exists()]

    @property
    def state(self) -> Path:
        """The state of an interrupted training. Its lock guards the whole network."""
        return self.models / f".{network_stem(self.cell, self.id)}.state.pt"

    @property
    def leftovers(self) -> list[Path]:
        """Files that a killed process left beside a network: a state, half-written files. Only the
        holder of the lock may remove them, since another process may be writing one right now."""
        written = [*self.parts.values(), self.state]
        temporaries = [temporary(path, "[0-9]*").name for path in written]
        names = [self.state.name, *temporaries]
        return [path for name in names for path in self.models.glob(name)]


def corrupt(damaged: Path) -> Path:
    """A free name for a damaged file: `<name>.corrupt`, else `<name>.2.corrupt` and so on. No
    pattern that finds results matches such a name."""
    free, n = damaged.with_name(f"{damaged.name}.corrupt"), 1
    while free.exists():
        n += 1
        free = damaged.with_name(f"{damaged.name}.{n}.corrupt")
    return free


def lock(target: Path) -> Path:
    """The lock file that guards `target`."""
    return target.with_name(f".{target.name}.lock")


def temporary(path: Path, process: str) -> Path:
    """The name under which a process writes a file before it moves the file into place. `process`
    is the id of the process, or a glob."""
    return path.with_name(f".{path.stem}.{process}.tmp{path.suffix}")


def _any_of(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_NETWORK = re.compile(
    rf"(?P<learner>{_any_of(LEARNERS)})_(?P<pruning>{_any_of([DENSE, *PRUNINGS])})"
    rf"_s(?P<sparsity>0\.\d{{2,10}})_id(?P<id>\d{{2,7}})(?:_(?:encoder|head))?\.pt",
    re.ASCII,
)


def network_of(path: Path) -> tuple[Cell, int] | None:
    """The cell and id in the name of a network's file; None for any other file."""
    match = _NETWORK.fullmatch(path.name)
    if match is None:
        return None
    return Cell(match["learner"], match["pruning"], float(match["sparsity"])), int(match["id"])


def networks_present(models: Path) -> dict[Cell, set[int]]:
    """The ids of the networks in `models`, those of the released code included, by cell, with
    ascending sparsities."""
    found: dict[Cell, set[int]] = {}
    for cell, network_id in released_names.networks(models):
        found.setdefault(cell, set()).add(network_id)
    for network in filter(None, map(network_of, models.glob("*.pt"))):
        if not NetworkFiles(models, *network).missing:
            found.setdefault(network[0], set()).add(network[1])
    return dict(sorted(found.items()))


def locate(path: Path) -> NetworkFiles | None:
    """The network that this file belongs to (either of SupCon's two files; a file of the released
    code, too); None for any other file."""
    if network := network_of(path):
        return NetworkFiles(path.parent, *network)
    beside_cifar10 = path.parent / "cifar10"
    for network, candidates in released_names.networks(beside_cifar10).items():
        if any(path in files.values() for files in candidates):
            return NetworkFiles(beside_cifar10, *network)
    return None


def log(logs: Path, cell: Cell, network_id: int) -> Path:
    """The JSON-lines file of one network's training."""
    return logs / f"{network_stem(cell, network_id)}.jsonl"


def rank_log(logs: Path, rank: int) -> Path:
    """The output of a rank that has no terminal."""
    return logs / f"rank{rank}.log"


def curves(pies: Path, cell: Cell) -> Path:
    """The figure of loss and accuracy by epoch, a line for each network."""
    return pies / cell.learner / "training" / f"{cell_stem(cell)}.png"


def summary(pies: Path) -> Path:
    """The long table, with one row for each number."""
    return pies / "summary.csv"


def rows(pies: Path, cell: Cell, analysis: str) -> Path:
    """The rows of summary.csv that one analysis made about one cell."""
    return pies / "rows" / f"{analysis}.{cell_stem(cell)}.csv"


def earlier_rows(pies: Path) -> Path:
    """The rows from a version of this project that did not yet keep files of rows."""
    return pies / "rows" / "earlier.csv"


def rows_files(pies: Path, analysis: str = "") -> list[Path]:
    """The files of rows of one analysis, or of all analyses, without half-written ones."""
    pattern = f"{analysis}.*.csv" if analysis else "[!.]*.csv"
    return sorted((pies / "rows").glob(pattern))


def analysis_of(rows: Path) -> str:
    """The analysis that wrote a file of rows."""
    return rows.name.partition(".")[0]


def test_labels(pies: Path) -> Path:
    """The labels of the test images in the last analysis."""
    return pies / "test_labels.npz"


def claims(pies: Path) -> Path:
    """The paper's claims, and what these networks say about each."""
    return pies / "claims.csv"


def main_table(pies: Path) -> Path:
    """The table that the scripts print, for both learners, with all its columns."""
    return pies / "table.csv"


def recipes(pies: Path, learner: str) -> Path:
    """The configuration, ids, versions and hardware of each analysed cell."""
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
    """The table with one row for each example: its votes in the dense and the pruned population."""
    name = f"pies_{cell.pruning_method}_s{format_sparsity(cell.sparsity)}.csv"
    return pies / cell.learner / "pies_distribution" / name


def umap_array(pies: Path, cell: Cell, network_id: int) -> Path:
    """The cached two-dimensional map of one network."""
    return pies / cell.learner / "umap" / f"{network_stem(cell, network_id)}.npz"


# The names below are the released code's, so that its users find their figures.
def pies_distribution(pies: Path, cell: Cell, kind: str = "PIEs_distribution") -> Path:
    """PIEs by class; or, as `kind`, another figure about the PIEs of a cell: `class_impact`,
    `vote_distance`, `PIEs_by_population_size`."""
    learner, pruning, sparsity = cell.words
    name = f"{kind}_{learner}_{sparsity}sparsity_{pruning}_pruning.png"
    return pies / learner / "pies_distribution" / name


def pies_files(pies: Path) -> dict[Cell, Path]:
    """The existing files with arrays of PIEs, by cell; not those in folders of other names."""
    found = pies.glob("*/pies_distribution/PIEs_distribution_*.npz")
    return {cell: path for path in found if (cell := cell_of_figure(path)) and cell.learner}


def by_sparsity(pies: Path) -> Path:
    """PIEs, raw and corrected, and accuracy of all cells against sparsity."""
    return pies / "comparison" / "PIEs_by_sparsity.png"


def overlap(pies: Path) -> Path:
    """Overlap of the PIEs of each pair of cells; the table has the suffix .csv."""
    return pies / "comparison" / "overlap.png"


def learner_comparison(pies: Path, kind: str, pruning_method: str, sparsity: float) -> Path:
    """A figure about both learners: `kind` is `common_PIEs` or `disagreement`."""
    name = f"{kind}_{format_sparsity(sparsity)}sparsity_{pruning_method}_pruning.png"
    return pies / "comparison" / name


def q_score(pies: Path, cell: Cell, score: str) -> Path:
    """Dense against pruned score by example: `score` is `Q-SCORE`, `Z-SCORE` or `L1_NORM`."""
    learner, pruning, sparsity = cell.words
    return pies / learner / "q_score" / f"{score}_{pruning}_sparsity{sparsity}_{learner}.png"


def umap(pies: Path, cell: Cell) -> Path:
    """The two-dimensional map of one network's embeddings."""
    learner, pruning, sparsity = cell.words
    name = f"UMAP_Classes_{learner}_sparsity{sparsity}_{pruning}_pruning.png"
    return pies / learner / "umap" / name


def prediction_depth(pies: Path, cell: Cell, knn: int, kind: str = "PIEs") -> Path:
    """Prediction depth by example: `kind` is `PIEs`, `Q-SCORE` or `probe_accuracy`."""
    learner, pruning, sparsity = cell.words
    name = f"Prediction_Depth_{kind}_{learner}_{pruning}_{sparsity}sparsity_{knn}knn.png"
    return pies / learner / "prediction_depth" / name


# The figures of the report, by kind, in its order.
REPORT_FIGURES = {
    "by_sparsity": "comparison/PIEs_by_sparsity.png",
    "overlap": "comparison/overlap.png",
    "umap": "*/umap/UMAP_*.png",
    "common_PIEs": "comparison/common_PIEs_*.png",
    "by_population_size": "*/pies_distribution/PIEs_by_population_size_*.png",
    "class_impact": "*/pies_distribution/class_impact_*.png",
    "prediction_depth": "*/prediction_depth/Prediction_Depth_PIEs_*.png",
    "probe_accuracy": "*/prediction_depth/Prediction_Depth_probe_accuracy_*.png",
    "q_score": "*/q_score/Q-SCORE_*.png",
    "vote_distance": "*/pies_distribution/vote_distance_*.png",
    "disagreement": "comparison/disagreement_*.png",
}


def report_figures(pies: Path) -> list[tuple[str, Path]]:
    """Kind and path of the report's figures that exist, without those that another process has
    half written."""
    return [
        (kind, path)
        for kind, pattern in REPORT_FIGURES.items()
        for path in sorted(pies.glob(pattern))
        if not path.name.startswith(".")
    ]


def cell_of_figure(path: Path) -> Cell | None:
    """The cell in the name of a figure, with an empty learner if the figure is about both learners;
    None for a figure about all cells."""
    pruning = re.search(rf"_({_any_of([DENSE, *PRUNINGS])})_", path.name)
    sparsity = re.search(r"\d\.\d{2,10}", path.name)
    if pruning is None or sparsity is None:
        return None
    learner = path.parent.parent.name
    return Cell(learner if learner in LEARNERS else "", pruning[1], float(sparsity[0]))
