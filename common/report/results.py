"""One JSON file with every number of a study and the settings that produced it: for the appendix of
a paper, or to compare two studies.

`python -m common.report.results pies/cifar10 results.json` writes it from the files of the report.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from common import files, paths, runtime
from common.report import between, page_recipes, rows
from common.report.rows import Row

BY_LINE = ("overlaps", "between", "numbers")
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "umap-learn", "matplotlib")


def collect(pies: Path) -> dict[str, Any]:
    """Code and machine of the analysis, the recipe of each cell (with ids, versions, hardware and
    seconds for each network), the claims, the Jaccard overlaps of PIEs, the counts between every
    two pruned populations of a learner, and all numbers of summary.csv as lists in the order of
    `columns`."""
    return {
        "dataset": pies.name,
        "analysed_with": environment(),
        "recipes": page_recipes.stored(pies),
        "claims": files.read_csv(paths.claims(pies)),
        "overlaps": files.read_csv(paths.overlap(pies).with_suffix(".csv")),
        "between": [found._asdict() for found in between.of_pruned(pies)],
        "columns": list(Row._fields),
        "numbers": [list(row) for row in rows.read(pies)],
    }


def environment() -> dict[str, Any]:
    """The commit of this code (None outside its repository), the machine, and versions."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git
        commit = ""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "commit": commit or None,
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    } | {package: metadata.version(package) for package in PACKAGES}


def format_results(found: dict[str, Any]) -> str:
    """JSON with each number on its own line, so that two results can be compared by diff."""
    parts = []
    for key, value in found.items():
        if key in BY_LINE:
            text = "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"
        else:
            text = json.dumps(value, indent=1)
        parts.append(f'"{key}": {text}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    """Write the results of the folder given on the command line."""
    if len(sys.argv) != 3 or not paths.summary(Path(sys.argv[1])).exists():
        what = "give a folder pies/<dataset> with a summary.csv, and a file to write"
        raise SystemExit(runtime.report(runtime.EXIT_ARGUMENTS, what))
    files.write_text(Path(sys.argv[2]), format_results(collect(Path(sys.argv[1]))))
    print(sys.argv[2])


if __name__ == "__main__":
    main()
