"""The figures of what is forgotten, from made-up arrays."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from common.data.arrays import Arrays
from common.figures import forgetting

IS_PIE = np.arange(50) % 5 == 0
HEADING: Arrays = {
    "learner": np.array("SupCon"),
    "pruning_method": np.array("later_GMP"),
    "sparsity": np.array("0.95"),
    "n_models": np.array(7),
    "n_examples": np.array(50),
}
EFFECT = np.array([-0.2, 0.0, 0.1])
DRAWN = {
    "class_impact": HEADING
    | {
        "classes": np.array(["cat", "dog", "frog"]),
        "effect": EFFECT,
        "low": EFFECT - 0.05,
        "high": EFFECT + 0.1,
        "q_value": np.array([0.01, 1.0, 0.2]),
    },
    "pies_by_population_size": HEADING
    | {
        "sizes": np.array([2, 4, 7]),
        "counts": np.array([[9, 11], [6, 8], [5, 5]]),
        "null": np.array([[8, 10], [4, 4], [1, 3]]),
    },
    "vote_distances": HEADING | {"is_pie": IS_PIE, "distance": np.linspace(0, 1, 50)},
    "overlap_matrix": HEADING
    | {
        "cells": np.array(["a", "b"]),
        "n_pies": np.array([4, 5]),
        "jaccard": np.array([[1, 0.25], [0.25, 1]]),
        "expected": np.array([[1, 0.05], [0.05, 1]]),
    },
}


def words(figure: Figure) -> str:
    found = [axes.get_title() for axes in figure.axes]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
    for legend in figure.legends:
        found += [text.get_text() for text in legend.get_texts()]
    return "\n".join(found)


@pytest.mark.parametrize("name", DRAWN)
def test_the_title_says_how_many_networks_and_images(name: str) -> None:
    title = words(getattr(forgetting, name)(DRAWN[name]))
    assert "7 networks" in title
    assert "50 test images" in title


def test_flagged_classes_are_counted() -> None:
    text = words(forgetting.class_impact(DRAWN["class_impact"]))
    assert "adjusted p ≤ 0.05 (1 classes)" in text
    assert "above (2 classes)" in text


def test_counts_by_size_are_means_of_the_resamples() -> None:
    (axes,) = forgetting.pies_by_population_size(DRAWN["pies_by_population_size"]).axes
    drawn = {line.get_label(): line.get_ydata().tolist() for line in axes.get_lines()}
    assert drawn == {"PIEs": [10, 7, 5], "by chance": [9, 4, 2]}


def test_the_matrix_shows_overlap_and_chance() -> None:
    text = words(forgetting.overlap_matrix(DRAWN["overlap_matrix"]))
    assert text.count("0.25\n(0.05)") == 2
    assert text.count("1.00") == 2


def test_distances_are_counted_by_group() -> None:
    text = words(forgetting.vote_distances(DRAWN["vote_distances"]))
    assert "PIEs (10)" in text
    assert "other images (40)" in text
