"""Colours, titles and legends of all figures, and how a figure and its arrays are stored."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

from common import files
from common.files import Arrays
from common.study import counted

# Okabe & Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#7F7F7F"  # its yellow is too pale on white
CLASS_COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, "#B8A500", GREY, "#332288", "#882255")
CLASS_MARKERS = "osD^vPX<>*"
LARGE = 300_000  # bytes
LONGEST_NAME = 20  # characters of a class; the whole name would leave no room for the axes
MANY = 2000  # with more points, a figure shows a density, and PDFs contain rasterised points
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # class names are folder names: a $ is a $
}


# The formats that `keep` draws; scripts set them from --figure_format.
suffixes = [".png"]


def keep(path: Path, draw: Callable[[Arrays], Figure], contents: Arrays) -> None:
    """Store the arrays of a figure, then draw it; files stay untouched if nothing has changed. If a
    figure cannot be drawn, a line on stderr names it, and the analysis goes on."""
    stored = path.with_suffix(".npz")
    missing = [path.with_suffix(s) for s in suffixes if not path.with_suffix(s).exists()]
    if not (stored.exists() and files.same_arrays(files.load_arrays(stored), contents)):
        missing = [path.with_suffix(suffix) for suffix in suffixes]
        for suffix in (".png", ".pdf"):  # no picture may stay beside arrays that it does not show
            path.with_suffix(suffix).unlink(missing_ok=True)
        files.save_arrays(stored, contents)
    if not missing:
        return
    with rc_context(STYLE):
        try:
            figure = draw(contents)
            for picture in missing:
                files.replace(picture, partial(_save, figure))
        except OSError:
            raise
        except Exception as error:
            print(f"figure not drawn: {path}: {error}", file=sys.stderr)


def _save(figure: Figure, path: Path) -> None:
    """Save a picture. If many points make a PNG large, 256 colours reduce it to a third."""
    figure.savefig(path)
    if path.suffix == ".png" and path.stat().st_size > LARGE:
        with Image.open(path) as opened:
            # Rare colours are kept too, so that a class of few images still matches the legend.
            picture = opened.convert("RGB").quantize(
                256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
            )
        picture.save(path, optimize=True)


def new_axes(width: float = 4.5, height: float = 3.4) -> tuple[Figure, Axes]:
    """A figure of this size, in inches, with one panel."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def point_size(n: int) -> float:
    """The area of each of n points, in square points: 14 for 500 points, 2.3 for 10,000."""
    return 14 * min(1.0, 500 / max(n, 1)) ** 0.6


def title_of(a: Arrays) -> str:
    """`SupCon, global pruning, sparsity 0.95 (10 networks, 500 images)`."""
    pruning = str(a["pruning_method"]).replace("_", " ")
    what = "dense" if pruning == "dense" else f"{pruning} pruning, sparsity {a['sparsity']}"
    networks = counted(a["n_models"], "network")
    if "n_models_pies" in a and a["n_models_pies"] != a["n_models"]:
        networks += f" (PIEs of {counted(a['n_models_pies'], 'network')})"
    return f"{a['learner']}, {what}\n{networks}, {a['n_examples']} test images"


def class_axes(a: Arrays, ylabel: str, width: float, height: float = 3.4) -> tuple[Figure, Axes]:
    """Axes for bars at 0 … C-1, with the names of the classes below."""
    figure, axes = new_axes(width, height)
    classes = a["classes"]
    long_names = max(map(len, classes)) > 2
    axes.set_xticks(range(len(classes)), map(short, classes), rotation=45 if long_names else 0,
                    ha="right" if long_names else "center")  # fmt: skip
    axes.set(xlabel="true class", ylabel=ylabel, title=title_of(a))
    return figure, axes


def short(name: str) -> str:
    """The name of a class, cut to the length for which figures have room."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def legend_below(figure: Figure, axes: Axes, n_columns: int) -> None:
    """A legend that hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=n_columns)
    enlarge_points(legend)


def enlarge_points(legend: Legend) -> None:
    """Keep the points of a legend visible, however small and faint they are in the figure."""
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([20])
            handle.set_alpha(1)
