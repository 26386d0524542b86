"""Each figure is drawn from small arrays and tested for what it shows."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image, rc_context
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text

from common import files
from common.files import Arrays
from common.report import comparison_plots, plots, style

N = 24
LABEL = np.arange(N) % 3
IS_PIE = np.arange(N) % 5 == 0  # images 0, 5, 10, 15, 20: classes 0, 2, 1, 0, 2
CLASSES = np.array(["cat", "dog", "ship"])
Draw = Callable[[Arrays], Figure]


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 2, size=shape)


HEADING = {
    "learner": np.array("SupCon"),
    "pruning_method": np.array("later_GMP"),
    "sparsity": np.array("0.95"),
    "n_models": np.array(7),
    "n_examples": np.array(N),
    "ids": np.arange(7),
}
BY_CLASS = HEADING | {"label": LABEL, "classes": CLASSES}
BY_IMAGE = HEADING | {"is_pie": IS_PIE}
COUNTS = np.random.default_rng(10).integers(5, 20, size=(3, 50))
EXAMPLES = {
    plots.pies_by_class: BY_CLASS | BY_IMAGE,
    comparison_plots.common_pies: BY_CLASS
    | {
        "learners": np.array(["supervised", "SupCon"]),
        "learner": np.array("supervised and SupCon"),
        # of the second learner images 0, 1, 10, 20: all but 1 are PIEs of the first one too
        "is_pie": np.stack([IS_PIE, np.isin(np.arange(N), [0, 1, 10, 20])]),
    },
    comparison_plots.disagreement: BY_CLASS
    | {"differ_dense": np.arange(N) < 4, "differ_pruned": np.arange(N) % 3 == 1},
    plots.score_scatter: BY_IMAGE
    | {"dense": numbers(0, N), "pruned": numbers(1, N) - 1, "score": np.array("Q-Score")},
    plots.depth_scatter: BY_IMAGE
    | {"dense": np.arange(N) % 4 + 0.0, "pruned": np.arange(N) % 6 + 0.0}
    | {"target": np.array("prediction")},
    plots.depth_against_q: BY_IMAGE
    | {"q_dense": numbers(2, N), "q_pruned": numbers(3, N), "depth_dense": numbers(4, N)}
    | {"depth_pruned": numbers(5, N), "target": np.array("label")},
    plots.probe_accuracy: BY_IMAGE
    | {"accuracy_dense": numbers(6, 7, 10) / 2, "accuracy_pruned": numbers(7, 7, 10) / 2}
    | {"target": np.array("label")},
    plots.embedding_map: {
        "title": np.array("UMAP: SupCon global 0.95, id 0"),
        "panels": np.array(["dense", "pruned"]),
        "xy": numbers(8, 2, N, 2),
        "predicted": np.stack([LABEL, (LABEL + (np.arange(N) < 6)) % 3]),
        "label": LABEL,
        "is_pie": IS_PIE,
        "classes": CLASSES,
        "n_examples": np.array(N),
    },
    plots.training_curves: {
        "id": np.repeat([3, 12], 7),
        "stage": np.array((["encoder"] * 4 + ["head"] * 3) * 2),
        "epoch": np.array([0, 1, 2, 3, 0, 1, 2] * 2),
        "loss": numbers(9, 14),
        "train_accuracy": np.array([*[np.nan] * 4, 0.5, 0.6, 0.7, *[np.nan] * 4, 0.1, 0.2, 0.3]),
        "test_accuracy": np.array([*[np.nan] * 4, 0.4, np.nan, 0.6, *[np.nan] * 6, 0.9]),
        "networks": np.array("SupCon_dense_s0.00"),
        "n_examples": np.array(N),
    },
    plots.class_impact: BY_CLASS
    | {
        "effect": np.array([-0.2, 0.05, 0.15]),
        "low": np.array([-0.3, -0.05, 0.1]),
        "high": np.array([-0.1, 0.15, 0.2]),
        "p_value": np.array([0.001, 0.04, 0.01]),
        "q_value": np.array([0.003, 0.06, 0.05]),
    },
    plots.pies_by_population_size: HEADING
    | {"sizes": np.array([2, 4, 7]), "counts": COUNTS, "null": COUNTS // 2},
    plots.vote_distances: BY_IMAGE | {"distance": numbers(11, N) - 1},
    comparison_plots.overlap_matrix: {
        "cells": np.array(["supervised global 0.90", "SupCon global 0.90"]),
        "n_pies": np.array([17, 23]),
        "jaccard": np.array([[1, 0.25], [0.25, 1]]),
        "expected": np.array([[1, 0.125], [0.125, 1]]),
        "n_models": np.array("7"),
        "n_examples": np.array(N),
    },
    comparison_plots.pies_by_sparsity: {
        "learner": np.array(["SupCon", "SupCon", "supervised", "supervised", "supervised"]),
        "pruning_method": np.array(["global", "GMP", "global", "random_global", "global"]),
        "sparsity": np.array([0.9, 0.9, 0.9, 0.9, 0.5]),
        "n_pies": np.array([[20, 18, 23], [9, 8, 9], [6, 5, 9], [60, 50, 71], [2, 0, 3]]),
        "n_pies_corrected": np.array([[10, -1, 20], [5, 4, 6], [3, 1, 5], [30, 9, 40], [1, 0, 2]]),
        "top1": np.array([[0.8, 0.7, 0.9]] * 4 + [[0.95, np.nan, np.nan]]),  # of one network
        "top1_lost": np.array([0.1, 0.15, 0.1, 0.3, 0.02]),
        "n_models": np.array("7"),
        "n_examples": np.array(N),
    },
}


def example(draw: Draw) -> Arrays:
    return {name: array.copy() for name, array in EXAMPLES[draw].items()}


every_figure = pytest.mark.parametrize("draw", EXAMPLES, ids=lambda draw: draw.__name__)


def titles(figure: Figure) -> str:
    texts = [axes.get_title() for axes in figure.axes]
    return "\n".join([figure.get_suptitle(), *texts])


def legend_texts(figure: Figure) -> list[str]:
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def pixels(draw: Draw, a: Arrays) -> np.ndarray:
    buffer = io.BytesIO()
    with rc_context(style.STYLE):
        draw(a).savefig(buffer)
    buffer.seek(0)
    return image.imread(buffer)


def points(axes: Axes, label: str) -> np.ndarray:
    """The points that the legend calls `label`, [n,2]."""
    (found,) = [
        collection
        for collection in axes.collections
        if isinstance(collection, PathCollection) and collection.get_label().startswith(label)
    ]
    return np.asarray(found.get_offsets())


def heights(axes: Axes) -> dict[str, list[float]]:
    """The bars that the legend names, by its text."""
    return {
        container.get_label(): [bar.get_height() for bar in container]
        for container in axes.containers
    }


@every_figure
def test_every_figure_says_what_it_shows_and_of_how_many(draw: Draw) -> None:
    made = example(draw)
    text = titles(draw(made))
    assert f"{N} test images" in text or f"{N} training images" in text
    assert any(n in text for n in ("7 networks", "2 networks", "1 network, "))
    assert "SupCon" in text or draw in (
        comparison_plots.overlap_matrix,
        comparison_plots.pies_by_sparsity,
    )
    assert "later GMP pruning, sparsity 0.95" in text or not made.keys() >= {"ids"}
    assert files.same_arrays(made, example(draw))  # drawing changes no array


@every_figure
def test_every_figure_has_a_legend_and_named_axes(draw: Draw) -> None:
    figure = draw(example(draw))
    if draw is comparison_plots.overlap_matrix:  # its cells and numbers are written into it
        return
    assert len(legend_texts(figure)) >= 1
    assert all(not text.startswith("_") for text in legend_texts(figure))
    for axes in figure.axes:
        if axes.get_label() == "<colorbar>":
            assert "other images" in axes.get_ylabel()
            continue
        assert axes.get_ylabel()
        assert axes.get_xlabel() or len(axes.get_shared_x_axes().get_siblings(axes)) > 1


@every_figure
def test_a_figure_can_be_drawn_again_from_the_file_beside_it(draw: Draw, tmp_path: Path) -> None:
    path = tmp_path / "figures" / "figure.png"
    style.keep(path, draw, example(draw))
    stored = files.load_arrays(path.with_suffix(".npz"))
    assert files.same_arrays(stored, example(draw))
    assert np.array_equal(image.imread(path), pixels(draw, stored))
    assert {p.name for p in path.parent.iterdir()} == {"figure.png", "figure.npz"}


# What the figures show


def test_bars_count_the_pies_of_each_class() -> None:
    (axes,) = plots.pies_by_class(example(plots.pies_by_class)).axes
    assert heights(axes) == {"PIEs (5)": [2, 1, 2]}
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["cat", "dog", "ship"]
    nothing = example(plots.pies_by_class) | {"is_pie": np.zeros(N, dtype=bool)}
    (axes,) = plots.pies_by_class(nothing).axes
    assert heights(axes) == {"PIEs (0)": [0, 0, 0]}


def test_common_pies_are_counted_once_for_each_learner() -> None:
    (axes,) = comparison_plots.common_pies(example(comparison_plots.common_pies)).axes
    assert heights(axes) == {
        "supervised, common (3)": [1, 1, 1],
        "supervised, unique (2)": [1, 0, 1],
        "SupCon, common (3)": [1, 1, 1],
        "SupCon, unique (1)": [0, 1, 0],
    }


def test_disagreements_are_counted_by_class() -> None:
    (axes,) = comparison_plots.disagreement(example(comparison_plots.disagreement)).axes
    assert heights(axes) == {"dense (4)": [2, 1, 1], "pruned (8)": [0, 8, 0]}


def test_a_scatter_has_the_pies_in_one_colour_and_the_rest_in_another() -> None:
    a = example(plots.score_scatter)
    (axes,) = plots.score_scatter(a).axes
    both = np.stack([a["dense"], a["pruned"]], axis=1)
    assert points(axes, "PIEs (5)").tolist() == both[IS_PIE].tolist()
    assert points(axes, "other images (19)").tolist() == both[~IS_PIE].tolist()
    assert "dense" in axes.get_xlabel()
    assert "pruned" in axes.get_ylabel()


def diagonal(a: Arrays) -> list[float]:
    (axes,) = plots.score_scatter(a).axes
    (line,) = [line for line in axes.get_lines() if line.get_label() == "y = x"]
    assert list(line.get_xdata()) == list(line.get_ydata())
    return list(line.get_xdata())


@pytest.mark.filterwarnings("error")
def test_the_diagonal_of_a_scatter_covers_the_scores_that_are_defined() -> None:
    """Networks pruned to death have constant embeddings, whose scores are undefined."""
    a = example(plots.score_scatter)
    assert diagonal(a) == [a["pruned"].min(), a["dense"].max()]
    a["dense"][a["dense"].argmax()] = a["pruned"][5] = np.nan
    assert diagonal(a) == [np.nanmin(a["pruned"]), np.nanmax(a["dense"])]
    pixels(plots.score_scatter, a)
    a["pruned"][:] = np.nan
    assert diagonal(a) == [np.nanmin(a["dense"]), np.nanmax(a["dense"])]
    a["dense"][:] = np.nan
    assert diagonal(a) == []
    pixels(plots.score_scatter, a)


def large(draw: Draw, n: int = 10_000) -> Arrays:
    """An example of ten thousand images, normally distributed; a third of them are PIEs."""
    rng = np.random.default_rng(0)
    a = example(draw) | {"n_examples": np.array(n), "is_pie": np.arange(n) % 3 == 0}
    for name in a:
        if name.startswith(("dense", "pruned", "q_", "depth_")):
            a[name] = rng.normal(5, 1, n).round(1).clip(0)
    if draw is plots.embedding_map:
        label = np.arange(n) % 3
        predicted = np.stack([label, (label + (np.arange(n) % 4 == 0)) % 3])
        xy = rng.normal(3 * label[:, None], 1, (2, n, 2))
        a |= {"label": label, "predicted": predicted, "xy": xy}
    return a


def test_depths_are_counted_where_they_are() -> None:
    """(0, 0), (1, 1) ... (2, 4), (3, 5): twelve pairs of depths, each of two images."""
    a = example(plots.depth_scatter)
    axes, scale = plots.depth_scatter(a).axes
    pairs = [tuple(pair) for pair in np.stack([a["dense"], a["pruned"]], axis=1).tolist()]
    (squares,) = [c for c in axes.collections if isinstance(c, QuadMesh)]
    counts = np.ma.filled(squares.get_array(), 0)  # [pruned, dense]
    rest = Counter(pair for pair, is_pie in zip(pairs, IS_PIE, strict=True) if not is_pie)
    assert {(j, i): counts[i, j] for i, j in zip(*counts.nonzero(), strict=True)} == rest
    pies = Counter(pair for pair, is_pie in zip(pairs, IS_PIE, strict=True) if is_pie)
    assert Counter(dict.fromkeys(map(tuple, points(axes, "PIEs (5)").tolist()), 1)) == pies
    assert "other images (19)" in scale.get_ylabel()
    twice = {name: np.append(a[name], a[name][0]) for name in ("dense", "pruned", "is_pie")}
    (triangles,) = [
        c for c in plots.depth_scatter(a | twice).axes[0].collections
        if isinstance(c, PathCollection)
    ]  # fmt: skip
    assert sorted(triangles.get_sizes() / triangles.get_sizes().min()) == [1, 1, 1, 1, 2]


SCATTERS = [plots.score_scatter, plots.depth_against_q]


@pytest.mark.parametrize("draw", SCATTERS)
def test_many_images_are_a_density_below_a_thousand_pies(draw: Draw) -> None:
    a = large(draw)
    panels = [axes for axes in draw(a).axes if axes.get_label() != "<colorbar>"]
    assert len(panels) == (2 if draw is plots.depth_against_q else 1)
    for axes in panels:
        (hexagons,) = [c for c in axes.collections if isinstance(c, PolyCollection)]
        assert hexagons.get_array().sum() == (~a["is_pie"]).sum()
        assert len(points(axes, "1000 of PIEs (3334)")) == 1000
        assert all(collection.get_rasterized() for collection in axes.collections)
    assert "other images (6666)" in "".join(axes.get_ylabel() for axes in draw(a).axes)
    undefined = {name: np.full(10_000, np.nan) for name in a if a[name].shape == (10_000,)}
    pixels(draw, a | undefined | {"is_pie": a["is_pie"]})
    few = draw(example(draw))
    assert not any(isinstance(c, PolyCollection) for axes in few.axes for c in axes.collections)
    assert not any(c.get_rasterized() for axes in few.axes for c in axes.collections)


@pytest.mark.parametrize("draw", [*SCATTERS, plots.depth_scatter, plots.embedding_map])
def test_figures_of_ten_thousand_images_stay_small(draw: Draw, monkeypatch, tmp_path: Path) -> None:
    """In bytes."""
    monkeypatch.setattr(style, "suffixes", [".png", ".pdf"])
    style.keep(tmp_path / "figure.png", draw, large(draw))
    assert (tmp_path / "figure.png").stat().st_size < 300_000
    assert (tmp_path / "figure.pdf").stat().st_size < 1_000_000


def test_points_of_a_legend_can_be_seen() -> None:
    for draw in (plots.score_scatter, plots.embedding_map):
        figure = draw(large(draw))
        legends = [*figure.legends, *filter(None, (axes.get_legend() for axes in figure.axes))]
        handles = [handle for legend in legends for handle in legend.legend_handles]
        sizes = [h.get_sizes().tolist() for h in handles if isinstance(h, PathCollection)]
        assert sizes
        assert all(size == [20] for size in sizes)


def test_depth_is_drawn_against_q_in_either_population() -> None:
    a = example(plots.depth_against_q)
    for axes, which in zip(plots.depth_against_q(a).axes, ("dense", "pruned"), strict=True):
        both = np.stack([a[f"q_{which}"], a[f"depth_{which}"]], axis=1)
        assert points(axes, "PIEs").tolist() == both[IS_PIE].tolist()
        assert which in axes.get_title()
        assert "label" in axes.get_ylabel()


def test_probe_accuracy_is_the_mean_over_networks_with_its_spread() -> None:
    a = example(plots.probe_accuracy)
    (axes,) = plots.probe_accuracy(a).axes
    for line, band, which in zip(
        axes.get_lines(), axes.collections, ("dense", "pruned"), strict=True
    ):
        values = 100 * a[f"accuracy_{which}"]
        assert line.get_label() == which
        assert line.get_xdata().tolist() == list(range(1, 11))
        assert line.get_ydata() == pytest.approx(values.mean(axis=0))
        edge = band.get_paths()[0].vertices[:, 1]
        assert edge.max() == pytest.approx((values.mean(axis=0) + values.std(axis=0, ddof=1)).max())
        assert edge.min() == pytest.approx((values.mean(axis=0) - values.std(axis=0, ddof=1)).min())
    one = a | {name: a[name][:1] for name in ("accuracy_dense", "accuracy_pruned")}
    (axes,) = plots.probe_accuracy(one).axes
    assert (len(axes.get_lines()), len(axes.collections)) == (2, 0)  # one network has no spread


@pytest.mark.parametrize("make", [example, large])
def test_a_map_shows_classes_above_and_errors_and_pies_below(
    make: Callable[[Draw], Arrays],
) -> None:
    a = make(plots.embedding_map)
    n, is_pie, xy = len(a["label"]), a["is_pie"], a["xy"]
    axes = plots.embedding_map(a).axes
    for i, name in enumerate(("dense", "pruned")):
        above, below = axes[i], axes[2 + i]
        wrong = a["predicted"][i] != a["label"]
        assert above.get_title() == f"{name}: {wrong.sum()} of {n} wrong"
        assert f"{is_pie.sum()} PIEs, {(wrong & is_pie).sum()} of them" in below.get_title()
        for c, label in enumerate(CLASSES):
            assert points(above, label).tolist() == xy[i][a["predicted"][i] == c].tolist()
        groups = dict(zip(legend_texts_of(axes[3]), below.collections, strict=True))
        shown = {
            "right": ~wrong & ~is_pie,
            "wrong": wrong & ~is_pie,
            "wrong, PIE": wrong & is_pie,
            "right, PIE": ~wrong & is_pie,
        }
        assert groups.keys() == shown.keys()
        for label, members in shown.items():
            assert np.array_equal(groups[label].get_offsets(), xy[i][members])
        for collection in (*above.collections, *below.collections):
            assert bool(collection.get_rasterized()) == (n > style.MANY)


def legend_texts_of(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_map_of_dense_networks_speaks_of_no_pies() -> None:
    a = example(plots.embedding_map) | {"is_pie": np.zeros(N, dtype=bool)}
    figure = plots.embedding_map(a)
    assert "PIE" not in titles(figure) + "".join(legend_texts(figure))


def test_points_shrink_with_their_number() -> None:
    sizes = [style.point_size(n) for n in (0, 1, 500, 2000, 10_000, 60_000)]
    assert sizes[:3] == [14] * 3
    assert sizes == sorted(sizes, reverse=True)
    assert 10_000 * sizes[4] < 6 * 500 * sizes[2]


def test_a_map_of_many_classes_tells_them_apart() -> None:
    n = 60
    a = example(plots.embedding_map) | {
        "xy": numbers(1, 2, n, 2),
        "predicted": np.stack([np.arange(n)] * 2),
        "label": np.arange(n),
        "is_pie": np.zeros(n, dtype=bool),
        "classes": np.array([f"class {c}" for c in range(n)]),
        "n_examples": np.array(n),
    }
    axes = plots.embedding_map(a).axes[0]
    looks = [
        (tuple(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes())
        for c in axes.collections
        if c.get_label().startswith("class")
    ]
    assert len(looks) == len(set(looks)) == n


def test_curves_have_a_panel_for_each_stage_and_a_line_for_each_network() -> None:
    a = example(plots.training_curves)
    figure = plots.training_curves(a)
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["encoder", "head"]
    lines = [
        (i, line.get_label(), line.get_xdata().tolist(), line.get_ydata().tolist())
        for i, axes in enumerate(figure.axes)
        for line in axes.get_lines()
    ]
    loss = a["loss"].tolist()
    expected = [
        (0, "training loss", [0, 1, 2, 3], loss[:4]),
        (0, "training loss", [0, 1, 2, 3], loss[7:11]),
        (1, "training loss", [0, 1, 2], loss[4:7]),
        (1, "training loss", [0, 1, 2], loss[11:]),
        (2, "train accuracy", [0, 1, 2], [50.0, 60.0, 70.0]),
        (2, "test accuracy", [0, 2], [40.0, 60.0]),
        (2, "train accuracy", [0, 1, 2], [10.0, 20.0, 30.0]),
        (2, "test accuracy", [2], [90.0]),
    ]  # nothing is classified while the encoder learns
    assert len(lines) == len(expected)
    for (*found, x, y), (*wanted, wanted_x, wanted_y) in zip(lines, expected, strict=True):
        assert (found, x, y) == (wanted, wanted_x, pytest.approx(wanted_y))


def test_a_dense_cell_has_no_sparsity_in_its_title() -> None:
    dense = {"pruning_method": np.array("dense"), "sparsity": np.array("0.00")}
    text = titles(plots.pies_by_class(example(plots.pies_by_class) | dense))
    assert "SupCon, dense" in text
    assert "sparsity" not in text


def test_class_impact_tells_flagged_classes_from_others() -> None:
    a = example(plots.class_impact)
    (axes,) = plots.class_impact(a).axes
    shown = {
        container.get_label(): np.stack(container.lines[0].get_data(), axis=1)
        for container in axes.containers
    }
    flagged, rest = "adjusted p ≤ 0.05: 2 of 3 classes", "adjusted p > 0.05: 1 of 3 classes"
    assert shown.keys() == {flagged, rest}
    assert shown[flagged] == pytest.approx(np.array([[0, -20], [2, 15]]))
    assert shown[rest] == pytest.approx(np.array([[1, 5]]))
    bars = np.concatenate(
        [segment for bar in axes.containers for segment in bar.lines[2][0].get_segments()]
    )
    assert sorted(bars[:, 1]) == pytest.approx(sorted(100 * np.append(a["low"], a["high"])))


def test_pies_by_population_size_have_a_mean_and_a_band() -> None:
    a = example(plots.pies_by_population_size)
    (axes,) = plots.pies_by_population_size(a).axes
    for line, band, name in zip(
        axes.get_lines(), axes.collections, ("counts", "null"), strict=True
    ):
        assert line.get_xdata().tolist() == [2, 4, 7]
        assert line.get_ydata() == pytest.approx(a[name].mean(axis=1))
        edge = band.get_paths()[0].vertices[:, 1]
        low, high = np.percentile(a[name], [2.5, 97.5], axis=1)
        assert (edge.min(), edge.max()) == pytest.approx((low.min(), high.max()))


def test_every_image_is_in_the_histogram_of_vote_distances() -> None:
    texts = legend_texts(plots.vote_distances(example(plots.vote_distances)))
    assert set(texts) == {"PIEs (5)", "other images (19)"}
    nothing = example(plots.vote_distances) | {"is_pie": np.zeros(N, dtype=bool)}
    pixels(plots.vote_distances, nothing)


def test_an_overlap_is_written_once_with_what_chance_would_give() -> None:
    a = example(comparison_plots.overlap_matrix)
    figure = comparison_plots.overlap_matrix(a)
    (axes,) = figure.axes
    assert {text.get_position(): text.get_text().split() for text in axes.texts} == {
        (0, 0): ["0.25", "(0.12)"]
    }
    assert [t.get_text() for t in axes.get_xticklabels()] == ["supervised global 0.90 (17)"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["SupCon global 0.90 (23)"]
    n = 6
    names = np.array([f"SupCon later_GMP 0.9{i}5" for i in range(n)])
    many = {"cells": names, "n_pies": np.arange(n), "jaccard": np.arange(n * n).reshape(n, n) / 36}
    many["expected"] = many["jaccard"] / 2
    (axes,) = comparison_plots.overlap_matrix(a | many).axes
    texts = {text.get_position(): text.get_text().split()[0] for text in axes.texts}
    assert len(texts) == n * (n - 1) // 2
    assert texts[1, 4] == f"{many['jaccard'][5, 1]:.2f}"  # row 0 is the second cell


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", [draw for draw, a in EXAMPLES.items() if "classes" in a])
def test_long_names_of_classes_leave_room_for_the_figure(draw: Draw) -> None:
    classes = [f"{name}, which is a long name for a class" for name in CLASSES]
    with rc_context(style.STYLE):
        figure = draw(example(draw) | {"classes": np.array(classes)})
        figure.draw_without_rendering()
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert all(any(text.endswith("…") and name.startswith(text[:-1]) for text in texts)
               for name in classes)  # fmt: skip
    assert min(axes.get_position().height for axes in figure.axes) > 0.2


@every_figure
def test_titles_are_not_cut_off(draw: Draw) -> None:
    """Two cells make the narrowest overlap."""
    with rc_context(style.STYLE):
        figure = draw(example(draw))
        figure.draw_without_rendering()
    shown = {figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)} - {""}
    boxes = [t.get_window_extent() for t in figure.findobj(Text) if t.get_text() in shown]
    assert len(boxes) >= len(shown)
    for box in boxes:
        assert 0 <= box.x0 <= box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


def curves(axes: Axes) -> list[tuple[list[float], list[float], str, float | None]]:
    """x, y, colour and faintness of the line through every set of intervals."""
    lines = [container.lines[0] for container in axes.containers]
    return [(*map(list, line.get_data()), line.get_color(), line.get_alpha()) for line in lines]


def test_every_learner_and_pruning_has_its_line_by_sparsity() -> None:
    a = example(comparison_plots.pies_by_sparsity)
    figure = comparison_plots.pies_by_sparsity(a)
    counts, accuracy, by_loss = figure.axes
    found = curves(counts)
    assert len(found) == 8  # four lines, each raw and corrected
    assert sorted(y for _, y, _, alpha in found if not alpha) == sorted([[1, 3], [30], [5], [10]])
    assert sorted(y for _, y, _, alpha in found if alpha) == sorted([[2, 6], [60], [9], [20]])
    assert {colour for _, y, colour, _ in found if y in ([1, 3], [60])} == {style.BLUE}
    assert {colour for _, y, colour, _ in found if y in ([5], [20])} == {style.RED}
    assert sorted(y for _, y, _, _ in curves(accuracy)) == [[80], [80], [80], [95, 80]]
    assert [2, 10] in [x for x, *_ in curves(by_loss)]
    assert all(axes.get_ylabel() for axes in figure.axes)
    assert legend_texts(figure)[:2] == ["supervised", "SupCon"]
    assert {"global", "GMP", "random global", "corrected", "raw", "dense"} < {*legend_texts(figure)}


def test_lines_of_one_sparsity_stand_apart() -> None:
    figure = comparison_plots.pies_by_sparsity(example(comparison_plots.pies_by_sparsity))
    counts = figure.axes[0]
    at = sorted({x[-1] for x, *_ in curves(counts)})  # four lines at sparsity 0.9
    ticks = counts.get_xticks().tolist()
    assert [tick.get_text() for tick in counts.get_xticklabels()] == ["0.5", "0.9"]
    assert len(at) == 4
    assert np.diff(at).min() > 0.05 * (ticks[1] - ticks[0])
    assert max(abs(x - ticks[1]) for x in at) < (ticks[1] - ticks[0]) / 4
    low, high = counts.get_xlim()
    assert low < min(at) <= max(at) < high


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("chosen", [[0], [0, 1], [2, 3], [2, 4]])
def test_few_cells_make_a_figure_by_sparsity_too(chosen: list[int]) -> None:
    """One learner, one sparsity, or one cell."""
    a = example(comparison_plots.pies_by_sparsity)
    part = {name: a[name][chosen] for name in a if a[name].ndim}
    pixels(comparison_plots.pies_by_sparsity, a | part)
    n_lines = len({*zip(part["learner"].tolist(), part["pruning_method"].tolist(), strict=True)})
    figure = comparison_plots.pies_by_sparsity(a | part)
    assert len(figure.axes[0].containers) == 2 * n_lines


def test_curves_of_few_epochs_have_markers() -> None:
    a = example(plots.training_curves)
    lines = [line for axes in plots.training_curves(a).axes for line in axes.get_lines()]
    assert all(line.get_marker() == "o" for line in lines)
