"""A dry run tells the recipe, and makes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import contents, succeed

PRUNED = ("--pruning_percentages", "0.9")
DIGITS, PAPER = ("--dataset", "digits"), ("--dataset", "cifar10")


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
        ("sup_training.py", (*PAPER, *PRUNED), ["80155 steps of 128", "39 events", "step 1002: "]),
        ("sup_training.py", (*PAPER, "--released_quirks"), ["vertical flip 0.5"]),
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
