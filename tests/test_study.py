"""Words of the study as messages write them."""

from __future__ import annotations

import numpy as np
import pytest

from common import study


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 networks"),
        (1, "1 network"),
        (np.array(1), "1 network"),
        (np.array("1"), "1 network"),
        (2, "2 networks"),
        ("1 to 5", "1 to 5 networks"),
    ],
)
def test_one_is_not_many(n: object, text: str) -> None:
    assert study.counted(n, "network") == text


def test_ids_are_named() -> None:
    assert study.named_ids(range(10)) == "ids 0 to 9"
    assert study.named_ids(range(7, 8)) == "id 7"
