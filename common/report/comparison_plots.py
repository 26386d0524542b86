"""The figures of several cells: both learners side by side, every two cells, all cells by sparsity.
Each function draws a figure from the arrays that `style.keep` stores beside it."""

from __future__ import annotations

from itertools import cycle, product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from common.files import Arrays
from common.report.style import BLUE, GREY, ORANGE, RED, class_axes, legend_below, new_axes
from common.study import LEARNERS, PRUNINGS, counted


def common_pies(a: Arrays) -> Figure:
    """PIEs of each learner by class: solid if common to both learners, faint if unique to one."""
    learners = a["learners"].tolist()
    figure, axes = class_axes(a, "PIEs (images)", 6.5)
    n_classes = len(a["classes"])
    common = a["is_pie"].all(axis=0)
    width = 0.8 / len(learners)
    for i, (learner, colour) in enumerate(zip(learners, (BLUE, RED), strict=True)):
        x = np.arange(n_classes) + (i - 0.5) * width
        shared = np.bincount(a["label"][common], minlength=n_classes)
        unique = np.bincount(a["label"][a["is_pie"][i] & ~common], minlength=n_classes)
        axes.bar(x, shared, width, color=colour, label=f"{learner}, common ({shared.sum()})")
        axes.bar(x, unique, width, bottom=shared, color=colour, alpha=0.35,
                 label=f"{learner}, unique ({unique.sum()})")  # fmt: skip
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, axes, 2)
    return figure


def disagreement(a: Arrays) -> Figure:
    """Images on which the modal labels of the two learners differ, by class, dense and pruned."""
    figure, axes = class_axes(a, "images with two modal labels", 6.5)
    n_classes = len(a["classes"])
    for i, (name, colour) in enumerate((("dense", GREY), ("pruned", ORANGE))):
        counts = np.bincount(a["label"][a[f"differ_{name}"]], minlength=n_classes)
        x = np.arange(n_classes) + (i - 0.5) * 0.4
        axes.bar(x, counts, 0.4, color=colour, label=f"{name} ({counts.sum()})")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def overlap_matrix(a: Arrays) -> Figure:
    """Jaccard overlap of the lost images of each pair of cells; below it the value by chance."""
    names = [f"{name} ({n})" for name, n in zip(a["cells"], a["n_pies"], strict=True)]
    side = 2.0 + 0.6 * (len(names) - 1)
    figure, axes = new_axes(max(side, 4.2), max(side, 3.4))
    jaccard = np.ma.masked_where(np.triu(np.ones_like(a["jaccard"])) > 0, a["jaccard"])
    axes.imshow(jaccard[1:, :-1], cmap="cividis", vmin=0, vmax=1)
    for i, j in zip(*np.tril_indices(len(names), -1), strict=True):
        text = f"{jaccard[i, j]:.2f}\n({a['expected'][i, j]:.2f})"
        axes.text(j, i - 1, text, ha="center", va="center", fontsize=8,
                  color="black" if jaccard[i, j] > 0.5 else "white")  # fmt: skip
    ticks = range(len(names) - 1)
    axes.set_xticks(ticks, names[:-1], rotation=45, ha="right", fontsize=8)
    axes.set_yticks(ticks, names[1:], fontsize=8)
    axes.spines[:].set_visible(False)
    figure.suptitle(
        f"squares: Jaccard overlap of PIEs (expected by chance)\naxes: cell (number of its PIEs)\n"
        f"{counted(a['n_models'], 'network')} a cell, {a['n_examples']} test images", fontsize=10,
    )  # fmt: skip
    return figure


# A line in the figure by sparsity has the colour of its learner and the marker and dashes of its
# pruning.
LEARNER_COLOURS = dict(zip(LEARNERS, (BLUE, RED), strict=True))
LOOKS = {
    pruning: {"marker": marker, "linestyle": line}
    for pruning, marker, line in zip(
        PRUNINGS, cycle("^DovPs"), cycle(("--", ":", "-", (0, (5, 1)), (0, (1, 1)), "-."))
    )
}
RAW = {"alpha": 0.4, "markerfacecolor": "white"}


def pies_by_sparsity(a: Arrays) -> Figure:
    """PIEs, raw and corrected, and accuracy against sparsity; and PIEs against accuracy lost. Each
    learner and pruning has a line; vertical bars are 95 % intervals."""
    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    counts, accuracy, by_loss = figure.subplots(1, 3)
    density = np.log10(1 / (1 - a["sparsity"]))  # an axis on which 0.9 and 0.99 are far apart
    ticks, at = np.unique(a["sparsity"], return_index=True)
    gap = np.diff(density[at]).min() if len(at) > 1 else 1.0
    lines = _lines(a)
    for i, (chosen, look) in enumerate(lines):
        beside = gap * 0.5 * ((i + 0.5) / len(lines) - 0.5)  # lines of one sparsity stand apart
        x, lost = density[chosen] + beside, 100 * a["top1_lost"][chosen]
        for axes, where in ((counts, x), (by_loss, lost)):
            _with_interval(axes, where, a["n_pies"][chosen], look | RAW)
            _with_interval(axes, where, a["n_pies_corrected"][chosen], look)
        _with_interval(accuracy, x, 100 * a["top1"][chosen], look)
        accuracy.axhline((100 * a["top1"][chosen][:, 0] + lost).mean(), color=look["color"],
                         linewidth=0.7, alpha=0.6)  # fmt: skip
    for axes in (counts, accuracy):
        axes.set_xlim(density.min() - gap / 2, density.max() + gap / 2)
        axes.set_xticks(density[at], [f"{sparsity:g}" for sparsity in ticks])
        axes.set_xlabel("sparsity")
    by_loss.set_xlabel("accuracy lost (points)")
    for axes in (counts, by_loss):
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_ylabel("PIEs (test images)")
    accuracy.set_ylabel("top-1 accuracy (%)")
    grey = {"color": GREY, "marker": "o", "linewidth": 0}
    counts.legend([Line2D([], [], **grey), Line2D([], [], **grey | RAW)], ["corrected", "raw"])
    accuracy.legend([Line2D([], [], color=GREY, linewidth=0.7)], ["dense"])
    handles = _name_lines(a)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)))
    figure.suptitle(
        f"PIEs by sparsity: {counted(a['n_models'], 'network')} a cell (corrected: half of them), "
        f"{a['n_examples']} test images", fontsize=10,
    )  # fmt: skip
    return figure


def _lines(a: Arrays) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """For each line, the indices of its cells by ascending sparsity, and how the line looks."""
    lines = []
    for learner, pruning in product(LEARNERS, _prunings(a)):
        (chosen,) = ((a["learner"] == learner) & (a["pruning_method"] == pruning)).nonzero()
        if len(chosen):
            look = {"color": LEARNER_COLOURS[learner], **LOOKS[pruning]}
            lines.append((chosen[a["sparsity"][chosen].argsort()], look))
    return lines


def _prunings(a: Arrays) -> list[str]:
    """The prunings that the figure shows; a later version may have stored others."""
    return [pruning for pruning in LOOKS if pruning in a["pruning_method"]]


def _name_lines(a: Arrays) -> list[Line2D]:
    """Legend handles: one for each learner (its colour) and pruning (its marker and dashes)."""
    learners = [learner for learner in LEARNERS if learner in a["learner"]]
    return [
        *(Line2D([], [], color=LEARNER_COLOURS[of], linewidth=3, label=of) for of in learners),
        *(
            Line2D([], [], color=GREY, markersize=4, label=of.replace("_", " "), **LOOKS[of])
            for of in _prunings(a)
        ),
    ]


def _with_interval(axes: Axes, x: np.ndarray, estimates: np.ndarray, look: dict[str, Any]) -> None:
    """A line through the values of estimates [n,3] (value, low, high), with their intervals."""
    order = x.argsort()
    value, low, high = estimates[order].T
    bounds = np.nan_to_num([value - low, high - value]).clip(min=0)
    axes.errorbar(x[order], value, bounds, markersize=4, linewidth=1.2, elinewidth=0.8, **look)
