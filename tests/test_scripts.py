"""The eight scripts and setup.sh, from outside."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
from running import KINDS, PREFIXES, ROOT, SCRIPTS, assert_succeeds, contents


def test_there_are_eight_scripts() -> None:
    assert len(SCRIPTS) == 8
    assert {path.name for path in ROOT.glob("*.py")} == set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_a_door(script: str, tmp_path: Path) -> None:
    """Short; what it does is in its docstring, with an example that its own flags accept."""
    assert len((ROOT / script).read_text().splitlines()) <= 30
    imported = runpy.run_path(str(ROOT / script), run_name="imported")  # which runs nothing
    assert callable(imported["main"])
    text = imported["__doc__"]
    (example,) = re.findall(r"^  python (\S+\.py.*)$", text, re.MULTILINE)
    named, *flags = shlex.split(example)
    assert named == script
    said = assert_succeeds(tmp_path, (script, *flags, "--help")).stdout
    assert text.splitlines()[0] in said
    assert [flag for flag in flags if flag.startswith("--") and flag not in said] == []
    assert contents(tmp_path) == set()


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        ("common, common.options, common.paths, common.runtime", "torch numpy matplotlib umap"),
        ("common.learning.methods, common.model.checkpoints", "matplotlib umap sklearn"),
        ("common.analysis.pie, common.analysis.q_score", "torch matplotlib umap"),
        ("common.experiments.pie_detection, common.experiments.prediction_depth", "umap numba"),
    ],
)
def test_nothing_is_imported_that_is_not_needed(modules: str, unwanted: str) -> None:
    """UMAP takes seconds, torch too: --help and wrong flags answer at once."""
    script = f"import {modules}, sys; print(*set('{unwanted}'.split()) & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True) == "\n"


# setup.sh

ANALYSES = ("pies_distribution", "q_score", "umap", "prediction_depth")
FOLDERS = {"data"} | {
    f"{kind}/{dataset}"
    for kind, dataset in product(("models", "logs", "pies"), ("cifar10", "digits"))
}
FOLDERS |= {
    f"pies/{dataset}/{learner}/{analysis}"
    for dataset, learner, analysis in product(("cifar10", "digits"), PREFIXES, ANALYSES)
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what setup.sh needs."""
    folder = tmp_path / "a tree with spaces"
    folder.mkdir()
    shutil.copy(ROOT / "setup.sh", folder)
    return folder


def setup(tree: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(tree / "setup.sh"), *arguments],
        cwd=cwd or tree,
        env={name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_setup_makes_the_folders_beside_itself_wherever_it_is_called(
    tree: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = setup(tree, cwd=elsewhere)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tree) >= FOLDERS
    assert contents(elsewhere) == set()
    assert "--demo" in done.stdout  # what to do next
    assert not (tree / ".venv").exists()  # nothing is installed unless asked for


def test_setup_twice_changes_nothing(tree: Path) -> None:
    assert setup(tree).returncode == 0
    network = tree / "models" / "digits" / "supervised_dense_s0.00_id00.pt"
    network.write_text("mine")
    before = contents(tree)
    again = setup(tree)
    assert (again.returncode, again.stderr) == (0, "")
    assert contents(tree) == before
    assert network.read_text() == "mine"


@pytest.mark.parametrize("argument", ["--help!", "--dem", "demo", "-x"])
def test_setup_refuses_what_it_does_not_know(tree: Path, argument: str) -> None:
    done = setup(tree, argument)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert argument in done.stderr
    assert "--demo" in done.stderr


# The demo, with a stand-in for python that notes its calls and makes empty networks.

STAND_IN = r"""#!/usr/bin/env bash
[ "$1" = -c ] && { echo 2; exit; }
[ "$1" = -m ] && { echo "module $2"; exit; }
echo "$*" >>calls
case "$*" in *"${FAILS:-nothing}"*) echo "no disk" >&2; exit 7 ;; esac
case "$*" in "clr_training.py --dataset"*) # the other worker is faster, once
    [ -e busy ] || { touch busy; exit 8; } ;;
esac
prefix=supervised suffix=
[[ "$1" != clr* ]] || prefix=SupCon suffix=_head
pruning=dense
case "$*" in *finetune*) pruning=global ;; *--pruning_method*) pruning=GMP ;; esac
case "$1" in *training.py | *finetune.py)
    touch "models/digits/${prefix}_${pruning}_s0.00_id0${RANDOM}$suffix.pt" ;;
esac
"""


def demo(tree: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    python = tree / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return subprocess.run(
        ["bash", str(tree / "setup.sh"), "--demo"],
        env=os.environ | {"VIRTUAL_ENV": str(tree / "venv")} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_demo_runs_all_scripts_in_order_and_ends_with_the_page(tree: Path) -> None:
    done = demo(tree)
    assert (done.returncode, done.stderr) == (0, "")
    calls = [line for line in (tree / "calls").read_text().splitlines() if ".py" in line]
    for prefix in PREFIXES.values():
        of_learner = [call.split()[0] for call in calls if call.startswith(prefix)]
        kinds = [name.removeprefix(f"{prefix}_").removesuffix(".py") for name in of_learner]
        assert set(kinds) == set(KINDS)
        assert kinds[0] == "training"
        made = max(i for i, kind in enumerate(kinds) if kind in KINDS[:2])
        assert prefix == "clr" or min(map(kinds.index, KINDS[2:])) > made
    # a worker that found nothing free asked again
    assert (
        calls.count("clr_training.py --dataset digits --models_number 10 --models_number 20") == 3
    )
    assert "module common.report.summary" in done.stdout
    assert f"file://{tree}/pies/digits/index.html" in done.stdout


def test_a_demo_that_fails_says_why(tree: Path) -> None:
    done = demo(tree, FAILS="sup_prediction_depth")
    assert done.returncode == 7
    assert "no disk" in done.stderr
    assert "index.html" not in done.stdout


@pytest.mark.parametrize(
    "script", ["setup.sh", *(f"docs/slurm/{name}.sh" for name in ("array", "ranks", "requeue"))]
)
def test_shell_scripts_are_clean(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", ROOT / script], check=True)
    assert script == "setup.sh" or len((ROOT / script).read_text().splitlines()) <= 15


@pytest.mark.parametrize("n_signals", [1, 2])
def test_a_job_is_queued_again_after_signals_in_a_row(tmp_path: Path, n_signals: int) -> None:
    """The script saves for a second after the first signal; Slurm may send a second meanwhile."""
    stand_ins = {
        "python": "trap 'sleep 1; exit 75' USR1\nfor i in {1..300}; do sleep 0.1; done",
        "scontrol": 'echo "$@"',
    }
    for name, text in stand_ins.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    job = subprocess.Popen(
        ["bash", ROOT / "docs/slurm/requeue.sh", "sup_training.py"],
        env={"PATH": path, "SLURM_CPUS_PER_TASK": "1", "SLURM_JOB_ID": "7"},
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(n_signals):
        time.sleep(0.5)
        job.send_signal(signal.SIGUSR1)
    assert job.communicate(timeout=30)[0] == "requeue 7\n"
    assert job.returncode == 75


def test_the_demo_tells_its_progress_also_between_two_steps(tree: Path) -> None:
    """A worker that has just ended a step has no file of a step; no line of progress may fail."""
    text = (tree / "setup.sh").read_text()
    functions = text[text.index("\ncount() {") : text.index("\ndemo() {")]
    for folder in ("models/digits", "logs/digits"):
        (tree / folder).mkdir(parents=True)
    script = f"set -euo pipefail\n{functions}\nprogress 0 0\n"
    script += "echo compared > logs/digits/demo_1.step\nprogress 0 0\n"
    done = subprocess.run(["bash", "-c", script], cwd=tree, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert " | now " not in first
    assert " | now compared" in second
