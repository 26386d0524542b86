"""Configurations: what a missing key in a file means, and in which keys two networks differ."""

from __future__ import annotations

from typing import Any

import pytest

from common import recipes, study
from common.recipes import Augmentation

# What every network was trained by before the flag came; it must never change.
BEFORE = {
    "head_views": 0,
    "head_crop_padding": 0.125,
    "released_quirks": False,
    "finetune_loss": "cross_entropy",
    "criterion": "magnitude",
    "nesterov": False,
    "decay": "all",
}


def test_a_flag_that_came_later_has_the_value_of_the_networks_before_it() -> None:
    assert recipes.INTRODUCED == BEFORE
    old = {"epochs": 3, "dataset": "digits"}
    assert recipes.complete(old) == BEFORE | {"image_size": 8, "min_crop_area": 0.2} | old
    assert old == {"epochs": 3, "dataset": "digits"}  # the configuration itself is not changed


@pytest.mark.parametrize(
    ("dataset", "image_size"),
    [("cifar10", 32), ("cifar100", 32), ("svhn", 32), ("digits", 8), ("flowers", 32), (None, 32)],
)
def test_images_had_the_size_of_their_data_set(dataset: str | None, image_size: int) -> None:
    assert recipes.complete({"dataset": dataset})["image_size"] == image_size


@pytest.mark.parametrize(("preset", "area"), [(None, 0.2), ("paper", 0.2), ("digits", 0.6)])
def test_views_were_cropped_as_their_preset_said(preset: str | None, area: float) -> None:
    config = {"preset": preset} if preset else {}
    assert recipes.complete(config)["min_crop_area"] == area


@pytest.mark.parametrize("key", [*BEFORE, "image_size", "min_crop_area"])
def test_what_is_stored_is_never_replaced(key: str) -> None:
    assert recipes.complete({key: "other"})[key] == "other"


@pytest.mark.parametrize(
    ("a", "b", "but", "told"),
    [
        ({}, {}, (), ""),
        ({"seed": 0}, {"seed": 0}, (), ""),
        ({"seed": 1, "epochs": 5}, {"epochs": 3, "seed": 0}, (),
         "epochs 5 (not 3), seed 1 (not 0)"),
        ({"seed": 1, "epochs": 5}, {"epochs": 3, "seed": 0}, ("seed",), "epochs 5 (not 3)"),
        ({"seed": 1}, {}, (), "seed 1 (not None)"),
        ({}, {"seed": 1}, (), "seed None (not 1)"),
        ({}, {"seed": None}, (), ""),
        # A file of before the flags equals one of today that has their old values.
        ({}, BEFORE, (), ""),
        (BEFORE | {"criterion": "random"}, {}, (), "criterion random (not magnitude)"),
        ({"dataset": "digits", "image_size": 8}, {"dataset": "digits"}, (), ""),
        ({"image_size": 64}, {}, (), "image_size 64 (not 32)"),
        ({"percentages": [0.5]}, {"percentages": [0.5, 0.9]}, (),
         "percentages [0.5] (not [0.5, 0.9])"),
    ],
)  # fmt: skip
def test_differences_are_named_in_order_with_both_values(
    a: dict[str, Any], b: dict[str, Any], but: tuple[str, ...], told: str
) -> None:
    assert recipes.differences(a, b, but) == told


def test_an_augmentation_describes_only_what_it_does() -> None:
    assert str(Augmentation()) == "no augmentation"
    described = str(Augmentation(crop_padding=4, horizontal_flip=0.5))
    assert described == "crop padding 4, horizontal flip 0.5"


def test_every_preset_is_complete() -> None:
    """Each learner has the same flags in every preset, and every preset its network and views."""
    tables = [recipes.CLASSIFICATION_VIEWS, recipes.CONTRASTIVE_VIEWS]
    tables += [table[learner] for table in (recipes.TRAINING, recipes.FINETUNING)
               for learner in study.LEARNERS]  # fmt: skip
    for table in tables:
        assert table.keys() == recipes.NETWORK.keys()
        assert len({tuple(row) for row in table.values() if isinstance(row, dict)}) <= 1
