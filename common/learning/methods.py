"""The two learning methods, and everything in which they differ.

After training both are the same thing, a `WideResNet`; nothing outside this file asks how it
learned.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from common import presets
from common.data.augment import Augmentation
from common.learning.loop import Stage
from common.learning.losses import collapse_value, supcon_loss
from common.learning.pruning import pruning_events
from common.model import wide_resnet
from common.model.wide_resnet import ProjectionHead, WideResNet

Config = dict[str, Any]
Modules = dict[str, nn.Module]

# Augmentations by preset. A digit must stay a digit: it is shifted and resized, never flipped.
CLASSIFICATION_VIEWS = {
    "paper": Augmentation(crop_padding=4, horizontal_flip=0.5),
    "digits": Augmentation(crop_padding=1),
}
CONTRASTIVE_VIEWS = {
    "paper": Augmentation(
        resized_crop_area=(0.2, 1.0),
        horizontal_flip=0.5,
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_probability=0.8,
        grayscale_probability=0.2,
    ),
    "digits": Augmentation(
        resized_crop_area=(0.6, 1.0), jitter=(0.4, 0.4, 0.0, 0.0), jitter_probability=0.8
    ),
}


class Method(NamedTuple):
    """A learning method: the modules of a new network, and the stages that train them."""

    new_modules: Callable[[Config, int, int], Modules]
    stages: Callable[[Modules, Config], list[Stage]]


def _new_network(config: Config, n_classes: int, network_id: int) -> WideResNet:
    return wide_resnet.build(
        config["model_depth"],
        config["widen_factor"],
        n_classes,
        config["dropout"],
        *(config["seed"], network_id),
    )


def _supervised_modules(config: Config, n_classes: int, network_id: int) -> Modules:
    return {"network": _new_network(config, n_classes, network_id)}


def _supcon_modules(config: Config, n_classes: int, network_id: int) -> Modules:
    network = _new_network(config, n_classes, network_id)
    projection = wide_resnet.build_projection(
        network.embedding_width, config["projection_head"], config["seed"], network_id
    )
    return {"network": network, "projection": projection}


def _supervised_stages(modules: Modules, config: Config) -> list[Stage]:
    """Cross-entropy through the whole network."""
    network = modules["network"]
    return [
        Stage(
            name="network",
            parameters=list(network.parameters()),
            loss=partial(_cross_entropy, network),
            augmentation=classification_views(config),
            epochs=config["epochs"],
            batch_size=config["batch_size"],
            learning_rate=config["learning_rate"],
            momentum=config["momentum"],
            weight_decay=config["weight_decay"],
            milestones=() if config["cosine_annealing"] else presets.SUPERVISED_MILESTONES,
            gamma=presets.SUPERVISED_GAMMA,
            cosine=config["cosine_annealing"],
            warmup=_warmup(config),
            **_gradual_pruning(wide_resnet.prunable(network), config),
        )
    ]


def _supcon_stages(modules: Modules, config: Config) -> list[Stage]:
    """The contrastive loss through encoder and projection head; then a linear classifier on the
    frozen encoder. Each is pruned by the same schedule, in fractions of its own steps."""
    encoder, classifier = _prunable_parts(modules["network"])
    return [
        _encoder_stage(
            modules,
            config,
            momentum=config["momentum"],
            weight_decay=config["weight_decay"],
            cosine=config["cosine_annealing"],
            warmup=_warmup(config),
            **_gradual_pruning(encoder, config),
        ),
        _head_stage(modules, config, **_gradual_pruning(classifier, config, own_steps=False)),
    ]


def finetuning_stages(modules: Modules, config: Config) -> list[Stage]:
    """Fine-tuning at a constant rate with the masks a network has: cross-entropy through all of
    it, or the contrastive loss through the encoder and then the classifier again."""
    network = modules["network"]
    constant = {"momentum": presets.FINETUNING_MOMENTUM, "nesterov": True}
    if config.get("finetune_loss") == "supcon":
        encoder, classifier = _prunable_parts(network)
        return [
            _encoder_stage(modules, config, prunable=encoder, **constant),
            _head_stage(modules, config, prunable=classifier),
        ]
    return [
        Stage(
            name="finetune",
            parameters=list(network.parameters()),
            loss=partial(_cross_entropy, network),
            augmentation=classification_views(config),
            epochs=config["epochs"],
            batch_size=config["batch_size"],
            learning_rate=config["learning_rate"],
            prunable=wide_resnet.prunable(network),
            **constant,
        )
    ]


def _encoder_stage(modules: Modules, config: Config, **differences: Any) -> Stage:
    network, projection = modules["network"], modules["projection"]
    encoder = [p for name, p in network.named_parameters() if not name.startswith("fc.")]
    return Stage(
        name="encoder",
        parameters=[*encoder, *projection.parameters()],
        loss=partial(_contrastive_loss, network, projection, config),
        augmentation=CONTRASTIVE_VIEWS[config["preset"]],
        n_views=2,
        epochs=config["epochs"],
        batch_size=config["batch_size"],
        learning_rate=config["learning_rate"],
        collapsed_loss=collapse_value(
            2 * config["batch_size"], config["temperature"], config["base_temperature"]
        ),
        **differences,
    )


def _head_stage(modules: Modules, config: Config, **differences: Any) -> Stage:
    network = modules["network"]
    return Stage(
        name="head",
        parameters=list(network.fc.parameters()),
        loss=partial(_cross_entropy_of_head, network.fc),
        frozen=lambda views: network(views).embedding,
        cached_views=config["head_views"],
        augmentation=classification_views(config),
        epochs=config["head_epochs"],
        batch_size=config["batch_size_head"],
        learning_rate=presets.HEAD_LEARNING_RATE,
        momentum=presets.HEAD_MOMENTUM,
        milestones=presets.HEAD_MILESTONES,
        gamma=presets.HEAD_GAMMA,
        **differences,
    )


def _prunable_parts(network: WideResNet) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    encoder = wide_resnet.prunable(network)
    return encoder, {"fc.weight": encoder.pop("fc.weight")}


def classification_views(config: Config) -> Augmentation:
    """How images are augmented wherever they are classified."""
    views = CLASSIFICATION_VIEWS[config["preset"]]
    upside_down = config["released_quirks"] and config["preset"] == "paper"
    return views._replace(vertical_flip=0.5) if upside_down else views


def _warmup(config: Config) -> float:
    return min(config["warmup_epochs"] / config["epochs"], 1.0)


def _gradual_pruning(
    prunable: dict[str, Tensor], config: Config, own_steps: bool = True
) -> dict[str, Any]:
    """The stage's pruning. Steps given by flags count the main stage's; others use fractions."""
    if config["sparsity"] == 0:
        return {}
    steps = ("begin_step", "end_step", "frequency") if own_steps else ()
    events = partial(
        _events,
        config["pruning_method"],
        config["sparsity"],
        {name: config[name] for name in steps},
    )
    return {
        "prunable": prunable,
        "allocation": config["allocation"],
        "pruning_events": events,
    }


def _events(
    pruning_method: str, sparsity: float, steps: dict[str, int | None], n_steps: int
) -> dict[int, float]:
    return pruning_events(pruning_method, sparsity, n_steps, **steps)


def _cross_entropy(network: WideResNet, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    logits = network(images).logits
    return F.cross_entropy(logits.float(), labels), (logits.argmax(1) == labels).sum()


def _cross_entropy_of_head(
    classifier: nn.Module, embedding: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    logits = classifier(embedding)
    return F.cross_entropy(logits.float(), labels), (logits.argmax(1) == labels).sum()


def _contrastive_loss(
    network: WideResNet, projection: ProjectionHead, config: Config, views: Tensor, labels: Tensor
) -> tuple[Tensor, None]:
    features = projection(network(views).embedding)
    features = features.unflatten(0, (2, len(labels))).transpose(0, 1)  # [B,V,D]
    classes = None if config.get("method") == "SimCLR" else labels
    loss = supcon_loss(features, classes, config["temperature"], config["base_temperature"])
    return loss, None


METHODS = {
    "supervised": Method(_supervised_modules, _supervised_stages),
    "SupCon": Method(_supcon_modules, _supcon_stages),
}
