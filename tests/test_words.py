"""The words of the study and the cells that they make: a contract with the users, spelled out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import recipes, study
from common.data import named
from common.learning import methods, pruning
from common.study import Cell


@pytest.mark.parametrize(
    ("sparsity", "text"),
    [
        (0, "0.00"),
        (0.5, "0.50"),
        (0.9, "0.90"),
        (0.975, "0.975"),
        (0.1 + 0.2, "0.30"),
        (0.0123456789, "0.0123456789"),
    ],
)
def test_sparsities_have_as_many_decimals_as_they_need(sparsity: float, text: str) -> None:
    assert study.format_sparsity(sparsity) == text


@settings(max_examples=100)
@given(st.floats(0, 1, exclude_max=True).map(lambda x: round(x, 10)))
def test_a_sparsity_is_read_back_from_its_text(sparsity: float) -> None:
    text = study.format_sparsity(sparsity)
    assert float(text) == sparsity
    decimals = text.partition(".")[2]
    assert len(decimals) == 2 or (len(decimals) > 2 and not decimals.endswith("0"))


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


def test_cells_are_listed_by_learner_then_pruning_then_sparsity() -> None:
    cells = [
        Cell("supervised", "dense", 0.0),
        Cell("supervised", "GMP", 0.5),
        Cell("supervised", "GMP", 0.95),
        Cell("supervised", "later_GMP", 0.5),
        Cell("supervised", "global", 0.0),
        Cell("supervised", "random_GMP", 0.5),
        Cell("SupCon", "global", 0.1),
    ]
    assert study.in_order(reversed(cells)) == cells


def test_prunings_are_all_schedules_by_all_criteria() -> None:
    """A pruning by magnitude is named as before there were criteria."""
    assert {name: tuple(pruning) for name, pruning in study.PRUNINGS.items()} == {
        "GMP": ("GMP", "magnitude"),
        "later_GMP": ("later_GMP", "magnitude"),
        "global": ("global", "magnitude"),
        "random_GMP": ("GMP", "random"),
        "random_later_GMP": ("later_GMP", "random"),
        "random_global": ("global", "random"),
    }


# learner, pruning, sparsity; its text; who makes it; gradual
CELLS = [
    (("supervised", "dense", 0.0), "supervised dense 0.00", "sup_training.py", None),
    (("SupCon", "dense", 0.0), "SupCon dense 0.00", "clr_training.py", None),
    (("SupCon", "GMP", 0.3), "SupCon GMP 0.30", "clr_training.py", True),
    (("supervised", "later_GMP", 0.975), "supervised later_GMP 0.975", "sup_training.py", True),
    (
        ("supervised", "random_later_GMP", 0.5),
        *("supervised random_later_GMP 0.50", "sup_training.py", True),
    ),
    (("supervised", "global", 0.9), "supervised global 0.90", "sup_pruning_finetune.py", False),
    (
        ("SupCon", "random_global", 0.9),
        *("SupCon random_global 0.90", "clr_pruning_finetune.py", False),
    ),
]


@pytest.mark.parametrize(("words", "text", "script", "is_gradual"), CELLS)
def test_a_cell_tells_its_text_script_and_schedule(
    words: tuple[str, str, float], text: str, script: str, is_gradual: bool | None
) -> None:
    cell = Cell(*words)
    assert str(cell) == text
    assert study.script(cell) == script
    assert cell.dense == study.dense_cell(words[0]) == Cell(words[0], "dense", 0.0)
    assert cell.is_dense == (cell == cell.dense) == (cell.schedule is None)
    if cell.schedule is not None:
        assert cell.schedule.is_gradual == cell.schedule.is_paired_by_seed == is_gradual


def test_any_word_but_a_data_sets_is_a_folder() -> None:
    assert study.dataset_words("digits").image_size == 8
    assert study.dataset_words("svhn").n_train == 73_257
    for path in ("flowers", "./digits", "data/cifar10", ""):
        assert study.dataset_words(path) == study.FOLDER


def test_every_word_has_its_row_in_the_layers_above() -> None:
    """A word that only this table knows would fail in the middle of a study."""
    assert study.DATASETS.keys() == named.LOADERS.keys()
    assert set(study.CRITERIA) == pruning.CRITERIA.keys()
    assert study.LEARNERS.keys() == recipes.TRAINING.keys() == recipes.FINETUNING.keys()
    assert study.LEARNERS.keys() == methods.METHODS.keys()
    assert {words.preset for words in study.DATASETS.values()} <= recipes.NETWORK.keys()
    gradual = {name for name, schedule in study.SCHEDULES.items() if schedule.is_gradual}
    assert gradual == recipes.WINDOWS.keys()
