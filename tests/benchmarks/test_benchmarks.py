"""The benchmarks run, and both sides of each give the same results; speed is not tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from common.learning import methods
from common.recipes import Augmentation
from tests.benchmarks import analysis, measuring, study, together, training
from tests.benchmarks.measuring import Bench, Settings

SETTINGS = Settings(-1, quick=True, dataset="digits")


@pytest.mark.parametrize(
    ("factory", "check", "options"),
    [
        (analysis.forward, analysis.same_labels, {"n": 40}),
        (analysis.scores, analysis.close, {"n": 100}),
        (analysis.neighbours, analysis.all_equal, {"n_bank": 300, "n_queries": 50, "width": 16}),
        (analysis.depth, analysis.all_equal, {"n_bank": 64, "n_queries": 20, "n_cells": 1}),
    ],
)
def test_both_sides_find_the_same(
    factory: Callable[..., Any], check: Callable[..., None], options: dict[str, int]
) -> None:
    check(*(factory(side, SETTINGS, **options)() for side in ("released", "ours")))


@pytest.mark.parametrize(
    ("factory", "options"),
    [
        (training.contrastive, {"n": 8, "precision": "fp32", "end_to_end": True}),
        (training.supervised, {"precision": "fp32"}),
    ],
)
def test_both_sides_begin_at_the_same_loss(
    factory: Callable[..., Any], options: dict[str, Any]
) -> None:
    """Both have the same initial weights, but different views of the same images."""
    theirs, ours = (factory(side, SETTINGS, **options)() for side in ("released", "ours"))
    assert ours == pytest.approx(theirs, rel=0.2)


def test_both_sides_make_as_many_views() -> None:
    for side in ("released", "ours"):
        assert training.augmentation(side, SETTINGS, n=8)() == [16, 3, 32, 32]


@pytest.mark.parametrize("way", together.WAYS)
def test_networks_trained_together_learn_as_each_alone(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over three steps on the same images, as they are."""
    monkeypatch.setattr(together, "CLASSIFICATION", Augmentation())
    monkeypatch.setattr(methods, "classification_views", lambda config: Augmentation())
    threads = torch.get_num_threads()
    sizes = {"ids": [0, 1], "n_networks": 2, "n_steps": 3, "batch": 32}
    try:
        losses = together.train("ours", SETTINGS, way, **sizes)()
        alone = [
            together.train("ours", SETTINGS, "in turn", **sizes | {"ids": [i]})() for i in (0, 1)
        ]
    finally:
        torch.set_num_threads(threads)
    assert losses == pytest.approx([loss for (loss,) in alone], rel=1e-4)
    assert abs(losses[0] / losses[1] - 1) > 1e-3


def test_a_comparison_keeps_the_median_of_the_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of neighbouring times, whichever side's process they come from."""
    seconds = {"released": iter([4.0, 6.0, 8.0]), "ours": iter([2.0, 1.0, 1.0])}

    class Side:
        def __init__(self, name: str, settings: Settings):
            self.name = name

        def prepare(self, factory: Any, options: Any) -> str:
            return self.name

        def seconds(self) -> float:
            return next(seconds[self.name])

    monkeypatch.setattr(measuring, "Side", Side)
    bench = Bench(SETTINGS, pairs=3)
    seen = []
    bench.compare(
        "stage", lambda: None, goal=5, released_times=10, check=lambda a, b: seen.append((a, b))
    )
    (row,) = bench.rows
    assert seen == [("released", "ours")]
    assert (row["ratio"], row["lowest"], row["highest"]) == (60, 20, 80)
    assert (row["released"], row["ours"]) == (60, 1)


def test_a_line_is_fitted() -> None:
    fit = measuring.fit_line([1, 2, 4, 8], [5, 7, 11, 19])
    assert fit == pytest.approx({"slope": 2, "intercept": 3, "r_squared": 1})


def test_the_hours_of_the_study_follow_from_the_rates() -> None:
    stages = ("SupCon step with its data, fp32", "supervised step with its data, fp32")
    rows = [
        {"stage": stage, "released": 100.0, "ours": 1000.0} for stage in (*stages, "forward, fp32")
    ]
    hours = study.hours(rows, "fp32")
    assert hours["released"]["contrastive"] == pytest.approx(
        30 * 11 * 500 * 2 * 50_000 / 100 / 3600, rel=1e-3
    )
    assert hours["ours"]["all"] == pytest.approx(hours["released"]["all"] / 10, rel=1e-3)


def test_a_check_notices_what_differs() -> None:
    labels = torch.tensor([0, 1, 1]).numpy()
    with pytest.raises(AssertionError):
        analysis.all_equal(labels, labels[::-1])
    with pytest.raises(AssertionError, match="nothing"):
        analysis.all_equal(labels[1:], labels[1:])
