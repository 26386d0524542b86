"""Bad inputs: one line that names flag and value, the right exit code, nothing created.

The values of every flag of every script are in test_options.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from places import DETECT, FINETUNE, SUP
from running import Command, Study, contents, depth, refused, train

CONTRAST = train("SupCon")
Case = tuple[Command, int, tuple[str, ...]]


def of_flag(command: Command, flag: str, *values: str) -> dict[str, Case]:
    """A case for each value of a flag."""
    return {
        f"{flag[2:]} {value[:40]!a}": ((*command, f"{flag}={value}"), 2, (flag, repr(value)[1:-1]))
        for value in values
    }


def of_schedule(begin: str, end: str, frequency: str, *named: str) -> dict[str, Case]:
    steps = (f"--begin_step={begin}", f"--end_step={end}", f"--frequency={frequency}")
    command = (*SUP, "--pruning_percentages=0.9", *steps)
    return {f"schedule {begin} {end} {frequency}": (command, 2, named)}


# In an empty folder. Python takes 1_0, " 5" and digits of other scripts for numbers.
CASES: dict[str, Case] = {
    **of_flag(SUP, "--pruning_percentages", "-0.1", "1.0", "nan", "abc", "", "0.3,,0.5"),
    **of_flag(SUP, "--pruning_percentages", "0.5,0.50", "0.9_0", "\N{ARABIC-INDIC DIGIT ZERO}.9"),
    **of_flag(SUP, "--epochs", "-1", "1e9", "1_0", " 5", "9" * 5000),
    **of_flag(SUP, "--epochs", "\N{ARABIC-INDIC DIGIT THREE}"),
    **of_schedule("9", "5", "1", "--begin_step", "9", "--end_step 5"),
    **of_schedule("1", "5", "0", "--frequency", "'0'"),
    **of_schedule("1", "5", "9", "--frequency", "9", "at most"),
    **of_schedule("0", "99", "1", "--end_step", "99"),
    **of_flag(SUP, "--batch_size", "0", "301"),
    **of_flag(CONTRAST, "--batch_size_head", "0", "301"),
    **of_flag(SUP, "--learning_rate", "0", "inf", "1_0", "0x1p3"),
    **of_flag(CONTRAST, "--temperature", "0"),
    **of_flag(SUP, "--model_depth", "15"),
    **of_flag(SUP, "--cuda_device", "-2", "cuda:0"),
    **of_flag(CONTRAST, "--method", "MoCo"),
    **of_flag(SUP, "--pruning_method", "magic"),
    **of_flag(SUP, "--dataset", "mnist", "a\0b", "x" * 300),
    **of_flag(FINETUNE, "--models_dir", "a\0b", "x" * 300, ""),
    "debug=False": ((*SUP, "--debug=False"), 2, ("--debug",)),
    "unknown flag": ((*SUP, "--epoch", "3"), 2, ("--epoch",)),
    "a flag with a line break": ((*SUP, "--x\ny"), 2, ("--x\\ny",)),
    "a limit below the classes": ((*SUP, "--limit", "9"), 3, ("--limit", "9")),
    "no networks": (DETECT, 4, ("no supervised dense 0.00 networks", "sup_training.py")),
}
# Beside the small study.
OF_STUDY: dict[str, Case] = {
    "sparsity never trained": (
        (*DETECT, "--pruning_percentages=0.77"), 4, ("0.77", "0 of the 2"),
    ),
    "more networks than there are": ((*DETECT, "--models_number=3"), 4, ("2 of the 3", "id 2")),
    "ids that nobody trained": ((*DETECT, "--index_start=5"), 4, ("5 to 6", "sup_training.py")),
    **of_flag(depth("supervised"), "--knn", "301"),
    **of_flag((*DETECT, "--plot_umap"), "--umap_id", "7"),
    "another recipe": ((*SUP, "--epochs=9"), 4, ("epochs 2 (not 9)",)),
    "another network's shape": ((*DETECT, "--widen_factor=2"), 4, ("widen_factor is 1, not 2",)),
    "other training images": ((*DETECT, "--limit=90"), 4, ("train_images", "--limit 300")),
}  # fmt: skip


def check(case: Case, folder: Path) -> None:
    command, code, named = case
    before = contents(folder)
    refused(folder, command, code, *named)
    assert contents(folder) == before


@pytest.mark.bad_input
@pytest.mark.parametrize("name", CASES)
def test_refused_in_an_empty_folder(name: str, tmp_path: Path) -> None:
    check(CASES[name], tmp_path)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", OF_STUDY)
def test_refused_beside_networks(name: str, study: Study) -> None:
    check(OF_STUDY[name], study.folder)
