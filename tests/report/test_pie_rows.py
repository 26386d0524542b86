"""Rows say of how many images their numbers are."""

from __future__ import annotations

import numpy as np
import pytest

from common.analysis import pie
from common.analysis.clusters import NEIGHBOURS_OF, SILHOUETTE_OF
from common.analysis.predictions import Population
from common.report import pie_rows
from common.report.by_image import SCORES
from common.study import Cell

K, CLASSES = 4, ("cat", "dog")


@pytest.mark.parametrize("n", [SILHOUETTE_OF - 500, SILHOUETTE_OF + 500])
def test_silhouettes_are_of_a_sample_of_many_images(n: int) -> None:
    rng = np.random.default_rng(0)
    label, cell = np.arange(n) % 2, Cell("SupCon", "global", 0.9)
    dense, pruned = (
        Population(
            of,
            list(range(K)),
            rng.integers(2, size=(K, n)),
            {score.field: rng.random((K, n)) for score in SCORES},
            {name: rng.uniform(0.4, 0.6, K) for name in pie_rows.NUMBERS},
        )
        for of in (cell.dense, cell)
    )
    is_pie = pie.find_pies(dense.labels, pruned.labels, 2)
    found = {"label": label, "is_pie": is_pie, "vote_distance": np.zeros(n)}
    for which, networks in (("dense", dense), ("pruned", pruned)):
        found[f"votes_{which}"] = pie.count_votes(networks.labels, 2)
        found[f"modal_{which}"] = pie.modal_labels(networks.labels, 2)
    rows = pie_rows.of_population(pruned, label, CLASSES)
    rows += pie_rows.of_pies(cell, found, dense, pruned, CLASSES)
    n_examples = {row.metric: row.n_examples for row in rows if row.group == "all"}
    of_silhouette = {metric for metric in n_examples if "silhouette" in metric}
    assert of_silhouette >= {
        "embedding_silhouette",
        "embedding_silhouette_lost",
        "embedding_silhouette_retained",
        "embedding_silhouette_cosine_retained",
    }
    assert {n_examples[metric] for metric in of_silhouette} == {min(n, SILHOUETTE_OF)}
    others = n_examples.keys() - of_silhouette
    assert "embedding_10nn_accuracy" in others
    assert {n_examples[metric] for metric in others} == {n}
    assert n < NEIGHBOURS_OF
