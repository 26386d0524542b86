"""A real data set, for tests that only read it."""

from __future__ import annotations

import pytest
from loading import load

from common.data.datasets import Dataset


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")
