"""How time and memory grow with the networks K, the images N and the cells C, on at least four
points each, with a line fitted through them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import study
from common.analysis import pie, predictions, probes
from common.experiments.predictions import predict
from common.model import wide_resnet
from tests.benchmarks.analysis import first
from tests.benchmarks.measuring import ROOT, Bench, Settings, fit_line, run_script
from tests.benchmarks.training import load

FLAGS = ("--dataset", "digits", "--limit", "100")
TRAIN = ("--epochs", "1", "--batch_size", "50")
ONE_SHOT = ("--pruning_methods", "global")
ANALYSES = ("sup_pie_kmodels_detection.py", "sup_prediction_depth.py")


def run(bench: Bench) -> dict[str, Any]:
    """Networks, cells, images; peak memory; the start of the scripts. Quick: no populations."""
    settings = bench.settings
    found: dict[str, Any] = {} if settings.quick else by_population(settings)
    found["N"] = by_images(settings)
    found["knn_MB"] = knn_memory(settings)
    with tempfile.TemporaryDirectory() as folder:
        helped = [run_script(Path(folder), script, "--help")[0] for script in ANALYSES]
    found["help_seconds"] = max(helped)
    for name, value in found.items():
        print(f"  {name}: {value}")
    return found


def by_population(settings: Settings) -> dict[str, Any]:
    """The analyses of up to 16 networks, and of up to eight cells."""
    flags = (*FLAGS, "--cuda_device", str(settings.cuda_device))
    sizes = [1, 2, 4, 8, 16]
    with tempfile.TemporaryDirectory() as folder:
        make_study(Path(folder), flags, sizes)
        return {
            "K": by_networks(Path(folder), flags, sizes),
            "C": by_cells(Path(folder), flags, sizes[:4]),
        }


def make_study(folder: Path, flags: tuple[str, ...], sizes: list[int]) -> None:
    """Enough networks of one cell, and four of eight cells; they hardly learn."""
    largest = ("--models_number", str(max(sizes)))
    run_script(folder, "sup_training.py", *flags, *TRAIN, *largest)
    prune = ("sup_pruning_finetune.py", *flags, *TRAIN)
    run_script(folder, *prune, *largest, "--pruning_percentages", "0.9")
    others = ",".join(f"0.{i}" for i in range(1, 9))
    run_script(folder, *prune, "--models_number", "4", "--pruning_percentages", others)


def by_networks(folder: Path, flags: tuple[str, ...], sizes: list[int]) -> dict[str, Any]:
    """Seconds and peak memory of the analyses of one cell of K networks."""
    found: dict[str, Any] = {}
    for script in ANALYSES:
        measured = []
        for k in sizes:
            pies = ("--pies_dir", str(folder / f"{script}_{k}"), "--models_number", str(k))
            more = ("--prediction_depth_models", str(k)) if "depth" in script else ()
            cell = (*ONE_SHOT, "--pruning_percentages", "0.9", *more)
            measured.append(run_script(folder, script, *flags, *pies, *cell))
        seconds, megabytes = zip(*measured, strict=True)
        found[script] = {
            "sizes": sizes,
            "seconds": seconds,
            "peak_MB": megabytes,
            "fit": fit_line(sizes, seconds),
        }
    return found


COUNT_PASSES = """
import runpy, sys
from pathlib import Path
from common.model import evaluation
real, passes = evaluation.outputs, 0
def outputs(*arguments, **more):
    global passes
    passes += 1
    return real(*arguments, **more)
evaluation.outputs = outputs
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    Path("passes").write_text(str(passes))
"""


def by_cells(folder: Path, flags: tuple[str, ...], sizes: list[int]) -> dict[str, Any]:
    """Seconds of the analysis of C cells of four networks each, and how many networks were run
    over the test images, which must be K·(C+1)."""
    seconds, passes = [], []
    for c in sizes:
        pies = folder / f"cells_{c}"
        cells = ",".join(f"0.{i}" for i in range(1, c + 1))
        more = ("--models_number", "4", "--pies_dir", str(pies))
        more = (*more, *ONE_SHOT, "--pruning_percentages", cells)
        taken, _ = run_script(folder, "-c", COUNT_PASSES, str(ROOT / ANALYSES[0]), *flags, *more)
        seconds.append(taken)
        passes.append(int((folder / "passes").read_text()))
    expected = [4 * (c + 1) for c in sizes]
    assert passes == expected, f"{passes} networks were run, not {expected}"
    return {"sizes": sizes, "seconds": seconds, "passes": passes, "fit": fit_line(sizes, seconds)}


def by_images(settings: Settings) -> dict[str, Any]:
    """Seconds of what grows with the images: predictions and scores of two networks, their votes
    and PIEs; and nearest neighbours of as many queries."""
    sizes = [250, 500, 1000, 2000] if settings.quick else [1000, 2000, 4000, 8000]
    data = load(settings, max(sizes))
    networks = [wide_resnet.build(10, 1, 10, 0.0, 0, i).to(settings.device) for i in range(2)]
    cell = study.dense_cell("supervised")
    draws = torch.Generator().manual_seed(0)
    bank, points = (
        torch.randn(max(sizes), 64, generator=draws).to(settings.device) for _ in range(2)
    )
    seconds = []
    for n in sizes:
        times = []
        for _ in range(3):
            started = time.perf_counter()
            predicted = [predict(net, first(data, n), 256) for net in networks]
            labels = predictions.stack(cell, [0, 1], predicted).labels
            pie.find_pies(labels[:1], labels[1:], 10)
            probes.knn_predict(bank, data.train.labels.cpu().numpy(), points[:n], 30, 10)
            times.append(time.perf_counter() - started)
        seconds.append(float(np.median(times)))
    found = {"sizes": sizes, "seconds": seconds, "fit": fit_line(sizes, seconds)}
    return found | {"t(4N)/t(N)": [seconds[i + 2] / seconds[i] for i in range(len(sizes) - 2)]}


KNN_MEMORY = """
import sys
from pathlib import Path
import numpy as np
import torch
from common.analysis import probes
n, device = int(sys.argv[1]), torch.device(sys.argv[2])
draws = torch.Generator().manual_seed(0)
bank, queries = (torch.randn(m, 128, generator=draws).to(device) for m in (50_000, n))
probes.knn_predict(bank[:1000], np.zeros(1000, int), queries[:100], 30, 10)  # imports
def used(what="VmHWM"):
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))
before = used("VmRSS")
if device.type == "cpu":
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
probes.knn_predict(bank, np.zeros(50_000, int), queries, 30, 10)
print(used() - before)
"""


def knn_memory(settings: Settings) -> dict[int, float]:
    """Peak memory, in MB above that of bank and queries, of a search in a bank of 50,000 of width
    128; a process of its own for each number of queries."""
    return {
        n: float(
            subprocess.check_output(
                [sys.executable, "-c", KNN_MEMORY, str(n), str(settings.device)], cwd=ROOT
            )
        )
        for n in (1_000, 2_000, 5_000, 10_000)
    }
