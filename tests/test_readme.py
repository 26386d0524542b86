"""The README's snippets of Python run as they are written."""

from __future__ import annotations

import contextlib
import io
import re

import numpy as np
import pytest
import torch
from running import ROOT, Study

from common.data import datasets


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_a_stored_network_classifies_images(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study.folder)
    data = datasets.load_dataset("digits", study.folder, torch.device("cpu"), 8)
    names: dict[str, object] = {"images": data.test.images[:20]}
    exec(snippets()[0], names)
    assert names["labels"].shape == (20,)
    assert set(names["names"]) <= set(data.classes)


def test_pies_of_ones_own_labels() -> None:
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((10, 300)) < 0.1, rng.integers(0, 10, (10, 300)), 3)
    pruned = dense.copy()
    pruned[:, :40] = 7  # all networks forget these
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(snippets()[1], {"dense": dense, "pruned": pruned})
    assert re.fullmatch(
        r"40 PIEs; fresh populations of 10 have 40 to 40 \(95 %\)\n", shown.getvalue()
    )
