"""A dry run tells the recipe, and makes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import contents, succeed

PRUNED = ("--pruning_percentages", "0.9")
DIGITS = ("--dataset", "digits")


def dry_run(cwd: Path, script: str, *flags: str) -> str:
    """What it says, however it is wrapped."""
    done = succeed(cwd, (script, "--dry_run", *flags))
    assert contents(cwd) == set()
    return " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("script", "flags", "words"),
    [
        ("sup_training.py", (), ["15 epochs of 21 steps, 315 steps of 64 images"]),
        ("sup_training.py", ("--limit", "300"), ["300 training images", "15 epochs of 5 steps"]),
        (
            "clr_training.py",
            (),
            ["15 epochs of 11 steps", "128 images x 2 views", "20 epochs of 11 steps"],
        ),
        ("sup_training.py", PRUNED, ["0.9000", "GMP 0.90"]),
        ("sup_training.py", (*PRUNED, "--criterion", "random"), ["random_GMP 0.90"]),
        ("sup_pruning_finetune.py", (), ["5 epochs of 21 steps", "Nesterov", "global 0.97"]),
        ("clr_pruning_finetune.py", ("--finetune_loss", "supcon"), ["x 2 views", "stage head"]),
    ],
)
def test_what_a_recipe_says(
    tmp_path: Path, script: str, flags: tuple[str, ...], words: list[str]
) -> None:
    said = dry_run(tmp_path, script, *DIGITS, *flags)
    assert [word for word in words if word not in said] == []


def test_the_paper_preset_is_the_released_recipe(tmp_path: Path) -> None:
    """The released steps: 80,155 of supervised training, pruned from step 1,002 to 20,039."""
    said = dry_run(tmp_path, "sup_training.py", *PRUNED)
    assert "205 epochs of 391 steps, 80155 steps of 128 images" in said
    assert "39 events" in said
    assert "step 1002: " in said
    assert "epoch 0: 1, epoch 5: 0.1, epoch 30: 0.01, epoch 50: 0.001, epoch 80: 0.0001" in said
    assert "vertical" not in said
    assert "vertical flip 0.5" in dry_run(tmp_path, "sup_training.py", "--released_quirks")
