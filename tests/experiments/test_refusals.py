"""What cannot be done ends with one line that says why, the right exit code, and nothing lost."""

from __future__ import annotations

import csv
import os
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from running import FINETUNING, SCRIPTS, STUDY, TRAINING, Result, Study, contents, run, run_here

from common.model import checkpoints

TRAIN = ("sup_training.py", *STUDY, *TRAINING["supervised"])
DETECT = ("sup_pie_kmodels_detection.py", *STUDY)


def refused(done: Result, code: int, *named: str) -> None:
    """It ended with this code and one line that names all this."""
    assert done.code == code, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for words in named:
        assert words in done.stderr


def flags_of(script: str) -> tuple[str, ...]:
    """The flags with which this script runs in the small study."""
    learner = "SupCon" if script.startswith("clr") else "supervised"
    if "training" in script:
        return (*STUDY, *TRAINING[learner])
    return (*STUDY, *FINETUNING) if "finetune" in script else (*STUDY, "--knn", "5")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


# Values that are wrong only for these data


@pytest.mark.parametrize(
    ("script", "flag", "value", "limit"),
    [
        ("sup_training.py", "--batch_size", "301", "300"),
        ("clr_training.py", "--batch_size", "301", "300"),
        ("clr_training.py", "--batch_size_head", "301", "300"),
        ("sup_pruning_finetune.py", "--batch_size", "301", "300"),
        ("clr_pruning_finetune.py", "--batch_size", "301", "300"),
        ("sup_prediction_depth.py", "--knn", "301", "300"),
        ("clr_prediction_depth.py", "--knn", "301", "300"),
        ("sup_training.py", "--end_step", "20", "20"),
    ],
)
def test_a_value_too_large_for_the_data_creates_nothing(
    script: str, flag: str, value: str, limit: str, tmp_path: Path
) -> None:
    flags = [*flags_of(script), flag, value]
    if flag == "--end_step":
        flags += ["--begin_step", "0", "--pruning_percentages", "0.9"]
    done = run_here(tmp_path, script, *flags)
    refused(done, 2, flag, value, limit)
    assert contents(tmp_path) == set()


def test_the_largest_batch_is_all_of_the_data(tmp_path: Path) -> None:
    flags = ("--models_number", "1", "--epochs", "1", "--batch_size", "300")
    assert run_here(tmp_path, *TRAIN, *flags).code == 0


def test_a_map_of_a_network_that_is_not_there_is_refused(study_copy: Study) -> None:
    done = run_here(study_copy.folder, *DETECT, "--plot_umap", "--umap_id", "7")
    refused(done, 2, "--umap_id", "7")


def test_too_few_images_for_the_classes(tmp_path: Path) -> None:
    done = run_here(tmp_path, *TRAIN, "--limit", "9")
    refused(done, 3, "--limit", "9", "10 classes")


def test_steps_are_compiled_only_where_there_is_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    done = run(tmp_path, *TRAIN, "--compile")
    refused(done, 2, "--compile", "no-such-compiler", "leave it out")
    assert not (tmp_path / "models").exists()


# Networks that are missing, or are others than asked for


@pytest.mark.parametrize("script", [script for script in SCRIPTS if "training" not in script])
def test_without_dense_networks_the_script_that_makes_them_is_named(
    script: str, tmp_path: Path
) -> None:
    done = run_here(tmp_path, script, *flags_of(script))
    refused(done, 4, f"{script[:3]}_training.py", "--dataset digits")


@pytest.mark.parametrize("script", [script for script in SCRIPTS if "training" not in script])
def test_ids_that_nobody_trained(script: str, study_copy: Study) -> None:
    done = run_here(study_copy.folder, script, *flags_of(script), "--index_start", "5")
    refused(done, 4, "5 to 6", f"{script[:3]}_training.py")


@pytest.mark.parametrize(
    ("script", "flags", "named"),
    [
        ("sup_training.py", ("--epochs", "3"), "epochs 2 (not 3)"),
        ("sup_training.py", ("--seed", "1"), "seed 0 (not 1)"),
        ("sup_training.py", ("--limit", "200"), "limit 300 (not 200)"),
        ("sup_training.py", ("--dropout", "0.5"), "dropout 0.0 (not 0.5)"),
        ("sup_training.py", ("--model_depth", "16"), "model_depth 10 (not 16)"),
        ("clr_training.py", ("--temperature", "0.7"), "temperature 0.1 (not 0.7)"),
        ("clr_training.py", ("--method", "SimCLR"), "method SupCon (not SimCLR)"),
        ("sup_pruning_finetune.py", ("--epochs", "4"), "epochs 1 (not 4)"),
        ("sup_pruning_finetune.py", ("--allocation", "uniform"), "allocation global (not uniform)"),
        ("clr_pruning_finetune.py", ("--learning_rate", "0.5"), "learning_rate 0.01 (not 0.5)"),
    ],
)
def test_networks_of_another_recipe_are_kept_and_the_difference_is_named(
    script: str, flags: tuple[str, ...], named: str, study_copy: Study
) -> None:
    before = files(study_copy.models)
    done = run_here(study_copy.folder, script, *flags_of(script), *flags)
    refused(done, 4, named, "--overwrite", ".pt")
    assert files(study_copy.models) == before


def test_a_schedule_is_part_of_the_recipe_of_pruned_networks_only(study_copy: Study) -> None:
    steps = ("--begin_step", "1", "--end_step", "9")
    assert run_here(study_copy.folder, *TRAIN, *steps).code == 0
    done = run_here(study_copy.folder, *TRAIN, *steps, "--pruning_percentages", "0.9")
    refused(done, 4, "begin_step None (not 1)", "end_step None (not 9)")


def test_the_refusal_comes_before_any_training(study_copy: Study) -> None:
    """Sparsity 0.5 is missing, 0.9 is there with another recipe: nothing is trained first."""
    before = files(study_copy.models)
    done = run_here(
        study_copy.folder, *TRAIN, "--epochs", "3", "--pruning_percentages", "0.5,0.9"
    )  # fmt: skip
    refused(done, 4, "epochs 2 (not 3)")
    assert files(study_copy.models) == before


@pytest.mark.parametrize("script", ["sup_pie_kmodels_detection.py", "clr_prediction_depth.py"])
@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--limit", "200"), "--limit 300"),
        (("--model_depth", "16"), "model_depth is 10, not 16"),
        (("--widen_factor", "4"), "widen_factor is 1, not 4"),
        (("--released_quirks",), "--released_quirks"),
    ],
)
def test_an_analysis_refuses_networks_that_do_not_fit_its_flags(
    script: str, flags: tuple[str, ...], named: str, study_copy: Study
) -> None:
    before = files(study_copy.pies)
    done = run_here(study_copy.folder, script, *flags_of(script), *flags)
    refused(done, 4, named, ".pt")
    assert files(study_copy.pies) == before


def test_a_population_of_two_recipes_is_refused_unless_it_is_wanted(tmp_path: Path) -> None:
    one = ("--models_number", "1")
    assert run_here(tmp_path, *TRAIN, *one).code == 0
    assert run_here(tmp_path, *TRAIN, *one, "--index_start", "1", "--epochs", "1").code == 0
    refused(run_here(tmp_path, *DETECT), 4, "epochs 1 (not 2)", "_id01.pt", "--allow_mixed")
    allowed = run_here(tmp_path, *DETECT, "--allow_mixed")
    assert allowed.code == 0
    assert "epochs 1 (not 2)" in allowed.stderr


def test_pruned_networks_of_another_recipe_than_the_dense_ones_are_refused(
    study_copy: Study,
) -> None:
    """Else a difference of recipes would be taken for an effect of pruning."""
    other = ("--epochs", "3", "--pruning_percentages", "0.9", "--overwrite")
    assert run_here(study_copy.folder, *TRAIN, *other).code == 0
    refused(run_here(study_copy.folder, *DETECT), 4, "epochs 3 (not 2)", "GMP_s0.90")


# Files that are damaged, or are not what their names say

NETWORK = "supervised_dense_s0.00_id01.pt"


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "empty":
        data = bytearray()
    elif how == "cut in half":
        data = data[: len(data) // 2]
    elif how == "last byte gone":
        data = data[:-1]
    elif how == "one bit":  # in the middle of the weights, where nobody else looks
        data[len(data) // 2] ^= 1
    elif how == "zeros":
        data = bytearray(len(data))
    elif how == "noise":
        data = bytearray(np.random.default_rng(0).bytes(len(data)))
    elif how == "text":
        data = bytearray(b"not a network\n")
    path.write_bytes(data)


DAMAGES = ("empty", "cut in half", "last byte gone", "one bit", "zeros", "noise", "text")


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("script", ["sup_pie_kmodels_detection.py", "sup_prediction_depth.py"])
def test_a_damaged_network_is_named_and_kept(how: str, script: str, study_copy: Study) -> None:
    path = study_copy.models / NETWORK
    damage(path, how)
    before = files(study_copy.folder)
    done = run_here(study_copy.folder, script, *flags_of(script))
    refused(done, 4, NETWORK)
    assert files(study_copy.folder) == before


@pytest.mark.parametrize("part", ["encoder", "head"])
def test_a_damaged_part_of_a_supcon_network_is_named(part: str, study_copy: Study) -> None:
    name = f"SupCon_dense_s0.00_id00_{part}.pt"
    damage(study_copy.models / name, "one bit")
    script = "clr_pie_kmodels_detection.py"
    refused(run_here(study_copy.folder, script, *flags_of(script)), 4, name)


def test_a_damaged_network_can_be_overwritten(study_copy: Study) -> None:
    path = study_copy.models / NETWORK
    before = torch.load(path, weights_only=True)["model"]
    damage(path, "one bit")
    assert run_here(study_copy.folder, *TRAIN, "--overwrite").code == 0
    after = torch.load(path, weights_only=True)["model"]
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("copied", "named"),
    [
        ("supervised_dense_s0.00_id00.pt", "network_id"),
        ("supervised_GMP_s0.90_id01.pt", "pruning_method"),
    ],
)
def test_a_network_under_another_name_is_refused(
    copied: str, named: str, study_copy: Study
) -> None:
    shutil.copy(study_copy.models / copied, study_copy.models / NETWORK)
    refused(run_here(study_copy.folder, *DETECT), 4, NETWORK, named)


def test_a_head_of_another_encoder_is_refused(study_copy: Study) -> None:
    """Both files verify, but they are not one network."""
    script = "clr_training.py"
    flags = ("--seed", "1", "--models_dir", "others", "--models_number", "1")
    assert run_here(study_copy.folder, script, *flags_of(script), *flags).code == 0
    name = "SupCon_dense_s0.00_id00_encoder.pt"
    shutil.copy(study_copy.folder / "others" / "digits" / name, study_copy.models / name)
    script = "clr_pie_kmodels_detection.py"
    refused(run_here(study_copy.folder, script, *flags_of(script)), 4, "SupCon_dense_s0.00_id00")


class Canary:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_hostile_network_is_refused_and_runs_nothing(
    how: str, study_copy: Study, tmp_path: Path
) -> None:
    canary = Canary(tmp_path / "canary")
    path = study_copy.models / NETWORK
    if how == "torch":
        torch.save({"model": canary}, path)
    else:
        path.write_bytes(pickle.dumps(canary))
    refused(run_here(study_copy.folder, *DETECT), 4, NETWORK)
    assert not (tmp_path / "canary").exists()


def test_weights_that_do_not_fit_are_refused_in_one_line(study_copy: Study) -> None:
    """torch lists every key on a line of its own."""
    path = study_copy.models / NETWORK
    stored = checkpoints.read(path)
    del stored["digest"]
    stored["model"]["conv1.weight"] = torch.zeros(1, 3, 3, 3)
    stored["model"]["nobody.knows"] = torch.zeros(1)
    checkpoints.write(path, stored)
    flags = ("--overwrite", "--pruning_methods", "GMP")  # none that were made from this network
    refused(run_here(study_copy.folder, *DETECT, *flags), 4, NETWORK)


@pytest.mark.parametrize("script", [TRAIN, DETECT])
def test_a_damaged_summary_is_named_and_kept(script: tuple[str, ...], study_copy: Study) -> None:
    path = study_copy.pies / "summary.csv"
    torn = path.read_bytes()[:-20]
    path.write_bytes(torn)
    done = run_here(study_copy.folder, *script)
    refused(done, done.code, "summary.csv")
    assert done.code in (4, 7)
    assert path.read_bytes() == torn


# Data


def pictures(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), n: int = 8) -> Path:
    """A data set of small noisy images, brighter by class."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for c, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 120, size=(10, 12, 3)) + 120 * (c % 2)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i}.png")
    return folder


SMALL = (
    *("--preset", "digits", "--cuda_device", "-1", "--models_number", "2", "--epochs", "1"),
    *("--batch_size", "8"),
)


def test_a_folder_of_images_is_a_data_set(tmp_path: Path) -> None:
    """From training to PIEs; class names may hold what a table could stumble over."""
    pictures(tmp_path / "My pets", ("cat", 'dog, "big"', "Vögel"))
    dataset = ("--dataset", "My pets", "--cuda_device", "-1", "--models_number", "2")
    train = run_here(tmp_path, "sup_training.py", *SMALL, "--dataset", "My pets")
    assert (train.code, train.stderr) == (0, "")
    flags = ("--preset", "digits", "--epochs", "1", "--batch_size", "8")
    done = run_here(
        tmp_path, "sup_pruning_finetune.py", *dataset, *flags, "--pruning_percentages", "0.9"
    )
    assert (done.code, done.stderr) == (0, "")
    done = run_here(tmp_path, "sup_pie_kmodels_detection.py", *dataset)
    assert (done.code, done.stderr) == (0, "")
    with (tmp_path / "pies" / "My pets" / "summary.csv").open(newline="") as file:
        groups = {line["group"] for line in csv.DictReader(file) if line["metric"] == "top1"}
    assert {"all", "cat", 'dog, "big"', "Vögel"} <= groups
    table = tmp_path / "pies/My pets/supervised/pies_distribution/pies_global_s0.90.csv"
    with table.open(newline="") as file:
        labels = [line["label"] for line in csv.DictReader(file)]
    assert labels == sorted(["cat", 'dog, "big"', "Vögel"] * 8)


@pytest.mark.parametrize("name", ["all", "pie", "non_pie"])
def test_a_class_may_not_be_taken_for_a_group(name: str, tmp_path: Path) -> None:
    """`all`, `pie` and `non_pie` are groups of the table: a class of that name is refused, or its
    numbers do not stand where those of the group belong."""
    pictures(tmp_path / "pets", (name, "zebra"), n=10)
    dataset = ("--dataset", "pets", "--test_limit", "20")
    done = run_here(tmp_path, "sup_training.py", *SMALL, *dataset)
    if done.code:
        refused(done, 3, name)
        return
    prune = ("--pruning_percentages", "0.9")
    assert run_here(tmp_path, "sup_pruning_finetune.py", *SMALL, *dataset, *prune).code == 0
    flags = ("--cuda_device", "-1", "--models_number", "2")
    assert run_here(tmp_path, "sup_pie_kmodels_detection.py", *flags, *dataset).code == 0
    with (tmp_path / "pies" / "pets" / "summary.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    counts = Counter(tuple(line.values())[:5] for line in lines)
    assert max(counts.values()) == 1
    for pruning in ("dense", "global"):
        (of_all,) = [
            line
            for line in lines
            if (line["pruning_method"], line["metric"], line["group"]) == (pruning, "top1", "all")
        ]
        assert of_all["n_examples"] == "20"


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pets")
    (folder / "train" / "dog" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    done = run_here(tmp_path, "sup_training.py", *SMALL, "--dataset", "pets")
    refused(done, 3, "pets/train/dog/3.png")
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("no train", "train"),
        ("no test", "test"),
        ("one class", "train"),
        ("empty class", "dog"),
        ("unknown class", "mouse"),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--dry_run",)])
def test_a_folder_that_is_no_data_set(
    change: str, named: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "pets")
    if change in ("no train", "no test"):
        shutil.rmtree(folder / change.removeprefix("no "))
    elif change == "one class":
        shutil.rmtree(folder / "train" / "cat")
        shutil.rmtree(folder / "test" / "cat")
    elif change == "empty class":
        shutil.rmtree(folder / "train" / "dog")
        (folder / "train" / "dog").mkdir()
    else:
        (folder / "test" / "mouse").mkdir()
    done = run_here(tmp_path, "sup_training.py", *SMALL, "--dataset", "pets", *flags)
    if flags and change != "no train":
        return  # a dry run does not look further than the names of the training images
    refused(done, 3, f"pets/{named}" if change.startswith("no") else named)


# What stops while it works


def test_a_loss_that_is_not_finite_stores_no_network(tmp_path: Path) -> None:
    done = run_here(tmp_path, *TRAIN, "--learning_rate", "1e30")
    refused(done, 5, "epoch 0", "step ", "--learning_rate")
    assert not list(tmp_path.rglob("*.pt"))


def test_a_loss_that_is_not_finite_keeps_what_was_there(study_copy: Study) -> None:
    before = files(study_copy.models)
    done = run_here(study_copy.folder, *TRAIN, "--learning_rate", "1e30", "--overwrite")
    refused(done, 5, "not finite")
    assert files(study_copy.models) == before


@pytest.mark.parametrize("flag", ["--models_dir", "--pies_dir"])
@pytest.mark.parametrize("script", ["sup_training.py", "clr_training.py"])
def test_a_training_refuses_a_folder_below_a_file(script: str, flag: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = run_here(tmp_path, script, *flags_of(script), flag, "file/below")
    refused(done, 7, "file/below")
    assert (tmp_path / "file").read_text() == "mine"
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize("script", [script for script in SCRIPTS if "training" not in script])
def test_results_cannot_be_written_below_a_file(script: str, study_copy: Study) -> None:
    """Known before any work is done, even if all of it is to be done again."""
    (study_copy.folder / "file").write_text("mine")
    before = files(study_copy.folder)
    flags = ("--pies_dir", "file/below", "--overwrite")
    refused(run_here(study_copy.folder, script, *flags_of(script), *flags), 7, "file/below")
    assert files(study_copy.folder) == before


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "digits").write_text("mine")
    refused(run_here(tmp_path, *TRAIN), 7, "models/digits")


@pytest.mark.parametrize("flag", ["--models_dir", "--pies_dir"])
def test_a_folder_that_may_only_be_read(flag: str, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write anywhere")
    refused(run_here(tmp_path, *TRAIN, flag, "mine"), 7, "mine")


# Only asking


@pytest.mark.parametrize(
    ("script", "flags", "shown"),
    [
        ("sup_training.py", (), ("15 epochs of 21 steps, 315 steps of 64 images",)),
        ("sup_training.py", ("--limit", "300"), ("300 training images", "15 epochs of 5 steps")),
        (
            "clr_training.py",
            (),
            ("15 epochs of 11 steps", "128 images x 2 views", "20 epochs of 11 steps"),
        ),
        ("sup_training.py", ("--pruning_percentages", "0.9"), ("0.9000", "GMP 0.90")),
        ("sup_pruning_finetune.py", (), ("5 epochs of 21 steps", "Nesterov", "global 0.97")),
        ("clr_pruning_finetune.py", ("--finetune_loss", "supcon"), ("x 2 views", "stage head")),
    ],
)
def test_a_dry_run_shows_the_recipe_and_makes_nothing(
    script: str, flags: tuple[str, ...], shown: tuple[str, ...], tmp_path: Path
) -> None:
    done = run_here(tmp_path, script, "--dataset", "digits", "--dry_run", *flags)
    assert (done.code, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())  # however it is wrapped
    for words in shown:
        assert words in text
    assert contents(tmp_path) == set()


def test_a_dry_run_of_the_paper_needs_no_data(tmp_path: Path) -> None:
    """The released steps: 80,155 of supervised training, pruned from step 1,002 to 20,039."""
    done = run_here(tmp_path, "sup_training.py", "--dry_run", "--pruning_percentages", "0.9")
    text = " ".join(done.stdout.split())
    assert "205 epochs of 391 steps, 80155 steps of 128 images" in text
    assert "39 events" in text
    assert "step 1002: " in text
    for epoch, rate in ((0, "1"), (5, "0.1"), (30, "0.01"), (50, "0.001"), (80, "0.0001")):
        assert f"epoch {epoch}: {rate}," in text or f"epoch {epoch}: {rate} " in text
    assert contents(tmp_path) == set()
