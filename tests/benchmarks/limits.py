"""How PIE detection grows beyond a study's size: forged networks and predictions, the real script.

python -m tests.benchmarks.limits --models 1000 --images 500
python -m tests.benchmarks.limits --models 10 --images 1000000 --resamples 100
python -m tests.benchmarks.limits --models 30 --images 1000000 --largest

Two pruned cells, so that their overlap is computed. Prints, as JSON, the CPU seconds of each part
and the peak of memory up to its end, and the size of the files. With --largest, only the two parts
that need most memory run, with few of their splits: time grows with the splits, memory does not.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import files, options, paths, runtime
from common.analysis import held_out, pie_probability, reliability
from common.analysis.predictions import Population
from common.data.datasets import Dataset, Split
from common.experiments import pie_detection, population, predictions, training
from common.learning import methods, pruning
from common.model import checkpoints, wide_resnet
from common.paths import NetworkFiles
from common.report import by_image, pie_rows, publish, style
from common.study import Cell, dense_cell
from tests import benchmarks

LEARNER = "supervised"
CELLS = {  # by how often they err
    dense_cell(LEARNER): 0.02,
    Cell(LEARNER, "GMP", 0.9): 0.06,
    Cell(LEARNER, "global", 0.9): 0.06,
}
PARTS: tuple[tuple[Any, str], ...] = (
    (predictions, "of_population"),
    (pie_rows, "of_count"),
    (pie_rows, "of_population"),
    (pie_rows, "of_pies"),
    (pie_rows, "of_held_out"),
    (pie_probability, "pie_probability"),
    (reliability, "lost_by_half"),
    (reliability, "corrected_overlap"),
    (by_image, "write_csv"),
    (pie_detection, "draw"),
    (pie_detection, "draw_class_impact"),
    (publish, "run"),
    (style, "keep"),
)


def random_data(n_images: int) -> Dataset:
    """Noise of 8x8 pixels, in ten classes."""
    rng = np.random.default_rng(0)
    train, test = (
        Split(
            torch.from_numpy(rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)),
            torch.from_numpy(np.arange(n) % 10),
            digest=f"{n} images",
        )
        for n in (100, n_images)
    )
    zero = torch.zeros(3)
    return Dataset("digits", tuple("0123456789"), train, test, zero, zero + 1)


def forge(args: argparse.Namespace, data: Dataset) -> None:
    """Networks that never learned, and predictions that are right but for some of the images, the
    same hard ones mostly."""
    flags = options.training("", LEARNER).parse_args(["--dataset", "digits"])
    hard = np.random.default_rng(1).random(len(data.test)) ** 3 * 4  # mean 1
    label = data.test.labels.numpy()
    for cell, error in CELLS.items():
        config = training.recipe(flags, cell) | population.data_config(data)
        config |= {"precision": "fp32"}
        for network_id in args.ids:
            if paths.predictions(args.pies, cell, network_id).exists():  # of a run before
                continue
            modules = methods.new_modules(config, data.n_classes, network_id)
            weights = wide_resnet.prunable(modules["network"])
            masks = pruning.magnitude_masks(weights, cell.sparsity) if cell.sparsity else {}
            results = {"test_accuracy": 1 - error, "sparsity_reached": cell.sparsity}
            where = NetworkFiles(args.models, cell, network_id)
            digest = checkpoints.save(where, modules, masks, config, results, {})
            rng = np.random.default_rng(runtime.seed_from(network_id, str(cell)))
            wrong = rng.random(len(label)) < error * hard
            found = {
                field: rng.random(len(label), dtype=np.float32)
                for field in predictions.FIELDS - {"labels", *pie_rows.NUMBERS}
            }
            found |= {"labels": np.where(wrong, (label + 1) % 10, label).astype(np.int16)}
            key = " ".join([digest, data.train.digest, data.test.digest, ""])
            found |= dict.fromkeys(pie_rows.NUMBERS, np.array(0.5)) | {"key": np.array(key)}
            files.save_arrays(paths.predictions(args.pies, cell, network_id), found)


def statistics() -> None:
    """CPU seconds of the statistics of a cell by K, N and resamples (as many exchanges)."""
    rng = np.random.default_rng(0)
    cell = Cell(LEARNER, "GMP", 0.9)
    for n_models, n_images, draws in (
        *((k, 2_000, 100) for k in (10, 30, 100, 300)),
        *((30, n, 100) for n in (500, 8_000, 32_000)),
        (30, 2_000, 1_000),
    ):
        labels = (rng.random((2, n_models, n_images)) < 0.05).astype(np.int16)
        dense, pruned = (Population(cell, list(range(n_models)), of, {}, {}) for of in labels)
        started = time.process_time()
        pie_rows.of_count(dense, pruned, 10, True, draws, draws, 0)
        print(n_models, n_images, draws, f"{time.process_time() - started:.2f}", flush=True)


def timed(seconds: dict[str, float], name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        started = time.process_time()
        result = work(*arguments, **options)
        spent = time.process_time() - started
        seconds[name] += spent
        print(f"{name}: {spent:.1f} s, peak {peak_gb()} GB", flush=True)
        return result

    return run


def largest(n_models: int, n_images: int) -> None:
    """Held-out scores with 2 of 30 splits, and the overlap of two cells with 10 of 60 splits."""
    rng = np.random.default_rng(0)
    label = (np.arange(n_images) % 10).astype(np.int16)
    hard = rng.random(n_images, dtype=np.float32) ** 3 * 4
    labels = np.empty((2, n_models, n_images), dtype=np.int16)
    for of_cell, error in zip(labels, (0.02, 0.06), strict=True):
        for network in of_cell:
            wrong = rng.random(n_images, dtype=np.float32) < error * hard
            network[:] = np.where(wrong, (label + 1) % 10, label)
    seconds: dict[str, float] = defaultdict(float)
    halves = reliability.split_ids(n_models, 10, rng)
    lost = timed(seconds, "lost_by_half", reliability.lost_by_half)(*labels, halves, 10)
    timed(seconds, "overlap", reliability.corrected_overlap)(lost, lost, halves)
    scores = rng.random((2, n_models, n_images), dtype=np.float32)
    effect = timed(seconds, "referenced_effect", held_out.referenced_effect)
    effect(*labels, *scores, 10, rng, n_splits=2)


def peak_gb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def megabytes(folder: Path, pattern: str) -> float:
    return round(sum(path.stat().st_size for path in folder.rglob(pattern)) / 1e6, 1)


def main() -> None:
    parser = benchmarks.parser(".limits", __doc__)
    parser.add_argument("--models", default="30", metavar="K")
    parser.add_argument("--images", type=int, default=10_000, metavar="N")
    parser.add_argument("--resamples", default="1000")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--statistics", action="store_true", help="these alone, by K and N")
    parser.add_argument("--largest", action="store_true", help="the parts that need most memory")
    asked = parser.parse_args()
    if asked.statistics or asked.largest:
        statistics() if asked.statistics else largest(int(asked.models), asked.images)
        return
    folder = asked.folder or Path(tempfile.mkdtemp())
    args = options.pie_detection("", LEARNER).parse_args(
        [
            *("--dataset", "digits", "--models_dir", str(folder / "models")),
            *("--pies_dir", str(folder / "pies"), "--models_number", asked.models),
            *("--resamples", asked.resamples, "--permutations", asked.resamples, "--plot_q_score"),
        ]
    )
    data = random_data(asked.images)
    seconds: dict[str, float] = defaultdict(float)
    timed(seconds, "forge", forge)(args, data)
    forged = peak_gb()
    for module, name in PARTS:
        work = getattr(module, name)
        setattr(module, name, timed(seconds, f"{module.__name__.split('.')[-1]}.{name}", work))
    population.load_data = lambda args: data
    timed(seconds, "pie_detection.run", pie_detection.run)(args)
    found = {
        "K": args.models_number,
        "N": asked.images,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "peak_gb": peak_gb(),
        "peak_gb_before": forged,
        "megabytes": {p: megabytes(folder, p) for p in ("*.pt", "*_id*.npz", "*.csv", "*.html")}
        | {"PIEs_distribution": megabytes(folder, "PIEs_distribution*.npz")},
    }
    print(json.dumps(found), file=sys.stderr)


if __name__ == "__main__":
    main()
