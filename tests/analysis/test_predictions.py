"""What a population says, against networks that are run one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.analysis import predictions
from common.analysis.predictions import Population
from common.data import datasets
from common.data.datasets import Dataset
from common.model import wide_resnet
from common.paths import Cell

CELL = Cell("supervised", "dense", 0.0)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return datasets.load("digits", None, torch.device("cpu"), limit=50, test_limit=30)


def population(ids: list[int]) -> Population:
    """Five images; every number says which network and which image it belongs to."""
    score = np.array([[10.0 * i + n for n in range(5)] for i in ids], dtype=np.float32)
    return Population(
        CELL, ids, score.astype(np.int16), score, score + 0.25, score + 0.5, np.array(ids) / 10
    )


def naive(
    network: wide_resnet.WideResNet, data: Dataset
) -> tuple[list[int], list[tuple[float, float, float]]]:
    """One image at a time: the label, and Q, Z and L1 of the embedding by their definition."""
    train = data.train.images.double() / 255
    mean, std = train.mean((0, 2, 3)), train.std((0, 2, 3), unbiased=False)
    labels, scores = [], []
    for image in data.test.images:
        x = (image.double() / 255 - mean[:, None, None]) / std[:, None, None]
        with torch.no_grad():
            output = network(x.float()[None])
        labels.append(int(output.logits[0].argmax()))
        h = output.embedding[0].double()
        h /= h.norm()
        z = float((h.max() - h.mean()) / h.std(unbiased=False))
        l1 = float(h.abs().sum())
        scores.append((z / l1, z, l1))
    return labels, scores


def naive_silhouette(network: wide_resnet.WideResNet, data: Dataset) -> float:
    """For each image, (b - a) / max(a, b): its mean distance to its own class and to the nearest
    other one."""
    mean, std = data.mean[:, None, None], data.std[:, None, None]
    with torch.no_grad():
        h = network((data.test.images.float() / 255 - mean) / std).embedding.double().numpy()
    target, scores = data.test.labels.numpy(), []
    for n in range(len(target)):
        distance = np.sqrt(((h - h[n]) ** 2).sum(axis=1))
        own = distance[(target == target[n]) & (np.arange(len(target)) != n)].mean()
        other = min(distance[target == c].mean() for c in range(10) if c != target[n])
        scores.append((other - own) / max(own, other))
    return float(np.mean(scores))


@pytest.mark.parametrize("batch_size", [1, 7, 30, 1000])
def test_a_network_says_the_same_in_batches_and_alone(digits: Dataset, batch_size: int) -> None:
    network = wide_resnet.build(10, 1, 10, 0.0, 5).eval()
    found = predictions.predict(network, digits, batch_size)
    labels, scores = naive(network, digits)
    assert found["labels"].tolist() == labels
    for name, expected in zip(("q", "z", "l1"), zip(*scores, strict=True), strict=True):
        assert found[name] == pytest.approx(np.array(expected), rel=1e-4)
        assert found[name].shape == (30,)
    assert found["silhouette"] == pytest.approx(naive_silhouette(network, digits), abs=1e-4)


def test_predicting_leaves_the_network_as_it_was(digits: Dataset) -> None:
    """Batch norm's running averages must not learn from test images."""
    network = wide_resnet.build(10, 1, 10, 0.3, 5).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, again = (predictions.predict(network, digits, 8) for _ in range(2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training
    for name in first:  # dropout is off
        assert first[name].tolist() == again[name].tolist()


def test_networks_are_stacked_in_the_order_of_their_ids(digits: Dataset) -> None:
    networks = [wide_resnet.build(10, 1, 10, 0.0, seed).eval() for seed in (3, 1)]
    alone = [predictions.predict(network, digits, 30) for network in networks]
    stacked = predictions.stack(CELL, [8, 2], alone)
    assert (stacked.cell, stacked.ids) == (CELL, [8, 2])
    for row, found in enumerate(alone):
        for name in ("labels", "q", "z", "l1", "silhouette"):
            assert getattr(stacked, name)[row].tolist() == found[name].tolist()
    assert stacked.labels.shape == (2, 30)


def test_networks_are_selected_by_id_not_by_position() -> None:
    selected = population([4, 2, 9, 0]).select([9, 4])
    expected = population([9, 4])
    assert selected.ids == [9, 4]
    for name in ("labels", "q", "z", "l1", "silhouette"):
        assert getattr(selected, name).tolist() == getattr(expected, name).tolist()


def test_a_network_that_is_not_there_cannot_be_selected() -> None:
    with pytest.raises(ValueError, match="7"):
        population([4, 2]).select([4, 7])


def test_mean_scores_leave_out_what_is_undefined() -> None:
    networks = population([1, 2, 3])
    networks.q[0, 1] = networks.q[:, 3] = np.nan
    networks.q[:2, 4] = np.nan
    found = networks.mean_score("q")
    assert found[:3].tolist() == [20.0, (21 + 31) / 2, 22.0]
    assert np.isnan(found[3])
    assert found[4] == 34.0
    assert networks.mean_score("z").tolist() == [20.25, 21.25, 22.25, 23.25, 24.25]
    assert networks.mean_score("l1").tolist() == [20.5, 21.5, 22.5, 23.5, 24.5]
