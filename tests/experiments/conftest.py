"""What the tests of experiments compare with."""

from __future__ import annotations

import pytest
from naive import Naive, Table
from running import Study

from common.report import publish


@pytest.fixture(scope="session")
def naive(study: Study) -> Naive:
    return Naive(study.models)


@pytest.fixture(scope="session")
def table(study: Study) -> Table:
    return Table(study.pies)


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Page and comparison take seconds, and say nothing that summary.csv does not."""
    monkeypatch.setattr(publish, "run", lambda pies: None)
