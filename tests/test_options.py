"""The command line: help, presets, recipes, and how wrong flags are refused. One test lists the
flags in which the two learners' scripts differ; the others look at one script of each kind."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT, SCRIPTS, contents

from common import options, recipes

KINDS = {
    "training": options.training,
    "pruning_finetune": options.pruning_finetune,
    "pie_kmodels_detection": options.pie_detection,
    "prediction_depth": options.prediction_depth,
}
MAKING, ANALYSING = tuple(KINDS)[:2], tuple(KINDS)[2:]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_making = pytest.mark.parametrize("kind", MAKING)
every_analysing = pytest.mark.parametrize("kind", ANALYSING)
every_preset = pytest.mark.parametrize("preset", recipes.NETWORK)


def parse(kind: str, *flags: str, learner: str = "SupCon") -> argparse.Namespace:
    return KINDS[kind]("What it does.", learner).parse_args(flags)


def flags_of(kind: str, learner: str = "SupCon") -> dict[str, argparse.Action]:
    actions = KINDS[kind]("What it does.", learner)._actions
    shown = (action for action in actions if action.help != argparse.SUPPRESS)
    return {action.dest: action for action in shown if action.dest != "help"}


# What the flags are

LEARNING = {"temperature", "base_temperature", "min_crop_area"}
LEARNING |= {"head_epochs", "batch_size_head", "head_crop_padding", "head_views"}
SUPCON_ONLY = {
    "training": LEARNING | {"method", "projection_head"},
    "pruning_finetune": LEARNING | {"finetune_loss"},
    "pie_kmodels_detection": set(),
    "prediction_depth": set(),
}


@every_kind
def test_the_learners_differ_only_in_what_supcon_has_more(kind: str) -> None:
    supervised, supcon = (flags_of(kind, learner) for learner in ("supervised", "SupCon"))
    assert supervised.keys() == supcon.keys() - SUPCON_ONLY[kind]
    assert supcon.keys() >= SUPCON_ONLY[kind]
    for name, flag in supervised.items():
        same = ("option_strings", "nargs", "type", "choices", "default", "metavar")
        assert all(getattr(flag, key) == getattr(supcon[name], key) for key in same), name
        # the presets' numbers are the learner's
        assert flag.help.partition(" (default")[0] == supcon[name].help.partition(" (default")[0]
    made, by_supcon = (set(parse(kind, learner=one).recipe) for one in ("supervised", "SupCon"))
    assert made == by_supcon - SUPCON_ONLY[kind]
    assert parse(kind, learner="supervised").learner == "supervised"


GROUPS = {
    "study": {"dataset", "image_size", "models_dir", "models_number", "index_start"},
    "network": {"model_depth", "widen_factor", "dropout"},
    "recipe": {"preset", "seed", "precision", "epochs", "learning_rate", "temperature"},
    "pruning": {"pruning_percentages", "pruning_methods", "allocation", "criterion"},
    "analysis": {"knn", "plot_umap", "resamples", "pd_target"},
    "run": {"cuda_device", "overwrite", "debug", "dry_run", "compile"},
}


@every_kind
def test_help_shows_every_flag_in_its_group(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        parse(kind, "--help")
    assert end.value.code == 0
    intro, *parts = re.split(r"^(\w+):\n", capsys.readouterr().out, flags=re.MULTILINE)
    assert "What it does." in intro
    shown = {
        title: set(re.findall(r"^  --(\w+)", text, flags=re.MULTILINE))
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    del shown["options"]  # --help itself
    assert list(shown) == [title for title in GROUPS if title != "analysis" or kind in ANALYSING]
    assert set().union(*shown.values()) == flags_of(kind).keys()
    for title, names in GROUPS.items():
        assert names & flags_of(kind).keys() <= shown.get(title, set())


UNITS = re.compile(
    r"\b(images?|pixels|convolutions|channels|probability|epochs|steps?|networks?|views|share|seed|id"
    r"|rate|L2|momentum|temperature|scaled|sparsities|neighbours|halves|exchanges|GPU)\b"
)


@every_kind
def test_every_flag_says_what_it_is_with_its_unit_and_its_default(kind: str) -> None:
    for name, flag in flags_of(kind).items():
        what, _, default = flag.help.partition(" (default: ")
        assert what, name
        if flag.nargs != 0:  # it takes a value
            assert default.endswith(")"), name
        if flag.type is not None and flag.type not in (options.values.folder,):
            assert UNITS.search(what) or name in ("dataset", "pruning_methods"), name


@every_kind
def test_help_shows_the_defaults_that_are_used(kind: str) -> None:
    """The number in the help is the number that a script without flags gets, in every preset."""
    used = {preset: vars(parse(kind, "--preset", preset)) for preset in recipes.NETWORK}
    for name in flags_of(kind).keys() - {"preset", "image_size"}:  # these follow the data set
        flag, values = flags_of(kind)[name], [args[name] for args in used.values()]
        shown = [",".join(map(str, v)) if isinstance(v, list) else str(v) for v in values]
        if flag.default is None and values[0] is not None:
            text = ", ".join(f"{preset} {value}" for preset, value in zip(used, shown, strict=True))
            assert f"(default: {text})" in flag.help, name
        elif flag.default is not None and flag.nargs != 0:
            assert f"(default: {shown[0]})" in flag.help, name
            assert len(set(shown)) == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_a_wrong_flag_answer_before_torch_is_imported(script: str, tmp_path: Path) -> None:
    for flag, code in (("--help", 0), ("--models_number=0", 2)):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", str(ROOT / script), flag],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "common.options" in imported  # the list is what it claims to be
        heavy = {"torch", "matplotlib", "numpy", "scipy", "sklearn", "umap"}
        assert not {name.partition(".")[0] for name in imported} & heavy
    learner, _, kind = script.removesuffix(".py").partition("_")
    assert done.stderr.splitlines()[-1].startswith(f"{script}: argument --models_number: '0'")
    assert contents(tmp_path) == set()
    expected = {"clr": "SupCon", "sup": "supervised"}[learner]
    text = (ROOT / script).read_text()
    assert f'options.{KINDS[kind].__name__}(__doc__, learner="{expected}")' in text


# Presets


@pytest.mark.parametrize(
    ("flags", "preset"),
    [
        ((), "paper"),
        (("--dataset", "cifar10"), "paper"),
        (("--dataset", "digits"), "digits"),
        (("--dataset", "."), "paper"),
        (("--dataset", "digits", "--preset", "paper"), "paper"),
        (("--preset", "fast"), "fast"),
    ],
)
@every_kind
def test_the_preset_follows_the_data_set_unless_it_is_given(
    kind: str, flags: tuple[str, ...], preset: str
) -> None:
    assert parse(kind, *flags).preset == preset


PAPER_NETWORK = {"model_depth": 16, "widen_factor": 2, "dropout": 0.0}
PLAIN_SGD = {"momentum": 0.9, "nesterov": False, "decay": "all"}
PLAIN_SGD |= {"cosine_annealing": False, "warmup_epochs": 0}
PAPER_FINETUNING = {"epochs": 30, "batch_size": 128, "learning_rate": 1e-3}
PAPER_FINETUNING |= {"pruning_percentages": [0.3, 0.5, 0.7, 0.9]}
PAPER_FINETUNING |= {"allocation": "global", "criterion": "magnitude"}
PAPER = {  # what the released code of arXiv 2207.00200 used
    ("training", "supervised"): PAPER_NETWORK
    | PLAIN_SGD
    | {"epochs": 205, "batch_size": 128, "learning_rate": 1.0, "weight_decay": 5e-4},
    ("training", "SupCon"): PAPER_NETWORK
    | PLAIN_SGD
    | {"epochs": 500, "batch_size": 1024, "learning_rate": 0.05, "weight_decay": 4e-4}
    | {"temperature": 0.5, "base_temperature": 0.07, "min_crop_area": 0.2}
    | {"method": "SupCon", "projection_head": "mlp", "head_epochs": 100, "batch_size_head": 256}
    | {"head_crop_padding": 4 / 32},
    ("pruning_finetune", "supervised"): PAPER_FINETUNING,
    ("pruning_finetune", "SupCon"): PAPER_FINETUNING,
}


@pytest.mark.parametrize(("kind", "learner"), PAPER)
def test_the_paper_preset_is_the_released_recipe(kind: str, learner: str) -> None:
    args, expected = vars(parse(kind, learner=learner)), PAPER[kind, learner]
    assert {name: args[name] for name in expected} == expected


GIVEN = {
    **{"epochs": "7", "batch_size": "17", "learning_rate": "0.125", "weight_decay": "0.0"},
    **{"model_depth": "22", "widen_factor": "3", "dropout": "0.25", "warmup_epochs": "2.5"},
    **{"temperature": "0.3", "head_epochs": "9", "batch_size_head": "19", "decay": "weights"},
}


@every_preset
def test_a_flag_that_is_given_wins_over_the_preset(preset: str) -> None:
    flags = [f"--{name}={text}" for name, text in GIVEN.items()]
    for on in (True, False):
        switch = f"--{'' if on else 'no-'}cosine_annealing"
        args = parse("training", "--preset", preset, *flags, switch)
        assert {name: str(getattr(args, name)) for name in GIVEN} == GIVEN
        assert {name: str(args.recipe[name]) for name in GIVEN} == GIVEN
        assert args.cosine_annealing is on


# What the experiments get

IN_EVERY_RECIPE = {"preset", "released_quirks", "seed", "limit", "precision", "image_size"}
IN_EVERY_RECIPE |= {"epochs", "batch_size", "learning_rate", "allocation", "criterion"}
IN_TRAINING = {"model_depth", "widen_factor", "dropout", "weight_decay", "momentum"}
IN_TRAINING |= {"cosine_annealing", "warmup_epochs", "nesterov", "decay"}
IN_TRAINING |= {"begin_step", "end_step", "frequency"}


WHO_TRAINS_WHERE = {"dataset", "data_dir", "models_dir", "pies_dir", "models_number"}
WHO_TRAINS_WHERE |= {"index_start", "test_limit", "cuda_device", "figure_format", "overwrite"}
WHO_TRAINS_WHERE |= {"debug", "compile", "dry_run", "pruning_percentages"}


@pytest.mark.parametrize(
    ("kind", "more", "elsewhere"),
    [
        ("training", IN_TRAINING, {"pruning_method"}),
        (
            "pruning_finetune",
            set(),
            {"model_depth", "widen_factor", "dropout", "allow_missing"},
        ),
    ],
)
def test_the_recipe_is_what_defines_the_learning(
    kind: str, more: set[str], elsewhere: set[str]
) -> None:
    args, names = parse(kind), IN_EVERY_RECIPE | SUPCON_ONLY[kind] | more
    assert args.recipe == {name: getattr(args, name) for name in names}
    assert flags_of(kind).keys() - names == WHO_TRAINS_WHERE | elsewhere


def test_ids_start_at_index_start() -> None:
    args = parse("training", "--models_number", "3", "--index_start", "4")
    assert list(args.ids) == [4, 5, 6]
    assert list(parse("training").ids) == list(range(30))


@every_kind
def test_folders_are_named_after_the_data_set(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ships").mkdir()
    monkeypatch.chdir(tmp_path)
    for dataset, name in (
        ("cifar10", "cifar10"),
        ("digits", "digits"),
        ("./ships/", "ships"),
        (str(tmp_path / "ships"), "ships"),
    ):
        for beside in (Path(), Path("scratch/me")):  # logs lie beside the networks
            models = str(beside / "m")
            args = parse(kind, "--dataset", dataset, "--models_dir", models, "--pies_dir", "p")
            folders = (args.models, args.pies, args.logs)
            assert folders == (beside / "m" / name, Path("p") / name, beside / "logs" / name)
    (tmp_path / "cifar10").mkdir()  # the built-in data sets do not follow links of that name
    assert parse(kind).models == Path("models/cifar10")


@every_analysing
def test_an_analysis_takes_the_architecture_from_the_files(kind: str) -> None:
    assert parse(kind).architecture == {}
    assert parse(kind, "--model_depth", "22").architecture == {"model_depth": 22}
    assert parse("training").architecture == PAPER_NETWORK


def test_images_have_the_size_of_their_data_set_unless_asked_for() -> None:
    for flags, size in (
        ((), 32),
        (("--dataset", "digits"), 8),
        (("--dataset", ".", "--image_size", "64"), 64),
        (("--dataset", "digits", "--image_size", "8"), 8),
    ):
        assert parse("training", *flags).image_size == size


# Bad values


def refusal(capsys: pytest.CaptureFixture[str], kind: str, *flags: str) -> str:
    """The line that a script with these flags ends with."""
    with pytest.raises(SystemExit) as end:
        parse(kind, *flags)
    shown = capsys.readouterr()
    assert (end.value.code, shown.out) == (2, "")
    assert shown.err.count("\n") == 1
    assert shown.err.endswith("\n")
    return shown.err


@pytest.mark.parametrize(
    ("kind", "flag"), [(kind, flag) for kind in KINDS for flag in flags_of(kind)]
)
def test_a_bad_value_is_refused_in_one_line_that_names_it(
    kind: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The texts that tests/test_flag_values.py says no flag accepts."""
    for text in ("", "a\0b\n\x1b[31m"):
        line = refusal(capsys, kind, f"--{flag}={text}")
        assert f"--{flag}" in line
        assert repr(text)[1:-1] in line


BOUNDS = {  # the first and last values that are accepted, and their neighbours
    "models_number": ("1 10000", "0 10001"),
    "index_start": ("0 1000000", "-1 1000001"),
    "image_size": ("8 224", "7 225"),
    "limit": ("1 1000000000", "0 1000000001"),
    "test_limit": ("1", "0"),
    "model_depth": ("10 1000", "4 1006"),
    "widen_factor": ("1 100", "0 101"),
    "dropout": ("0 0.99", "-0.1 1"),
    "seed": ("0 2147483647", "-1 2147483648"),
    "epochs": ("1 1000000", "0 1000001"),
    "batch_size": ("1 1000000", "0 1000001"),
    "learning_rate": ("1e-9", "0"),
    "weight_decay": ("0", "-0.1"),
    "momentum": ("0 0.99", "-0.1 1"),
    "warmup_epochs": ("0 0.5", "-0.5"),
    "temperature": ("1e-9", "0"),
    "base_temperature": ("1e-9", "0"),
    "min_crop_area": ("0.01 1", "0 1.01"),
    "head_epochs": ("1", "0"),
    "batch_size_head": ("1", "0"),
    "head_crop_padding": ("0 0.125", "-0.1 1"),
    "head_views": ("0 1000", "-1 1001"),
    "frequency": ("1", "0"),
    "pruning_percentages": ("0.0 0.999", "-0.1 1.0"),
    "resamples": ("100", "99"),
    "permutations": ("100", "99"),
    "umap_id": ("0", "-1"),
    "replicate_index_start": ("0", "-1"),
    "prediction_depth_models": ("1 10000", "0 10001"),
    "knn": ("1", "0"),
    "cuda_device": ("-1 1023", "-2 1024"),
}


@every_kind
def test_numbers_are_accepted_up_to_their_bounds(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    there = flags_of(kind)
    for flag, (accepted, refused) in BOUNDS.items():
        for text in accepted.split() if flag in there else ():
            value = getattr(parse(kind, "--dataset", ".", f"--{flag}", text), flag)
            assert (value[0] if isinstance(value, list) else value) == float(text)
        for text in refused.split() if flag in there else ():
            assert f"--{flag}: {text!r}" in refusal(capsys, kind, f"--{flag}", text)
    others = {"dataset", "data_dir", "models_dir", "pies_dir", "pruning_methods"}
    others |= {"begin_step", "end_step"}  # only together
    assert {name for name in there if there[name].type} <= BOUNDS.keys() | others


CONTRADICTIONS = [
    (("--begin_step", "5", "--end_step", "5"), "--begin_step: 5: must be less than --end_step 5"),
    (("--begin_step", "9", "--end_step", "5"), "--begin_step: 9: must be less than --end_step 5"),
    (("--begin_step", "10", "--end_step", "20", "--frequency", "15"), "--frequency: 15: at most"),
    (("--begin_step", "5"), "give --begin_step and --end_step together or neither"),
    (("--end_step", "5"), "give --begin_step and --end_step together or neither"),
    (("--dataset", "digits", "--image_size", "32"), "--image_size: 32: digits has images of 8"),
]


@pytest.mark.parametrize(("flags", "message"), CONTRADICTIONS)
def test_flags_that_contradict_each_other_are_refused(
    flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, "training", *flags)


def test_a_schedule_with_two_events_is_accepted() -> None:
    args = parse("training", "--begin_step", "0", "--end_step", "20", "--frequency", "20")
    assert (args.begin_step, args.end_step, args.frequency) == (0, 20, 20)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--debug", "False"), "False"),  # a switch takes no value: it must not become true
        (("--overwrite", "no"), "no"),
        (("--model_number", "3"), "--model_number"),
        (("--overw",), "--overw"),  # no abbreviations: a later flag would change their sense
        (("--models_n", "3"), "--models_n"),
        (("digits",), "digits"),
        (("--models_number",), "--models_number"),
    ],
)
@every_kind
def test_what_is_no_flag_is_refused(
    kind: str, flags: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refusal(capsys, kind, *flags)
