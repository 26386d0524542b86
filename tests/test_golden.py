"""Files of an older commit are still read, count as finished and give the same numbers, and a
training that it left unfinished is continued. See tests/golden/README.md."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from running import ROOT, Result, run

ARCHIVE = ROOT / "tests" / "golden" / "6a706e6.tar.xz"
STUDY = (
    *("--cuda_device", "-1", "--dataset", "digits", "--models_number", "1"),
    *("--limit", "300", "--test_limit", "100"),
)
SUP = (*STUDY, "--precision", "fp32", "--epochs", "20", "--batch_size", "32")
CLR = (*STUDY, "--precision", "fp32", "--batch_size", "50")
CLR_TRAINING = ("--epochs", "40", "--head_epochs", "20", "--batch_size_head", "50")
MAKE = [
    ("sup_training.py", *SUP, "--pruning_percentages", "0.0,0.97"),
    ("sup_pruning_finetune.py", *SUP, "--pruning_percentages", "0.97"),
    ("clr_training.py", *CLR, *CLR_TRAINING, "--pruning_percentages", "0.0,0.97"),
    ("clr_pruning_finetune.py", *CLR, "--epochs", "20", "--pruning_percentages", "0.97"),
]
DETECT = (*STUDY, "--knn", "5", "--plot_umap", "--plot_q_score")
DEPTH = (*STUDY, "--knn", "5", "--prediction_depth_models", "2")
ANALYSE = [
    ("sup_pie_kmodels_detection.py", *DETECT),
    ("sup_prediction_depth.py", *DEPTH),
    ("clr_pie_kmodels_detection.py", *DETECT),
    ("clr_prediction_depth.py", *DEPTH),
]
# Metrics that a later commit computes otherwise on purpose, and why.
CHANGED = {"n_pies_excess": "dropped: an exchange is no null of 'pruning did nothing'"}
# What the interrupted training leads to, and where it does so bit for bit.
CONTINUE = ("sup_training.py", *SUP, "--pruning_percentages", "0.97", "--index_start", "7")
TEST_ACCURACY = 0.91
WEIGHTS = "0cea4f6cc6f877cfb398479e2d55d3932497ab752385811a0521794e57ee73b6"
MADE_ON = ("2.14.1+cu130", "AVX2", "AuthenticAMD")
Rows = dict[tuple[str, ...], list[float]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder in which the older commit worked."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def run_all(folder: Path, commands: list[tuple[str, ...]]) -> list[Result]:
    """Run commands in order; all must succeed."""
    results = [run(folder, *command) for command in commands]
    assert [result.stderr for result in results if result.code] == []
    return results


def summary(folder: Path) -> Rows:
    """Value, interval (NaN if missing), networks and examples of each row by its other columns."""
    with (folder / "pies" / "digits" / "summary.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return {tuple(row[:5]): [float(text or "nan") for text in row[5:10]] for row in rows}


def assert_same(found: Rows, expected: Rows, tolerance: float) -> None:
    """All expected rows are there; counts are equal. There may be new rows."""
    for key, numbers in expected.items():
        if key[3] not in CHANGED:
            rel = 0 if key[3].startswith("n_") else tolerance
            assert found.get(key) == pytest.approx(numbers, rel, rel / 100, nan_ok=True), key


@pytest.mark.slow
def test_its_caches_are_analysed_to_the_same_numbers(folder: Path) -> None:
    """Its predictions lack the softmax margin, so they are made again."""
    caches = list((folder / "pies").glob("digits/*/predictions/*_probes.npz"))
    caches += (folder / "pies").glob("digits/*/umap/[sS]u*.npz")
    before, expected = [path.stat().st_mtime_ns for path in caches], summary(folder)
    run_all(folder, ANALYSE)
    assert len(caches) == 12
    assert [
        path.stat().st_mtime_ns for path in caches
    ] == before  # these have all that is asked of them
    assert_same(summary(folder), expected, 1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("numbers_only")
def test_its_networks_stay_as_they_are_and_are_analysed_to_the_same_numbers(folder: Path) -> None:
    expected = summary(folder)
    shutil.rmtree(folder / "pies")
    files = list((folder / "models").rglob("*.pt"))  # the half done training's state, too
    before = [hashlib.sha256(path.read_bytes()).digest() for path in files]
    for result in run_all(folder, MAKE):  # writes some metrics, too
        assert ": 1 network finished, 0 to make" in result.stdout
        assert ", 1 to make" not in result.stdout
    assert len(files) == 10
    assert [hashlib.sha256(path.read_bytes()).digest() for path in files] == before
    run_all(folder, ANALYSE)
    assert_same(summary(folder), expected, 1e-4)


def test_its_half_done_training_is_continued(folder: Path) -> None:
    run_all(folder, [CONTINUE])
    log = folder / "logs" / "digits" / "supervised_GMP_s0.97_id07.jsonl"
    begin, *records = [json.loads(line) for line in log.read_text().splitlines()]
    assert begin["continued"] is True
    assert [record["epoch"] for record in records if "epoch" in record] == [15, 16, 17, 18, 19]
    network = torch.load(folder / "models/digits/supervised_GMP_s0.97_id07.pt", weights_only=True)
    assert network["results"]["test_accuracy"] == pytest.approx(TEST_ACCURACY, abs=0.05)
    digest = hashlib.sha256()
    for name, tensor in [*sorted(network["model"].items()), *sorted(network["masks"].items())]:
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    assert digest.hexdigest() == WEIGHTS or machine() != MADE_ON


def machine() -> tuple[str, str, str]:
    """Torch and the processor, which round: with others the last bits of a sum may differ."""
    about = Path("/proc/cpuinfo")
    maker = "AuthenticAMD" if about.exists() and "AuthenticAMD" in about.read_text() else "another"
    return str(torch.__version__), torch.backends.cpu.get_cpu_capability(), maker
