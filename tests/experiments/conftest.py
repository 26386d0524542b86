"""Helpers that tests of experiments share."""

from __future__ import annotations

from pathlib import Path

import pytest
from naive import Naive, Table
from running import Study

from common import files
from common.files import Arrays
from common.report import publish, style


@pytest.fixture(scope="session")
def naive(study: Study) -> Naive:
    return Naive(study.models)


@pytest.fixture(scope="session")
def table(study: Study) -> Table:
    return Table(study.pies)


@pytest.fixture
def numbers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no pictures: they take seconds, and the arrays and summary.csv tell as much."""

    def keep(path: Path, draw: object, contents: Arrays) -> None:
        files.save_arrays(path.with_suffix(".npz"), contents)

    monkeypatch.setattr(style, "keep", keep)
    monkeypatch.setattr(publish, "run", lambda pies: None)
