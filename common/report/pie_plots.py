"""The figures that ask how much of a difference is real, and whether the same images are lost."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
    """PIEs as a function of the number of networks, with what exchanging them at random gives."""
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
    """How far the votes moved, PIEs and the rest: a PIE by one vote and a flip of all differ."""
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
    """Jaccard overlap of the lost images of every two cells; below it what chance would give."""
    names = a["cells"].tolist()
    side = 2.2 + 0.62 * len(names)
    figure, axes = new_axes(side, side)
    jaccard = a["jaccard"]
    axes.imshow(jaccard, cmap="cividis", vmin=0, vmax=1)
    for i in range(len(names)):
        for j in range(len(names)):
            text = f"{jaccard[i, j]:.2f}" + ("" if i == j else f"\n({a['expected'][i, j]:.2f})")
            axes.text(j, i, text, ha="center", va="center", fontsize=7,
                      color="black" if jaccard[i, j] > 0.5 else "white")  # fmt: skip
    labels = [f"{name} ({n})" for name, n in zip(names, a["n_pies"], strict=True)]
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"Jaccard overlap of PIEs (by chance), {a['n_models']} networks a cell,\n"
        f"{a['n_examples']} test images; in brackets behind a cell: its PIEs"
    )
    return figure


# A line of the figure by sparsity: the learner's colour, the pruning's marker.
LEARNER_COLOURS = (BLUE, RED)
PRUNING_MARKERS = "os^DvP"


def pies_by_sparsity(a: Arrays) -> Figure:
    """PIEs, raw and corrected, and accuracy against sparsity; and PIEs against accuracy lost. A
    line for each learner and pruning; vertical bars are 95 % intervals."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    counts, accuracy, by_loss = figure.subplots(1, 3)
    kept = 1 / (1 - a["sparsity"])  # a logarithmic axis, on which 0.9 and 0.99 are far apart
    top1, top1_lost = 100 * a["top1"], 100 * a["top1_lost"]
    cells = list(zip(a["learner"].tolist(), a["pruning_method"].tolist(), strict=True))
    prunings = list(dict.fromkeys(a["pruning_method"].tolist()))
    for learner, pruning in dict.fromkeys(cells):
        chosen = np.array([cell == (learner, pruning) for cell in cells])
        look = {
            "color": LEARNER_COLOURS[list(LEARNERS).index(learner)],
            "marker": PRUNING_MARKERS[prunings.index(pruning) % len(PRUNING_MARKERS)],
            "markersize": 4,
            "label": f"{learner}, {pruning.replace('_', ' ')}",
        }
        for axes, x in ((counts, kept[chosen]), (by_loss, top1_lost[chosen])):
            order = x.argsort()
            _with_interval(axes, x[order], a["n_pies"][chosen][order], ":", look, alpha=0.5)
            _with_interval(axes, x[order], a["n_pies_corrected"][chosen][order], "-", look)
        accuracy.plot(kept[chosen], top1[chosen][:, 0], **look)
    for axes in (counts, accuracy):
        axes.set_xlim(kept.min() / 1.2, kept.max() * 1.2)  # there may be one sparsity only
        axes.set_xscale("log")
        axes.set_xticks(np.unique(kept), [f"{s:g}" for s in np.unique(a["sparsity"])])
        axes.minorticks_off()
        axes.set_xlabel("sparsity")
    counts.set(ylabel="test images", title="PIEs: corrected (solid), raw (dotted)")
    by_loss.set(xlabel="accuracy lost (points)", title="the same against accuracy lost")
    accuracy.set(ylabel="top-1 of the pruned networks (%)", title="accuracy")
    handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle(
        f"PIEs by sparsity: {a['n_models']} networks a cell (corrected: half of them), "
        f"{a['n_examples']} test images", fontsize=10,
    )  # fmt: skip
    return figure


def _with_interval(
    axes: Axes, x: np.ndarray, estimates: np.ndarray, line: str, look: dict[str, Any], **more: Any
) -> None:
    """A line through the values of estimates [n,3] (value, low, high), with their intervals."""
    value, low, high = estimates.T
    bounds = np.nan_to_num([value - low, high - value]).clip(min=0)
    axes.errorbar(x, value, bounds, linestyle=line, capsize=2, linewidth=1.2, **look, **more)
