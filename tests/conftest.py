"""One small study by both learning methods, made once; many tests read it, some change a copy."""

from __future__ import annotations

import os

# Before torch and numba are imported, since the last bits of a sum depend on the number of threads.
# UMAP's numba would set that of the whole process, torch included.
os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

import json
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock
from running import PREFIXES, Result, Study, run_chain

from common import files
from common.files import Arrays
from common.report import publish, style

# The same examples in every run, however slow the machine is.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The whole study, both learning methods at once. Only to be read. Where pytest runs in several
    processes, the first one that asks makes it for all."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "study"
    results = folder.with_suffix(".json")
    with FileLock(folder.with_suffix(".lock")):
        if not results.exists():
            folder.mkdir()
            with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
                supervised, supcon = pool.map(partial(run_chain, folder), PREFIXES)
            ended = [[command, vars(result)] for command, result in (supervised | supcon).items()]
            results.write_text(json.dumps(ended))
        ended = json.loads(results.read_text())
    return Study(folder, {tuple(command): Result(**result) for command, result in ended})


@pytest.fixture
def numbers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no pictures: they take seconds, and the arrays and summary.csv tell as much."""

    def keep(path: Path, draw: object, contents: Arrays) -> None:
        files.save_arrays(path.with_suffix(".npz"), contents)

    monkeypatch.setattr(style, "keep", keep)
    monkeypatch.setattr(publish, "run", lambda pies: None)


@pytest.fixture
def study_copy(study: Study, tmp_path: Path) -> Study:
    """A copy of the study that a test may change; files keep their times."""
    return Study(Path(shutil.copytree(study.folder, tmp_path / "study")), study.results)
