"""The recipes of docs/extending.md do what they say: their edits are applied to a copy of the
project, and the scripts run on the copy."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from running import ROOT, detect, finetune, train

DOCS = ROOT / "docs" / "extending.md"
LEARNER, ONE = "supervised", ("--models_number", "1")


def recipe(title: str) -> tuple[str, int]:
    """The edits of a recipe, and how many files it promises to touch."""
    section = DOCS.read_text().partition(f"## {title}: ")[2].partition("\n## ")[0]
    edits = re.findall(r"```diff\n(.*?)```", section, re.DOTALL)
    return "".join(edits), int(section.split(" ")[0])


@pytest.fixture
def extended(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the project with the edits of a recipe."""
    edits, n_files = recipe(request.param)
    assert len(re.findall(r"^\+\+\+ b/", edits, re.MULTILINE)) == n_files
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "common", tmp_path / "common", ignore=ignored)
    for script in ROOT.glob("*_*.py"):
        shutil.copy(script, tmp_path)
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=edits, text=True, check=True)
    return tmp_path


def run(project: Path, script: str, *flags: str) -> str:
    """Run a script of the copy; it must succeed."""
    done = subprocess.run(
        [sys.executable, script, *flags], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("extended", ["Add a pruning criterion"], indirect=True)
def test_a_criterion(extended: Path) -> None:
    relative = (*ONE, "--criterion", "relative", "--pruning_percentages", "0.9")
    for command in (train(LEARNER, *ONE), train(LEARNER, *relative), finetune(LEARNER, *relative)):
        run(extended, *command)
    table = run(extended, *detect(LEARNER, *ONE))
    assert "relative_GMP" in table and "relative_global" in table
    models = extended / "models" / "digits"
    stored = torch.load(models / "supervised_relative_global_s0.90_id00.pt", weights_only=True)
    assert stored["config"]["criterion"] == "relative"
    assert stored["results"]["sparsity_reached"] == pytest.approx(0.9, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("extended", ["Add a data set by name"], indirect=True)
def test_a_data_set(extended: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(26), 10)
    images = rng.integers(0, 256, (26, 3, 8, 8))[labels].astype(np.uint8)
    (extended / "data").mkdir()
    splits = {"train_images": images, "train_labels": labels}
    splits |= {"test_images": images[::2], "test_labels": labels[::2]}
    np.savez(extended / "data" / "letters.npz", **splits)
    flags = ("--dataset", "letters", "--cuda_device", "-1", "--models_number", "1")
    assert "letters" in run(extended, "sup_training.py", "--help")
    run(extended, "sup_training.py", *flags, "--epochs", "1", "--batch_size", "32")
    stored = torch.load(
        extended / "models/letters/supervised_dense_s0.00_id00.pt", weights_only=True
    )
    assert stored["data"]["classes"] == list("abcdefghijklmnopqrstuvwxyz")


@pytest.mark.slow
@pytest.mark.parametrize("extended", ["Add a metric by image"], indirect=True)
def test_a_metric_by_image(extended: Path) -> None:
    pruned = finetune(LEARNER, "--pruning_percentages", "0.9")
    for command in (train(LEARNER), pruned, detect(LEARNER, "--plot_q_score")):
        run(extended, *command)
    pies = extended / "pies" / "digits"
    of_cell = pies / "supervised"
    with (of_cell / "pies_distribution" / "pies_global_s0.90.csv").open(newline="") as file:
        entropies = [float(line["softmax_entropy_pruned"]) for line in csv.DictReader(file)]
    assert len(entropies) == 100
    assert 0 <= min(entropies) < max(entropies) <= np.log2(10)
    with (pies / "summary.csv").open(newline="") as file:
        mean = [
            float(line["value"])
            for line in csv.DictReader(file)
            if line["pruning_method"] == "global"
            and line["sparsity"] == "0.90"
            and line["metric"] == "softmax_entropy"
            and line["group"] == "all"
        ]
    assert mean == [pytest.approx(np.mean(entropies), rel=1e-4)]
    assert list((of_cell / "q_score").glob("SOFTMAX_ENTROPY_global_*.png"))
    assert '"softmax_entropy_pruned"' in (pies / "index.html").read_text()
