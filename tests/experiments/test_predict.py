"""What a network makes of images, against one that is run one image at a time."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from common.analysis.predictions import Population
from common.data import datasets
from common.data.datasets import Dataset
from common.experiments import prediction_depth, predictions
from common.model import wide_resnet
from common.model.wide_resnet import WideResNet
from common.study import Cell


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return datasets.load_dataset("digits", Path(), torch.device("cpu"), 8, 50, 30)


def naive(network: WideResNet, data: Dataset) -> dict[str, np.ndarray]:
    """One image at a time: label, softmax margin, and Q, Z and L1 by their definition."""
    train = data.train.images.double() / 255
    mean, std = train.mean((0, 2, 3)), train.std((0, 2, 3), unbiased=False)
    found, embeddings = [], []
    for image in data.test.images:
        x = (image.double() / 255 - mean[:, None, None]) / std[:, None, None]
        with torch.no_grad():
            output = network(x.float()[None])
        embeddings.append(output.embedding[0].double())
        h = embeddings[-1] / embeddings[-1].norm()
        z, l1 = float((h.max() - h.mean()) / h.std(unbiased=False)), float(h.abs().sum())
        first, second = output.logits[0].double().softmax(0).topk(2).values.tolist()
        found.append((int(output.logits[0].argmax()), first - second, z / l1, z, l1))
    h, target = torch.stack(embeddings).numpy(), data.test.labels.numpy()
    numbers = {
        "silhouette": silhouette_score(h, target),
        "silhouette_cosine": silhouette_score(h, target, metric="cosine"),
        "knn_accuracy": cross_val_score(
            KNeighborsClassifier(10), h, target, cv=LeaveOneOut()
        ).mean(),
    }
    names = ("labels", "softmax_margin", "q", "z", "l1")
    arrays = map(np.array, zip(*found, strict=True))
    return dict(zip(names, arrays, strict=True)) | numbers


@pytest.mark.parametrize("batch_size", [1, 7, 30, 1000])
def test_a_network_says_the_same_in_batches_and_alone(digits: Dataset, batch_size: int) -> None:
    network = wide_resnet.build(10, 1, 10, 0.0, 5).eval()
    found, expected = predictions.predict(network, digits, batch_size), naive(network, digits)
    assert found.keys() == expected.keys() == predictions.FIELDS
    assert found["labels"].tolist() == expected["labels"].tolist()
    for name in found:
        assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name


def test_a_network_that_belongs_to_several_cells_is_probed_once(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with --overwrite, which makes `cached` ask again."""
    asked: list[int] = []

    def cached(args: Namespace, data: Dataset, cell: Cell, network_id: int, *_: object) -> object:
        asked.append(network_id)
        return {"probe_labels": np.full((3, 30), network_id)}

    monkeypatch.setattr(predictions, "cached", cached)
    args, known = Namespace(knn=5, pd_bank="clean", pies=Path("pies")), {}
    for ids in ([0, 1], [1, 2], [0, 2]):
        labels = np.zeros((2, 30), int)
        dense = Population(Cell("supervised", "dense", 0.0), ids, labels, {}, np.zeros(2))
        found = prediction_depth.probe(args, digits, dense, known)
        assert (found["prediction"] == [[0 if i == 0 else 3] * 30 for i in ids]).all()
    assert asked == [0, 1, 2]
