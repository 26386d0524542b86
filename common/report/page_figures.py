"""The figures of the page, each with a caption and the cell that it is about."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from PIL import Image

from common import files, paths
from common.report.page_gallery import data_uri
from common.study import LEARNERS, Cell, counted

# Title and caption, by the keys of paths.REPORT_FIGURES.
CAPTIONS = {
    "by_sparsity": (
        "PIEs and accuracy by sparsity",
        "Left: PIEs as counted, and corrected for the instability of the networks (in populations "
        "of half the size). Middle: top-1 accuracy. Right: PIEs against accuracy lost. Bars are "
        "95 % intervals.",
    ),
    "overlap": (
        "Do two cells lose the same images?",
        "Jaccard overlap of the PIEs of every two cells; in brackets what independent sets of "
        "these sizes would share.",
    ),
    "umap": (
        "Embeddings of one network",
        "UMAP of the test images in one network, dense and pruned: above by predicted class, "
        "below its errors and the PIEs of its population. Each network has axes of its own.",
    ),
    "common_PIEs": (
        "PIEs of both learners, by class",
        "How many PIEs are common to both learners, and how many belong to one alone.",
    ),
    "by_population_size": (
        "PIEs by number of networks",
        "PIEs of random subsets of the networks, by the size of the subset: as counted, and if "
        "dense and pruned networks are exchanged. Bands hold 95 % of the subsets' counts.",
    ),
    "class_impact": (
        "Which classes pay",
        "Change of each class's recall by pruning, minus the change of accuracy, with its 95 % "
        "interval; marked where the p-value, adjusted over classes and cells, is at most 0.05.",
    ),
    "prediction_depth": (
        "Prediction depth",
        "The layer from which on the nearest neighbours of an image agree with the network: dense "
        "against pruned, mean over networks. Squares count the other images, triangles the PIEs.",
    ),
    "probe_accuracy": (
        "Accuracy of each layer",
        "Accuracy of a nearest-neighbour probe after each layer, dense and pruned. Bands are one "
        "standard deviation over networks.",
    ),
    "q_score": (
        "Q-Score",
        "Q-Score of each image: dense against pruned, mean over networks. Images on the line keep "
        "their score.",
    ),
    "vote_distance": (
        "How far the votes moved",
        "Jensen-Shannon distance between the votes of the dense and of the pruned networks, for "
        "PIEs and the other images.",
    ),
    "disagreement": (
        "Where the learners disagree",
        "Images whose most frequent prediction differs between the two learners, by class, dense "
        "and pruned.",
    ),
}
HEADLINE = "by_sparsity"
INLINE_BYTES = 2_500_000  # figures beyond this are shown from their files beside the page
FIGURE_BYTES = 60_000  # a larger figure is compressed with loss, and scaled down until it fits


class Figure(NamedTuple):
    """A figure on the page. `file` is the address of its picture; `source` is the picture itself as
    a data URI, or the same address."""

    kind: str
    title: str
    caption: str
    sizes: str  # `10 networks, 500 test images`
    file: str
    source: str
    width: int
    height: int


class Group(NamedTuple):
    """The figures of one cell. If `learner` is empty, they are about both learners; if all three
    fields are empty, about all cells."""

    learner: str
    pruning: str
    sparsity: str
    figures: list[Figure]

    @property
    def title(self) -> str:
        """`SupCon, later GMP, sparsity 0.97`."""
        if not self.pruning:
            return "All cells"
        learner, pruning = self.learner or "both learners", self.pruning.replace("_", " ")
        return f"{learner}, {pruning}" + f", sparsity {self.sparsity}" * (pruning != "dense")


def grouped(pies: Path) -> tuple[Figure | None, list[Group]]:
    """The figure for the first screen, if it exists, and the other figures by cell: first those
    about all cells, then about both learners, then about each learner."""
    headline = None
    found: dict[Cell | None, list[Figure]] = {}
    for path, figure in _inlined(pies):
        if figure.kind == HEADLINE:
            headline = figure
        else:
            found.setdefault(paths.cell_of_figure(path), []).append(figure)
    learners = ["", *LEARNERS]
    order = sorted(found, key=lambda cell: (-1,) if cell is None else
                   (learners.index(cell.learner), *cell[1:]))  # fmt: skip
    return headline, [Group(*(cell.words if cell else ("",) * 3), found[cell]) for cell in order]


def _inlined(pies: Path) -> Iterator[tuple[Path, Figure]]:
    """The figures in the order of the report. The first ones, which matter most, are embedded in
    the page; those beyond INLINE_BYTES are linked."""
    n_bytes = 0
    for kind, path in paths.report_figures(pies):
        file = quote(path.relative_to(pies).as_posix())
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        source = _compressed(picture)
        n_bytes += len(source)
        if n_bytes > INLINE_BYTES:
            n_bytes, source = n_bytes - len(source), file
        yield path, Figure(kind, *CAPTIONS[kind], _sizes(path), file, source, *picture.size)


def _compressed(picture: Image.Image) -> str:
    """The picture as a data URI: lossless if that is small, as for lines and bars; else lossy."""
    source, factor = data_uri(picture, "webp", lossless=True), 1.0
    while len(source) > FIGURE_BYTES:
        size = (round(factor * picture.width), round(factor * picture.height))
        source = data_uri(picture.resize(size, Image.Resampling.LANCZOS), "webp", quality=70)
        factor *= 0.8
    return source


def _sizes(path: Path) -> str:
    """`10 networks, 500 test images`, from the arrays beside the picture."""
    arrays = files.load_arrays(path.with_suffix(".npz")) or {}
    names = (("n_models", "network"), ("n_examples", "test image"))
    return ", ".join(counted(arrays[key], what) for key, what in names if key in arrays)
