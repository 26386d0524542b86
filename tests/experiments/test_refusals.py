"""Whatever cannot be done ends with one line that says why, the right exit code, and nothing lost.

Wrong values of flags are in test_options.py, damaged files and disks in faults/.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from naive import Table
from PIL import Image
from running import (
    SCRIPTS,
    Command,
    Study,
    assert_refused,
    assert_succeeds,
    command,
    depth,
    detect,
    finetune,
    run,
    run_process,
    train,
)

from common import options

ANALYSES = [script for script in SCRIPTS if not script.endswith("training.py")]
NEW = ("--pruning_percentages", "0.8")  # a cell that is not in the study
# Values that are wrong only for these data


@pytest.mark.parametrize(
    ("tried", "words"),
    [
        (train("SupCon", *NEW, "--batch_size", "301"), ("--batch_size: 301", "300")),
        (finetune("supervised", *NEW, "--batch_size", "301"), ("--batch_size: 301", "300")),
        (finetune("SupCon", *NEW, "--batch_size", "301"), ("--batch_size: 301", "300")),
        (train("SupCon", *NEW, "--batch_size_head", "301"), ("--batch_size_head: 301", "300")),
        (depth("SupCon", "--knn", "301"), ("--knn: 301", "300")),
        (detect("supervised", "--plot_umap", "--umap_id", "7"), ("--umap_id: 7", "[0, 1]")),
        (
            train("supervised", *NEW, "--begin_step", "0", "--end_step", "20"),
            ("--end_step", "step 0 to 20", "20 steps"),
        ),
    ],
    ids=lambda tried: tried[0],
)
def test_a_value_too_large_for_the_data(
    tried: Command, words: tuple[str, ...], study: Study
) -> None:
    assert_refused(study.folder, tried, 2, *words)


def test_the_largest_batch_is_all_of_the_data(tmp_path: Path) -> None:
    flags = ("--models_number", "1", "--epochs", "1", "--batch_size", "300")
    assert_succeeds(tmp_path, train("supervised", *flags))


@pytest.mark.slow
def test_steps_are_compiled_only_where_there_is_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert_refused(
        tmp_path, train("supervised", "--compile"), 2, "--compile", "no-such-compiler",
        "leave it out", runner=run_process, may_change="cache/*",
    )  # fmt: skip


# Networks that are missing, or are others than asked for


@pytest.mark.parametrize("script", ANALYSES)
def test_the_script_that_makes_missing_networks_is_named(
    script: str, study: Study, tmp_path: Path
) -> None:
    maker = f"{script[:3]}_training.py"
    assert_refused(tmp_path, command(script), 4, maker, "--dataset digits")
    assert_refused(study.folder, command(script, "--index_start", "5"), 4, maker, "5 to 6")


def test_missing_dense_networks_are_named_before_any_is_fine_tuned(study: Study) -> None:
    """Nothing is made of the networks that are there; only flags of this script are offered."""
    assert_refused(
        study.folder, finetune("supervised", *NEW, "--models_number", "9"), 4,
        "2 of the 9 networks asked for are there, not ids 2, 3, 4, 5, 6, …; make them with: ",
        "python sup_training.py --dataset digits --limit 300 ", "--models_number 9; or ask for ",
        "fewer networks (--models_number, --index_start), or give --allow_missing\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (("--index_start", "5"), "--index_start 5 --models_number 2\n"),
        (("--models_number", "3"), "--models_number 3; or"),
        (
            ("--pruning_methods", "random_later_GMP", "--pruning_percentages", "0.8"),
            "--models_number 2 --pruning_method later_GMP --pruning_percentages 0.80 "
            "--criterion random; or",
        ),
        (
            ("--preset", "paper", "--models_dir", "my models"),
            "--models_dir 'my models' --preset paper",
        ),
        (("--replicate_index_start", "4"), "--index_start 4 --models_number 2\n"),
    ],
)
def test_the_command_that_makes_them_has_the_flags_that_matter(
    flags: Command, hint: str, study: Study
) -> None:
    told = assert_refused(
        study.folder, detect("supervised", *flags), 4, "python sup_training.py ", hint
    )
    script, *given = shlex.split(told.stderr.partition("python ")[2].partition(";")[0])
    args = options.training("", "supervised").parse_args(given)
    assert (script, args.dataset, args.limit) == ("sup_training.py", "digits", 300)


@pytest.mark.parametrize(
    ("tried", "difference"),
    [
        (train("supervised", "--epochs", "3"), "epochs 2 (not 3)"),
        (train("supervised", "--seed", "1"), "seed 0 (not 1)"),
        (train("supervised", "--limit", "200"), "limit 300 (not 200)"),
        (train("supervised", "--dropout", "0.5"), "dropout 0.0 (not 0.5)"),
        (train("supervised", "--model_depth", "16"), "model_depth 10 (not 16)"),
        (train("SupCon", "--temperature", "0.7"), "temperature 0.1 (not 0.7)"),
        (train("SupCon", "--method", "SimCLR"), "method SupCon (not SimCLR)"),
        (finetune("supervised", "--epochs", "4"), "epochs 1 (not 4)"),
        (finetune("supervised", "--allocation", "uniform"), "allocation global (not uniform)"),
        (finetune("SupCon", "--learning_rate", "0.5"), "learning_rate 0.01 (not 0.5)"),
        # 0.5 is missing, 0.9 is there with another recipe: nothing is trained first
        (
            train("supervised", "--epochs", "3", "--pruning_percentages", "0.5,0.9"),
            "epochs 2 (not 3)",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_networks_of_another_recipe_are_kept_and_the_difference_is_named(
    tried: Command, difference: str, study: Study
) -> None:
    assert_refused(study.folder, tried, 4, difference, "--overwrite", ".pt")


def test_a_schedule_is_part_of_the_recipe_of_pruned_networks_only(study_copy: Study) -> None:
    steps = train("supervised", "--begin_step", "1", "--end_step", "9")
    study_copy.run(steps)
    pruned = (*steps, "--pruning_percentages", "0.9")
    assert_refused(study_copy.folder, pruned, 4, "begin_step None (not 1)", "end_step None (not 9)")


@pytest.mark.parametrize("analyse", [detect("supervised"), depth("SupCon")], ids=lambda c: c[0])
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--limit", "200"),
            "it learned from other training images: it was trained with --limit 300, this command "
            "has --limit 200; give --limit 300\n",
        ),
        (("--model_depth", "16"), "model_depth is 10, not 16"),
        (("--widen_factor", "4"), "widen_factor is 1, not 4"),
        (("--released_quirks",), "--released_quirks"),
    ],
)
def test_an_analysis_refuses_networks_that_do_not_fit_its_flags(
    analyse: Command, flags: tuple[str, ...], words: str, study: Study
) -> None:
    assert_refused(study.folder, (*analyse, *flags), 4, words, ".pt")


@pytest.mark.parametrize("made", [None, 12])
@pytest.mark.parametrize("asked", [None, 12])
def test_an_analysis_says_in_words_why_networks_learned_from_other_images(
    made: int | None, asked: int | None, tmp_path: Path
) -> None:
    """They had another --limit, or the images have changed since."""
    folder = pictures(tmp_path / "My pets")
    limit, asked_limit = (("--limit", str(n)) if n else () for n in (made, asked))
    assert_succeeds(tmp_path, of_pictures("sup_training.py", *SMALL, *limit))
    if made == asked:
        shutil.copy(folder / "train" / "cat" / "1.png", folder / "train" / "cat" / "0.png")
    remedy = {
        (None, None): "not the same any more; give --dataset and --data_dir of its images",
        (12, 12): "not the same any more; give --dataset and --data_dir of its images",
        (None, 12): "trained without --limit, this command has --limit 12; leave out --limit\n",
        (12, None): "trained with --limit 12, this command has no --limit; give --limit 12\n",
    }[made, asked]
    tried = of_pictures("sup_prediction_depth.py", "--knn", "5", *asked_limit)
    told = assert_refused(tmp_path, tried, 4, "_id00.pt: it learned from other training images")
    assert remedy in told.stderr
    assert "None" not in told.stderr


@pytest.mark.usefixtures("numbers_only")
def test_a_population_of_two_recipes_is_refused_unless_it_is_wanted(study_copy: Study) -> None:
    more = ("--models_number", "1", "--index_start", "2")
    study_copy.run(train("supervised", *more, "--epochs", "1"))
    study_copy.run(finetune("supervised", *more))
    three = ("--models_number", "3", "--pruning_methods", "global")
    for analyse in (depth, detect):
        tried = analyse("supervised", *three)
        assert_refused(study_copy.folder, tried, 4, "epochs 1 (not 2)", "_id02.pt", "--allow_mixed")
    allowed = run(study_copy.folder, *tried, "--allow_mixed")
    assert allowed.code == 0
    assert "epochs 1 (not 2)" in allowed.stderr


def test_pruned_networks_of_another_recipe_than_the_dense_ones_are_refused(
    study_copy: Study,
) -> None:
    """Otherwise a difference between recipes would be taken for an effect of pruning."""
    other = ("--epochs", "3", "--pruning_percentages", "0.9", "--overwrite")
    study_copy.run(train("supervised", *other))
    assert_refused(study_copy.folder, detect("supervised"), 4, "epochs 3 (not 2)", "GMP_s0.90")


# Files that are damaged, or are not what their names say


@pytest.mark.usefixtures("numbers_only")
def test_a_damaged_table_is_made_again_from_its_rows_and_damaged_rows_are_named(
    study_copy: Study,
) -> None:
    summary = study_copy.pies / "summary.csv"
    whole = summary.read_bytes()
    summary.write_bytes(whole[:-20])
    study_copy.run(detect("supervised"))
    assert summary.read_bytes() == whole
    rows = study_copy.pies / "rows" / "prediction_depth.SupCon_dense_s0.00.csv"
    rows.write_bytes(rows.read_bytes()[:-20])
    assert_refused(study_copy.folder, train("supervised"), 7, rows.name)
    assert_refused(study_copy.folder, detect("supervised"), 7, rows.name)


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


def of_pictures(script: str, *flags: str) -> Command:
    shared = ("--dataset", "My pets", "--cuda_device", "-1", "--models_number", "2")
    return (script, *shared, "--image_size", "16", *flags)


SMALL = ("--preset", "digits", "--epochs", "1", "--batch_size", "8")


@pytest.mark.usefixtures("numbers_only")
def test_a_folder_of_images_is_a_data_set_of_any_size(tmp_path: Path) -> None:
    """From training to PIEs; class names may hold what a table could stumble over."""
    classes = ["Vögel", "cat", 'dog, "big"']
    pictures(tmp_path / "My pets", tuple(classes))
    assert_succeeds(tmp_path, of_pictures("sup_training.py", *SMALL))
    pruned = ("--pruning_percentages", "0.9")
    assert_succeeds(tmp_path, of_pictures("sup_pruning_finetune.py", *SMALL, *pruned))
    assert_succeeds(tmp_path, of_pictures("sup_pie_kmodels_detection.py"))
    models, pies = (tmp_path / kind / "My pets" for kind in ("models", "pies"))
    for path in models.glob("*.pt"):
        assert torch.load(path, weights_only=True)["config"]["image_size"] == 16
    assert {group for *_, metric, group in Table(pies).lines if metric == "top1"} >= {
        "all", *classes,
    }  # fmt: skip
    with np.load(next(pies.glob("*/pies_distribution/PIEs_distribution*.npz"))) as stored:
        assert stored["pie_images"].shape[1:] == (3, 16, 16)
        assert stored["classes"][stored["label"]].tolist() == sorted(classes * 8)
    other = ("--image_size", "24")
    for script in ("sup_pie_kmodels_detection.py", "sup_prediction_depth.py"):
        tried = of_pictures(script, "--knn", "5", *other)
        assert_refused(tmp_path, tried, 4, "image_size is 16, not 24", "--image_size")
    tried = of_pictures("sup_training.py", *SMALL, *other)
    assert_refused(tmp_path, tried, 4, "image_size 16 (not 24)")


@pytest.mark.parametrize("flags", [(), ("--dry_run",)])
def test_a_folder_that_is_no_data_set(flags: tuple[str, ...], tmp_path: Path) -> None:
    shutil.rmtree(pictures(tmp_path / "My pets") / "train")
    assert_refused(tmp_path, of_pictures("sup_training.py", *SMALL, *flags), 3, "My pets/train")


# What stops while it works, or could not keep its results


@pytest.mark.parametrize("script", SCRIPTS)
def test_results_cannot_be_written_below_a_file(script: str, study_copy: Study) -> None:
    """The refusal comes before any work, even with --overwrite."""
    (study_copy.folder / "file").write_text("mine")
    tried = command(script, "--overwrite", "--pies_dir", "file/below")
    assert_refused(study_copy.folder, tried, 7, "file/below")
