"""What the two learning methods train, by which loss, with which images, and what they prune."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import paths
from common.data import augment
from common.data.datasets import Dataset
from common.learning import loop, methods, pruning
from common.learning.loop import Stage
from common.learning.losses import supcon_loss
from common.learning.methods import METHODS
from common.model import wide_resnet

ConfigOf = Callable[..., dict[str, Any]]
Modules = dict[str, nn.Module]
FRACTIONS = {"begin_step": None, "end_step": None, "frequency": None}
PRUNED = {"pruning_method": "GMP", "sparsity": 0.9}


def build(config: dict[str, Any], network_id: int = 0) -> tuple[Modules, list[Stage]]:
    method = METHODS[config["learner"]]
    modules = method.new_modules(config, 10, network_id)
    return modules, method.stages(modules, config)


def fit(stage: Stage, modules: Modules, data: Dataset, masks: dict[str, Tensor]) -> None:
    loop.fit(stage, modules["network"], data, (5, 0), masks)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    after = module.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def names(stage: Stage, modules: Modules) -> set[str]:
    """The parameters that a stage trains, by module and name."""
    found = {
        f"{module}.{name}": parameter
        for module in modules
        for name, parameter in modules[module].named_parameters()
    }
    chosen = {
        name for name, parameter in found.items() if any(parameter is p for p in stage.parameters)
    }
    assert len(chosen) == len(stage.parameters)
    return chosen


def images(n: int = 8, size: int = 8) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_there_is_a_method_for_each_learner() -> None:
    assert set(METHODS) == set(paths.LEARNERS)


@pytest.mark.parametrize("learner", paths.LEARNERS)
def test_new_modules_follow_the_configuration_and_the_id(config_of: ConfigOf, learner: str) -> None:
    config = config_of(learner, model_depth=16, widen_factor=2)
    new_modules = METHODS[learner].new_modules
    torch.manual_seed(1)
    first = new_modules(config, 7, 3)
    torch.manual_seed(2)
    again, other = new_modules(config, 7, 3), new_modules(config, 7, 4)
    reseeded = new_modules(config | {"seed": 6}, 7, 3)
    assert set(first) == {"network"} | ({"projection"} if learner == "SupCon" else set())
    n_parameters = sum(p.numel() for p in first["network"].parameters())
    assert n_parameters == 691_674 - 3 * 129  # seven classes, not ten
    for name, module in first.items():
        assert not changed(weights_of(module), again[name])
        assert changed(weights_of(module), other[name])
        assert changed(weights_of(module), reseeded[name])


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_the_projection_head_is_the_one_asked_for(config_of: ConfigOf, kind: str) -> None:
    projection = build(config_of("SupCon", projection_head=kind))[0]["projection"]
    n_layers = sum(isinstance(module, nn.Linear) for module in projection.modules())
    assert n_layers == (2 if kind == "mlp" else 1)


# Supervised


def test_supervised_learning_is_one_stage_through_the_whole_network(config_of: ConfigOf) -> None:
    config = config_of("supervised", epochs=7, batch_size=12, learning_rate=0.3, momentum=0.8)
    modules, stages = build(config)
    assert [stage.name for stage in stages] == ["network"]
    stage = stages[0]
    assert len(stage.parameters) == len(list(modules["network"].parameters()))
    assert names(stage, modules) == {
        f"network.{n}" for n, _ in modules["network"].named_parameters()
    }
    given = (stage.epochs, stage.batch_size, stage.learning_rate, stage.momentum)
    assert given == (7, 12, 0.3, 0.8)
    assert stage.weight_decay == 5e-4
    assert stage.n_views == 1
    assert stage.frozen is None
    assert stage.pruning_events(1000) == {}


def test_supervised_loss_is_cross_entropy_and_counts_the_correct(config_of: ConfigOf) -> None:
    modules, (stage,) = build(config_of("supervised"))
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7])
    loss, correct = stage.loss(images(), labels)
    logits = modules["network"](images()).logits
    share = logits.softmax(1)[torch.arange(8), labels]
    assert loss.item() == pytest.approx(-share.log().mean().item(), rel=1e-5)
    assert correct is not None
    assert int(correct) == sum(int(row.argmax()) == i for i, row in enumerate(logits))


def test_the_released_learning_rates_of_supervised_learning(config_of: ConfigOf) -> None:
    """205 epochs of 391 steps, a tenth after 5, 30, 50 and 80 epochs."""
    config = config_of("supervised", epochs=205, batch_size=128, learning_rate=1.0)
    (stage,) = build(config)[1]
    per_epoch = stage.steps_per_epoch(50_000)
    assert per_epoch == 391
    for epoch in range(205):
        falls = sum(epoch >= milestone for milestone in (5, 30, 50, 80))
        for step in (epoch * per_epoch, (epoch + 1) * per_epoch - 1):
            rate = stage.learning_rate_at(step / (205 * per_epoch))
            assert rate == pytest.approx(0.1**falls), (epoch, step)


@pytest.mark.parametrize("learner", paths.LEARNERS)
def test_cosine_annealing_and_warmup_are_passed_on(config_of: ConfigOf, learner: str) -> None:
    config = config_of(learner, cosine_annealing=True, warmup_epochs=2, epochs=10)
    stage = build(config)[1][0]
    for epoch in range(10):
        cosine = (1 + math.cos(math.pi * (epoch - 2) / 8)) / 2
        expected = 0.05 * (epoch / 2 if epoch < 2 else cosine)
        assert stage.learning_rate_at(epoch / 10) == pytest.approx(expected, abs=1e-12), epoch


def test_a_warmup_longer_than_the_training_is_all_of_it(config_of: ConfigOf) -> None:
    (stage,) = build(config_of("supervised", warmup_epochs=9, epochs=3))[1]
    assert stage.warmup == 1.0
    assert stage.learning_rate_at(0.5) == pytest.approx(0.025)


# Supervised contrastive


def test_supcon_is_an_encoder_stage_and_a_head_stage(config_of: ConfigOf) -> None:
    config = config_of("SupCon", epochs=7, batch_size=12, head_epochs=3, batch_size_head=9)
    modules, (encoder, head) = build(config)
    assert (encoder.name, head.name) == ("encoder", "head")
    of_network = {f"network.{name}" for name, _ in modules["network"].named_parameters()}
    of_projection = {f"projection.{name}" for name, _ in modules["projection"].named_parameters()}
    classifier = {"network.fc.weight", "network.fc.bias"}
    assert names(encoder, modules) == (of_network - classifier) | of_projection
    assert names(head, modules) == classifier
    assert (encoder.epochs, encoder.batch_size, encoder.n_views) == (7, 12, 2)
    assert (head.epochs, head.batch_size, head.n_views) == (3, 9, 1)
    assert head.frozen is not None
    assert encoder.frozen is None
    assert head.cached_views == 0
    assert encoder.weight_decay == 5e-4
    assert head.weight_decay == 0
    rates = [head.learning_rate_at(epoch / 100) for epoch in (0, 59, 60, 74, 75, 89, 90, 99)]
    expected = [0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(("temperature", "base_temperature"), [(0.1, 0.07), (0.5, 0.5)])
def test_the_contrastive_loss_compares_the_two_views_of_each_image(
    config_of: ConfigOf, temperature: float, base_temperature: float
) -> None:
    config = config_of("SupCon", temperature=temperature, base_temperature=base_temperature)
    modules, (encoder, _) = build(config)
    labels = torch.tensor([3, 3, 1, 2])
    views = images(8)  # the first views of four images, then their second views
    loss, correct = encoder.loss(views, labels)
    assert correct is None
    projected = modules["projection"](modules["network"](views).embedding)
    pairs = torch.stack([torch.stack([projected[i], projected[i + 4]]) for i in range(4)])
    expected = supcon_loss(pairs, labels, temperature, base_temperature)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_simclr_ignores_labels_and_supcon_does_not(config_of: ConfigOf) -> None:
    losses: dict[str, set[float]] = {"SupCon": set(), "SimCLR": set()}
    for method, seen in losses.items():
        modules, (encoder, _) = build(config_of("SupCon", method=method))
        for labels in ([0, 0, 0, 0], [0, 1, 2, 3], [1, 1, 2, 2]):
            seen.add(encoder.loss(images(8), torch.tensor(labels))[0].item())
        if method == "SimCLR":
            projected = modules["projection"](modules["network"](images(8)).embedding)
            pairs = projected.unflatten(0, (2, 4)).transpose(0, 1)
            without_labels = supcon_loss(pairs, None, 0.1, 0.07).item()
            assert list(seen) == pytest.approx([without_labels], rel=1e-5)
    assert len(losses["SupCon"]) == 3
    assert len(losses["SimCLR"]) == 1


def test_the_encoder_stage_does_not_touch_the_classifier(
    config_of: ConfigOf, data: Dataset
) -> None:
    modules, (encoder, _) = build(config_of("SupCon", weight_decay=0.1))
    before = {name: weights_of(module) for name, module in modules.items()}
    fit(encoder, modules, data, {})
    untouched = set(before["network"]) - changed(before["network"], modules["network"])
    assert untouched == {"fc.weight", "fc.bias"}
    assert changed(before["projection"], modules["projection"]) == set(before["projection"])


def test_the_head_stage_touches_nothing_but_the_classifier(
    config_of: ConfigOf, data: Dataset
) -> None:
    """Batch norm statistics included, and dropout is off, so that it learns what will be used."""
    modules, (_, head) = build(config_of("SupCon", dropout=0.5))
    before = {name: weights_of(module) for name, module in modules.items()}
    fit(head, modules, data, {})
    assert changed(before["network"], modules["network"]) == {"fc.weight", "fc.bias"}
    assert not changed(before["projection"], modules["projection"])
    network = modules["network"].eval()
    labels = torch.arange(8)
    assert head.frozen is not None
    with torch.no_grad():  # as the loop does
        embedding = head.frozen(images())
    loss, correct = head.loss(embedding, labels)
    logits = network(images()).logits
    assert loss.item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert int(correct) == int((logits.argmax(1) == labels).sum())
    loss.backward()
    with_gradient = {
        n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert with_gradient == {"fc.weight", "fc.bias"}


# Gradual pruning


@pytest.mark.parametrize("pruning_method", ["GMP", "later_GMP"])
def test_supervised_networks_are_pruned_by_their_schedule(
    config_of: ConfigOf, pruning_method: str
) -> None:
    config = config_of("supervised", pruning_method=pruning_method, sparsity=0.95)
    modules, (stage,) = build(config)
    assert set(stage.prunable) == set(wide_resnet.prunable(modules["network"]))
    expected = pruning.pruning_events(pruning_method, 0.95, 80_155)
    assert stage.pruning_events(80_155) == expected
    assert len(expected) > 30
    assert stage.allocation == "uniform"


def test_given_steps_and_allocation_are_passed_on(config_of: ConfigOf) -> None:
    steps = {"begin_step": 10, "end_step": 50, "frequency": 20}
    config = config_of("supervised", **PRUNED, **steps, allocation="global")
    (stage,) = build(config)[1]
    assert list(stage.pruning_events(100)) == [10, 30, 50]
    assert stage.allocation == "global"


def test_supcons_stages_are_pruned_each_by_its_own_steps(config_of: ConfigOf) -> None:
    """Steps given by flags count the encoder's; the classifier's come from the same fractions."""
    config = config_of("SupCon", **PRUNED, begin_step=10, end_step=50, frequency=20)
    modules, (encoder, head) = build(config)
    everything = set(wide_resnet.prunable(modules["network"]))
    assert set(encoder.prunable) == everything - {"fc.weight"}
    assert set(head.prunable) == {"fc.weight"}
    assert list(encoder.pruning_events(24_500)) == [10, 30, 50]
    assert head.pruning_events(24_500) == pruning.pruning_events("GMP", 0.9, 24_500, **FRACTIONS)
    assert encoder.allocation == head.allocation == "uniform"


@pytest.mark.parametrize("learner", paths.LEARNERS)
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_training_reaches_the_sparsity(
    config_of: ConfigOf, data: Dataset, learner: str, allocation: str
) -> None:
    modules, stages = build(config_of(learner, **PRUNED, allocation=allocation))
    masks: dict[str, Tensor] = {}
    for stage in stages:
        fit(stage, modules, data, masks)
    weights = wide_resnet.prunable(modules["network"])
    assert set(masks) == set(weights)
    n_classifier = weights["fc.weight"].numel()
    total = sum(weight.numel() for weight in weights.values())
    zeros = {name: int((weight == 0).sum()) for name, weight in weights.items()}
    assert zeros == {name: int((~mask).sum()) for name, mask in masks.items()}
    if learner == "supervised":
        assert sum(zeros.values()) == round(0.9 * total)
    else:
        assert zeros["fc.weight"] == round(0.9 * n_classifier)
        assert sum(zeros.values()) - zeros["fc.weight"] == round(0.9 * (total - n_classifier))
    if allocation == "uniform":
        for name, weight in weights.items():
            assert abs(zeros[name] - 0.9 * weight.numel()) < 1, name


def test_the_projection_head_is_not_pruned(config_of: ConfigOf, data: Dataset) -> None:
    modules, (encoder, _) = build(config_of("SupCon", **PRUNED))
    masks: dict[str, Tensor] = {}
    fit(encoder, modules, data, masks)
    assert masks
    for name, parameter in modules["projection"].named_parameters():
        assert parameter.all(), name
        assert not any(parameter is weight for weight in encoder.prunable.values())


def test_dense_networks_are_not_pruned(config_of: ConfigOf, data: Dataset) -> None:
    for learner in paths.LEARNERS:
        modules, stages = build(config_of(learner))
        masks: dict[str, Tensor] = {}
        for stage in stages:
            fit(stage, modules, data, masks)
        assert masks == {}
        weights = wide_resnet.prunable(modules["network"]).values()
        assert pruning.count_zeros(weights)[0] == 0


# Fine-tuning


def pruned_modules(learner: str, config: dict[str, Any]) -> tuple[Modules, dict[str, Tensor]]:
    modules = METHODS[learner].new_modules(config, 10, 0)
    weights = wide_resnet.prunable(modules["network"])
    masks = pruning.magnitude_masks(weights, 0.9)
    pruning.apply_masks(masks, weights)
    return modules, masks


@pytest.mark.parametrize(
    ("learner", "loss", "expected"),
    [
        ("supervised", None, ["finetune"]),
        ("SupCon", "cross_entropy", ["finetune"]),
        ("SupCon", "supcon", ["encoder", "head"]),
    ],
)
def test_finetuning_keeps_the_masks(
    config_of: ConfigOf, data: Dataset, learner: str, loss: str | None, expected: list[str]
) -> None:
    config = config_of(learner, **({"finetune_loss": loss} if loss else {}))
    modules, masks = pruned_modules(learner, config)
    before = weights_of(modules["network"])
    stages = methods.finetuning_stages(modules, config)
    assert [stage.name for stage in stages] == expected
    main = stages[0]
    assert main.nesterov
    assert main.momentum == 0.9
    assert [main.learning_rate_at(p) for p in (0.0, 0.5, 0.99)] == [0.05] * 3
    stored = {name: mask.clone() for name, mask in masks.items()}
    for stage in stages:
        assert stage.pruning_events(1000) == {}
        fit(stage, modules, data, masks)
    weights = wide_resnet.prunable(modules["network"])
    for name, mask in masks.items():
        assert torch.equal(mask, stored[name])
        assert torch.equal(weights[name] == 0, ~mask), name
    assert changed(before, modules["network"]) == set(before)


def test_finetuning_by_cross_entropy_leaves_the_projection_alone(
    config_of: ConfigOf, data: Dataset
) -> None:
    config = config_of("SupCon", finetune_loss="cross_entropy")
    modules, masks = pruned_modules("SupCon", config)
    before = weights_of(modules["projection"])
    (stage,) = methods.finetuning_stages(modules, config)
    assert names(stage, modules) == {
        f"network.{name}" for name, _ in modules["network"].named_parameters()
    }
    fit(stage, modules, data, masks)
    assert not changed(before, modules["projection"])


# Augmentation


def all_views(config_of: ConfigOf, **changes: Any) -> dict[str, list[augment.Augmentation]]:
    """Of every stage of both methods, training and fine-tuning: contrastive ones and others."""
    found: dict[str, list[augment.Augmentation]] = {"contrastive": [], "classification": []}
    for learner in paths.LEARNERS:
        modules, stages = build(config_of(learner, **changes))
        losses = ("cross_entropy", "supcon") if learner == "SupCon" else ("cross_entropy",)
        for loss in losses:
            config = config_of(learner, finetune_loss=loss, **changes)
            stages = stages + methods.finetuning_stages(modules, config)
        for stage in stages:
            kind = "contrastive" if stage.n_views == 2 else "classification"
            found[kind].append(stage.augmentation)
    assert (len(found["contrastive"]), len(found["classification"])) == (2, 5)
    return found


def test_digits_are_never_flipped_nor_coloured(config_of: ConfigOf, data: Dataset) -> None:
    for views in all_views(config_of, preset="digits").values():
        for augmentation in views:
            generator = torch.Generator().manual_seed(0)
            drawn = augment.draw(augmentation, 500, 8, generator)
            assert drawn.flips is None or not drawn.flips.any()
            seen = augment.apply(data.train.images, augment.draw(augmentation, 44, 8, generator))
            assert (seen - seen[:, :1]).abs().max() < 1e-5  # grey stays grey


def test_photographs_are_flipped_sideways_only(config_of: ConfigOf) -> None:
    for views in all_views(config_of, preset="paper").values():
        for augmentation in views:
            drawn = augment.draw(augmentation, 500, 32, torch.Generator().manual_seed(0))
            assert not drawn.flips[:, 0].any()
            assert 150 < int(drawn.flips[:, 1].sum()) < 350


def test_the_released_quirk_flips_photographs_upside_down_where_they_are_classified(
    config_of: ConfigOf,
) -> None:
    found = all_views(config_of, preset="paper", released_quirks=True)
    plain = all_views(config_of, preset="paper")
    assert found["contrastive"] == plain["contrastive"]
    for quirk, view in zip(found["classification"], plain["classification"], strict=True):
        assert quirk.vertical_flip == 0.5
        assert quirk._replace(vertical_flip=0.0) == view


def test_contrastive_views_differ_more_than_classified_ones(config_of: ConfigOf) -> None:
    """The recipe of SupCon's authors: crops, colours, grey."""
    for augmentation in all_views(config_of, preset="paper")["contrastive"]:
        assert augmentation.resized_crop_area == (0.2, 1.0)
        assert augmentation.jitter == (0.4, 0.4, 0.4, 0.1)
        assert augmentation.jitter_probability == 0.8
        assert augmentation.grayscale_probability == 0.2
        assert augmentation.crop_padding == 0
    for augmentation in all_views(config_of, preset="paper")["classification"]:
        assert augmentation.crop_padding == 4
        assert augmentation.jitter_probability == augmentation.grayscale_probability == 0
