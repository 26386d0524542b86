"""The learning methods, and everything in which they differ: the modules of a network, the
schedules of its stages, and their losses.

Either method ends with a `WideResNet`. METHODS says how new networks of each learner are trained;
fine-tuning after one-shot pruning has stages of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from common import recipes, study
from common.learning.loop import Stage
from common.learning.losses import collapse_value, supcon_loss
from common.learning.schedule import Pruning, Schedule
from common.model import wide_resnet
from common.model.wide_resnet import ProjectionHead, WideResNet
from common.recipes import Augmentation, Config

Modules = dict[str, nn.Module]


def new_modules(config: Config, n_classes: int, network_id: int) -> Modules:
    """An untrained network and, if the configuration names one, a projection head. The initial
    weights depend only on (seed, id)."""
    seed = (config["seed"], network_id)
    architecture = (config["model_depth"], config["widen_factor"], n_classes, config["dropout"])
    network = wide_resnet.build(*architecture, *seed)
    if "projection_head" not in config:
        return {"network": network}
    width, kind = network.embedding_width, config["projection_head"]
    return {"network": network, "projection": wide_resnet.build_projection(width, kind, *seed)}


def schedules(config: Config) -> list[Schedule]:
    """The stages of a training or fine-tuning, in order, as plain data."""
    config = recipes.complete(config)
    schedule = study.Cell(config["learner"], config["pruning_method"], 0).schedule
    if schedule is None or schedule.is_gradual:
        return METHODS[config["learner"]](config)
    return _finetuning(config)


def stages(modules: Modules, config: Config) -> list[Stage]:
    """The schedules, each with what it trains: parameters, loss, and prunable weights."""
    return [STAGES[schedule.name](schedule, modules, config) for schedule in schedules(config)]


def _supervised(config: Config) -> list[Schedule]:
    """Cross-entropy through the whole network."""
    return [
        Schedule(
            name="network",
            augmentation=classification_views(config),
            milestones=() if config["cosine_annealing"] else recipes.SUPERVISED_MILESTONES,
            gamma=recipes.SUPERVISED_GAMMA,
            pruning=_gradual(config, own_steps=True),
            **_main_stage(config),
        )
    ]


def _supcon(config: Config) -> list[Schedule]:
    """The contrastive loss through encoder and projection head; then a linear classifier on the
    frozen encoder. Both stages prune by the same schedule, in fractions of their own steps."""
    return [
        Schedule(
            name="encoder",
            augmentation=contrastive_views(config),
            n_views=2,
            collapsed_loss=_collapsed_loss(config),
            pruning=_gradual(config, own_steps=True),
            **_main_stage(config),
        ),
        _head(config, _gradual(config, own_steps=False)),
    ]


def _main_stage(config: Config) -> dict[str, Any]:
    """The fields that every first stage takes from the flags."""
    same = ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay", "nesterov")
    return {name: config[name] for name in same} | {
        "decays_weights_only": config["decay"] == "weights",
        "cosine": config["cosine_annealing"],
        "warmup": min(config["warmup_epochs"] / config["epochs"], 1.0),
    }


def _finetuning(config: Config) -> list[Schedule]:
    """Fine-tuning at a constant learning rate with fixed masks: cross-entropy through the whole
    network, or the contrastive loss through the encoder, and then the classifier again."""
    pruning = Pruning(None, config["sparsity"], config["criterion"], config["allocation"])
    same = {name: config[name] for name in ("epochs", "batch_size", "learning_rate")}
    same |= {"momentum": recipes.FINETUNING_MOMENTUM, "nesterov": True, "pruning": pruning}
    if config.get("finetune_loss") != "supcon":
        return [Schedule(name="finetune", augmentation=classification_views(config), **same)]
    encoder = Schedule(
        name="encoder",
        augmentation=contrastive_views(config),
        n_views=2,
        collapsed_loss=_collapsed_loss(config),
        **same,
    )
    return [encoder, _head(config, pruning)]


def _head(config: Config, pruning: Pruning | None) -> Schedule:
    return Schedule(
        name="head",
        augmentation=classification_views(config, config["head_crop_padding"]),
        cached_views=config["head_views"],
        epochs=config["head_epochs"],
        batch_size=config["batch_size_head"],
        learning_rate=recipes.HEAD_LEARNING_RATE,
        momentum=recipes.HEAD_MOMENTUM,
        milestones=recipes.HEAD_MILESTONES,
        gamma=recipes.HEAD_GAMMA,
        pruning=pruning,
    )


def _gradual(config: Config, own_steps: bool) -> Pruning | None:
    """The stage's pruning. Steps given by flags apply to the main stage only; other stages use
    fractions."""
    if config["sparsity"] == 0:
        return None
    steps = ("begin_step", "end_step", "frequency") if own_steps else ()
    return Pruning(
        window=recipes.WINDOWS[study.PRUNINGS[config["pruning_method"]].schedule],
        sparsity=config["sparsity"],
        criterion=config["criterion"],
        allocation=config["allocation"],
        **{name: config[name] for name in steps},
    )


def _collapsed_loss(config: Config) -> float:
    n_views = 2 * config["batch_size"]
    return collapse_value(n_views, config["temperature"], config["base_temperature"])


def classification_views(
    config: Config, crop_padding: float = recipes.CROP_PADDING
) -> Augmentation:
    """The augmentation of images in stages that classify them; crop_padding: share of the side."""
    views = _mirrored_if_safe(recipes.CLASSIFICATION_VIEWS[config["preset"]], config)
    views = views._replace(crop_padding=round(crop_padding * config["image_size"]))
    upside_down = config["released_quirks"] and config["preset"] == "paper"
    return views._replace(vertical_flip=0.5) if upside_down else views


def contrastive_views(config: Config) -> Augmentation:
    """The augmentation that makes either view of an image for the contrastive loss."""
    views = _mirrored_if_safe(recipes.CONTRASTIVE_VIEWS[config["preset"]], config)
    return views._replace(resized_crop_area=(config["min_crop_area"], 1.0))


def _mirrored_if_safe(views: Augmentation, config: Config) -> Augmentation:
    """The augmentation, without flips if a mirrored image may show another class."""
    words = study.dataset_words(str(config.get("dataset")))
    return views if words.keeps_class_mirrored else views._replace(horizontal_flip=0.0)


def _network_stage(schedule: Schedule, modules: Modules, config: Config) -> Stage:
    network = modules["network"]
    loss = partial(_cross_entropy, lambda images: network(images).logits)
    return Stage(schedule, list(network.parameters()), loss, prunable=wide_resnet.prunable(network))


def _encoder_stage(schedule: Schedule, modules: Modules, config: Config) -> Stage:
    network, projection = modules["network"], modules["projection"]
    parameters = [p for name, p in network.named_parameters() if not name.startswith("fc.")]
    prunable = wide_resnet.prunable(network)
    del prunable["fc.weight"]
    loss = partial(_contrastive_loss, network, projection, config)
    return Stage(schedule, [*parameters, *projection.parameters()], loss, prunable=prunable)


def _head_stage(schedule: Schedule, modules: Modules, config: Config) -> Stage:
    network = modules["network"]
    return Stage(
        schedule,
        list(network.fc.parameters()),
        partial(_cross_entropy, network.fc),
        frozen=lambda views: network(views).embedding,
        prunable={"fc.weight": network.fc.weight},
    )


def _cross_entropy(
    classify: Callable[[Tensor], Tensor], inputs: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    logits = classify(inputs)
    return F.cross_entropy(logits.float(), labels), (logits.argmax(1) == labels).sum()


def _contrastive_loss(
    network: WideResNet, projection: ProjectionHead, config: Config, views: Tensor, labels: Tensor
) -> tuple[Tensor, None]:
    features = projection(network(views).embedding)
    features = features.unflatten(0, (2, len(labels))).transpose(0, 1)  # [B,V,D]
    classes = None if config.get("method") == "SimCLR" else labels
    loss = supcon_loss(features, classes, config["temperature"], config["base_temperature"])
    return loss, None


# By the words of study.LEARNERS: the schedules by which new networks learn.
METHODS: dict[str, Callable[[Config], list[Schedule]]] = {
    "supervised": _supervised,
    "SupCon": _supcon,
}
# By the name of a schedule: the function that makes its stage.
STAGES = {
    "network": _network_stage,
    "finetune": _network_stage,
    "encoder": _encoder_stage,
    "head": _head_stage,
}
