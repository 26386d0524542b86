"""Running a network over a split: order, mode, batches that do not divide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.data import datasets
from common.data.datasets import Dataset
from common.model import evaluation, wide_resnet
from common.model.wide_resnet import WideResNet


@pytest.fixture(scope="module")
def data() -> Dataset:
    return datasets.load_dataset("digits", Path("unused"), torch.device("cpu"), 8, 40, 33)


@pytest.fixture
def network() -> WideResNet:
    """Trained for some steps without labels: batch norm has seen images, dropout is on."""
    built = wide_resnet.build(10, 1, 10, 0.3, "evaluation").train()
    with torch.no_grad():
        for seed in range(3):
            built(torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(seed)))
    return built


def normalised(data: Dataset) -> Tensor:
    """The test images, by numpy."""
    pixels = data.test.images.numpy() / 255.0
    mean, std = data.mean.numpy()[:, None, None], data.std.numpy()[:, None, None]
    return torch.from_numpy((pixels - mean) / std).float()


def one_by_one(network: WideResNet, data: Dataset) -> list[wide_resnet.Output]:
    network.eval()
    with torch.no_grad():
        return [network(image[None], probes=True) for image in normalised(data)]


@pytest.mark.parametrize("batch_size", [1, 8, 11, 33, 500])
def test_outputs_are_those_of_each_image_alone_in_order(
    network: WideResNet, data: Dataset, batch_size: int
) -> None:
    expected = one_by_one(network, data)
    batches = list(evaluation.outputs(network, data, data.test, batch_size, probes=True))
    assert [len(batch.logits) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    logits = torch.cat([batch.logits for batch in batches])
    embedding = torch.cat([batch.embedding for batch in batches])
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(logits, torch.cat([e.logits for e in expected]), **close)
    torch.testing.assert_close(embedding, torch.cat([e.embedding for e in expected]), **close)
    for layer in range(10):
        probe = torch.cat([batch.probes[layer] for batch in batches])
        oracle = torch.cat([e.probes[layer] for e in expected])
        torch.testing.assert_close(probe, oracle, **close)
    assert not logits.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_evaluated_in_eval_mode_and_left_as_it_was(
    network: WideResNet, data: Dataset, training: bool
) -> None:
    network.train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first = evaluation.accuracy(network, data, data.test)
    assert evaluation.accuracy(network, data, data.test) == first  # no dropout
    assert network.training is training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_accuracy_counts_the_correct_images(network: WideResNet, data: Dataset) -> None:
    labels = [int(output.logits.argmax()) for output in one_by_one(network, data)]
    correct = sum(a == b for a, b in zip(labels, data.test.labels.tolist(), strict=True))
    assert evaluation.accuracy(network, data, data.test) == pytest.approx(correct / 33, abs=1e-12)
    # With the labels that it predicts, all but three of them:
    wrong = torch.tensor(labels)
    wrong[[0, 10, 32]] += 1
    split = datasets.Split(data.test.images, wrong, "")
    assert evaluation.accuracy(network, data, split) == pytest.approx(30 / 33, abs=1e-12)


def test_classify_gives_labels_logits_and_embeddings(network: WideResNet, data: Dataset) -> None:
    labels, logits, embeddings = evaluation.classify(network, data, data.test, 10)
    expected = one_by_one(network, data)
    close = {"rtol": 1e-4, "atol": 1e-5}
    assert labels.tolist() == [int(e.logits.argmax()) for e in expected]
    np.testing.assert_allclose(logits, torch.cat([e.logits for e in expected]), **close)
    np.testing.assert_allclose(embeddings, torch.cat([e.embedding for e in expected]), **close)


def test_views_replace_the_plain_images(network: WideResNet, data: Dataset) -> None:
    network.eval()
    with torch.no_grad():
        expected = network(normalised(data).flip(3)).logits
    flipped = evaluation.outputs(
        network, data, data.test, 10, view=lambda images: images.flip(3).float() / 255
    )
    logits = torch.cat([output.logits for output in flipped])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
