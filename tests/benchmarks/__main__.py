"""Measure every stage against the released code's ways; print a table and write JSON.

python -m tests.benchmarks --quick             (2 cores: under 3 minutes)
python -m tests.benchmarks --dataset PATH      (over an hour; a folder of images with train/ and
                                                test/; default: digits, enlarged)
"""

from __future__ import annotations

import json
from pathlib import Path

from common import files, runtime
from tests import benchmarks
from tests.benchmarks import accuracy, analysis, measuring, scaling, study, together, training
from tests.benchmarks.measuring import Settings

PARTS = {
    "training": training.run,
    "analysis": analysis.run,
    "scaling": scaling.run,
    "together": together.run,
    "accuracy": accuracy.run,
}
SLOW = ("together", "accuracy")


def main() -> int:
    parser = benchmarks.parser("", __doc__)
    parser.add_argument("--cuda_device", type=int, default=0, help="-1: CPU (default: 0)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="smaller sizes, nothing compiled",
    )
    parser.add_argument("--dataset", default="digits", help="digits or a folder of images")
    parser.add_argument("--pairs", type=int, default=5, help="baseline and ours, so often")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        metavar="PART",
        help=f"of {', '.join(PARTS)} (default: all; with --quick not {' and '.join(SLOW)})",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("benchmarks.json"),
        metavar="FILE",
        help="what was measured, with hardware and versions (default: benchmarks.json)",
    )
    args = parser.parse_args()
    device = runtime.pick_device(args.cuda_device)
    cuda_device = args.cuda_device if device.type == "cuda" else -1
    if args.dataset != "digits" and not (Path(args.dataset) / "train").is_dir():
        parser.error(
            f"argument --dataset: {args.dataset}: digits, or a folder with train/ and test/"
        )
    bench = measuring.Bench(Settings(cuda_device, args.quick, args.dataset), args.pairs)
    found = {"hardware": measuring.hardware(device), "quick": args.quick, "dataset": args.dataset}
    print(found)
    for part in args.only or [part for part in PARTS if not (args.quick and part in SLOW)]:
        print(f"\n{part}")
        found[part] = PARTS[part](bench)
        found["stages"] = bench.rows
        files.write_text(args.output, json.dumps(found, indent=1))
    print(f"\n{measuring.HEADING}")
    for row in bench.rows:
        print(measuring.format_row(row))
    if {"training", "analysis"} <= found.keys():
        found["study_hours"] = study.hours(bench.rows, runtime.pick_precision("auto", device))
        files.write_text(args.output, json.dumps(found, indent=1))
        print(f"the whole study on CIFAR-10 would take, in hours: {found['study_hours']}")
    print(f"written to {args.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
