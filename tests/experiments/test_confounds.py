"""Each confound of the released study can be broken by a flag, and recipes are never mixed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from naive import CPU, Naive, Table
from running import (
    IDS,
    PREFIXES,
    Study,
    assert_refused,
    assert_succeeds,
    contents,
    detect,
    finetune,
    run,
    train,
)

from common.model import checkpoints, wide_resnet
from common.paths import NetworkFiles
from common.report import page_gallery, stored_pies
from common.study import Cell, dense_cell

numbers_only = pytest.mark.usefixtures("numbers_only")


def weights(models: Path, cell: Cell, network_id: int = 0) -> dict[str, torch.Tensor]:
    network = checkpoints.load(NetworkFiles(models, cell, network_id), CPU).network
    return {name: w.detach() for name, w in wide_resnet.prunable(network).items()}


def n_zeros(weights: dict[str, torch.Tensor]) -> tuple[int, int]:
    """How many weights are zero, and how many there are."""
    tensors = weights.values()
    return sum(int((w == 0).sum()) for w in tensors), sum(w.numel() for w in tensors)


def test_allocation_is_free_for_both_schedules(study_copy: Study) -> None:
    """Gradual pruning is uniform and one-shot pruning global, unless asked for."""
    other = ("--pruning_percentages", "0.5", "--models_number", "1", "--allocation")
    study_copy.run(train("supervised", *other, "global"))
    study_copy.run(finetune("supervised", *other, "uniform", "--overwrite"))
    expected = {("GMP", 0.9): True, ("global", 0.9): False}
    expected |= {("GMP", 0.5): False, ("global", 0.5): True}
    for (pruning, sparsity), is_uniform in expected.items():
        found = weights(study_copy.models, Cell("supervised", pruning, sparsity))
        layers = [n_zeros({name: weight}) for name, weight in found.items()]
        zeros, total = np.sum(layers, axis=0)
        assert abs(zeros - sparsity * total) <= 1
        assert all(abs(z - sparsity * n) <= 1 for z, n in layers) == is_uniform


@numbers_only
def test_networks_pruned_at_random_are_analysed_beside_the_others(study_copy: Study) -> None:
    """As many weights of every layer as by magnitude, but other ones."""
    models, random = study_copy.models, ("--criterion", "random", "--pruning_percentages", "0.9")
    before = contents(models)
    pairs = []
    for make, name in ((train, "GMP"), (finetune, "global")):
        study_copy.run(make("supervised", *random))
        pair = (Cell("supervised", name, 0.9), Cell("supervised", f"random_{name}", 0.9))
        for network_id in IDS:
            by_magnitude, by_chance = (weights(models, cell, network_id) for cell in pair)
            for layer, weight in by_magnitude.items():
                kept, kept_by_chance = weight != 0, by_chance[layer] != 0
                assert kept.sum() == kept_by_chance.sum()
            assert any((by_magnitude[n] != 0).ne(w != 0).any() for n, w in by_chance.items())
        pairs.append(pair)
    made = {name for name in contents(models) - before if name.endswith(".pt")}
    assert made == {
        f"supervised_random_{name}_s0.90_id0{i}.pt" for name in ("GMP", "global") for i in IDS
    }
    # Pruned at random again, they are the same: the choice is by seed, and finished.
    assert "2 networks finished, 0 to make" in study_copy.run(train("supervised", *random)).stdout
    of_both = ("--pruning_methods", "GMP,random_GMP,global,random_global")
    printed = study_copy.run(detect("supervised", *of_both)).stdout
    table, naive = Table(study_copy.pies), Naive(models)
    for _, by_chance in pairs:
        assert f"supervised  {by_chance.pruning_method}" in printed
        assert table.value(by_chance, "n_pies") == len(naive.pies(by_chance))
    assert table.cells("supervised") == {
        *("dense", "GMP", "later_GMP", "global", "random_GMP", "random_global"),
    }
    cells = page_gallery.lay_out(stored_pies.pies_by_cell(study_copy.pies)).data["cells"]
    for pruning in ("GMP", "random_GMP", "random_global"):
        assert ["supervised", pruning, "0.90", 2] in cells


@numbers_only
@pytest.mark.parametrize("learner", PREFIXES)
def test_a_dense_control_is_fine_tuned_without_pruning(study_copy: Study, learner: str) -> None:
    study_copy.run(finetune(learner, "--pruning_percentages", "0.0"))
    cell = Cell(learner, "global", 0.0)
    control, before = (weights(study_copy.models, of) for of in (cell, cell.dense))
    assert all((weight != 0).all() for weight in control.values())
    assert any((control[name] != before[name]).any() for name in control)
    study_copy.run(detect(learner, "--pruning_methods", "global"))
    n_pies = len(Naive(study_copy.models).pies(cell))
    assert Table(study_copy.pies).value(cell, "n_pies") == n_pies


@numbers_only
def test_supcon_networks_can_be_fine_tuned_contrastively(study_copy: Study) -> None:
    contrastive = ("--finetune_loss", "supcon", "--head_epochs", "1", "--batch_size_head", "50")
    study_copy.run(finetune("SupCon", "--pruning_percentages", "0.7", *contrastive))
    cell = Cell("SupCon", "global", 0.7)
    made = checkpoints.load(NetworkFiles(study_copy.models, cell, 0), CPU)
    assert [record["stage"] for record in made.results["history"]] == ["encoder", "head"]
    zeros, total = n_zeros(wide_resnet.prunable(made.network))
    assert abs(zeros - 0.7 * total) <= 1
    # Beside the networks of the study, fine-tuned with cross-entropy, it is refused …
    assert_refused(study_copy.folder, detect("SupCon"), 4, "finetune_loss")
    # … unless asked for.
    done = run(study_copy.folder, *detect("SupCon", "--allow_mixed"))
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
    ids=lambda flags: flags[0],
)
def test_every_flag_of_the_recipe_changes_the_network(
    study_copy: Study, flags: tuple[str, ...]
) -> None:
    command = train("SupCon", "--models_number", "1", *flags)
    name = flags[0].removeprefix("--").removeprefix("no-")
    assert_refused(study_copy.folder, command, 4, name, "--overwrite")
    study_copy.run((*command, "--models_dir", "m", "--pies_dir", "p"))
    others = study_copy.folder / "m" / "digits"
    ours, other = (
        checkpoints.load(NetworkFiles(models, dense_cell("SupCon"), 0), CPU).network.state_dict()
        for models in (study_copy.models, others)
    )
    assert any(not torch.equal(ours[name], other[name]) for name in ours)


@pytest.mark.slow
def test_the_digits_preset_learns_digits(tmp_path: Path) -> None:
    flags = ("--cuda_device", "-1", "--dataset", "digits", "--models_number", "1")
    assert_succeeds(tmp_path, ("sup_training.py", *flags))
    models = tmp_path / "models" / "digits"
    network = checkpoints.load(NetworkFiles(models, dense_cell("supervised"), 0), CPU)
    assert network.results["n_test"] == 500
    assert network.results["test_accuracy"] >= 0.95
