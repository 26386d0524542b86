"""One small study by both learning methods, made once; many tests read it, some change a copy."""

from __future__ import annotations

import os

# Before torch and numba are imported, since the last bits of a sum depend on the number of threads.
# UMAP's numba would set that of the whole process, torch included.
os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import pytest
from running import PREFIXES, Study, chain, run_process, succeed

# The same examples in every run, however slow the machine is.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The whole study, both learning methods at once. Only to be read."""
    folder = tmp_path_factory.mktemp("study")
    with ThreadPoolExecutor(len(PREFIXES)) as pool:
        results = pool.map(
            lambda learner: {c: succeed(folder, c, run_process) for c in chain(learner)}, PREFIXES
        )
    return Study(folder, {command: result for of in results for command, result in of.items()})


@pytest.fixture
def study_copy(study: Study, tmp_path: Path) -> Study:
    """A copy of the study that a test may change; files keep their times."""
    return Study(Path(shutil.copytree(study.folder, tmp_path / "study")), study.results)
