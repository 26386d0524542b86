"""Every command-line flag, as tables: name, accepted values, default, and help.

This file imports nothing heavy, so that `--help` and wrong flags are answered at once. Each of the
four functions named after a kind of script returns the parser of that kind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from common import flag_values as values
from common import paths, ranks, recipes, runtime, study


class Flag(NamedTuple):
    """One flag. `kind` is a function that reads the flag's text, a tuple of accepted words, None
    for a switch, or bool for a switch with an opposite. Without `default`, presets may give one."""

    name: str
    kind: Any
    help: str
    default: Any = None
    metavar: str = "N"
    older_name: str = ""  # also accepted


COUNT = values.integer(1, 10**6)
FROM_0 = values.integer(0, 10**6)
STEP = values.integer(0, 10**9)
LIMIT = values.integer(1, 10**9)

STUDY = (
    Flag("dataset", values.dataset, "data set, or a folder with train/<class>/* and test/<class>/* "
         "images", "cifar10", "|".join([*study.DATASETS, "PATH"])),
    Flag("image_size", values.integer(8, 224), "side of the images in pixels; others are resized "
         f"(default: {study.FOLDER.image_size}, digits {study.DATASETS['digits'].image_size})"),
    Flag("limit", LIMIT, "use so many training images, the first of each class (default: all)"),
    Flag("test_limit", LIMIT, "use so many test images, the first of each class (default: all)"),
    Flag("data_dir", values.folder, "where data sets are or will be put", Path("data"), "DIR"),
    Flag("models_dir", values.folder, "networks, in a folder for each data set; logs lie beside it",
         Path("models"), "DIR"),
    Flag("pies_dir", values.folder, "figures and tables, in a folder for each data set",
         Path("pies"), "DIR"),
    Flag("models_number", values.integer(1, 10**4), "networks in a population", 30, "K"),
    Flag("index_start", FROM_0, "id of the first network", 0, "ID"),
)  # fmt: skip
# Training defines the architecture; the other scripts read it from the files.
NETWORK = (
    Flag("model_depth", values.depth, "convolutions, 6n+4"),
    Flag("widen_factor", values.integer(1, 100), "times 16, 32, 64 channels"),
    Flag("dropout", values.fraction, "probability inside the blocks", metavar="P"),
)
RECIPE = (
    Flag("preset", tuple(recipes.NETWORK), "named recipe (default: digits for digits, else paper)"),
    Flag("seed", values.integer(0, 2**31 - 1), "seed of all randomness", 0),
    Flag("precision", ("auto", "fp32", "bf16"), "of training; auto is bf16 on a GPU that has it, "
         "else fp32; analysis is always fp32", "auto"),
    Flag("released_quirks", None, "what the released code did: flip images upside down too when "
         "classifying, and normalise with its constants, one of which has two digits swapped"),
)  # fmt: skip
TRAINING = (
    Flag("epochs", COUNT, "epochs"),
    Flag("batch_size", COUNT, "images a step"),
    Flag("learning_rate", values.positive, "peak learning rate of SGD"),
    Flag("weight_decay", values.not_negative, "L2, added to the gradient"),
    Flag("momentum", values.fraction, "momentum of SGD", recipes.MOMENTUM),
    Flag("cosine_annealing", bool, "let the learning rate fall as a half cosine, step by step"),
    Flag("warmup_epochs", values.epochs, "epochs of linear warm-up; a part of one will do"),
    Flag("nesterov", bool, "Nesterov's momentum"),
    Flag("decay", ("all", "weights"), "what decays: all parameters, or all but biases and norms"),
)
SUPCON_TRAINING = (
    Flag("method", ("SupCon", "SimCLR"), "with or without labels", "SupCon"),
    Flag("projection_head", ("mlp", "linear"), "between embedding and loss", "mlp"),
)
FINETUNING = (
    Flag("epochs", COUNT, "epochs of fine-tuning"),
    Flag("batch_size", COUNT, "images a step"),
    Flag("learning_rate", values.positive, "learning rate of SGD with Nesterov momentum, constant"),
)
FINETUNE_LOSS = Flag("finetune_loss", ("cross_entropy", "supcon"), "supcon: through the encoder "
                     "only, then the classifier again", "cross_entropy")  # fmt: skip
CONTRASTIVE = (
    Flag("temperature", values.positive, "temperature of the contrastive loss"),
    Flag("base_temperature", values.positive, "the loss is scaled by temperature / this",
         recipes.BASE_TEMPERATURE),
    Flag("min_crop_area", values.share, "share of an image that a view shows at least"),
    Flag("head_epochs", COUNT, "epochs of the linear classifier"),
    Flag("batch_size_head", COUNT, "images a step of the classifier"),
    Flag("head_crop_padding", values.fraction, "share of the side by which the classifier's images "
         "are padded before they are cropped"),
    Flag("head_views", values.integer(0, 1000), "views of each image, encoded once for all epochs "
         "of the classifier; 0: new ones in every epoch", 0),
)  # fmt: skip
CRITERION = Flag("criterion", study.CRITERIA, "which weights are pruned: the smallest, or as many "
                 "of each layer at random", study.CRITERIA[0])  # fmt: skip
GRADUAL = (
    Flag("begin_step", STEP, "step of the first pruning event (default: GMP 1.25 %% of training, "
         "later_GMP 10 %%)"),
    Flag("end_step", STEP, "step by which the last pruning event has happened (default: GMP 25 %%, "
         "later_GMP 19.4 %%)"),
    Flag("frequency", values.integer(1, 10**9), "steps from one pruning event to the next "
         "(default: so many that GMP has 39 events, later_GMP 38)"),
    Flag("allocation", study.ALLOCATIONS, "the same sparsity in every layer, or one ranking of all "
         "weights", study.ALLOCATIONS[0]),
    CRITERION,
)  # fmt: skip
GRADUAL_CELLS = (
    Flag("pruning_percentages", values.sparsities, "sparsities to train, as fractions; 0.0 is the "
         "dense network", [0.0], "S,S,…"),
    Flag("pruning_method", tuple(name for name, row in study.SCHEDULES.items() if row.is_gradual),
         "gradual pruning that starts early (GMP) or late", study.EARLY),
)  # fmt: skip
ONE_SHOT = (
    Flag("allocation", tuple(reversed(study.ALLOCATIONS)), "one ranking of all weights, or the "
         "same sparsity in every layer", study.ALLOCATIONS[1]),
    CRITERION,
)  # fmt: skip
ALLOW_MISSING = Flag("allow_missing", None, "go on with the networks that are there where fewer "
                     "are than were asked for")  # fmt: skip
ONE_SHOT_CELLS = (
    Flag("pruning_percentages", values.sparsities, "sparsities, as fractions; 0.0 only fine-tunes, "
         "as a control", metavar="S,S,…"),
    ALLOW_MISSING,
)  # fmt: skip
ANALYSED_CELLS = (
    Flag("pruning_methods", values.prunings, f"of {', '.join(study.PRUNINGS)} (default: all that "
         "are found)", metavar="M,M,…"),
    Flag("pruning_percentages", values.sparsities, "sparsities to compare with the dense networks "
         "(default: all that are found)", metavar="S,S,…"),
    ALLOW_MISSING,
    Flag("allow_mixed", None, "take networks of different recipes for one population, or compare "
         "such populations"),
)  # fmt: skip
PIES = (
    Flag("plot_umap", None, "map one network: dense, and each pruning at its highest sparsity"),
    Flag("umap_id", FROM_0, "the network that is mapped (default: the first of the population)",
         metavar="ID"),
    Flag("plot_q_score", None, "draw Q-Score, Z-Score, L1 norm and softmax margin by image"),
    Flag("resamples", values.integer(100, 10**6), "random halves of the networks behind the "
         "interval of a PIE count", 1000),
    Flag("permutations", values.integer(100, 10**6), "random exchanges of dense and pruned "
         "networks; up to 12 pairs all exchanges are counted", 1000),
    Flag("replicate_index_start", FROM_0, "first id of as many networks again, dense and where "
         "they exist pruned: PIEs between networks of one recipe (default: none)", metavar="ID",
         older_name="null_index_start"),
)  # fmt: skip
DEPTH = (
    Flag("prediction_depth_models", values.integer(1, 10**4), "networks whose depth is measured, "
         "the first of each population", 5, "K"),
    Flag("pd_target", ("prediction", "label"), "what the probes must agree with in the figures; "
         "the table has both", "prediction"),
    Flag("pd_bank", ("clean", "augmented"), "training images among which the probes look for "
         "neighbours; the released code had augmented ones", "clean"),
)  # fmt: skip
ANALYSIS = (
    Flag("batch_size", COUNT, "images a forward pass", 256),
    Flag("knn", COUNT, "neighbours that vote in a probe", 30, "k"),
)
RUN = (
    Flag("cuda_device", values.integer(-1, 1023), "GPU to use; -1 is the CPU, which is also used "
         "where there is no GPU (default: 0; of several ranks each takes its own)", metavar="ID"),
    Flag("figure_format", ("png", "pdf"), "pdf: each figure as PDF too, with its fonts", "png"),
    Flag("overwrite", None, "make again what exists, also where it was made by another recipe"),
    Flag("dry_run", None, "say what is there, what would be made, and what that costs (steps, "
         "FLOPs, disk, time), and make nothing"),
    Flag("debug", None, "show the traceback of an error"),
)  # fmt: skip
MAKING = (
    Flag("compile", None, "compile each loss and its backward pass, a minute for each; for a GPU "
         "with small batches, where they run as CUDA graphs. Another rounding, so other networks"),
)  # fmt: skip
NO_MATTER = ("learner", "dry_run", "debug")  # these change nothing in the results
# Flags that all scripts share and that help to define what is learned.
IN_EVERY_RECIPE = ("preset", "released_quirks", "seed", "limit", "precision", "image_size")


def training(description: str, learner: str) -> Parser:
    """The flags of `clr_training.py` and `sup_training.py`."""
    presets = {p: flags | recipes.NETWORK[p] for p, flags in recipes.TRAINING[learner].items()}
    recipe = TRAINING + (SUPCON_TRAINING + CONTRASTIVE if learner == "SupCon" else ())
    learned = (*NETWORK, *recipe, *GRADUAL)
    groups = {"recipe": recipe, "pruning": GRADUAL_CELLS + GRADUAL, "run": MAKING}
    return Parser(description, learner, presets, groups, learned)


def pruning_finetune(description: str, learner: str) -> Parser:
    """The flags of `clr_pruning_finetune.py` and `sup_pruning_finetune.py`."""
    recipe = FINETUNING + ((FINETUNE_LOSS, *CONTRASTIVE) if learner == "SupCon" else ())
    groups = {"recipe": recipe, "pruning": ONE_SHOT_CELLS + ONE_SHOT, "run": MAKING}
    return Parser(description, learner, recipes.FINETUNING[learner], groups, recipe + ONE_SHOT)


def pie_detection(description: str, learner: str) -> Parser:
    """The flags of `clr_pie_kmodels_detection.py` and `sup_pie_kmodels_detection.py`."""
    return _analysis(description, learner, PIES)


def prediction_depth(description: str, learner: str) -> Parser:
    """The flags of `clr_prediction_depth.py` and `sup_prediction_depth.py`."""
    return _analysis(description, learner, DEPTH)


def _analysis(description: str, learner: str, flags: Sequence[Flag]) -> Parser:
    groups = {"pruning": ANALYSED_CELLS, "analysis": (*flags, *ANALYSIS)}
    return Parser(description, learner, {preset: {} for preset in recipes.NETWORK}, groups)


class Parser(argparse.ArgumentParser):
    """argparse with flags in groups, one-line errors, presets, and `recipe`, the list of the flags
    that define what is learned: those in `learned`, and some that all scripts share."""

    def __init__(
        self,
        description: str,
        learner: str,
        presets: dict[str, dict[str, Any]],
        groups: dict[str, Sequence[Flag]],
        learned: Sequence[Flag] = (),
    ):
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.presets = presets
        self.recipe = [*IN_EVERY_RECIPE, *(flag.name for flag in learned)]
        self.set_defaults(learner=learner)
        shared = {"study": STUDY, "network": NETWORK, "recipe": RECIPE, "run": RUN}
        for title in ("study", "network", "recipe", "pruning", "analysis", "run"):
            group = self.add_argument_group(title)
            for flag in (*shared.get(title, ()), *groups.get(title, ())):
                self._add(group, flag)

    def _add(self, group: argparse._ArgumentGroup, flag: Flag) -> None:
        if flag.kind in (None, bool):
            how = {"action": argparse.BooleanOptionalAction if flag.kind else "store_true"}
        elif isinstance(flag.kind, tuple):
            how = {"choices": flag.kind, "default": flag.default}
        else:
            how = {"type": flag.kind, "metavar": flag.metavar, "default": flag.default}
        how |= {"dest": flag.name, "help": flag.help + self._default_text(flag)}
        group.add_argument(f"--{flag.name}", **how)
        if flag.older_name:
            hidden = dict.fromkeys(("default", "help"), argparse.SUPPRESS)
            group.add_argument(f"--{flag.older_name}", **how | hidden)

    def _default_text(self, flag: Flag) -> str:
        """`(default: paper 205, digits 15)`; empty for a flag without a default."""
        if flag.kind is None or "(default" in flag.help:
            return ""
        if flag.default is not None:
            return f" (default: {shown(flag.default)})"
        of_presets = {name: flags.get(flag.name) for name, flags in self.presets.items()}
        if any(value is not None for value in of_presets.values()):
            named = ", ".join(f"{name} {shown(value)}" for name, value in of_presets.items())
            return f" (default: {named})"
        stored = flag.name in recipes.ARCHITECTURE
        return " (default: as stored; files that differ are refused)" if stored else ""

    def parse_args(  # type: ignore[override]
        self, argv: Sequence[str] | None = None, namespace: None = None
    ) -> argparse.Namespace:
        """Parse the flags, fill in the preset, check flags against each other. The result also has
        `recipe`, the flags that define what is learned, and `flags`, all that may matter."""
        args = super().parse_args(argv, namespace)
        words = study.dataset_words(args.dataset)
        args.preset = args.preset or words.preset
        for name, value in self.presets[args.preset].items():
            if getattr(args, name) is None:
                setattr(args, name, value)
        if not words.is_resizable and args.image_size not in (None, words.image_size):
            only = f"{args.dataset} has images of {words.image_size}"
            self.error(f"argument --image_size: {args.image_size}: {only}")
        args.image_size = args.image_size or words.image_size
        args.flags = {k: v for k, v in vars(args).items() if k not in NO_MATTER}
        args.ranks = ranks.of_environment()
        if contradiction := values.contradiction(vars(args)):
            self.error(contradiction)
        architecture = {name: getattr(args, name) for name in recipes.ARCHITECTURE}
        args.architecture = {k: value for k, value in architecture.items() if value is not None}
        args.recipe = {name: getattr(args, name) for name in self.recipe}
        args.ids = range(args.index_start, args.index_start + args.models_number)
        args.name = paths.dataset_name(args.dataset, args.models_dir)
        args.models = args.models_dir / args.name
        args.pies = args.pies_dir / args.name
        args.logs = args.models_dir.parent / "logs" / args.name
        return args

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with 2."""
        line = runtime.one_line(f"{Path(sys.argv[0]).name}: {message}")
        self.exit(runtime.EXIT_ARGUMENTS, f"{line}\n")


def shown(value: Any) -> Any:
    """The value of a flag as a user writes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else value
