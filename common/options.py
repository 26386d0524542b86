"""Every command-line flag: its name, unit, default, and which values are accepted.

Imports nothing heavy, so that `--help` and a wrong flag answer at once. Each of the four public
functions returns the parser of one kind of script; `parse_args()` also fills the preset in, checks
flags against each other, and collects in `args.recipe` the flags that define what is learned.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from common import paths, presets, runtime

ARCHITECTURE = ("model_depth", "widen_factor", "dropout")
# Flags that mean nothing to a network that is not pruned while it learns.
SCHEDULE_FLAGS = ("begin_step", "end_step", "frequency", "allocation")


def training(description: str, learner: str) -> Parser:
    """The flags of `clr_training.py` and `sup_training.py`."""
    defaults = {
        name: flags | presets.NETWORK[name] for name, flags in presets.TRAINING[learner].items()
    }
    parser = Parser(description, learner, defaults)
    parser.recipe_flags += ARCHITECTURE
    recipe = parser.recipe
    recipe("--epochs", _integer(1, 10**6), unit="epochs")
    recipe("--batch_size", _integer(1, 10**6), unit="images a step")
    recipe("--learning_rate", _positive, unit="of SGD at its highest")
    recipe("--weight_decay", _not_negative, unit="L2, added to the gradient")
    recipe("--momentum", _fraction, 0.9, unit="of SGD")
    recipe("--cosine_annealing", None, unit="let the learning rate fall as a half cosine")
    recipe("--warmup_epochs", _integer(0, 10**6), unit="epochs of linear warm-up")
    if learner == "SupCon":
        recipe("--method", _choice("SupCon", "SimCLR"), "SupCon", unit="with or without labels")
        recipe("--projection_head", _choice("mlp", "linear"), "mlp", unit="before the loss")
        _contrastive(recipe)
    parser.add_argument(
        "--pruning_percentages",
        type=_sparsities,
        default=[0.0],
        metavar="S,S,…",
        help="sparsities to train, as fractions; 0.0 is the dense network (default: 0.0)",
    )
    parser.add_argument(
        "--pruning_method",
        choices=paths.PRUNING_METHODS[:2],
        default="GMP",
        help="gradual pruning that starts early (GMP) or late (default: GMP)",
    )
    step = _integer(0, 10**9)
    recipe("--begin_step", step, unit="step of the first pruning event (GMP: 1.25 %% of training)")
    recipe("--end_step", step, unit="step by which the last pruning event has happened")
    recipe("--frequency", _integer(1, 10**9), unit="steps between pruning events")
    recipe("--allocation", _choice("uniform", "global"), "uniform", unit="sparsity by layer")
    _making(parser)
    return parser


def pruning_finetune(description: str, learner: str) -> Parser:
    """The flags of `clr_pruning_finetune.py` and `sup_pruning_finetune.py`."""
    parser = Parser(description, learner, presets.FINETUNING[learner])
    recipe = parser.recipe
    parser.add_argument(
        "--pruning_percentages",
        type=_sparsities,
        metavar="S,S,…",
        help="sparsities, as fractions; 0.0 only fine-tunes, as a control"
        + parser.default_text("pruning_percentages"),
    )
    recipe("--epochs", _integer(1, 10**6), unit="epochs of fine-tuning")
    recipe("--batch_size", _integer(1, 10**6), unit="images a step")
    recipe("--learning_rate", _positive, unit="of SGD with Nesterov momentum, constant")
    recipe("--allocation", _choice("global", "uniform"), "global", unit="sparsity by layer")
    if learner == "SupCon":
        losses = _choice("cross_entropy", "supcon")
        recipe("--finetune_loss", losses, "cross_entropy", unit="supcon: through the encoder only")
        _contrastive(recipe)
    _making(parser)
    return parser


def _making(parser: Parser) -> None:
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile each loss and its backward pass, a minute for each; for a GPU with small "
        "batches, where they run as CUDA graphs. Another rounding, so other networks",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="print the recipe (epochs, steps, learning rates, sparsities) and train nothing",
    )


def pie_detection(description: str, learner: str) -> Parser:
    """The flags of `clr_pie_kmodels_detection.py` and `sup_pie_kmodels_detection.py`."""
    parser = _analysis(description, learner)
    parser.add_argument(
        "--plot_umap",
        action="store_true",
        help="map one network: dense, and each pruning method at its highest sparsity",
    )
    parser.add_argument(
        "--umap_id",
        type=_integer(0, 10**6),
        metavar="ID",
        help="the network that is mapped (default: the first of the population)",
    )
    parser.add_argument(
        "--resamples",
        type=_integer(100, 10**6),
        default=1000,
        metavar="N",
        help="random halves of the networks behind the interval of a PIE count (default: 1000)",
    )
    parser.add_argument(
        "--permutations",
        type=_integer(100, 10**6),
        default=1000,
        metavar="N",
        help="random exchanges of dense and pruned networks behind the null (default: 1000)",
    )
    parser.add_argument(
        "--null_index_start",
        type=_integer(0, 10**6),
        metavar="ID",
        help="first id of more dense networks, for PIEs of dense against dense (default: none)",
    )
    parser.add_argument(
        "--plot_q_score", action="store_true", help="draw Q-Score, Z-Score and L1 norm by example"
    )
    return parser


def prediction_depth(description: str, learner: str) -> Parser:
    """The flags of `clr_prediction_depth.py` and `sup_prediction_depth.py`."""
    parser = _analysis(description, learner)
    parser.add_argument(
        "--prediction_depth_models",
        type=_integer(1, 10**4),
        default=5,
        metavar="K",
        help="networks whose depth is measured, the first of each population (default: 5)",
    )
    parser.add_argument(
        "--pd_target",
        choices=("prediction", "label"),
        default="prediction",
        help="what the probes must agree with in the figures; the table has both "
        "(default: prediction)",
    )
    parser.add_argument(
        "--pd_bank",
        choices=("clean", "augmented"),
        default="clean",
        help="training images among which the probes look for neighbours; the released code had "
        "augmented ones (default: clean)",
    )
    return parser


def _analysis(description: str, learner: str) -> Parser:
    parser = Parser(description, learner, {"paper": {}, "digits": {}})
    parser.add_argument(
        "--pruning_methods",
        type=_pruning_methods,
        default=list(paths.PRUNING_METHODS),
        metavar="M,M,…",
        help="of GMP, later_GMP, global (default: all three)",
    )
    parser.add_argument(
        "--pruning_percentages",
        type=_sparsities,
        metavar="S,S,…",
        help="sparsities to compare with the dense networks (default: all that are found)",
    )
    parser.add_argument(
        "--batch_size",
        type=_integer(1, 10**6),
        default=256,
        metavar="N",
        help="images a forward pass (default: 256)",
    )
    parser.add_argument(
        "--knn",
        type=_integer(1, 10**6),
        default=30,
        metavar="k",
        help="neighbours that vote in a probe (default: 30)",
    )
    parser.add_argument(
        "--allow_missing",
        action="store_true",
        help="compare the networks that are there where fewer are than were asked for",
    )
    parser.add_argument(
        "--allow_mixed",
        action="store_true",
        help="take networks of different recipes for one population, or compare such populations",
    )
    return parser


def _contrastive(recipe: Callable[..., None]) -> None:
    recipe("--temperature", _positive, unit="of the contrastive loss")
    recipe("--base_temperature", _positive, 0.07, unit="the loss is scaled by temperature / this")
    recipe("--head_epochs", _integer(1, 10**6), unit="epochs of the linear classifier")
    recipe("--batch_size_head", _integer(1, 10**6), unit="images a step of the classifier")
    views = "views of each image, encoded once for all its epochs; 0: new ones in every epoch"
    recipe("--head_views", _integer(0, 1000), 0, unit=views)


def _choice(*choices: str) -> Callable[[str], str]:
    """An argparse type that accepts just these words."""

    def choice(text: str) -> str:
        if text not in choices:
            _refuse(text, "one of " + ", ".join(choices))
        return text

    choice.metavar = "|".join(choices)  # type: ignore[attr-defined]
    return choice


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, presets, and a list of the flags that form the recipe."""

    def __init__(self, description: str, learner: str, defaults: dict[str, dict[str, Any]]):
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.defaults = defaults
        self.recipe_flags = ["preset", "released_quirks", "seed", "limit", "precision"]
        self.set_defaults(learner=learner)
        self._study_flags()
        self._network_and_run_flags()

    def recipe(
        self, flag: str, kind: Callable[[str], Any] | None, default: Any = None, *, unit: str
    ) -> None:
        """Add a flag that changes what is learned; `kind` None makes it --flag / --no-flag."""
        name = flag.removeprefix("--")
        self.recipe_flags.append(name)
        text = unit + (f" (default: {default})" if default is not None else self.default_text(name))
        if kind is None:
            self.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            metavar = getattr(kind, "metavar", "N")
            self.add_argument(flag, type=kind, default=default, metavar=metavar, help=text)

    def default_text(self, name: str) -> str:
        """`(default: paper 205, digits 15)`, or nothing for a flag that no preset sets."""
        values = {preset: flags.get(name) for preset, flags in self.defaults.items()}
        if all(value is None for value in values.values()):
            return ""
        shown = {
            preset: ",".join(map(str, value)) if isinstance(value, list) else value
            for preset, value in values.items()
        }
        return (
            " (default: " + ", ".join(f"{preset} {value}" for preset, value in shown.items()) + ")"
        )

    def architecture_text(self, name: str) -> str:
        """Training makes an architecture; the other scripts take it from the files."""
        return self.default_text(name) or " (default: as stored; files that differ are refused)"

    def _study_flags(self) -> None:
        add = self.add_argument
        add(
            "--cuda_device",
            type=_integer(-1, 1023),
            default=0,
            metavar="ID",
            help="GPU to use; -1 is the CPU, which is also used where there is no GPU (default: 0)",
        )
        add(
            "--dataset",
            type=_dataset,
            default="cifar10",
            metavar="cifar10|digits|PATH",
            help="data set, or a folder with train/<class>/* and test/<class>/* images "
            "(default: cifar10)",
        )
        add(
            "--data_dir",
            type=_folder,
            default=Path("data"),
            metavar="DIR",
            help="where CIFAR-10 is or will be put (default: data)",
        )
        add(
            "--models_dir",
            type=_folder,
            default=Path("models"),
            metavar="DIR",
            help="networks, in a folder for each data set (default: models)",
        )
        add(
            "--pies_dir",
            type=_folder,
            default=Path("pies"),
            metavar="DIR",
            help="figures and tables, in a folder for each data set (default: pies)",
        )
        add(
            "--models_number",
            type=_integer(1, 10**4),
            default=30,
            metavar="K",
            help="networks in a population (default: 30)",
        )
        add(
            "--index_start",
            type=_integer(0, 10**6),
            default=0,
            metavar="ID",
            help="id of the first network (default: 0)",
        )

    def _network_and_run_flags(self) -> None:
        add = self.add_argument
        add(
            "--seed",
            type=_integer(0, 2**31 - 1),
            default=0,
            metavar="N",
            help="seed of all randomness (default: 0)",
        )
        add(
            "--model_depth",
            type=_depth,
            metavar="N",
            help="convolutions, 6n+4" + self.architecture_text("model_depth"),
        )
        add(
            "--widen_factor",
            type=_integer(1, 100),
            metavar="N",
            help="times 16, 32, 64 channels" + self.architecture_text("widen_factor"),
        )
        add(
            "--dropout",
            type=_fraction,
            metavar="P",
            help="probability inside the blocks" + self.architecture_text("dropout"),
        )
        add(
            "--preset",
            choices=("paper", "digits"),
            help="defaults of the recipe (default: digits for digits, else paper)",
        )
        add(
            "--precision",
            choices=("auto", "fp32", "bf16"),
            default="auto",
            help="of training; auto is bf16 on a GPU that has it, else fp32; "
            "analysis is always fp32 (default: auto)",
        )
        add(
            "--limit",
            type=_integer(1, 10**9),
            metavar="N",
            help="use so many training images, the first of each class (default: all)",
        )
        add(
            "--test_limit",
            type=_integer(1, 10**9),
            metavar="N",
            help="use so many test images, the first of each class (default: all)",
        )
        add(
            "--figure_format",
            choices=("png", "pdf"),
            default="png",
            help="pdf: each figure as PDF too, with its fonts (default: png)",
        )
        add(
            "--released_quirks",
            action="store_true",
            help="what the released code did: flip images upside down too when classifying, and "
            "normalise with its constants, one of which has two digits swapped",
        )
        add(
            "--overwrite",
            action="store_true",
            help="make again what exists, also where it was made by another recipe",
        )
        add("--debug", action="store_true", help="show the traceback of an error")

    def parse_args(  # type: ignore[override]
        self, argv: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """Parse, fill the preset in, check flags against each other, collect `args.recipe`."""
        args = super().parse_args(argv, namespace)
        if args.preset is None:
            args.preset = "digits" if args.dataset == "digits" else "paper"
        for name, value in self.defaults[args.preset].items():
            if getattr(args, name, value) is None:
                setattr(args, name, value)
        _check_schedule(self, args)
        args.architecture = {
            name: getattr(args, name) for name in ARCHITECTURE if getattr(args, name) is not None
        }
        args.recipe = {name: getattr(args, name) for name in self.recipe_flags}
        args.ids = range(args.index_start, args.index_start + args.models_number)
        name = Path(args.dataset).resolve().name if args.dataset != "cifar10" else "cifar10"
        args.models = args.models_dir / name
        args.pies = args.pies_dir / name
        args.logs = Path("logs") / name
        return args

    def error(self, message: str) -> NoReturn:
        """One line on stderr, exit code 2."""
        line = runtime.one_line(f"{Path(sys.argv[0]).name}: {message}")
        self.exit(runtime.EXIT_ARGUMENTS, f"{line}\n")


def _check_schedule(parser: Parser, args: argparse.Namespace) -> None:
    begin, end = getattr(args, "begin_step", None), getattr(args, "end_step", None)
    if (begin is None) != (end is None):
        parser.error("argument --begin_step: give --begin_step and --end_step together or neither")
    if begin is None or end is None:
        return
    if begin >= end:
        parser.error(f"argument --begin_step: {begin}: must be less than --end_step {end}")
    if args.frequency is not None and args.frequency > end - begin:
        parser.error(
            f"argument --frequency: {args.frequency}: at most --end_step minus --begin_step, "
            f"{end - begin}"
        )


def _refuse(text: str, accepted: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"{text!r}: give {accepted}")


# Python also reads 1_0, " 5" and digits of other scripts as numbers.
_WHOLE = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _number(text: str, accepted: str, is_valid: Callable[[float], bool]) -> float:
    value = float(text) if _DECIMAL.fullmatch(text) else math.nan
    if not (math.isfinite(value) and is_valid(value)):
        _refuse(text, accepted)
    return value


def _positive(text: str) -> float:
    return _number(text, "a number above 0", lambda value: value > 0)


def _not_negative(text: str) -> float:
    return _number(text, "a number of at least 0", lambda value: value >= 0)


def _fraction(text: str) -> float:
    return _number(text, "a number from 0 to below 1", lambda value: 0 <= value < 1)


def _integer(low: int, high: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        # the length first: Python refuses to read numbers of thousands of digits
        value = int(text) if len(text) <= 20 and _WHOLE.fullmatch(text) else low - 1
        if not low <= value <= high:
            _refuse(text, f"a whole number from {low} to {high}")
        return value

    return integer


def _depth(text: str) -> int:
    value = _integer(10, 1000)(text)
    if value % 6 != 4:
        _refuse(text, "a depth of the form 6n+4: 10, 16, 22, 28, …")
    return value


def _sparsities(text: str) -> list[float]:
    accepted = "sparsities from 0 to below 1, separated by commas, each once"
    try:
        values = [
            abs(round(_fraction(part.strip()), 10)) for part in text.split(",")
        ]  # -0.0 is 0.0
    except argparse.ArgumentTypeError:
        _refuse(text, accepted)
    if len(set(values)) < len(values) or max(values) == 1:  # ten decimals are kept
        _refuse(text, accepted)
    return values


def _pruning_methods(text: str) -> list[str]:
    values = [part.strip().replace(" ", "_") for part in text.split(",")]
    if not set(values) <= set(paths.PRUNING_METHODS) or len(set(values)) < len(values):
        _refuse(text, "some of GMP, later_GMP, global, separated by commas, each once")
    return values


def _folder(text: str) -> Path:
    if not text or "\0" in text or any(len(part.encode()) > 255 for part in Path(text).parts):
        _refuse(text, "a folder whose name a file system can hold")
    try:
        is_other = Path(text).exists() and not Path(text).is_dir()
    except OSError as error:  # too long as a whole, say
        _refuse(text, f"a folder ({error.strerror})")
    if is_other:
        _refuse(text, "a folder; this is a file")
    return Path(text)


def _dataset(text: str) -> str:
    if text not in ("cifar10", "digits") and not _folder(text).is_dir():
        _refuse(text, "cifar10, digits, or an existing folder with train/ and test/")
    return text
