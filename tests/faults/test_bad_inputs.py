"""Bad inputs: one line that names flag and value, the right exit code, at once, nothing created."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from faulty import run
from places import DETECT, NETWORK, SHARED, TWO, Place, refused, rewrite
from rows import Row
from running import contents

TRAIN, CONTRAST = ("sup_training.py", *SHARED), ("clr_training.py", *SHARED)
DEPTH = ("sup_prediction_depth.py", *SHARED, *TWO)
NEXT = "--pruning_percentages=0.9"
STEPS = ("--begin_step", "--end_step", "--frequency")
Case = tuple[str, tuple[str, ...], int, tuple[str, ...]]


def of_flag(
    command: tuple[str, ...], flag: str, *values: str, code: int = 2, also: tuple[str, ...] = ()
) -> list[Case]:
    """A row for each value of a flag."""
    return [
        (
            f"{flag[2:]} {v[:40]!a}",
            (*command, *also, f"{flag}={v}"),
            code,
            (flag, repr(v)[1:-1]),
        )
        for v in values
    ]


def of_schedule(begin: str, end: str, frequency: str, *named: str) -> Case:
    values = [f"{flag}={value}" for flag, value in zip(STEPS, (begin, end, frequency), strict=True)]
    return f"schedule {begin} {end} {frequency}", (*TRAIN, NEXT, *values), 2, named


# In an empty folder.
CASES: list[Case] = [
    *of_flag(TRAIN, "--pruning_percentages", "-0.1", "1.0", "1.5", "nan", "abc", "", "0.3,,0.5"),
    *of_flag(TRAIN, "--pruning_percentages", "0.5,0.50", "0.9_0", "\N{ARABIC-INDIC DIGIT ZERO}.9"),
    *of_flag(TRAIN, "--epochs", "-1", "0", "1.5", "1e9", "1e3", "1_0", " 5", "9" * 5000),
    *of_flag(TRAIN, "--epochs", "\N{ARABIC-INDIC DIGIT THREE}"),
    of_schedule("9", "5", "1", "--begin_step", "9", "--end_step 5"),
    of_schedule("5", "5", "1", "--begin_step", "5", "--end_step 5"),
    of_schedule("1", "5", "0", "--frequency", "'0'"),
    of_schedule("1", "5", "9", "--frequency", "9", "at most"),
    ("schedule beyond the training", (*TRAIN, NEXT, "--epochs", "1", "--batch_size", "50",
     "--begin_step", "0", "--end_step", "3"), 2, ("--end_step", "3")),
    *of_flag(TRAIN, "--batch_size", "0", "-1", "101"),
    *of_flag(CONTRAST, "--batch_size_head", "0", "101", also=("--batch_size", "20")),
    *of_flag(TRAIN, "--learning_rate", "0", "-0.1", "nan", "inf", "1_0", "0x1p3"),
    *of_flag(CONTRAST, "--temperature", "0", "-0.5"),
    *of_flag(TRAIN, "--momentum", "1.0"),
    *of_flag(TRAIN, "--weight_decay", "-1"),
    *of_flag(TRAIN, "--model_depth", "15"),
    *of_flag(TRAIN, "--widen_factor", "0"),
    *of_flag(TRAIN, "--index_start", "-1"),
    *of_flag(TRAIN, "--models_number", "0"),
    *of_flag(DEPTH, "--knn", "0"),
    *of_flag(CONTRAST, "--method", "MoCo"),
    *of_flag(TRAIN, "--pruning_method", "magic"),
    *of_flag(TRAIN, "--cuda_device", "-2", "cuda:0"),
    *of_flag(TRAIN, "--dataset", "mnist", "a\0b", "x" * 300),
    *(case for flag in ("--models_dir", "--pies_dir", "--data_dir")
      for case in of_flag(TRAIN, flag, "a\0b", "x" * 300, "")),
    ("debug False", (*TRAIN, "--debug", "False"), 2, ("False",)),
    ("debug=False", (*TRAIN, "--debug=False"), 2, ("--debug",)),
    ("unknown flag", (*TRAIN, "--epoch", "3"), 2, ("--epoch",)),
    ("a flag with a line break", (*TRAIN, "--x\ny"), 2, ("--x\\ny",)),
    ("a limit below the classes", (*TRAIN[:5], "--limit", "9"), 3, ("--limit", "9")),
    ("no networks", DETECT, 4, ("no supervised dense 0.00 networks", "sup_training.py")),
]  # fmt: skip
# Beside the small study of two networks.
OF_STUDY: list[Case] = [
    ("sparsity never trained", (*DETECT, "--pruning_percentages=0.77"), 4, ("0.77", "0 of the 2")),
    ("more networks than there are", (*DETECT, "--models_number=3"), 4, ("2 of the 3", "id 2")),
    ("ids that nobody trained", (*DETECT, "--index_start=5"), 4, ("5 to 6", "sup_training.py")),
    *of_flag(DEPTH, "--knn", "101"),
    *of_flag(DETECT, "--umap_id", "7", also=("--plot_umap",)),
    ("another recipe", (*TRAIN, *TWO, "--epochs=9", "--batch_size=20"), 4, ("epochs 4 (not 9)",)),
    ("another network's shape", (*DETECT, "--widen_factor=2"), 4, ("widen_factor is 1, not 2",)),
    ("other training images", (*DETECT, "--limit=90"), 4, ("train_images", "--limit 100")),
]


def rows(cases: list[Case]) -> list[Row]:
    return [
        Row(
            "bad inputs",
            name,
            " ".join(command)[:200],
            f"exit {code}",
            print,
            (command, code, named),
        )
        for name, command, code, named in cases
    ]


def by_name(row: Row) -> str:
    return row.name


def check(row: Row, folder: Path) -> None:
    command, code, named = row.variant
    before = contents(folder)
    began = time.monotonic()
    done = run(folder, command)
    assert time.monotonic() - began < 3
    assert done.code == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert all(words in done.stderr for words in named), done.stderr
    assert contents(folder) == before


@pytest.mark.parametrize("row", rows(CASES), ids=by_name)
def test_refused_in_an_empty_folder(row: Row, tmp_path: Path) -> None:
    check(row, tmp_path / "work")


@pytest.fixture(scope="module")
def folder(study_of_two: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the study, which stays as it is."""
    return Path(shutil.copytree(study_of_two, tmp_path_factory.mktemp("bad") / "work"))


@pytest.mark.parametrize("row", rows(OF_STUDY), ids=by_name)
def test_refused_beside_networks(row: Row, folder: Path) -> None:
    check(row, folder)


CLASSES = [
    Row("bad inputs", f"networks of {n} classes", "data of 10 classes", "exit 4", print, n)
    for n in (9, 11)
]


@pytest.mark.parametrize("row", CLASSES, ids=by_name)
def test_networks_of_other_classes(row: Row, copy: Place) -> None:
    rewrite(copy.models / NETWORK, lambda c: c["config"].update(n_classes=row.variant))
    refused(copy.run(*DETECT), 4, f"n_classes is {row.variant}, not 10")
