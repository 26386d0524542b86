"""Predictions, PIEs, Q-Score and prediction depth: how fast an analysis is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from common import study
from common.analysis import pie, predictions, probes
from common.analysis.q_score import q_score
from common.data.datasets import Dataset, Split
from common.experiments.predictions import predict
from common.model import evaluation, wide_resnet
from common.model.wide_resnet import WideResNet
from tests.benchmarks import released
from tests.benchmarks.measuring import Bench, Settings
from tests.benchmarks.training import load

N_CELLS = 12
NEIGHBOURS = 30
WIDTHS = (16, 32, 64, 128)  # of the probes of a WRN-16-2


def run(bench: Bench) -> dict[str, Any]:
    """All stages of the analysis."""
    quick, gpu = bench.settings.quick, bench.settings.cuda_device >= 0
    n = 128 if quick else 2048
    shown = {"work": n, "unit": "images/s", "n": n, "check": same_labels}
    bench.compare("forward, fp32", forward, goal=2 if gpu else 1.6, **shown)
    n = 16 if quick else 384
    sweep = {"n": n, "check": same_pies}
    bench.compare(f"PIE sweep, {N_CELLS} cells", pie_sweep, goal=5 if gpu else 3, **sweep)
    n = 1_000 if quick else 10_000
    bench.compare("Q-Score", scores, goal=100, n=n, check=close)
    n_bank, n_queries = (5_000, 500) if quick else (50_000, 2_000)
    for width in (64,) if quick else WIDTHS:
        bench.compare(
            f"k-NN, bank {n_bank:,}, width {width}",
            neighbours,
            goal=50 if gpu else 8,
            work=n_queries,
            unit="queries/s",
            check=all_equal,
            **{"n_bank": n_bank, "n_queries": n_queries, "width": width},
        )
    n_bank, n_queries = (128, 32) if quick else (2_000, 400)
    sizes = {"n_bank": n_bank, "n_queries": n_queries, "check": all_equal}
    name = f"prediction depth, bank {n_bank:,}, one cell"
    bench.compare(name, depth, goal=50 if gpu else 2.5, n_cells=1, **sizes)
    if not quick:  # the released way takes 12 times that of one cell
        bench.compare(
            f"prediction depth, bank 500, {N_CELLS} cells",
            depth,
            goal=100 if gpu else 5,
            n_cells=N_CELLS,
            **{"n_bank": 500, "n_queries": 100, "check": all_equal},
        )
    return {}


def same_labels(theirs: np.ndarray, ours: np.ndarray) -> None:
    """Logits [N,C]: the argmax agrees, except where the two highest are 1e-4 apart."""
    top = np.sort(theirs, axis=1)
    decided = top[:, -1] - top[:, -2] >= 1e-4
    differ = (theirs.argmax(1) != ours.argmax(1)) & decided
    assert not differ.any(), f"{differ.sum()} labels differ"


def same_pies(theirs: list[np.ndarray], ours: list[np.ndarray]) -> None:
    """The PIEs of every cell; some images are, and some are not."""
    assert 0 < np.mean(theirs) < 1, "these networks show nothing"
    assert np.array_equal(theirs, ours), "the PIEs differ"


def close(theirs: np.ndarray, ours: np.ndarray) -> None:
    """To 1e-6, relative."""
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def all_equal(theirs: np.ndarray, ours: np.ndarray) -> None:
    """Votes or depths: equal, and not all the same."""
    assert len(np.unique(theirs)) > 1, "these networks show nothing"
    assert np.array_equal(theirs, ours), f"{(theirs != ours).sum()} of {theirs.size} differ"


def populations(settings: Settings, data: Dataset, n_networks: int) -> list[WideResNet]:
    """Networks with other first weights each. They learned nothing, but their batch norm has seen
    images and their biases are such that they predict all classes."""
    images = data.normalise(data.train.images[:128].float() / 255)
    networks = []
    for i in range(n_networks):
        network = wide_resnet.build(16, 2, 10, 0.0, 0, i).to(settings.device)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network.fc.bias -= network.train()(images).logits.mean(0)
        networks.append(network.eval())
    return networks


def first(data: Dataset, n: int) -> Dataset:
    """The same data with the first n test images."""
    test = Split(data.test.images[:n], data.test.labels[:n], data.test.digest)
    return replace(data, test=test)


def forward(side: str, settings: Settings, n: int) -> Callable[[], np.ndarray]:
    """Logits [N,C] of one network."""
    data = load(settings, n)
    (network,) = populations(settings, data, 1)
    if side == "released":
        images = data.normalise(data.test.images.float() / 255)

        @torch.no_grad()
        def work() -> np.ndarray:
            return np.vstack([network(b).logits.cpu() for b in images.split(released.BATCH_SIZE)])

        return work
    network.to(memory_format=torch.channels_last)
    return lambda: np.concatenate(
        [output.logits.cpu().numpy() for output in evaluation.outputs(network, data, data.test)]
    )


def pie_sweep(side: str, settings: Settings, n: int) -> Callable[[], list[np.ndarray]]:
    """PIEs [N] of 12 cells of two networks each against two dense ones."""
    data = load(settings, n)
    networks = populations(settings, data, 2 * (N_CELLS + 1))
    cells = [networks[i : i + 2] for i in range(0, len(networks), 2)]
    if side == "released":
        loader = released.plain_loader(data, data.test)
        return lambda: [
            released.pies_of_cell(cells[0], cell, loader, 10, settings.device)[0]
            for cell in cells[1:]
        ]
    for network in networks:
        network.to(memory_format=torch.channels_last)

    def population(cell: list[WideResNet]) -> predictions.Population:
        predicted = [predict(network, data, 256) for network in cell]
        found = predictions.stack(study.dense_cell("supervised"), [0, 1], predicted)
        found.mean_score("q")
        return found

    def work() -> list[np.ndarray]:
        dense = population(cells[0])
        return [pie.find_pies(dense.labels, population(cell).labels, 10) for cell in cells[1:]]

    return work


def scores(side: str, settings: Settings, n: int) -> Callable[[], np.ndarray]:
    """Q-, Z-Scores and L1 norms [3,n] of one network's embeddings [n,128]."""
    embedding = np.maximum(np.random.default_rng(0).normal(0.2, 1, (n, 128)), 0).astype(np.float32)
    if side == "released":
        return lambda: released.q_score(embedding)
    return lambda: np.stack(q_score(embedding))


def neighbours(
    side: str, settings: Settings, n_bank: int, n_queries: int, width: int
) -> Callable[[], np.ndarray]:
    """Votes of the 30 nearest; points of ten overlapping clusters."""
    draw = np.random.default_rng(width)
    centres = draw.normal(size=(10, width))
    labels = draw.integers(10, size=n_bank)
    bank = (centres[labels] + draw.normal(0, 2, (n_bank, width))).astype(np.float32)
    queries = centres[draw.integers(10, size=n_queries)] + draw.normal(0, 2, (n_queries, width))
    queries = queries.astype(np.float32)
    if side == "released":
        return lambda: released.knn_predict(bank, labels, queries, NEIGHBOURS)
    on_device = [torch.from_numpy(a).to(settings.device) for a in (bank, queries)]
    return lambda: probes.knn_predict(on_device[0], labels, on_device[1], NEIGHBOURS, 10)


def depth(
    side: str, settings: Settings, n_bank: int, n_queries: int, n_cells: int
) -> Callable[[], np.ndarray]:
    """Depths [2·cells,N] of a dense and a pruned network for each cell."""
    data = first(load(settings, n_bank), n_queries)
    networks = populations(settings, data, 1 + n_cells)
    if side == "released":
        train = released.plain_loader(data, data.train)
        test = released.plain_loader(data, data.test)
        pairs = [(networks[0], pruned) for pruned in networks[1:]]
        device = settings.device
        return lambda: np.stack(
            [
                released.prediction_depth(network, train, test, NEIGHBOURS, device)
                for pair in pairs
                for network in pair
            ]
        )
    for network in networks:
        network.to(memory_format=torch.channels_last)

    def work() -> np.ndarray:
        dense, *pruned = (our_depth(network, data) for network in networks)
        return np.stack([found for other in pruned for found in (dense, other)])

    return work


def our_depth(network: WideResNet, data: Dataset) -> np.ndarray:
    """As the prediction depth experiment computes it; predictions come from the same pass."""
    run = partial(evaluation.outputs, network, data, probes=True)
    labels = data.train.labels.cpu().numpy()
    tested = list(run(split=data.test))
    layers = zip(
        evaluation.probe_embeddings(run(split=data.train)),
        evaluation.probe_embeddings(iter(tested)),
        strict=True,
    )
    answers = [
        probes.knn_predict(bank, labels, queries, NEIGHBOURS, data.n_classes)
        for bank, queries in layers
    ]
    predicted = torch.cat([output.logits.argmax(1) for output in tested]).cpu().numpy()
    return probes.prediction_depth(np.stack(answers), predicted)
