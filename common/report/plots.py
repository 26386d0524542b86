"""The figures of one cell. Each function draws one from the arrays that `style.keep` stores beside
it, so that it can be redrawn from them alone: `plots.score_scatter(files.load_arrays("….npz"))`."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.files import Arrays
from common.report.style import (
    BLUE,
    CLASS_COLOURS,
    CLASS_MARKERS,
    GREEN,
    GREY,
    ORANGE,
    RED,
    class_ticks,
    legend_below,
    new_axes,
    title_of,
)

# What every figure about a cell says of it.
HEADING = ("learner", "pruning_method", "sparsity", "n_models", "n_examples", "ids")


def training_curves(a: Arrays) -> Figure:
    """Loss (left axis) and accuracy (right axis) by epoch, a panel for each stage."""
    stages = list(dict.fromkeys(a["stage"].tolist()))
    figure = Figure(figsize=(4.5 * len(stages), 3.4), layout="constrained")
    for i, stage in enumerate(stages):
        here = a["stage"] == stage
        epoch = a["epoch"][here]
        axes = figure.add_subplot(1, len(stages), i + 1)
        handles = axes.plot(epoch, a["loss"][here], color=GREY, label="training loss")
        axes.set(xlabel="epoch", ylabel="loss", title=stage)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if np.isnan(a["train_accuracy"][here]).all():
            continue
        right = axes.twinx()
        right.spines["right"].set_visible(True)
        right.set(ylabel="accuracy (%)")
        for name, colour, marker in (("train", BLUE, ""), ("test", RED, "o")):
            values = 100 * a[f"{name}_accuracy"][here]
            known = ~np.isnan(values)
            handles += right.plot(epoch[known], values[known], color=colour, marker=marker,
                                  markersize=3, label=f"{name} accuracy")  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    figure.suptitle(f"{a['network']}\n1 network, {a['n_examples']} training images", fontsize=10)
    return figure


def pies_by_class(a: Arrays) -> Figure:
    """How many test images of each class are PIEs."""
    counts = np.bincount(a["label"][a["is_pie"]], minlength=len(a["classes"]))
    figure, axes = new_axes(5.5)
    class_ticks(axes, a["classes"])
    bars = axes.bar(range(len(counts)), counts, color=RED, label=f"PIEs ({counts.sum()})")
    axes.bar_label(bars, fontsize=8)
    axes.set(ylabel="PIEs (images)", title=title_of(a))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def common_pies(a: Arrays) -> Figure:
    """PIEs of each learner by class: those common to both solid, those unique to it faint."""
    learners = a["learners"].tolist()
    figure, axes = new_axes(6.5)
    classes = a["classes"]
    class_ticks(axes, classes)
    common = a["is_pie"].all(axis=0)
    width = 0.8 / len(learners)
    for i, (learner, colour) in enumerate(zip(learners, (BLUE, RED), strict=True)):
        x = np.arange(len(classes)) + (i - 0.5) * width
        shared = np.bincount(a["label"][common], minlength=len(classes))
        unique = np.bincount(a["label"][a["is_pie"][i] & ~common], minlength=len(classes))
        axes.bar(x, shared, width, color=colour, label=f"{learner}, common ({shared.sum()})")
        axes.bar(x, unique, width, bottom=shared, color=colour, alpha=0.35,
                 label=f"{learner}, unique ({unique.sum()})")  # fmt: skip
    axes.set(ylabel="PIEs (images)", title=title_of(a))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, axes, 2)
    return figure


def disagreement(a: Arrays) -> Figure:
    """Images on which the modal labels of the two learners differ, by class, dense and pruned."""
    figure, axes = new_axes(6.5)
    classes = a["classes"]
    class_ticks(axes, classes)
    for i, (name, colour) in enumerate((("dense", GREY), ("pruned", ORANGE))):
        counts = np.bincount(a["label"][a[f"differ_{name}"]], minlength=len(classes))
        x = np.arange(len(classes)) + (i - 0.5) * 0.4
        axes.bar(x, counts, 0.4, color=colour, label=f"{name} ({counts.sum()})")
    axes.set(ylabel="images with two modal labels", title=title_of(a))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


def score_scatter(a: Arrays) -> Figure:
    """A score of each image, dense against pruned; PIEs on top, and the line y = x."""
    figure, axes = new_axes(4.6, 4.8)
    name = str(a["score"])
    _pies_and_rest(axes, a["dense"], a["pruned"], a["is_pie"])
    values = np.concatenate([a["dense"], a["pruned"]])
    ends = np.quantile(values[~np.isnan(values)], [0, 1]) if not np.isnan(values).all() else []
    axes.plot(ends, ends, color="black", linewidth=0.8, label="y = x")
    axes.set(xlabel=f"{name}, dense networks", ylabel=f"{name}, pruned networks")
    axes.set(title=title_of(a), aspect="equal")
    legend_below(figure, axes, 3)
    return figure


def depth_scatter(a: Arrays) -> Figure:
    """Prediction depth of each image, dense against pruned. Many images share a depth, so points
    are moved by up to 0.15 layers at random."""
    offsets = np.random.default_rng(0).uniform(-0.15, 0.15, (2, len(a["is_pie"])))
    moved = {"dense": a["dense"] + offsets[0], "pruned": a["pruned"] + offsets[1]}
    name = f"Prediction depth ({a['target']}, layers)"
    return score_scatter(a | moved | {"score": np.array(name)})


def depth_against_q(a: Arrays) -> Figure:
    """Prediction depth against Q-Score of each image, in the dense and in the pruned networks."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    for i, which in enumerate(("dense", "pruned")):
        axes = figure.add_subplot(1, 2, i + 1)
        _pies_and_rest(axes, a[f"q_{which}"], a[f"depth_{which}"], a["is_pie"])
        axes.set(xlabel="Q-Score", ylabel=f"prediction depth ({a['target']}, layers)")
        axes.set_title(f"{which} networks", fontsize=9)
    legend_below(figure, axes, 2)
    figure.suptitle(title_of(a), fontsize=10)
    return figure


def _pies_and_rest(axes: Axes, x: np.ndarray, y: np.ndarray, is_pie: np.ndarray) -> None:
    axes.scatter(x[~is_pie], y[~is_pie], s=8, color=GREEN, alpha=0.35, linewidths=0,
                 label=f"other images ({(~is_pie).sum()})")  # fmt: skip
    axes.scatter(x[is_pie], y[is_pie], s=22, color=RED, marker="^", edgecolors="white",
                 linewidths=0.4, label=f"PIEs ({is_pie.sum()})")  # fmt: skip


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
    """UMAP of one network's embeddings, a panel for each network (dense, and pruned if there is
    one): colour and marker are the predicted class, rings mark PIEs, crosses wrong predictions."""
    panels = a["panels"].tolist()
    figure = Figure(figsize=(4.4 * len(panels) + 1.6, 4.4), layout="constrained")
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), i + 1)
        xy, predicted = a["xy"][i], a["predicted"][i]
        for c, name in enumerate(a["classes"]):
            axes.scatter(
                *xy[predicted == c].T, s=14, linewidths=0, label=name,
                color=CLASS_COLOURS[c % len(CLASS_COLOURS)],
                marker=CLASS_MARKERS[(c // len(CLASS_COLOURS) + c) % len(CLASS_MARKERS)],
            )  # fmt: skip
        wrong = predicted != a["label"]
        axes.scatter(*xy[wrong].T, s=30, marker="x", color="black", linewidths=0.8,
                     label="wrong prediction")  # fmt: skip
        if a["is_pie"].any():
            axes.scatter(*xy[a["is_pie"]].T, s=45, facecolors="none", edgecolors="black",
                         linewidths=0.7, label="PIE")  # fmt: skip
        axes.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
        axes.set_title(f"{panel}: {wrong.sum()} of {len(wrong)} wrong", fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", title="predicted class")
    figure.suptitle(f"{a['title']}\n1 network, {a['n_examples']} test images", fontsize=10)
    return figure
