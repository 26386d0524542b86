"""The two learning methods: their stages, losses and prunable weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common import study
from common.data.datasets import Dataset
from common.learning import loop, methods, pruning
from common.learning.loop import Run, Stage
from common.learning.losses import supcon_loss
from common.model import wide_resnet
from common.recipes import Config

ConfigOf = Callable[..., Config]
Modules = dict[str, nn.Module]
PRUNED = {"pruning_method": "GMP", "sparsity": 0.9}
ONE_SHOT = {"pruning_method": "global", "sparsity": 0.9}


def build(config: Config, network_id: int = 0) -> tuple[Modules, list[Stage]]:
    modules = methods.new_modules(config, 10, network_id)
    return modules, methods.stages(modules, config)


def fit(stage: Stage, modules: Modules, data: Dataset, masks: dict[str, Tensor]) -> None:
    loop.fit(stage, modules["network"], data, masks, Run((5, 0)))


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    after = module.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def parameters_of(modules: Modules, *names: str) -> set[str]:
    return {f"{name}.{key}" for name in names for key, _ in modules[name].named_parameters()}


def trained(stage: Stage, modules: Modules) -> set[str]:
    """The parameters that a stage trains, by module and name."""
    chosen = {
        f"{module}.{name}"
        for module in modules
        for name, parameter in modules[module].named_parameters()
        if any(parameter is of_stage for of_stage in stage.parameters)
    }
    assert len(chosen) == len(stage.parameters)
    return chosen


def images(n: int = 8, size: int = 8) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("learner", study.LEARNERS)
def test_new_modules_follow_the_configuration_and_the_id(config_of: ConfigOf, learner: str) -> None:
    config = config_of(learner, model_depth=16, widen_factor=2)
    torch.manual_seed(1)
    first = methods.new_modules(config, 7, 3)
    torch.manual_seed(2)
    again, other = methods.new_modules(config, 7, 3), methods.new_modules(config, 7, 4)
    reseeded = methods.new_modules(config | {"seed": 6}, 7, 3)
    assert set(first) == {"network"} | ({"projection"} if learner == "SupCon" else set())
    n_parameters = sum(p.numel() for p in first["network"].parameters())
    assert n_parameters == 691_674 - 3 * 129  # seven classes, not ten
    for name, module in first.items():
        assert not changed(weights_of(module), again[name])
        assert changed(weights_of(module), other[name])
        assert changed(weights_of(module), reseeded[name])


# Losses, and what learns by them


def test_supervised_loss_is_cross_entropy_and_counts_the_correct(config_of: ConfigOf) -> None:
    modules, (stage,) = build(config_of("supervised"))
    assert stage.frozen is None
    loss, correct = stage.loss(images(), torch.arange(8))
    logits = modules["network"](images()).logits
    share = logits.softmax(1)[torch.arange(8), torch.arange(8)]
    assert loss.item() == pytest.approx(-share.log().mean().item(), rel=1e-5)
    assert correct is not None
    assert int(correct) == sum(int(row.argmax()) == i for i, row in enumerate(logits))


@pytest.mark.parametrize(("temperature", "base_temperature"), [(0.1, 0.07), (0.5, 0.5)])
def test_the_contrastive_loss_compares_the_two_views_of_each_image(
    config_of: ConfigOf, temperature: float, base_temperature: float
) -> None:
    config = config_of("SupCon", temperature=temperature, base_temperature=base_temperature)
    modules, (encoder, _) = build(config)
    assert encoder.frozen is None
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
        _, (encoder, _) = build(config_of("SupCon", method=method))
        for labels in ([0, 1, 2, 3], [0, 0, 0, 0], [1, 1, 2, 2]):
            seen.add(encoder.loss(images(8), torch.tensor(labels))[0].item())
    assert len(losses["SupCon"]) == 3
    assert len(losses["SimCLR"]) == 1
    assert losses["SimCLR"] < losses["SupCon"]  # SupCon's, where each image is its own class


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
    network, labels = modules["network"].eval(), torch.arange(8)
    assert head.frozen is not None
    with torch.no_grad():  # as the loop does
        embedding = head.frozen(images())
    loss, correct = head.loss(embedding, labels)
    logits = network(images()).logits
    assert loss.item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert int(correct) == int((logits.argmax(1) == labels).sum())


# Pruning


def test_what_each_stage_trains_and_prunes(config_of: ConfigOf) -> None:
    classifier = {"network.fc.weight", "network.fc.bias"}
    modules, (network,) = build(config_of("supervised", **PRUNED))
    everything = set(wide_resnet.prunable(modules["network"]))
    assert trained(network, modules) == parameters_of(modules, "network")
    assert set(network.prunable) == everything
    modules, (encoder, head) = build(config_of("SupCon", **PRUNED))
    both = parameters_of(modules, "network", "projection")
    assert trained(encoder, modules) == both - classifier
    assert set(encoder.prunable) == everything - {"fc.weight"}
    assert trained(head, modules) == classifier
    assert set(head.prunable) == {"fc.weight"}
    finetuned = config_of("SupCon", **ONE_SHOT, finetune_loss="cross_entropy")
    (finetune,) = methods.stages(modules, finetuned)
    assert trained(finetune, modules) == parameters_of(modules, "network")
    assert set(finetune.prunable) == everything


@pytest.mark.parametrize("criterion", study.CRITERIA)
@pytest.mark.parametrize("learner", study.LEARNERS)
@pytest.mark.parametrize("allocation", study.ALLOCATIONS)
def test_training_reaches_the_sparsity(
    config_of: ConfigOf, data: Dataset, learner: str, allocation: str, criterion: str
) -> None:
    """The sparsity is exact, and pruned weights are zero; the projection head is not pruned."""
    config = config_of(learner, **PRUNED, allocation=allocation, criterion=criterion)
    modules, stages = build(config)
    masks: dict[str, Tensor] = {}
    for stage in stages:
        fit(stage, modules, data, masks)
    weights = wide_resnet.prunable(modules["network"])
    assert set(masks) == set(weights)
    n_classifier = weights["fc.weight"].numel()
    total = sum(weight.numel() for weight in weights.values())
    zeros = {name: int((weight == 0).sum()) for name, weight in weights.items()}
    assert all((weight == 0).equal(~masks[name]) for name, weight in weights.items())
    if learner == "supervised":
        assert sum(zeros.values()) == round(0.9 * total)
    else:
        assert zeros["fc.weight"] == round(0.9 * n_classifier)
        assert sum(zeros.values()) - zeros["fc.weight"] == round(0.9 * (total - n_classifier))
        assert all(parameter.all() for parameter in modules["projection"].parameters())
    if allocation == "uniform":
        for name, weight in weights.items():
            assert abs(zeros[name] - 0.9 * weight.numel()) < 1, name


@pytest.mark.parametrize("learner", study.LEARNERS)
def test_dense_networks_are_not_pruned(config_of: ConfigOf, data: Dataset, learner: str) -> None:
    modules, stages = build(config_of(learner))
    masks: dict[str, Tensor] = {}
    for stage in stages:
        fit(stage, modules, data, masks)
    assert masks == {}
    assert all(weight.all() for weight in wide_resnet.prunable(modules["network"]).values())


@pytest.mark.parametrize("criterion", study.CRITERIA)
@pytest.mark.parametrize(
    ("learner", "loss"),
    [("supervised", "cross_entropy"), ("SupCon", "cross_entropy"), ("SupCon", "supcon")],
)
def test_finetuning_keeps_the_masks(
    config_of: ConfigOf, data: Dataset, learner: str, loss: str, criterion: str
) -> None:
    """Everything else learns, except that cross-entropy leaves the projection head alone."""
    modules, stages = build(config_of(learner, **ONE_SHOT, finetune_loss=loss, criterion=criterion))
    weights = wide_resnet.prunable(modules["network"])
    masks = pruning.CRITERIA[criterion](weights, 0.9, "global", 5, 0)
    pruning.apply_masks(masks, weights)
    before = {name: weights_of(module) for name, module in modules.items()}
    stored = {name: mask.clone() for name, mask in masks.items()}
    for stage in stages:
        fit(stage, modules, data, masks)
    for name, mask in masks.items():
        assert torch.equal(mask, stored[name])
        assert torch.equal(weights[name] == 0, ~mask), name
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int((~mask).sum()) for mask in masks.values()) == round(0.9 * total)
    assert changed(before["network"], modules["network"]) == set(before["network"])
    if learner == "SupCon":
        learned = changed(before["projection"], modules["projection"])
        assert learned == (set(before["projection"]) if loss == "supcon" else set())
