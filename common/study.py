"""The words of the study, as tables: learners, prunings, criteria, data sets, and the cells that
they make up. Facts that depend on such a word are columns here, and other files look them up.

This file imports nothing heavy. A new criterion or data set begins with its word in this file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

DENSE = "dense"


class Learner(NamedTuple):
    """The facts about a way to learn on which files and scripts depend."""

    script_prefix: str
    parts: tuple[str, ...]  # the files of a network: one, or encoder and head


LEARNERS = {
    "supervised": Learner("sup", ("network",)),
    "SupCon": Learner("clr", ("encoder", "head")),
}


class ScheduleWords(NamedTuple):
    """Facts about a schedule of pruning on which scripts and pairs depend."""

    script: str  # the kind of script that makes these networks
    is_gradual: bool
    # Whether a pruned and a dense network with the same seed are a pair: both then learn from the
    # same first weights, order and augmentations. If not, only the parent of a network is its pair.
    is_paired_by_seed: bool


# `global` is the released code's word for pruning in one shot, in file names and tables.
ONE_SHOT, EARLY, LATER = "global", "GMP", "later_GMP"
SCHEDULES = {
    EARLY: ScheduleWords("training", is_gradual=True, is_paired_by_seed=True),
    LATER: ScheduleWords("training", is_gradual=True, is_paired_by_seed=True),
    ONE_SHOT: ScheduleWords("pruning_finetune", is_gradual=False, is_paired_by_seed=False),
}
# Which weights go first. The first criterion is the default and not part of a pruning's name.
CRITERIA = ("magnitude", "random")
# Which weights a criterion ranks together: those of each layer, or those of all layers.
ALLOCATIONS = ("uniform", "global")


class PruningWords(NamedTuple):
    """A way to prune networks: a schedule and a criterion."""

    schedule: str
    criterion: str = CRITERIA[0]

    @property
    def name(self) -> str:
        """`GMP`; with a criterion other than magnitude, `random_GMP`."""
        default = self.criterion == CRITERIA[0]
        return self.schedule if default else f"{self.criterion}_{self.schedule}"


# By the name in files, tables and flags: GMP, later_GMP, global, random_GMP, …
PRUNINGS = {
    pruning.name: pruning
    for pruning in (
        PruningWords(schedule, criterion) for criterion in CRITERIA for schedule in SCHEDULES
    )
}


class DatasetWords(NamedTuple):
    """Facts about a data set that are needed before it is read."""

    preset: str  # the recipe that suits it
    image_size: int  # side in pixels
    n_train: int
    n_test: int
    n_classes: int
    keeps_class_mirrored: bool = True  # an image flipped left to right shows the same class
    is_resizable: bool = True  # --image_size may ask for another size


DATASETS = {
    "cifar10": DatasetWords("paper", 32, 50_000, 10_000, 10),
    "cifar100": DatasetWords("paper", 32, 50_000, 10_000, 100),
    "svhn": DatasetWords("paper", 32, 73_257, 26_032, 10, keeps_class_mirrored=False),
    "digits": DatasetWords(
        "digits", 8, 1_297, 500, 10, keeps_class_mirrored=False, is_resizable=False
    ),
}
FOLDER = DatasetWords("paper", 32, 0, 0, 0)  # a folder with images, which are counted when needed


def dataset_words(dataset: str) -> DatasetWords:
    """The row of a data set; any other word is taken as the path of a folder."""
    return DATASETS.get(dataset, FOLDER)


class Cell(NamedTuple):
    """One population of the study: how it learned, how it was pruned, and by how much."""

    learner: str
    pruning_method: str  # `dense`, or a key of PRUNINGS
    sparsity: float

    def __str__(self) -> str:
        return " ".join(self.words)

    @property
    def words(self) -> tuple[str, str, str]:
        """Learner, pruning and sparsity, as files, tables and figures write them."""
        return self.learner, self.pruning_method, format_sparsity(self.sparsity)

    @property
    def is_dense(self) -> bool:
        return self.pruning_method == DENSE

    @property
    def schedule(self) -> ScheduleWords | None:
        """When the networks of this cell are pruned; None if they are dense."""
        return None if self.is_dense else SCHEDULES[PRUNINGS[self.pruning_method].schedule]

    @property
    def dense(self) -> Cell:
        """The population that this one is compared with."""
        return dense_cell(self.learner)


def in_order(cells: Iterable[Cell]) -> list[Cell]:
    """The cells as printed tables and the overlap list them: by learner, then dense and the
    prunings in the order of PRUNINGS, then by sparsity."""
    learners, prunings = list(LEARNERS), [DENSE, *PRUNINGS]
    return sorted(cells, key=lambda c: (learners.index(c[0]), prunings.index(c[1]), c.sparsity))


def dense_cell(learner: str) -> Cell:
    """The dense population of a learner."""
    return Cell(learner, DENSE, 0.0)


def format_sparsity(sparsity: float) -> str:
    """As many decimals as the number needs, two at least: 0.90, 0.975."""
    text = f"{sparsity:.10f}".rstrip("0")
    return text + "0" * max(0, 2 - len(text.partition(".")[2]))


def counted(n: object, noun: str) -> str:
    """`1 network`, `2 networks`, `5 to 10 networks`."""
    return f"{n} {noun}{'' if str(n) == '1' else 's'}"


def named_ids(ids: range) -> str:
    """`id 3`, or for several `ids 0 to 9`."""
    return f"id {ids[0]}" if len(ids) == 1 else f"ids {ids[0]} to {ids[-1]}"


def script(cell: Cell) -> str:
    """The script that makes the networks of this cell: `clr_training.py`."""
    kind = cell.schedule.script if cell.schedule else "training"
    return f"{LEARNERS[cell.learner].script_prefix}_{kind}.py"
