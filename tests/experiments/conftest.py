"""Helpers that tests of experiments share."""

from __future__ import annotations

import pytest
from naive import Naive, Table
from running import Study


@pytest.fixture(scope="session")
def naive(study: Study) -> Naive:
    return Naive(study.models)


@pytest.fixture(scope="session")
def table(study: Study) -> Table:
    return Table(study.pies)
