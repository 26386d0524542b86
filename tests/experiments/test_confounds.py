"""Each confound of the released study can be broken by a flag, and recipes are never mixed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from running import FINETUNING, STUDY, TRAINING, Study, run_here

from common.learning.pruning import sparsity_by_layer
from common.model import checkpoints, wide_resnet
from common.paths import Cell

CPU = torch.device("cpu")
SUPERVISED = (*STUDY, *TRAINING["supervised"])
FINETUNE = (*STUDY, *FINETUNING[:-2])


def weights(study: Study, cell: Cell, network_id: int = 0) -> dict[str, torch.Tensor]:
    network = checkpoints.load(study.models, cell, network_id, CPU).network
    return {name: w.detach() for name, w in wide_resnet.prunable(network).items()}


def metrics(study: Study, cell: Cell) -> dict[str, float]:
    with (study.pies / "summary.csv").open() as file:
        key = (cell.learner, cell.pruning_method, f"{cell.sparsity:.2f}", "all")
        return {
            line["metric"]: float(line["value"])
            for line in csv.DictReader(file)
            if (line["learner"], line["pruning_method"], line["sparsity"], line["group"]) == key
        }


@pytest.mark.parametrize(
    ("script", "flags", "cell"),
    [
        (
            "sup_training.py",
            (*SUPERVISED, "--pruning_percentages", "0.8"),
            Cell("supervised", "GMP", 0.8),
        ),
        (
            "sup_pruning_finetune.py",
            (*FINETUNE, "--pruning_percentages", "0.8"),
            Cell("supervised", "global", 0.8),
        ),
    ],
)
@pytest.mark.parametrize("allocation", ["global", "uniform"])
def test_allocation_is_free_for_both_schedules(
    study_copy: Study, script: str, flags: tuple[str, ...], cell: Cell, allocation: str
) -> None:
    done = run_here(study_copy.folder, script, *flags, "--allocation", allocation)
    assert done.code == 0, done.stderr
    found = weights(study_copy, cell)
    total = sum(weight.numel() for weight in found.values())
    zeros = sum(int((weight == 0).sum()) for weight in found.values())
    assert abs(zeros - 0.8 * total) <= 1
    by_layer = sparsity_by_layer(found)
    exact = all(abs(by_layer[n] * w.numel() - 0.8 * w.numel()) <= 1 for n, w in found.items())
    assert exact == (allocation == "uniform")


@pytest.mark.parametrize("prefix", ["sup", "clr"])
def test_a_dense_control_is_fine_tuned_without_pruning(study_copy: Study, prefix: str) -> None:
    learner = "supervised" if prefix == "sup" else "SupCon"
    script = f"{prefix}_pruning_finetune.py"
    done = run_here(study_copy.folder, script, *FINETUNE, "--pruning_percentages", "0.0")
    assert done.code == 0, done.stderr
    cell, dense = Cell(learner, "global", 0.0), Cell(learner, "dense", 0.0)
    control, before = weights(study_copy, cell), weights(study_copy, dense)
    assert all((weight != 0).all() for weight in control.values())
    assert any((control[name] != before[name]).any() for name in control)
    done = run_here(study_copy.folder, f"{prefix}_pie_kmodels_detection.py", *STUDY)
    assert done.code == 0, done.stderr
    assert "n_pies" in metrics(study_copy, cell)


def test_supcon_networks_can_be_fine_tuned_contrastively(study_copy: Study) -> None:
    flags = (*FINETUNE, "--pruning_percentages", "0.7", "--finetune_loss", "supcon")
    head = ("--head_epochs", "1", "--batch_size_head", "50")
    done = run_here(study_copy.folder, "clr_pruning_finetune.py", *flags, *head)
    assert done.code == 0, done.stderr
    made = checkpoints.load(study_copy.models, Cell("SupCon", "global", 0.7), 0, CPU)
    assert [record["stage"] for record in made.results["history"]] == ["encoder", "head"]
    zeros = sum(int((w == 0).sum()) for w in wide_resnet.prunable(made.network).values())
    total = sum(w.numel() for w in wide_resnet.prunable(made.network).values())
    assert abs(zeros - 0.7 * total) <= 1
    # Beside the networks of the study, fine-tuned with cross-entropy, it is refused …
    done = run_here(study_copy.folder, "clr_pie_kmodels_detection.py", *STUDY)
    assert done.code == 4
    assert "finetune_loss" in done.stderr
    # … unless asked for.
    done = run_here(study_copy.folder, "clr_pie_kmodels_detection.py", *STUDY, "--allow_mixed")
    assert done.code == 0
    assert "finetune_loss" in done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ("--no-cosine_annealing", "--warmup_epochs", "0"),
        ("--warmup_epochs", "2"),
        ("--temperature", "0.5"),
        ("--base_temperature", "0.5"),
        ("--projection_head", "linear"),
        ("--method", "SimCLR"),
        ("--dropout", "0.2"),
        ("--seed", "1"),
        ("--precision", "bf16"),
    ],
)
def test_every_flag_of_the_recipe_changes_the_network(
    study_copy: Study, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    arguments = (*STUDY, *TRAINING["SupCon"], "--models_number", "1")
    elsewhere = ("--models_dir", str(tmp_path / "m"), "--pies_dir", str(tmp_path / "p"))
    refused = run_here(study_copy.folder, "clr_training.py", *arguments, *flags)
    assert refused.code == 4, refused.stderr
    assert flags[0].removeprefix("--").removeprefix("no-") in refused.stderr
    done = run_here(study_copy.folder, "clr_training.py", *arguments, *flags, *elsewhere)
    assert done.code == 0, done.stderr
    cell = Cell("SupCon", "dense", 0.0)
    other = checkpoints.load(tmp_path / "m" / "digits", cell, 0, CPU).network.state_dict()
    ours = checkpoints.load(study_copy.models, cell, 0, CPU).network.state_dict()
    assert any(not torch.equal(ours[name], other[name]) for name in ours)


def test_networks_of_two_recipes_are_no_population(study_copy: Study) -> None:
    flags = (*SUPERVISED, "--models_number", "1", "--index_start", "2", "--learning_rate", "0.05")
    assert run_here(study_copy.folder, "sup_training.py", *flags).code == 0
    finetune = (*FINETUNING[:-2], "--pruning_percentages", "0.5")
    flags = (*STUDY, *finetune, "--models_number", "1", "--index_start", "2")
    assert run_here(study_copy.folder, "sup_pruning_finetune.py", *flags).code == 0
    three = (*STUDY, "--models_number", "3", "--pruning_methods", "global", "--allow_missing")
    for script in ("sup_pie_kmodels_detection.py", "sup_prediction_depth.py"):
        done = run_here(study_copy.folder, script, *three)
        assert done.code == 4
        assert "learning_rate 0.05" in done.stderr


def test_released_quirks_are_part_of_the_recipe(study_copy: Study) -> None:
    done = run_here(study_copy.folder, "sup_pie_kmodels_detection.py", *STUDY, "--released_quirks")
    assert done.code == 4
    assert "--released_quirks" in done.stderr


def test_dense_against_dense_needs_and_uses_more_networks(study_copy: Study) -> None:
    detect = (*STUDY, "--null_index_start", "2", "--pruning_methods", "GMP")
    done = run_here(study_copy.folder, "sup_pie_kmodels_detection.py", *detect)
    assert done.code == 4
    assert "--index_start 2" in done.stderr
    assert (
        run_here(study_copy.folder, "sup_training.py", *SUPERVISED, "--index_start", "2").code == 0
    )
    done = run_here(study_copy.folder, "sup_pie_kmodels_detection.py", *detect)
    assert done.code == 0, done.stderr
    assert 0 <= metrics(study_copy, Cell("supervised", "dense", 0.0))["n_pies_dense_null"] <= 100


@pytest.mark.parametrize("prefix", ["sup", "clr"])
@pytest.mark.parametrize("dataset", ["cifar10", "digits"])
@pytest.mark.parametrize("kind", ["training", "pruning_finetune"])
def test_a_dry_run_tells_the_recipe_and_makes_nothing(
    tmp_path: Path, prefix: str, dataset: str, kind: str
) -> None:
    flags = ("--dry_run", "--dataset", dataset, "--pruning_percentages", "0.9")
    done = run_here(tmp_path, f"{prefix}_{kind}.py", *flags)
    assert done.code == 0, done.stderr
    assert "epochs of" in done.stdout
    assert "learning rate: epoch 0" in done.stdout
    assert ("0.9000" in done.stdout) == (kind == "training")
    assert list(tmp_path.iterdir()) == []


def test_the_paper_preset_is_the_released_recipe(tmp_path: Path) -> None:
    done = run_here(tmp_path, "sup_training.py", "--dry_run", "--pruning_percentages", "0.9")
    text = " ".join(done.stdout.split())
    assert "205 epochs of 391 steps, 80155 steps of 128 images" in text
    assert "epoch 0: 1, epoch 5: 0.1, epoch 30: 0.01, epoch 50: 0.001, epoch 80: 0.0001" in text
    assert "39 events" in text
    assert "vertical" not in text
    quirky = run_here(tmp_path, "sup_training.py", "--dry_run", "--released_quirks")
    assert "vertical flip 0.5" in " ".join(quirky.stdout.split())
