"""A dry run prints the recipe, what exists and what the rest would cost, and makes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from running import (
    N_TEST,
    N_TRAIN,
    PREFIXES,
    Study,
    assert_refused,
    assert_succeeds,
    contents,
    depth,
    detect,
    finetune,
    train,
)

from common import options
from common.data.datasets import Size
from common.experiments import costs, training
from common.study import dense_cell

PRUNED = ("--pruning_percentages", "0.9")
DIGITS, PAPER = ("--dataset", "digits"), ("--dataset", "cifar10")
LITTLE = 1e8  # FLOPs that are timed


@pytest.fixture(autouse=True)
def measured_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure briefly: these tests do not depend on how long things take."""
    monkeypatch.setitem(costs.MEASURED, "cpu", LITTLE)
    monkeypatch.setattr(costs, "COMPARED", 20)


def dry_run(cwd: Path, script: str, *flags: str) -> str:
    """The output of a dry run, with line breaks removed."""
    before = contents(cwd)
    done = assert_succeeds(cwd, (script, "--cuda_device", "-1", *flags, "--dry_run"))
    assert contents(cwd) == before
    return " ".join(done.stdout.split())


def told(said: str, pattern: str) -> tuple[float, ...]:
    """The numbers in a sentence; a unit's prefix after a number is multiplied in."""
    found = re.search(pattern.replace("#", r"([\d.]+ ?[kMGTP]?)"), said)
    assert found, f"{pattern} is not in: {said}"
    units = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
    return tuple(float(text.rstrip(" kMGTP")) * units.get(text[-1], 1) for text in found.groups())


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


@pytest.mark.parametrize("learner", PREFIXES)
@pytest.mark.parametrize("make", [train, finetune])
def test_the_plan_of_a_training_is_what_the_run_made(
    study: Study, tmp_path: Path, learner: str, make: object
) -> None:
    sparsities = "0.0,0.9" if make is train else "0.5,0.9"
    asked = make(learner, "--pruning_percentages", sparsities)
    prunings = ("dense", "GMP") if make is train else ("global",)
    made = [path for p in prunings for path in study.models.glob(f"{learner}_{p}_*.pt")]
    logs = [
        log
        for p in prunings
        for log in (study.folder / "logs" / "digits").glob(f"{learner}_{p}_*.jsonl")
    ]
    batch = 50 if (learner, make) == ("SupCon", train) else 32
    epochs = sum(log.read_text().count('"epoch": ') for log in logs)
    pattern = "make: # networks in # steps, # files in .*?, #B"
    n_networks, n_steps, n_files, n_bytes = told(dry_run(tmp_path, *asked), pattern)
    assert (n_networks, n_files) == (len(logs), len(made))
    assert n_steps == epochs * -(-N_TRAIN // batch)
    assert n_bytes == pytest.approx(sum(path.stat().st_size for path in made), rel=0.03)
    said = dry_run(study.folder, *asked)
    assert "2 networks finished, 0 to make" in said
    assert told(said, pattern) == (0, 0, 0, 0)
    assert "by 1 rank (an estimate" in said


@pytest.mark.parametrize("analyse", [detect, depth])
def test_the_plan_of_an_analysis_is_what_the_run_made(study: Study, analyse: object) -> None:
    asked = analyse("supervised", "--overwrite")
    stored = study.pies / "supervised" / "predictions"
    suffix = "" if analyse is depth else "[0-9]"
    made = sum(path.stat().st_size for path in stored.glob(f"*{suffix}.npz"))
    pattern = "analyse: # networks in # cells, #B; #FLOP"
    said = dry_run(study.folder, *asked)
    n_networks, n_cells, n_bytes, flops = told(said, pattern)
    assert (n_networks, n_cells) == (10, 5)
    assert n_bytes == pytest.approx(made, rel=0.25)  # so few images compress by chance
    passes = 2 * macs(10, 1, 8, 10) * 10 * N_TEST
    if analyse is detect:
        assert flops == pytest.approx(passes, rel=0.01)
    else:
        assert flops > passes * (2 * N_TEST + N_TRAIN) / N_TEST
    again = dry_run(study.folder, *analyse("supervised"))
    assert "predictions of 0 to compute, 2 stored" in again
    assert told(again, pattern)[2:] == (0, 0)


def test_the_plan_of_a_fine_tuning_names_the_networks_to_make_first(study: Study) -> None:
    said = dry_run(study.folder, *finetune("supervised", "--models_number", "3"))
    assert "2 of the 3 networks asked for are there; make the missing ones first: " in said
    assert "python sup_training.py --dataset digits --limit 300 " in said
    assert "global 0.90: 2 networks finished, 1 to make, of ids 0 to 2; " in said


def test_a_plan_refuses_networks_of_another_recipe_like_the_run(study: Study) -> None:
    for flags, told in ((("--batch_size", "16"), "batch_size 32 (not 16)"), (("--overwrite",), "")):
        command = (*train("supervised", *flags), "--dry_run")
        if told:
            assert_refused(study.folder, command, 4, "made by another recipe", told)
        else:
            assert "2 to make" in dry_run(study.folder, *command[:-1])


CONTRASTIVE = {"temperature", "base_temperature", "min_crop_area"}
CONTRASTIVE |= {"head_epochs", "batch_size_head", "head_crop_padding", "head_views"}
OF_PRUNING = {"allocation", "criterion", "pruning_method"}


@pytest.mark.parametrize(
    ("script", "flags", "named", "not_named"),
    [
        ("clr_pruning_finetune.py", (), {"finetune_loss", "allocation"}, CONTRASTIVE),
        ("clr_pruning_finetune.py", ("--finetune_loss", "supcon"), CONTRASTIVE, set()),
        ("clr_training.py", (), CONTRASTIVE | {"nesterov", "cosine_annealing"}, OF_PRUNING),
        ("sup_training.py", PRUNED, OF_PRUNING | {"nesterov"}, {"begin_step"}),
        ("sup_training.py", ("--begin_step", "1", "--end_step", "9"), {"decay"}, {"begin_step"}),
        ("sup_training.py", ("--overwrite",), {"overwrite", "released_quirks"}, {"compile"}),
    ],
)
def test_a_plan_names_the_flags_on_which_the_run_depends(
    tmp_path: Path, script: str, flags: tuple[str, ...], named: set[str], not_named: set[str]
) -> None:
    said = dry_run(tmp_path, script, *DIGITS, "--models_number", "1", *flags)
    shown = said.partition("flags: ")[2].partition(" 1 to make")[0].replace(",", " ")
    words = set(shown.split())
    assert named <= words
    assert words.isdisjoint(not_named)
    assert "1 to make, of id 0; " in said
    assert ("to make: 1 network in " in said) == ("finetune" not in script)


def test_ranks_share_predictions_but_not_statistics(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four cells of 100 images, for each of which the statistics are said to take 9 s."""
    monkeypatch.setattr(costs, "of_statistics", lambda *_: costs.Cost(seconds=9.0))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = dry_run(study.folder, *detect("supervised"))
    assert "about 1.0 h by 2 ranks (an estimate" in said


def macs(depth: int, widen: int, side: int, n_classes: int) -> int:
    """Multiplications of a forward pass of one image, convolution by convolution."""
    total = 3 * 16 * 9 * side**2
    n_in = 16
    for group, width in enumerate((16 * widen, 32 * widen, 64 * widen)):
        at = (side // 2**group) ** 2
        for block in range((depth - 4) // 6):
            n_from = width if block else n_in
            total += (n_from * width * 9 + width * width * 9) * at
            total += 0 if n_from == width else n_from * width * at  # the shortcut
        n_in = width
    return total + n_in * n_classes


def flops_of(learner: str, *flags: str) -> dict[str, float]:
    parser = options.training("", learner)
    args = parser.parse_args(["--dataset", "cifar10", *flags])
    config = training.recipe(args, dense_cell(learner)) | {"dataset": "cifar10"}
    found = costs.of_training(config, Size(50_000, 10_000, 10), torch.device("cpu"))
    return {stage: cost.flops for stage, cost in found.items()}


def test_flops_are_those_of_the_convolutions() -> None:
    """WRN-16-2 on 32x32 images takes 101.1 million multiplications (counted by hand). The backward
    pass takes twice as many, except that no gradient with respect to the image is computed."""
    forward = 2 * macs(16, 2, 32, 10)
    assert forward == pytest.approx(2 * 101.106e6, rel=1e-4)
    step = 3 * forward - 2 * 3 * 16 * 9 * 32**2
    counted = {**flops_of("supervised"), **flops_of("SupCon")}
    # an image is tested in the counted epoch of eight
    assert counted["network"] == pytest.approx(step + forward / costs.COUNTED, rel=1e-3)
    assert counted["encoder"] == pytest.approx(2 * step, rel=2e-3)  # the projection is small
    assert counted["head"] == pytest.approx(forward * (1 + 1 / costs.COUNTED), rel=3e-3)
