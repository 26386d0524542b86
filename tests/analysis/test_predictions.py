"""Populations: every number stays with the network and the image to which it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from common.analysis import predictions
from common.analysis.predictions import Population
from common.study import Cell

CELL = Cell("supervised", "dense", 0.0)


def predicted(network_id: int) -> dict[str, np.ndarray]:
    """Five images; every number says which network and which image it belongs to."""
    score = 10.0 * network_id + np.arange(5, dtype=np.float32)
    scores = {"q": score, "z": score + 0.25}
    return {"labels": score.astype(np.int16), "silhouette": np.array(network_id / 10)} | scores


def population(*ids: int) -> Population:
    return predictions.stack(CELL, list(ids), [predicted(i) for i in ids])


def test_networks_are_stacked_in_the_order_of_their_ids() -> None:
    found = population(8, 2)
    assert (found.cell, found.ids, found.scores.keys()) == (CELL, [8, 2], {"q", "z"})
    for row, network_id in enumerate((8, 2)):
        expected = predicted(network_id)
        assert found.labels[row].tolist() == expected["labels"].tolist()
        assert found.numbers["silhouette"][row] == expected["silhouette"]
        for name in found.scores:
            assert found.scores[name][row].tolist() == expected[name].tolist()


def test_networks_are_selected_by_id_not_by_position() -> None:
    selected, expected = population(4, 2, 9, 0).select([9, 4]), population(9, 4)
    assert (selected.cell, selected.ids) == (CELL, [9, 4])
    assert selected.labels.tolist() == expected.labels.tolist()
    for of_selected, of_expected in (
        (selected.scores, expected.scores),
        (selected.numbers, expected.numbers),
    ):
        assert {name: values.tolist() for name, values in of_selected.items()} == {
            name: values.tolist() for name, values in of_expected.items()
        }
    with pytest.raises(ValueError, match="7"):
        selected.select([4, 7])


def test_means_leave_out_what_is_undefined() -> None:
    networks = population(1, 2, 3)
    q = networks.scores["q"]
    q[0, 1] = q[:, 3] = q[:2, 4] = np.nan
    of_images = [20.0, (21 + 31) / 2, 22.0, np.nan, 34.0]
    assert networks.mean_score("q") == pytest.approx(of_images, nan_ok=True)
    assert networks.mean_score("z").tolist() == [20.25, 21.25, 22.25, 23.25, 24.25]
    of_networks = [(10 + 12) / 2, (20 + 21 + 22) / 3, (30 + 31 + 32 + 34) / 4]
    assert predictions.nan_mean(q, axis=1) == pytest.approx(of_networks)


def test_single_precision_is_averaged_in_double() -> None:
    values = np.array([16777216, 1, 1, np.nan], dtype=np.float32)  # 2^24 + 1 is not a float32
    assert predictions.nan_mean(values, axis=0) == (16777216 + 2) / 3
