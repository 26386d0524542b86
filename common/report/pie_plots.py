"""The figures about how much of a difference is real, and whether the same images are lost."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from common.files import Arrays
from common.report.style import (
    BLUE,
    GREEN,
    GREY,
    RED,
    class_ticks,
    legend_below,
    new_axes,
    title_of,
)
from common.study import LEARNERS


def class_impact(a: Arrays) -> Figure:
    """Which classes pay: change of recall beyond the mean change, by class, with its interval."""
    figure, axes = new_axes(5.5, 3.8)
    class_ticks(axes, a["classes"])
    flagged = a["q_value"] <= 0.05
    points = 100 * a["effect"]
    bounds = 100 * np.stack([a["effect"] - a["low"], a["high"] - a["effect"]])
    x = np.arange(len(points))
    for members, colour, name in ((flagged, RED, "adjusted p ≤ 0.05"), (~flagged, GREY, "above")):
        axes.errorbar(x[members], points[members], bounds[:, members], fmt="o", color=colour,
                      capsize=3, label=f"{name} ({members.sum()} classes)")  # fmt: skip
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(ylabel="recall minus mean accuracy,\npruned minus dense (points)", title=title_of(a))
    legend_below(figure, axes, 2)
    return figure


def pies_by_population_size(a: Arrays) -> Figure:
    """PIEs by the number of networks, as counted and after exchanging dense and pruned networks."""
    figure, axes = new_axes(4.8, 3.8)
    for name, label, colour, line in (
        ("counts", "PIEs", RED, "-"),
        ("null", "if exchanged", GREY, "--"),
    ):
        low, high = np.quantile(a[name], [0.025, 0.975], axis=1)
        axes.plot(a["sizes"], a[name].mean(axis=1), line, color=colour, marker="o", markersize=3,
                  label=label)  # fmt: skip
        axes.fill_between(a["sizes"], low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="networks in each population", ylabel="PIEs (images)", title=title_of(a))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    legend_below(figure, axes, 2)
    return figure


def vote_distances(a: Arrays) -> Figure:
    """How far the votes moved, for PIEs and other images. Unlike a count of PIEs, this tells a
    change of one vote from a change of all."""
    figure, axes = new_axes(4.8, 3.8)
    bins = np.linspace(0, 1, 26)
    groups = ((~a["is_pie"], GREEN, "other images"), (a["is_pie"], RED, "PIEs"))
    for members, colour, name in groups:
        axes.hist(a["distance"][members], bins, histtype="stepfilled", color=colour, alpha=0.5,
                  edgecolor=colour, label=f"{name} ({members.sum()})")  # fmt: skip
    axes.set(xlabel="Jensen-Shannon distance, dense to pruned votes", ylabel="images (log)")
    axes.set(title=title_of(a), yscale="log")
    axes.yaxis.set_major_formatter(ScalarFormatter())  # 1, 10, 100
    axes.yaxis.set_minor_formatter(NullFormatter())
    legend_below(figure, axes, 2)
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
        f"Jaccard overlap of PIEs (by chance)\n{a['n_models']} networks a cell, {a['n_examples']} "
        "test images\nbehind a cell: its PIEs", fontsize=10,
    )  # fmt: skip
    return figure


# A line in the figure by sparsity has the colour of its learner and the marker and dashes of its
# pruning.
LEARNER_COLOURS = dict(zip(LEARNERS, (BLUE, RED), strict=True))
MARKERS, DASHES = "os^DvP", ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
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
    handles = _name_lines([look for _, look in lines])
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)))
    figure.suptitle(
        f"PIEs by sparsity: {a['n_models']} networks a cell (corrected: half of them), "
        f"{a['n_examples']} test images", fontsize=10,
    )  # fmt: skip
    return figure


def _lines(a: Arrays) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """For each line, the indices of its cells by ascending sparsity, and how the line looks."""
    cells = list(zip(a["learner"].tolist(), a["pruning_method"].tolist(), strict=True))
    prunings = list(dict.fromkeys(a["pruning_method"].tolist()))
    lines = []
    for learner, pruning in product(LEARNERS, prunings):
        chosen = np.array([i for i, cell in enumerate(cells) if cell == (learner, pruning)], int)
        kind = prunings.index(pruning) % len(MARKERS)
        look = {"color": LEARNER_COLOURS[learner], "marker": MARKERS[kind]}
        look |= {"linestyle": DASHES[kind], "label": f"{learner}, {pruning.replace('_', ' ')}"}
        if len(chosen):
            lines.append((chosen[a["sparsity"][chosen].argsort()], look))
    return lines


def _name_lines(looks: list[dict[str, Any]]) -> list[Line2D]:
    """Legend handles: one for each learner (its colour) and pruning (its marker and dashes)."""
    learners, prunings = {}, {}
    for look in looks:
        learner, pruning = look["label"].split(", ")
        learners[learner] = {"color": look["color"], "linewidth": 3, "label": learner}
        prunings[pruning] = look | {"color": GREY, "markersize": 4, "label": pruning}
    return [Line2D([], [], **look) for look in (*learners.values(), *prunings.values())]


def _with_interval(axes: Axes, x: np.ndarray, estimates: np.ndarray, look: dict[str, Any]) -> None:
    """A line through the values of estimates [n,3] (value, low, high), with their intervals."""
    order = x.argsort()
    value, low, high = estimates[order].T
    bounds = np.nan_to_num([value - low, high - value]).clip(min=0)
    axes.errorbar(x[order], value, bounds, markersize=4, linewidth=1.2, elinewidth=0.8, **look)
