"""The outputs of a network, against the same network run on one image at a time."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from common import locks
from common.data import datasets
from common.data.datasets import Dataset
from common.experiments import population, predictions
from common.experiments.predictions import Wanted
from common.model import checkpoints, wide_resnet
from common.model.wide_resnet import WideResNet
from common.paths import NetworkFiles
from common.ranks import Ranks
from common.study import Cell

ALONE = Ranks()


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


class Computing(NamedTuple):
    """Arrays wanted from a forged network, and how often they were computed."""

    wanted: Wanted
    times: list[None]

    def run(self, data: Dataset, overwrite: bool = False, ranks: Ranks = ALONE) -> bool:
        """An analysis that asks for the arrays three times."""
        args = Namespace(overwrite=overwrite, ranks=ranks, models=Path(), batch_size=1)
        goes_on = predictions.share(args, data, [self.wanted])
        for _ in range(3 * goes_on):
            assert predictions.get(args, data, self.wanted)["n"] == 17
        return goes_on


@pytest.fixture
def computing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Computing:
    network = SimpleNamespace(digest="d", network=None)
    monkeypatch.setattr(population, "describe", lambda *_: {"digest": "d"})
    monkeypatch.setattr(checkpoints, "load", lambda *_: network)
    times: list[None] = []

    def compute(_: object) -> dict[str, np.ndarray]:
        times.append(None)
        return {"n": np.array(17)}

    where = NetworkFiles(tmp_path, Cell("supervised", "dense", 0.0), 0)
    return Computing(Wanted(where, tmp_path / "pies" / "x.npz", {"n"}, compute), times)


def test_what_several_cells_want_is_computed_once(digits: Dataset, computing: Computing) -> None:
    """With --overwrite, it is computed once in every run."""
    computing.run(digits)
    computing.run(digits)
    assert len(computing.times) == 1
    computing.run(digits, overwrite=True)
    computing.run(digits, overwrite=True)
    assert len(computing.times) == 3


def test_what_another_rank_computes_is_left_to_it(digits: Dataset, computing: Computing) -> None:
    second = Ranks(1, 2)
    with locks.held(computing.wanted.path):
        assert not computing.run(digits, ranks=second)
    assert len(computing.times) == 0
    assert not computing.run(digits, ranks=second)
    assert computing.run(digits, ranks=Ranks(0, 2))
    assert len(computing.times) == 1


def test_what_another_rank_made_anew_is_taken(digits: Dataset, computing: Computing) -> None:
    """With --overwrite: the first rank looks at the old file before the second one replaces it."""
    computing.run(digits)
    args, wanted = Namespace(models=Path(), batch_size=1), computing.wanted
    old = predictions._stamp(wanted.path)
    computing.run(digits, overwrite=True, ranks=Ranks(1, 2))
    assert predictions.get(args, digits, wanted, old=old)["n"] == 17
    assert len(computing.times) == 2
    new = predictions._stamp(wanted.path)
    assert predictions.get(args, digits, wanted, old=new)["n"] == 17
    assert len(computing.times) == 3
