"""The figures of one cell. Each function draws a figure from the arrays that `style.keep` stores
beside it. So a figure can be redrawn: `plots.score_scatter(files.load_arrays("….npz"))`."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from common.files import Arrays
from common.report.style import (
    BLUE,
    CLASS_COLOURS,
    CLASS_MARKERS,
    GREEN,
    GREY,
    MANY,
    ORANGE,
    RED,
    class_axes,
    enlarge_points,
    legend_below,
    new_axes,
    point_size,
    short,
    title_of,
)
from common.study import counted

# The arrays that describe the cell in every figure about one.
HEADING = ("learner", "pruning_method", "sparsity", "n_models", "n_examples", "ids")


def training_curves(a: Arrays) -> Figure:
    """Loss (left axis) and accuracy (right axis) by epoch: a panel for each stage, a line for each
    network."""
    stages, ids = list(dict.fromkeys(a["stage"].tolist())), np.unique(a["id"])
    figure = Figure(figsize=(4.5 * len(stages), 3.4), layout="constrained")
    for i, stage in enumerate(stages):
        axes = figure.add_subplot(1, len(stages), i + 1)
        axes.set(xlabel="epoch", ylabel="loss", title=stage)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        right = (
            axes.twinx() if (~np.isnan(a["train_accuracy"][a["stage"] == stage])).any() else None
        )
        if right is not None:
            right.spines["right"].set_visible(True)
            right.set(ylabel="accuracy (%)")
        for network in ids:
            here = (a["stage"] == stage) & (a["id"] == network)
            epoch, few = a["epoch"][here], here.sum() < 10
            line = {"markersize": 3, "linewidth": 1, "alpha": max(0.2, len(ids) ** -0.5)}
            dots = "o" if few else ""  # a line through few points looks like many
            handles = axes.plot(epoch, a["loss"][here], color=GREY, marker=dots, **line,
                                label="training loss")  # fmt: skip
            for name, colour, marker in (("train", BLUE, dots), ("test", RED, "o")):
                if right is not None:
                    values = 100 * a[f"{name}_accuracy"][here]
                    known = ~np.isnan(values)
                    handles += right.plot(epoch[known], values[known], color=colour, **line,
                                          marker=marker, label=f"{name} accuracy")  # fmt: skip
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=3)
    for handle in legend.legend_handles:
        handle.set_alpha(1)
    title = f"{a['networks']}\n{counted(len(ids), 'network')}, {a['n_examples']} training images"
    figure.suptitle(title, fontsize=10)
    return figure


def pies_by_class(a: Arrays) -> Figure:
    """The number of PIEs by class."""
    counts = np.bincount(a["label"][a["is_pie"]], minlength=len(a["classes"]))
    figure, axes = class_axes(a, "PIEs (images)", 5.5)
    bars = axes.bar(range(len(counts)), counts, color=RED, label=f"PIEs ({counts.sum()})")
    axes.bar_label(bars, fontsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def class_impact(a: Arrays) -> Figure:
    """The change of recall beyond the mean change, by class, with its interval."""
    ylabel = "recall minus mean accuracy,\npruned minus dense (points)"
    figure, axes = class_axes(a, ylabel, 5.5, 3.8)
    flagged = a["q_value"] <= 0.05
    points = 100 * a["effect"]
    bounds = 100 * np.stack([a["effect"] - a["low"], a["high"] - a["effect"]])
    x = np.arange(len(points))
    groups = ((flagged, RED, "adjusted p ≤ 0.05"), (~flagged, GREY, "adjusted p > 0.05"))
    for members, colour, name in groups:
        axes.errorbar(x[members], points[members], bounds[:, members], fmt="o", color=colour,
                      capsize=3, label=f"{name}: {members.sum()} of {len(x)} classes")  # fmt: skip
    axes.axhline(0, color="black", linewidth=0.8)
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
    """The distance that the votes moved, for PIEs and other images. Unlike a count of PIEs, this
    tells a change of one vote from a change of all."""
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


def score_scatter(a: Arrays) -> Figure:
    """A score of each image, dense against pruned, with PIEs on top and the line y = x."""
    figure, axes = new_axes(4.8, 4.8)
    name = str(a["score"])
    _pies_and_rest(figure, axes, a["dense"], a["pruned"], a["is_pie"])
    values = np.concatenate([a["dense"], a["pruned"]])
    ends = np.quantile(values[~np.isnan(values)], [0, 1]) if not np.isnan(values).all() else []
    axes.plot(ends, ends, color="black", linewidth=0.8, label="y = x")
    axes.set(xlabel=f"{name}, dense networks", ylabel=f"{name}, pruned networks")
    axes.set(aspect="equal")
    legend_below(figure, axes, 3)
    figure.suptitle(title_of(a), fontsize=10)
    return figure


def depth_scatter(a: Arrays) -> Figure:
    """Prediction depth of each image, dense against pruned. Since many images have the same depths,
    squares count the other images by layer, and the area of a triangle is its number of PIEs."""
    figure, axes = new_axes(4.8, 4.8)
    is_pie, depths = a["is_pie"], (a["dense"], a["pruned"])
    deepest = int(np.ceil(max(depth.max() for depth in depths)))
    edges = np.arange(deepest + 2) - 0.5
    counts, _, _ = np.histogram2d(*(depth[~is_pie] for depth in depths), bins=[edges, edges])
    squares = axes.pcolormesh(edges, edges, np.ma.masked_less(counts.T, 1), cmap="Greys")
    _name_counts(figure, axes, squares, f"other images ({(~is_pie).sum()}), by layer")
    pairs = np.stack([depth[is_pie] for depth in depths], axis=1)
    places, n_there = np.unique(pairs, axis=0, return_counts=True)
    axes.scatter(*places.T, s=14 * n_there * min(1, 6 / n_there.max(initial=1)), color=RED,
                 marker="^", linewidths=0, label=f"PIEs ({len(pairs)})")  # fmt: skip
    axes.plot(edges[[0, -1]], edges[[0, -1]], color="black", linewidth=0.8, label="y = x")
    name = f"depth ({a['target']}, layers)"
    axes.set(xlabel=f"{name}, dense networks", ylabel=f"{name}, pruned networks", aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, axes, 2)
    figure.suptitle(title_of(a), fontsize=10)
    return figure


def depth_against_q(a: Arrays) -> Figure:
    """Prediction depth against Q-Score of each image, in the dense and in the pruned networks."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    for i, which in enumerate(("dense", "pruned")):
        axes = figure.add_subplot(1, 2, i + 1)
        _pies_and_rest(figure, axes, a[f"q_{which}"], a[f"depth_{which}"], a["is_pie"])
        axes.set(xlabel="Q-Score", ylabel=f"prediction depth ({a['target']}, layers)")
        axes.set_title(f"{which} networks", fontsize=9)
    legend_below(figure, axes, 2)
    figure.suptitle(title_of(a), fontsize=10)
    return figure


# At most so many PIEs are drawn over a density: more would hide it.
N_DRAWN = 1000


def _pies_and_rest(
    figure: Figure, axes: Axes, x: np.ndarray, y: np.ndarray, is_pie: np.ndarray
) -> None:
    """PIEs as points over the other images. With more than MANY images, the others become a
    density, and at most a random 1,000 PIEs are drawn."""
    is_density = len(is_pie) > MANY
    known = ~np.isnan(x + y)
    rest, pies = (np.flatnonzero(members) for members in (~is_pie & known, is_pie & known))
    name, pies_name = f"other images ({(~is_pie).sum()})", f"PIEs ({is_pie.sum()})"
    if is_density:
        hexagons = axes.hexbin(x[rest], y[rest], gridsize=40, mincnt=1, cmap="Greys",
                               linewidths=0.2, rasterized=True)  # fmt: skip
        _name_counts(figure, axes, hexagons, f"{name}, in a hexagon")
        if len(pies) > N_DRAWN:
            pies = np.random.default_rng(0).permutation(pies)[:N_DRAWN]
            pies_name = f"{N_DRAWN} of {pies_name}"
    else:
        axes.scatter(x[rest], y[rest], s=8, color=GREY, alpha=0.45, linewidths=0, label=name)
    size = 1.6 * point_size(3 * len(pies))
    axes.scatter(x[pies], y[pies], s=size, color=RED, alpha=0.5 if is_density else 1, marker="^",
                 linewidths=0, label=pies_name, rasterized=is_density)  # fmt: skip


def _name_counts(figure: Figure, axes: Axes, shown: ScalarMappable, name: str) -> None:
    """Show numbers of images as greys on which PIEs and lines are visible, and add a colour bar."""
    most = max(2.0, np.ma.max(np.ma.append(shown.get_array(), 2)))
    shown.set_norm(LogNorm(0.5, 3 * most))
    bar = figure.colorbar(shown, ax=axes, label=name, shrink=0.7, format="{x:g}")
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.ax.set_ylim(1, most)


def probe_accuracy(a: Arrays) -> Figure:
    """Accuracy of the nearest-neighbour probe after each layer: mean over networks, band ± 1 sd."""
    figure, axes = new_axes()
    for which, colour, line in (("dense", BLUE, "-"), ("pruned", RED, "--")):
        values = 100 * a[f"accuracy_{which}"]  # [K,L]
        layers = np.arange(1, values.shape[1] + 1)
        mean = values.mean(axis=0)
        axes.plot(layers, mean, line, color=colour, marker="o", markersize=3, label=which)
        if len(values) > 1:
            sd = values.std(axis=0, ddof=1)
            axes.fill_between(layers, mean - sd, mean + sd, color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="probed layer", ylabel="probe accuracy (%)", title=title_of(a))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right")
    return figure


def embedding_map(a: Arrays) -> Figure:
    """UMAP of embeddings, with a column for each network (dense, and pruned if there is one).
    Above: predicted classes; below: wrong predictions and the PIEs of the network's population."""
    panels = a["panels"].tolist()
    figure = Figure(figsize=(2.9 * len(panels) + 1.5, 5.8), layout="constrained")
    grid = figure.subplots(2, len(panels), squeeze=False)
    for i, panel in enumerate(panels):
        wrong, is_pie = a["predicted"][i] != a["label"], a["is_pie"]
        _by_class(grid[0, i], a["xy"][i], a["predicted"][i], a["classes"])
        _by_fate(grid[1, i], a["xy"][i], wrong, is_pie)
        grid[0, i].set_title(f"{panel}: {wrong.sum()} of {len(wrong)} wrong", fontsize=9)
        if is_pie.any():
            both = (wrong & is_pie).sum()
            grid[1, i].set_title(f"{panel}: {is_pie.sum()} PIEs, {both} of them wrong", fontsize=9)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
    for axes, title in zip(grid[:, -1], ("predicted class", "this network"), strict=True):
        n_columns = -(-len(axes.get_legend_handles_labels()[1]) // 20)
        enlarge_points(
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title=title, ncols=n_columns)
        )
    figure.suptitle(f"{a['title']}\n1 network, {a['n_examples']} test images", fontsize=10)
    return figure


def _by_class(axes: Axes, xy: np.ndarray, predicted: np.ndarray, classes: np.ndarray) -> None:
    """Points xy [N,2], with a colour and marker for each predicted class."""
    for c, name in enumerate(classes):
        axes.scatter(
            *xy[predicted == c].T, s=point_size(len(xy)), linewidths=0, label=short(name),
            color=CLASS_COLOURS[c % len(CLASS_COLOURS)], rasterized=len(xy) > MANY,
            marker=CLASS_MARKERS[(c // len(CLASS_COLOURS) + c) % len(CLASS_MARKERS)],
        )  # fmt: skip


def _by_fate(axes: Axes, xy: np.ndarray, wrong: np.ndarray, is_pie: np.ndarray) -> None:
    """Points xy [N,2], marked where the network errs and where its population loses the image."""
    groups = [
        (~wrong & ~is_pie, "#CCCCCC", "o", "right"),
        (wrong & ~is_pie, ORANGE, "o", "wrong"),
        (wrong & is_pie, "black", "^", "wrong, PIE"),
        (~wrong & is_pie, BLUE, "^", "right, PIE"),
    ]
    for members, colour, marker, name in groups if is_pie.any() else groups[:2]:
        size = point_size(len(xy)) * (1.6 if marker == "^" else 1)
        axes.scatter(*xy[members].T, s=size, color=colour, marker=marker, linewidths=0, label=name,
                     rasterized=len(xy) > MANY)  # fmt: skip
