"""Numbers and names that README and docs/ state, computed again from what they are about."""

from __future__ import annotations

import csv
import json
import re
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from running import ROOT, Study
from torch import nn

from common import recipes, runtime
from common.analysis import resampling
from common.analysis.predictions import Population
from common.data import datasets
from common.experiments import pie_detection
from common.learning import pruning
from common.model import wide_resnet
from common.model.wide_resnet import WideResNet
from common.recipes import FINETUNING, TRAINING
from common.report import by_image, pie_rows, summary
from common.report import rows as stored_rows
from common.report.by_image import SCORES
from common.report.rows import Row
from common.study import EARLY, LATER, LEARNERS, Cell, dense_cell, format_sparsity
from tests.benchmarks import study as study_on_cifar10

PRESETS = ("paper", "fast")


def text_of(page: str) -> str:
    """A page with every run of white space as one space, so that lines may break anywhere."""
    return " ".join((ROOT / page).read_text().split())


def table(page: str, heading: str) -> list[list[str]]:
    """The first table below a heading: its lines, with the cells of each."""
    section = ("\n" + (ROOT / page).read_text()).partition(f"\n{heading}\n")[2]
    rows = re.search(r"(?:^\|.*\|\n)+", section, re.MULTILINE)
    assert rows, f"{page}: no table below {heading}"
    lines = [re.split(r" *(?<!\\)\| *", line.strip("| ")) for line in rows[0].splitlines()]
    return [lines[0], *lines[2:]]


def names_in(page: str, heading: str) -> list[str]:
    """The names in backticks of the first column of that table."""
    return [name for line in table(page, heading)[1:] for name in re.findall("`(.+?)`", line[0])]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def macs(network: WideResNet, image_size: int) -> int:
    """Multiply-adds of one image in convolutions and classifier, as hooks count them."""
    counted = []

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        places = output[0, 0].numel() if output.ndim == 4 else 1
        counted.append(module.weight.numel() * places)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network.eval()(torch.zeros(1, 3, image_size, image_size))
    return sum(counted)


def metric_name(metric: str) -> str:
    """The line of the glossary that explains a metric."""
    metric = re.sub(r"_layer_\d+$", "_layer_<l>", metric.removesuffix("_sd"))
    return metric.removesuffix("_dense")


def made_up_cell(folder: Path) -> tuple[set[str], list[str]]:
    """The metrics and columns of a cell of six networks with replicates, as the study has fewer
    networks and no replicates."""
    data = datasets.load_dataset("digits", folder, torch.device("cpu"), 8)
    label = data.test.labels.numpy()
    cell, ids = Cell("SupCon", "global", 0.9), list(range(6))
    rng = np.random.default_rng(0)

    def population(wrong: float) -> Population:
        labels = np.where(rng.random((6, len(label))) < wrong, (label + 1) % 10, label)
        scores = {score.field: rng.random(labels.shape) for score in SCORES}
        return Population(cell, ids, labels, scores, {n: rng.random(6) for n in pie_rows.NUMBERS})

    dense, pruned, fresh_dense, fresh = map(population, (0.01, 0.4, 0.01, 0.4))
    found = pie_detection.find_pies(cell, dense, pruned, data, 0)
    rows = pie_rows.of_pies(cell, found, dense, pruned, data.classes)
    rows += pie_rows.of_count(dense, pruned, 10, True, 100, 100, 0)[0]
    score = {"dense": dense.scores["q"], "pruned": pruned.scores["q"]}
    for metric in ("q_score", "prediction_depth"):
        rows += pie_rows.of_held_out(cell, metric, dense, pruned, score, 10, 0)
    dense = dense._replace(cell=dense_cell("SupCon"))
    replicates = {dense.cell: fresh_dense, cell: fresh}
    counts = pie_rows.of_replicates(dense, {cell: pruned}, replicates, 10, 100, 0)
    metrics = {row.metric for of_cell in (rows, *counts.values()) for row in of_cell}
    return metrics, list(by_image.columns(found, dense, pruned))


def test_the_glossary_has_every_metric_and_column_and_no_other(
    study: Study, tmp_path: Path
) -> None:
    metrics, columns = made_up_cell(tmp_path)
    metrics |= {row["metric"] for row in read_csv(study.pies / "summary.csv")}
    explained = names_in("docs/glossary.md", "## Metrics of summary.csv")
    assert len(set(explained)) == len(explained)
    assert set(explained) == set(map(metric_name, metrics))
    assert names_in("docs/glossary.md", "## Columns of pies_*.csv") == columns
    overlap = list(read_csv(study.pies / "comparison" / "overlap.csv")[0])
    assert names_in("docs/glossary.md", "## Columns of overlap.csv") == overlap


def test_the_glossary_names_the_columns_of_the_summary(study: Study) -> None:
    columns = ",".join(read_csv(study.pies / "summary.csv")[0])
    assert f"`{columns}`" in text_of("docs/glossary.md")


def test_the_cost_of_the_study() -> None:
    """Images are counted, operations follow from the network, hours from the rates of the page."""
    page = "docs/performance.md"
    rates = {line[0]: line[1:] for line in table(page, "# How fast")}

    def hours(counts: dict[str, int], column: int) -> float:
        stages = {
            "contrastive": "SupCon step with its data, fp32",
            "supervised": "supervised step with its data, fp32",
            "forward": "forward, fp32",
        }
        of_part = (n / float(rates[stages[part]][column]) for part, n in counts.items())
        return sum(of_part) / 3600

    per_image = 2 * macs(WideResNet(16, 2), 32)
    assert f"{3 * per_image / 1e9:.3f} GFLOP" in text_of(page)
    stated = [line[1:] for line in table(page, "## The whole study on CIFAR-10")[1:]]
    for column, preset in enumerate(PRESETS):
        counts = study_on_cifar10.images(preset)
        learned = counts["contrastive"] + counts["supervised"]
        flop = per_image * (3 * learned + counts["forward"])
        expected = [counts[part] / 1e9 for part in ("contrastive", "supervised", "forward")]
        expected += [flop / 1e18, hours(counts, 1), hours(counts, 0)]
        expected += [flop / rate / 3600 for rate in (30e12, 150e12)]
        found = [float(line[column].replace(",", "")) for line in stated]
        assert found == pytest.approx(expected, rel=0.02)


def test_the_front_page_has_the_recipes_and_their_hours() -> None:
    _, epochs, on_cpu, on_gpu = table("README.md", "## The study on CIFAR-10")
    hours = [line[1:] for line in table("docs/performance.md", "## The whole study on CIFAR-10")]
    for column, preset in enumerate(PRESETS):
        supcon = TRAINING["SupCon"][preset]
        assert epochs[1 + column] == (
            f"{TRAINING['supervised'][preset]['epochs']} / {supcon['epochs']}, "
            f"{supcon['head_epochs']} / {FINETUNING['SupCon'][preset]['epochs']}"
        )
        at_30, at_150 = hours[-2][column], hours[-1][column]
        assert on_cpu[1 + column] == hours[-4][column]
        assert on_gpu[1 + column] == f"{at_150} or {at_30}"


def test_the_small_study_is_as_small_as_the_front_page_says() -> None:
    ratio = macs(WideResNet(16, 2), 32) / macs(WideResNet(10, 1), 16)
    (stated,) = re.findall(r"1/(\d+) of the arithmetic", text_of("README.md"))
    assert int(stated) == round(ratio)


def test_the_network_and_the_images_of_digits(tmp_path: Path) -> None:
    network = WideResNet(10, 1)
    weights = wide_resnet.prunable(network)
    n_weights = sum(weight.numel() for weight in weights.values())
    masks = pruning.magnitude_masks(weights, 0.97).values()
    left = sum(int(mask.sum()) for mask in masks)
    data = datasets.load_dataset("digits", tmp_path, torch.device("cpu"), 8)
    page = text_of("docs/results-digits.md")
    assert f"{sum(p.numel() for p in network.parameters()):,} parameters" in page
    assert f"{n_weights:,} of them can be pruned, and {left:,} are left at 97 %" in page
    assert f"{len(data.train):,} images to learn from and {len(data.test)} to test" in page


def test_the_smallest_p_value_of_ten_pairs() -> None:
    dense = np.zeros((10, 50), dtype=int)
    rng = np.random.default_rng(0)
    null = resampling.permutation_null(dense, dense + 1, 10, True, 100, rng)
    assert null.floor == 2 ** (1 - 10)
    assert f"p cannot be below {null.floor:.4f}" in text_of("docs/results-digits.md")


def test_the_windows_of_gradual_pruning() -> None:
    windows = (recipes.WINDOWS[schedule] for schedule in (EARLY, LATER))
    early, late = (f"{100 * window.begin:g} to {100 * window.end:g} %" for window in windows)
    assert f"({early}; {late})" in text_of("docs/released-code.md")


def test_the_exit_codes() -> None:
    page = table("docs/reliability.md", "## How an end is reported")[1:]
    stated = [int(code) for line in page for code in line[0].split(", ")]
    failures = {value for name, value in vars(runtime).items() if re.match("EXIT_[A-RT-Z]", name)}
    signals = [runtime.EXIT_SIGNALS[s] for s in (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM)]
    assert stated == [0, *sorted(failures), *signals]


class Stored(NamedTuple):
    """A study that docs/ has as JSON."""

    json: dict[str, Any]
    numbers: dict[tuple[Cell, str, str], Row]  # by cell, metric and group
    pies: list[list[str]]  # the lines of its table of PIEs
    claims: dict[str, str]  # `undecided (0.73)` by the name of the claim


def stored_study(file: str, folder: Path) -> Stored:
    found = json.loads((ROOT / file).read_text())
    numbers = {(row.cell, row.metric, row.group): row for row in map(Row._make, found["numbers"])}
    cells = dict.fromkeys(cell for cell, _, _ in numbers)
    of_cell = {cell: [row for row in numbers.values() if row.cell == cell] for cell in cells}
    stored_rows.store(folder, "pie_detection", of_cell)
    lines = []
    for line in (line for of in LEARNERS for line in summary.table(folder, of)[1:]):
        top1, (pies, corrected, exchanged) = line[5] or line[4], (line[i] for i in (6, 7, 10))
        counts = [pies.replace(" of 10000", ""), corrected, exchanged, line[11].split(" ")[0]]
        lines.append([*line[:3], top1, *(counts if line[1] != "dense" else [])])
    claims = {
        line["name"]: line["verdict"] + (f" ({line['p_holm']})" if line["p_holm"] else "")
        for line in found["claims"]
    }
    return Stored(found, numbers, lines, claims)


def test_the_results_on_cifar10_are_the_stored_ones(tmp_path: Path) -> None:
    """Every table of the page, made again from its JSON files."""
    page = "docs/results-cifar10.md"
    study = stored_study("docs/results-cifar10.json", tmp_path / "all")
    gradual = stored_study("docs/results-cifar10-supcon.json", tmp_path / "gradual")
    numbers = study.numbers
    by_name = {(c.learner, c.pruning_method, format_sparsity(c.sparsity)): c for c, _, _ in numbers}

    def estimate(cell: Cell, metric: str, group: str) -> str:
        row = numbers[cell, metric, group]
        return f"{row.value:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}]"

    assert table(page, "## PIEs")[1:] == study.pies
    assert table(page, "## SupCon pruned gradually")[1:] == gradual.pies
    lines = table(page, "## The same recipe twice")[1:]
    assert lines
    for learner, method, sparsity, *counts in lines:
        cell = by_name[learner, method, sparsity]
        metrics = ("n_pies_dense_null", "n_pies_pruned_null", "n_pies_unpaired", "n_pies")
        found = [numbers[cell.dense if "dense" in m else cell, m, "all"] for m in metrics]
        assert counts == [f"{r.value:.0f} [{r.ci_low:.0f}, {r.ci_high:.0f}]" for r in found]
    lines = table(page, "## Prediction depth and Q-Score")[1:]
    assert {tuple(line[:3]) for line in lines} == {name for name in by_name if name[1] != "dense"}
    for learner, method, sparsity, *scores in lines:
        cell = by_name[learner, method, sparsity]
        groups = [(m, g) for m in ("prediction_depth", "q_score") for g in ("pie", "non_pie")]
        assert scores == [estimate(cell, *of) for of in groups]
    # The text has the corrected counts between two pruned populations.
    text = " ".join(
        (ROOT / page).read_text().replace("\N{MINUS SIGN}", "-").replace(",", "").split()
    )
    told = [("SupCon global 0.00", f"SupCon global {s}") for s in ("0.50", "0.80", "0.90", "0.95")]
    told += [("SupCon global 0.00", "SupCon random_global 0.80")]
    told += [("supervised global 0.00", "supervised global 0.80")]
    told += [("supervised GMP 0.95", "supervised later_GMP 0.95")]
    told += [("SupCon GMP 0.95", "SupCon later_GMP 0.95")]
    counts = (*study.json["between"], *gradual.json["between"])
    between = {frozenset((x["reference"], x["other"])): x for x in counts}
    for names in told:
        x = between[frozenset(names)]
        corrected = (x["corrected"], x["corrected_low"], x["corrected_high"])
        assert "{:.0f} [{:.0f} {:.0f}]".format(*corrected) in text, names
    for line in gradual.json["claims"]:
        unit, digits = {"K2": (100, 2), "K3": (-1, 2), "K4": (1, 4)}.get(line["name"], (1, 2))
        if line["decides"] and line["value"]:
            value, *bounds = (unit * float(line[key]) for key in ("value", "ci_low", "ci_high"))
            if line["name"] == "K3":  # the text has the overlap r, not √½ minus r
                value, *bounds = (0.5**0.5 + x for x in (value, *bounds))
            if "prediction depth" in line["statistic"]:
                digits = 2
            low, high = sorted(bounds)
            assert f"{value:.{digits}f} [{low:.{digits}f} {high:.{digits}f}]" in text, line
    stated = {line[0].split(" ")[0]: line[1] for line in table(page, "## The paper's claims")[1:]}
    assert stated == study.claims
