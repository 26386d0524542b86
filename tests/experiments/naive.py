"""The numbers of the small study from its networks, by the definitions, one image at a time."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.stats
import torch
from running import IDS, KNN, N_TEST, N_TRAIN
from sklearn.neighbors import KNeighborsClassifier

from common.data import datasets
from common.model import checkpoints
from common.paths import NetworkFiles
from common.study import Cell, format_sparsity

CPU = torch.device("cpu")
EVERYTHING = list(range(N_TEST))


class Outputs(NamedTuple):
    """The outputs of one network for the test images."""

    labels: list[int]
    scores: dict[str, np.ndarray]  # by metric
    probes: np.ndarray  # [L,N] labels


class Naive:
    """The networks in a folder, and all numbers that follow from them."""

    def __init__(self, models: Path):
        self.models = models
        self.data = datasets.load_dataset("digits", Path("data"), CPU, 8, N_TRAIN, N_TEST)
        self.target: list[int] = self.data.test.labels.tolist()
        self.network = cache(self._network)

    def images(self, images: torch.Tensor) -> torch.Tensor:
        train = self.data.train.images.double() / 255
        mean = train.mean((0, 2, 3)).reshape(3, 1, 1)
        std = train.std((0, 2, 3), unbiased=False).reshape(3, 1, 1)
        return ((images.double() / 255 - mean) / std).float()

    def _network(self, cell: Cell, network_id: int) -> Outputs:
        network = checkpoints.load(NetworkFiles(self.models, cell, network_id), CPU).network.eval()
        with torch.no_grad():
            outputs = [network(x[None]) for x in self.images(self.data.test.images)]
            probes = network(self.images(self.data.test.images), probes=True).probes
            bank = network(self.images(self.data.train.images), probes=True).probes
        logits = torch.cat([output.logits for output in outputs])
        h = torch.cat([output.embedding for output in outputs]).double()
        h = h / h.norm(dim=1, keepdim=True)
        z = (h.max(1).values - h.mean(1)) / h.std(1, unbiased=False)
        l1 = h.abs().sum(1)
        first, second = logits.double().softmax(1).topk(2).values.T
        scores = {"q_score": z / l1, "z_score": z, "l1_norm": l1, "softmax_margin": first - second}
        known = self.data.train.labels.numpy()
        neighbours = [
            KNeighborsClassifier(int(KNN)).fit(b.numpy(), known).predict(p.numpy())
            for b, p in zip(bank, probes, strict=True)
        ]
        of_metric = {metric: score.numpy() for metric, score in scores.items()}
        return Outputs(logits.argmax(1).tolist(), of_metric, np.stack(neighbours))

    def labels(self, cell: Cell) -> list[list[int]]:
        return [self.network(cell, i).labels for i in IDS]

    def scores(self, cell: Cell, metric: str) -> np.ndarray:
        """[K,N]"""
        return np.stack([self.network(cell, i).scores[metric] for i in IDS])

    def accuracies(self, cell: Cell, members: list[int] = EVERYTHING) -> list[float]:
        return [
            float(np.mean([labels[n] == self.target[n] for n in members]))
            for labels in self.labels(cell)
        ]

    def modal(self, cell: Cell) -> list[int]:
        """The modal label; if two networks disagree, the lower label wins."""
        return [min(votes) for votes in zip(*self.labels(cell), strict=True)]

    def pies(self, cell: Cell) -> list[int]:
        pairs = zip(self.modal(cell.dense), self.modal(cell), strict=True)
        return [n for n, (before, after) in enumerate(pairs) if before != after]

    def groups(self, cell: Cell) -> dict[str, list[int]]:
        """The PIEs and the other images."""
        pies = self.pies(cell)
        return {"pie": pies, "non_pie": [n for n in EVERYTHING if n not in pies]}

    def of_class(self, c: int) -> list[int]:
        return [n for n in EVERYTHING if self.target[n] == c]

    def depths(self, cell: Cell, target: str) -> np.ndarray:
        """[K,N]: layers before every probe from there on agrees with the target. The released code
        takes the true label, and one layer off."""
        found = []
        for network in (self.network(cell, i) for i in IDS):
            goal = network.labels if target == "prediction" else self.target
            disagreeing = [
                [layer for layer, labels in enumerate(network.probes, 1) if labels[n] != right]
                for n, right in enumerate(goal)
            ]
            found.append([max(layers, default=0) for layers in disagreeing])
        return np.maximum(np.array(found) - (target == "released"), 0)


class Table:
    """summary.csv, its lines by learner, pruning, sparsity, metric and group."""

    def __init__(self, pies: Path):
        with (pies / "summary.csv").open(newline="") as file:
            self.lines = {tuple(line.values())[:5]: line for line in csv.DictReader(file)}

    def line(self, cell: Cell, metric: str, group: str = "all") -> dict[str, str]:
        sparsity = format_sparsity(cell.sparsity)
        return self.lines[cell.learner, cell.pruning_method, sparsity, metric, group]

    def value(self, cell: Cell, metric: str, group: str = "all") -> float:
        return float(self.line(cell, metric, group)["value"])

    def counts(self, cell: Cell, metric: str, group: str = "all") -> tuple[int, int]:
        """Networks and examples."""
        line = self.line(cell, metric, group)
        return int(line["n_models"]), int(line["n_examples"])

    def cells(self, learner: str) -> set[str]:
        """The pruned cells of a learner about which the summary says something."""
        return {name[1] for name in self.lines if name[0] == learner}

    def assert_mean(
        self,
        cell: Cell,
        metric: str,
        values: list[float] | np.ndarray,
        n_examples: int = N_TEST,
        group: str = "all",
    ) -> None:
        """The lines of a mean over two networks, against numpy and scipy; shares on the logit
        scale, and as two trials where both are 0 or both are 1."""
        line, spread = self.line(cell, metric, group), f"{metric}_sd"
        mean, sd = np.mean(values), np.std(values, ddof=1)
        assert float(line["value"]) == pytest.approx(mean, rel=1e-5, abs=1e-9)
        assert self.value(cell, spread, group) == pytest.approx(sd, rel=1e-3, abs=1e-9)
        low, high = mean, mean
        is_share = metric.startswith(("top1", "probe_accuracy")) and metric != "top1_lost"
        if is_share and mean in (0, 1):
            low, high = scipy.stats.binomtest(round(2 * mean), 2).proportion_ci(method="wilson")
        elif is_share and sd > 0:
            scale = sd / 2**0.5 / (mean * (1 - mean))
            logits = scipy.stats.t.interval(0.95, 1, loc=scipy.special.logit(mean), scale=scale)
            low, high = scipy.special.expit(logits)
        elif sd > 0:
            low, high = scipy.stats.t.interval(0.95, 1, loc=mean, scale=sd / 2**0.5)
        assert float(line["ci_low"]) == pytest.approx(low, rel=1e-3, abs=1e-6)
        assert float(line["ci_high"]) == pytest.approx(high, rel=1e-3, abs=1e-6)
        assert self.counts(cell, metric, group) == (2, n_examples)
        assert self.counts(cell, spread, group) == (2, n_examples)
