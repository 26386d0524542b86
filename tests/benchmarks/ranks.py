"""Several ranks with a thread each against one rank with one thread, on the same networks.

python -m tests.benchmarks.ranks                      (digits, 4 networks, 2 ranks, 5 rounds)
python -m tests.benchmarks.ranks --ranks 8 --networks 16 --cuda_device 0

In every round each side makes all networks anew, in processes that have imported all. Prints, as
JSON, the ratio of networks per second (median of the rounds, and all), by the clock and in CPU time
of the busiest rank, whether both sides made the same bytes, and how busy the machine was.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tests import benchmarks
from tests.benchmarks import measuring
from tests.benchmarks.measuring import Settings, Side


def making(
    side: str, settings: Settings, folder: str, rank: int, world: int, networks: int, epochs: int
) -> Callable[[], int]:
    """A training script's work as this rank, from the flags to the table; its exit code."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    from common import options
    from common.experiments import training

    device = () if settings.cuda_device >= 0 else ("--cuda_device", "-1")
    folders = ("--models_dir", f"{folder}/models", "--pies_dir", f"{folder}/pies")
    size = ("--models_number", str(networks), "--epochs", str(epochs))
    flags = (*device, *folders, *size, "--dataset", settings.dataset, "--overwrite")

    def work() -> int:
        args = options.training("", learner="supervised").parse_args(flags)
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
            return training.run(args)

    return work


def seconds(sides: list[Side]) -> tuple[float, float]:
    """Until all ranks, at work at once, have made all networks: by the clock, and the CPU time of
    the busiest rank, which is what it would be if every rank had a core of its own."""
    started, used = time.perf_counter(), [cpu_seconds(side) for side in sides]
    for side in sides:
        side.start()
    for side in sides:
        side.finish()
    busiest = max(cpu_seconds(side) - before for side, before in zip(sides, used, strict=True))
    return time.perf_counter() - started, busiest


def cpu_seconds(side: Side) -> float:
    """The CPU time that the process of a side has used so far (Linux)."""
    user, system = (
        Path(f"/proc/{side.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    )
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def digest(folder: Path) -> str:
    """A digest of the files of all networks."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("models/*/[!.]*.pt")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure one rank and several in turn, as often as asked for."""
    settings = Settings(args.cuda_device, quick=False, dataset=args.dataset)
    ways: dict[int, list[Side]] = {}
    for world in (1, args.ranks):
        place = folder / str(world)
        place.mkdir()
        ways[world] = [Side(f"rank {rank}", settings) for rank in range(world)]
        given = {"folder": str(place), "world": world}
        given |= {"networks": args.networks, "epochs": args.epochs}
        for rank, side in enumerate(ways[world]):  # the first time in turn: caches fill
            code = side.prepare(making, given | {"rank": rank})
            if code != 0:
                raise RuntimeError(f"rank {rank} of {world} ended with {code}")
    load, rounds = os.getloadavg()[0], []
    for _ in range(args.rounds):
        rounds.append([seconds(ways[world]) for world in (1, args.ranks)])
    ratios, of_cpu = ([one[i] / all_[i] for one, all_ in rounds] for i in (0, 1))
    return {
        "ranks": args.ranks,
        "networks": args.networks,
        "seconds_of_one_rank": median(one[0] for one, _ in rounds),
        "ratio": median(ratios),
        "ratios": sorted(ratios),
        "ratio_of_cpu_time": median(of_cpu),
        "ratios_of_cpu_time": sorted(of_cpu),
        "same_bytes": digest(folder / "1") == digest(folder / str(args.ranks)),
        "others_at_work_before": load,
        "hardware": measuring.hardware(settings.device),
    }


def main() -> None:
    parser = benchmarks.parser(".ranks", __doc__)
    parser.add_argument("--cuda_device", type=int, default=-1, help="0: the GPUs (default: CPU)")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(parser.parse_args(), Path(folder)), indent=1))


if __name__ == "__main__":
    main()
