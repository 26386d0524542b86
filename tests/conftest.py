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
from running import PREFIXES, Study, chain, run

# The same examples in every run, however slow the machine is.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "umap: imports UMAP, which compiles for seconds")


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The whole study, both learning methods at once. Only to be read."""
    folder = tmp_path_factory.mktemp("study")
    commands = {learner: chain(learner) for learner in PREFIXES}
    with ThreadPoolExecutor(len(commands)) as pool:
        results = pool.map(
            lambda chain: [run(folder, *command) for command in chain], commands.values()
        )
        return Study(folder, commands, dict(zip(commands, results, strict=True)))


@pytest.fixture
def study_copy(study: Study, tmp_path: Path) -> Study:
    """A copy of the study that a test may change; files keep their times."""
    folder = tmp_path / "study"
    shutil.copytree(study.folder, folder)
    return Study(folder, study.commands, study.results)
