"""The command line: help, presets, recipes, and how wrong values are refused."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT, SCRIPTS, contents

from common import options

FACTORIES = {
    "training": options.training,
    "pruning_finetune": options.pruning_finetune,
    "pie_kmodels_detection": options.pie_detection,
    "prediction_depth": options.prediction_depth,
}
LEARNERS = {"clr": "SupCon", "sup": "supervised"}
TRAINING = ("clr_training.py", "sup_training.py")
MAKING = (*TRAINING, "clr_pruning_finetune.py", "sup_pruning_finetune.py")
ANALYSING = tuple(script for script in SCRIPTS if script not in MAKING)
DETECTION = ("clr_pie_kmodels_detection.py", "sup_pie_kmodels_detection.py")
DEPTH = ("clr_prediction_depth.py", "sup_prediction_depth.py")
CONTRASTIVE = ("clr_training.py", "clr_pruning_finetune.py")


def parser(script: str) -> options.Parser:
    prefix, _, kind = script.removesuffix(".py").partition("_")
    return FACTORIES[kind]("What it does.", LEARNERS[prefix])


def parse(script: str, *flags: str) -> argparse.Namespace:
    return parser(script).parse_args(flags)


def flags_of(script: str) -> list[argparse.Action]:
    return [action for action in parser(script)._actions if action.dest != "help"]


# Help


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_says_what_it_is_and_its_default_or_unit(script: str) -> None:
    for action in flags_of(script):
        flag = action.option_strings[0]
        assert action.help, flag
        takes_value = action.nargs != 0
        unset = action.default is None and "(default: " not in action.help
        if takes_value and unset:
            assert "step" in action.help, f"{flag}: neither default nor unit in {action.help!r}"
        if takes_value and action.default is not None:
            assert "default: " in action.help, flag


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_the_defaults_that_are_used(script: str) -> None:
    """The number in the help is the number that a script without flags gets, in either preset."""
    used = {preset: vars(parse(script, "--preset", preset)) for preset in ("paper", "digits")}
    for action in flags_of(script):
        if action.nargs == 0 or action.dest in ("preset", "pruning_methods"):
            continue
        paper, digits = (used[preset][action.dest] for preset in used)
        if paper is None:
            continue
        if isinstance(paper, list):
            paper, digits = (",".join(map(str, values)) for values in (paper, digits))
        if action.default is None:
            assert f"(default: paper {paper}, digits {digits})" in action.help, action.dest
        else:
            assert f"default: {paper})" in action.help, action.dest
            assert paper == digits


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_shown_with_every_flag(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(script, "--help")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "What it does." in shown
    for action in flags_of(script):
        assert action.option_strings[0] in shown


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_shared_flags_are_in_every_script(script: str) -> None:
    shared = (
        *("cuda_device", "dataset", "data_dir", "models_dir", "pies_dir", "models_number"),
        *("index_start", "seed", "preset", "model_depth", "widen_factor", "dropout"),
        *("batch_size", "precision", "limit", "test_limit", "overwrite", "debug"),
    )
    assert set(shared) <= {action.dest for action in flags_of(script)}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("flag", ["--help", "--models_number=0"])
def test_help_and_a_wrong_flag_answer_before_torch_is_imported(
    script: str, flag: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / script), flag],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if flag == "--help" else 2)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "common.options" in imported  # the list is what it claims to be
    heavy = {"torch", "matplotlib", "numpy", "scipy", "sklearn", "umap"}
    assert not {name.partition(".")[0] for name in imported} & heavy
    assert contents(tmp_path) == set()


# Presets


@pytest.mark.parametrize(
    ("flags", "preset"),
    [
        ((), "paper"),
        (("--dataset", "cifar10"), "paper"),
        (("--dataset", "digits"), "digits"),
        (("--dataset", "."), "paper"),
        (("--dataset", "digits", "--preset", "paper"), "paper"),
        (("--preset", "digits"), "digits"),
    ],
)
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_preset_follows_the_data_set_unless_it_is_given(
    script: str, flags: tuple[str, ...], preset: str
) -> None:
    assert parse(script, *flags).preset == preset


PAPER_NETWORK = {"model_depth": 16, "widen_factor": 2, "dropout": 0.0}
RECIPES = {
    # What the released code of arXiv 2207.00200 used.
    ("sup_training.py", "paper"): PAPER_NETWORK
    | {"epochs": 205, "batch_size": 128, "learning_rate": 1.0, "weight_decay": 5e-4}
    | {"momentum": 0.9, "cosine_annealing": False, "warmup_epochs": 0},
    ("clr_training.py", "paper"): PAPER_NETWORK
    | {"epochs": 500, "batch_size": 1024, "learning_rate": 0.05, "weight_decay": 4e-4}
    | {"momentum": 0.9, "cosine_annealing": False, "warmup_epochs": 0}
    | {"temperature": 0.5, "base_temperature": 0.07, "projection_head": "mlp"}
    | {"method": "SupCon", "head_epochs": 100, "batch_size_head": 256},
    ("sup_pruning_finetune.py", "paper"): {"epochs": 30, "batch_size": 128}
    | {"learning_rate": 1e-3, "pruning_percentages": [0.3, 0.5, 0.7, 0.9]},
    ("clr_pruning_finetune.py", "paper"): {"epochs": 30, "batch_size": 128}
    | {"learning_rate": 1e-3, "pruning_percentages": [0.3, 0.5, 0.7, 0.9]},
}


@pytest.mark.parametrize(("script", "preset"), RECIPES)
def test_the_paper_preset_is_the_released_recipe(script: str, preset: str) -> None:
    args = vars(parse(script, "--preset", preset))
    expected = RECIPES[script, preset]
    assert {name: args[name] for name in expected} == expected


@pytest.mark.parametrize("script", MAKING)
def test_the_digits_preset_is_smaller_in_everything_that_takes_time(script: str) -> None:
    paper, digits = (vars(parse(script, "--preset", preset)) for preset in ("paper", "digits"))
    for name in ("epochs", "head_epochs", "model_depth", "widen_factor"):
        if paper.get(name) is not None:
            assert digits[name] < paper[name], name


@pytest.mark.parametrize("preset", ["paper", "digits"])
@pytest.mark.parametrize("script", MAKING)
def test_a_preset_leaves_nothing_open(script: str, preset: str) -> None:
    args = parse(script, "--preset", preset)
    open_flags = {name for name, value in args.recipe.items() if value is None}
    assert open_flags <= {"limit", "begin_step", "end_step", "frequency"}


GIVEN = [
    ("--epochs", "7", 7),
    ("--batch_size", "17", 17),
    ("--learning_rate", "0.125", 0.125),
    ("--weight_decay", "0", 0.0),
    ("--model_depth", "22", 22),
    ("--widen_factor", "3", 3),
    ("--dropout", "0.25", 0.25),
    ("--warmup_epochs", "2", 2),
    ("--temperature", "0.3", 0.3),
    ("--head_epochs", "9", 9),
    ("--batch_size_head", "19", 19),
]


@pytest.mark.parametrize("preset", ["paper", "digits"])
@pytest.mark.parametrize(("flag", "text", "value"), GIVEN)
def test_a_flag_that_is_given_wins_over_the_preset(
    preset: str, flag: str, text: str, value: float
) -> None:
    args = parse("clr_training.py", "--preset", preset, flag, text)
    assert getattr(args, flag[2:]) == value
    assert args.recipe[flag[2:]] == value


@pytest.mark.parametrize("preset", ["paper", "digits"])
def test_annealing_can_be_switched_both_ways(preset: str) -> None:
    on, off = (
        parse("sup_training.py", "--preset", preset, flag).cosine_annealing
        for flag in ("--cosine_annealing", "--no-cosine_annealing")
    )
    assert (on, off) == (True, False)


# What the experiments get


def test_the_recipe_is_what_defines_the_learning() -> None:
    shared = {"preset", "released_quirks", "seed", "limit", "precision"}
    shared |= {"epochs", "batch_size", "learning_rate", "allocation"}
    training = {"model_depth", "widen_factor", "dropout", "weight_decay", "momentum"}
    training |= {"cosine_annealing", "warmup_epochs", "begin_step", "end_step", "frequency"}
    contrastive = {"temperature", "base_temperature", "head_epochs", "batch_size_head"}
    contrastive |= {"head_views"}
    assert parse("sup_training.py").recipe.keys() == shared | training
    assert parse("clr_training.py").recipe.keys() == (
        shared | training | contrastive | {"method", "projection_head"}
    )
    assert parse("sup_pruning_finetune.py").recipe.keys() == shared
    assert parse("clr_pruning_finetune.py").recipe.keys() == (
        shared | contrastive | {"finetune_loss"}
    )


@pytest.mark.parametrize(
    "flags",
    [
        ("--models_number", "3"),
        ("--index_start", "5"),
        ("--cuda_device", "-1"),
        ("--models_dir", "elsewhere"),
        ("--pies_dir", "elsewhere"),
        ("--data_dir", "elsewhere"),
        ("--test_limit", "50"),
        ("--overwrite",),
        ("--dry_run",),
        ("--compile",),
        ("--debug",),
    ],
)
@pytest.mark.parametrize("script", MAKING)
def test_who_trains_where_is_no_part_of_the_recipe(script: str, flags: tuple[str, ...]) -> None:
    assert parse(script, *flags).recipe == parse(script).recipe


@pytest.mark.parametrize(
    "flags",
    [
        ("--seed", "1"),
        ("--limit", "100"),
        ("--precision", "fp32"),
        ("--released_quirks",),
        ("--epochs", "3"),
        ("--batch_size", "3"),
        ("--learning_rate", "3"),
        ("--allocation", "global"),
        ("--allocation", "uniform"),
    ],
)
@pytest.mark.parametrize("script", MAKING)
def test_what_changes_the_networks_changes_the_recipe(script: str, flags: tuple[str, ...]) -> None:
    default = parse(script).recipe
    if str(default[flags[0][2:]]) == flags[-1]:
        assert parse(script, *flags).recipe == default
    else:
        assert parse(script, *flags).recipe != default


def test_ids_start_at_index_start() -> None:
    args = parse("sup_training.py", "--models_number", "3", "--index_start", "4")
    assert list(args.ids) == [4, 5, 6]
    assert list(parse("sup_training.py").ids) == list(range(30))


@pytest.mark.parametrize("script", SCRIPTS)
def test_folders_are_named_after_the_data_set(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ships").mkdir()
    monkeypatch.chdir(tmp_path)
    for dataset, name in (
        ("cifar10", "cifar10"),
        ("digits", "digits"),
        ("ships", "ships"),
        ("./ships/", "ships"),
        (str(tmp_path / "ships"), "ships"),
    ):
        args = parse(script, "--dataset", dataset, "--models_dir", "m", "--pies_dir", "p")
        assert (args.models, args.pies) == (Path("m") / name, Path("p") / name)
        assert args.logs == Path("logs") / name
    (tmp_path / "cifar10").mkdir()  # the built-in data sets do not follow links of that name
    assert parse(script).models == Path("models/cifar10")


@pytest.mark.parametrize("script", ANALYSING)
def test_an_analysis_takes_the_architecture_from_the_files(script: str) -> None:
    assert parse(script).architecture == {}
    assert parse(script, "--model_depth", "22").architecture == {"model_depth": 22}


@pytest.mark.parametrize("script", TRAINING)
def test_training_makes_the_architecture(script: str) -> None:
    assert parse(script).architecture == PAPER_NETWORK


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_learner_belongs_to_the_script(script: str) -> None:
    assert parse(script).learner == LEARNERS[script[:3]]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.0,0.9", [0.0, 0.9]),
        ("0.975", [0.975]),
        ("0", [0.0]),
        (".5,0.3", [0.5, 0.3]),
        ("9e-1", [0.9]),
        ("0.30000000000000004", [0.3]),  # 0.1 + 0.2, as a script would print it
    ],
)
def test_sparsities(text: str, values: list[float]) -> None:
    for script in SCRIPTS:
        assert parse(script, "--pruning_percentages", text).pruning_percentages == values


@pytest.mark.parametrize("script", ANALYSING)
def test_the_released_spelling_of_later_gmp_is_understood(script: str) -> None:
    args = parse(script, "--pruning_methods", "GMP,global,later GMP")
    assert args.pruning_methods == ["GMP", "global", "later_GMP"]
    assert parse(script).pruning_methods == ["GMP", "later_GMP", "global"]


# Bad values

BAD = [
    *((SCRIPTS, "--pruning_percentages", text) for text in ("-0.1", "1.0", "1.5", "nan", "inf")),
    *((SCRIPTS, "--pruning_percentages", text) for text in ("abc", "", ",", "0.3,,0.5", "0.3,")),
    *((SCRIPTS, "--pruning_percentages", text) for text in ("0.5,0.5", "0.5,0.50", "0.3;0.5")),
    # Rounded to the ten decimals that file names have, this is 1.
    (SCRIPTS, "--pruning_percentages", "0.99999999999"),
    *((MAKING, "--epochs", text) for text in ("-1", "0", "1.5", "1e9", "", "two", "9999999999")),
    *((SCRIPTS, "--batch_size", text) for text in ("0", "-1", "1.5", "many")),
    *((MAKING, "--learning_rate", text) for text in ("0", "-0.1", "nan", "inf", "-inf", "fast")),
    *((CONTRASTIVE, "--temperature", text) for text in ("0", "-0.5", "nan", "inf")),
    *((CONTRASTIVE, "--base_temperature", text) for text in ("0", "-0.07")),
    *((CONTRASTIVE, "--head_epochs", text) for text in ("0", "-1")),
    *((CONTRASTIVE, "--batch_size_head", text) for text in ("0", "-1")),
    (("clr_training.py",), "--method", "MoCo"),
    (("clr_training.py",), "--projection_head", "cnn"),
    (("clr_pruning_finetune.py",), "--finetune_loss", "SimCLR"),
    *((TRAINING, "--momentum", text) for text in ("1.0", "1", "-0.1", "nan")),
    *((TRAINING, "--weight_decay", text) for text in ("-1", "nan", "inf")),
    *((TRAINING, "--warmup_epochs", text) for text in ("-1", "0.5")),
    *((TRAINING, "--frequency", text) for text in ("0", "-1", "0.5")),
    *((TRAINING, "--begin_step", text) for text in ("-1", "0.5")),
    (TRAINING, "--end_step", "-1"),
    *((TRAINING, "--pruning_method", text) for text in ("random", "global", "dense", "")),
    (MAKING, "--allocation", "layerwise"),
    *((ANALYSING, "--pruning_methods", text) for text in ("magic", "", "GMP,", "GMP,GMP")),
    (ANALYSING, "--pruning_methods", "dense"),
    *((DEPTH, "--knn", text) for text in ("0", "-1", "1.5")),
    *((DEPTH, "--prediction_depth_models", text) for text in ("0", "-1")),
    (DEPTH, "--pd_target", "truth"),
    *((DETECTION, "--umap_id", text) for text in ("-1", "1.5", "first")),
    *((SCRIPTS, "--model_depth", text) for text in ("15", "14", "12", "4", "0", "16.0")),
    *((SCRIPTS, "--widen_factor", text) for text in ("0", "-1", "1.5")),
    *((SCRIPTS, "--dropout", text) for text in ("1.0", "-0.1", "nan")),
    *((SCRIPTS, "--models_number", text) for text in ("0", "-1", "1.5", "all")),
    *((SCRIPTS, "--index_start", text) for text in ("-1", "1.5")),
    *((SCRIPTS, "--cuda_device", text) for text in ("-2", "cpu", "cuda:0", "1.0")),
    *((SCRIPTS, "--seed", text) for text in ("-1", "1.5", "99999999999")),
    *((SCRIPTS, "--limit", text) for text in ("0", "-1")),
    *((SCRIPTS, "--test_limit", text) for text in ("0", "-1")),
    (SCRIPTS, "--preset", "imagenet"),
    (SCRIPTS, "--precision", "fp16"),
    *((SCRIPTS, "--dataset", text) for text in ("cifar100", "", "no/such/folder", "a\0b")),
    (SCRIPTS, "--dataset", "x" * 300),
    *(
        (SCRIPTS, flag, text)
        for flag in ("--models_dir", "--pies_dir", "--data_dir")
        for text in ("", "a\0b", "x" * 300, "a/" + "x" * 300, "long/" * 1000)
    ),
]
CASES = [(script, flag, text) for scripts, flag, text in BAD for script in scripts]


def refusal(capsys: pytest.CaptureFixture[str], script: str, *flags: str) -> str:
    """The line that a script with these flags ends with."""
    with pytest.raises(SystemExit) as end:
        parse(script, *flags)
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert shown.err.endswith("\n")
    return shown.err


def short(text: str) -> str:
    return text if len(text) < 40 else f"{len(text)} characters"


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("script", "flag", "text"), CASES, ids=[f"{s} {f}={short(t)!r}" for s, f, t in CASES]
)
def test_a_bad_value_is_refused_in_one_line_that_names_it(
    script: str, flag: str, text: str, empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, script, f"{flag}={text}")
    assert flag in line
    assert repr(text)[1:-1] in line
    assert contents(empty) == set()


@pytest.mark.parametrize("script", SCRIPTS)
def test_negative_values_need_no_equals_sign(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, script, "--pruning_percentages", "-0.1")
    assert "--pruning_percentages" in line
    assert "-0.1" in line


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--begin_step", "5", "--end_step", "5"), ("--begin_step", "5", "--end_step")),
        (("--begin_step", "9", "--end_step", "5"), ("--begin_step", "9", "--end_step", "5")),
        (
            ("--begin_step", "10", "--end_step", "20", "--frequency", "15"),
            ("--frequency", "15", "10"),
        ),
        (("--begin_step", "5"), ("--begin_step", "--end_step")),
        (("--end_step", "5"), ("--begin_step", "--end_step")),
    ],
)
@pytest.mark.parametrize("script", TRAINING)
def test_a_schedule_that_contradicts_itself_is_refused(
    script: str, flags: tuple[str, ...], named: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, script, *flags)
    assert all(word in line for word in named)


@pytest.mark.parametrize("script", TRAINING)
def test_a_schedule_with_two_events_is_accepted(script: str) -> None:
    args = parse(script, "--begin_step", "0", "--end_step", "20", "--frequency", "20")
    assert (args.begin_step, args.end_step, args.frequency) == (0, 20, 20)


@pytest.mark.parametrize("flag", ["--models_dir", "--pies_dir", "--data_dir", "--dataset"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_file_is_no_folder(
    script: str, flag: str, empty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (empty / "file").write_text("something")
    line = refusal(capsys, script, flag, "file")
    assert flag in line
    assert "'file'" in line
    assert (empty / "file").read_text() == "something"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--debug", "False"), "False"),  # a switch takes no value: it must not become true
        (("--debug=False",), "--debug"),
        (("--overwrite", "no"), "no"),
        (("--model_number", "3"), "--model_number"),
        (("--overw",), "--overw"),  # no abbreviations: a later flag would change their sense
        (("--models_n", "3"), "--models_n"),
        (("digits",), "digits"),
        (("--models_number",), "--models_number"),
    ],
)
@pytest.mark.parametrize("script", SCRIPTS)
def test_what_is_no_flag_is_refused(
    script: str, flags: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refusal(capsys, script, *flags)


@pytest.mark.parametrize("script", SCRIPTS)
def test_debug_is_off_unless_asked_for(script: str) -> None:
    assert parse(script).debug is False
    assert parse(script, "--debug").debug is True


@pytest.mark.parametrize("script", SCRIPTS)
def test_minus_zero_is_zero(script: str) -> None:
    """Sparsities become parts of file names, where -0.00 would be another population."""
    args = parse(script, "--pruning_percentages=-0.0")
    assert str(args.pruning_percentages[0]) == "0.0"


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_error_names_the_script(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [f"/somewhere/{script}"])
    assert refusal(capsys, script, "--models_number", "0").startswith(f"{script}: ")
