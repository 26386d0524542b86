"""The network against a plain functional one, and against what hooks see."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.model import wide_resnet
from common.model.wide_resnet import ProjectionHead, WideResNet

State = dict[str, Tensor]


def network(depth: int = 16, widen_factor: int = 2, dropout: float = 0.0) -> WideResNet:
    """Batch norm as after training: no mean is 0, no variance is 1."""
    built = wide_resnet.build(depth, widen_factor, 10, dropout, "test")
    generator = torch.Generator().manual_seed(0)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 3)
    return built.eval()


def images(n: int = 4, size: int = 32) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def plain_forward(
    state: State, x: Tensor, n_blocks: int, training: bool = False
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Zagoruyko & Komodakis' network from its weights by name: logits, embedding, probes."""

    def convolution(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)

    def activation(x: Tensor, name: str) -> Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        if training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        normal = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        scaled = normal * state[f"{name}.weight"][:, None, None]
        return (scaled + state[f"{name}.bias"][:, None, None]).clamp(min=0)

    x = convolution(x, "conv1", 1, 1)
    maps = [x]
    for group in (1, 2, 3):
        for i in range(n_blocks):
            block = f"block{group}.layer.{i}"
            stride = 2 if group > 1 and i == 0 else 1
            activated = activation(x, f"{block}.bn1")
            inner = activation(convolution(activated, f"{block}.conv1", stride, 1), f"{block}.bn2")
            outer = convolution(inner, f"{block}.conv2", 1, 1)
            if f"{block}.convShortcut.weight" in state:
                x = convolution(activated, f"{block}.convShortcut", stride, 0)
            x = x + outer
            maps += [inner, outer]
        maps.append(x)
    embedding = activation(x, "bn1").mean((2, 3))
    logits = embedding @ state["fc.weight"].T + state["fc.bias"]
    return logits, embedding, [m.mean((2, 3)) for m in maps]


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize(("depth", "widen_factor"), [(16, 2), (10, 1), (22, 1)])
def test_the_network_equals_a_plain_functional_one(
    depth: int, widen_factor: int, size: int
) -> None:
    net = network(depth, widen_factor)
    state = {name: tensor.double() for name, tensor in net.state_dict().items()}
    logits, embedding, probes = plain_forward(state, images(size=size).double(), (depth - 4) // 6)
    with torch.no_grad():
        output = net.double()(images(size=size).double(), probes=True)
    assert output.logits.shape == (4, 10)
    torch.testing.assert_close(output.logits, logits)
    torch.testing.assert_close(output.embedding, embedding)
    assert len(output.probes) == len(probes)
    for ours, oracle in zip(output.probes, probes, strict=True):
        torch.testing.assert_close(ours, oracle)


def test_training_and_its_gradients_equal_those_of_the_plain_network() -> None:
    """Activations are changed in place, which must not reach the backward pass."""
    net = network().double().train()
    state = {n: t.detach().clone().requires_grad_() for n, t in net.named_parameters()}
    x, target = images(size=8).double(), torch.tensor([1, 0, 7, 3])
    buffers = {n: t.clone() for n, t in net.named_buffers()}
    F.cross_entropy(net(x, probes=True).logits, target).backward()
    F.cross_entropy(plain_forward(state | buffers, x, 2, training=True)[0], target).backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, state[name].grad, msg=name)


def test_wrn_16_2_has_the_published_number_of_parameters_and_16_probes() -> None:
    net = network()
    assert sum(p.numel() for p in WideResNet(16, 2, 10).parameters()) == 691_674
    with torch.no_grad():
        without, asked = net(images()), net(images(), probes=True)
    widths = [16] + 5 * [32] + 5 * [64] + 5 * [128]
    assert [tuple(probe.shape) for probe in asked.probes] == [(4, width) for width in widths]
    assert asked.embedding.shape == (4, 128) == (4, WideResNet().embedding_width)
    assert without.probes == ()
    assert torch.equal(without.logits, asked.logits)
    assert torch.equal(without.embedding, asked.embedding)


def test_prunable_are_convolutions_and_the_classifier() -> None:
    net = WideResNet(16, 2, 10)
    prunable = wide_resnet.prunable(net)
    n_convolutions = sum(w.numel() for name, w in prunable.items() if name != "fc.weight")
    assert n_convolutions == 688_560
    assert prunable["fc.weight"].numel() == 1_280
    expected = {
        name for name, p in net.named_parameters() if p.ndim in (2, 4) and name.endswith("weight")
    }
    assert set(prunable) == expected
    assert not any("bias" in name or ".bn" in name for name in prunable)
    parameters = dict(net.named_parameters())
    assert all(weight is parameters[name] for name, weight in prunable.items())


def test_parameters_carry_the_released_names() -> None:
    names = set(WideResNet(10, 2).state_dict())
    batch_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{part}" for part in batch_norm)}
    for group in (1, 2, 3):
        block = f"block{group}.layer.0"
        expected |= {f"{block}.{conv}.weight" for conv in ("conv1", "conv2", "convShortcut")}
        expected |= {f"{block}.{bn}.{part}" for bn in ("bn1", "bn2") for part in batch_norm}
    assert names == expected


@pytest.mark.parametrize("depth", [0, 4, 12, 15, 17, 18, -2])
def test_depths_that_are_not_6n_plus_4_are_refused(depth: int) -> None:
    with pytest.raises(ValueError, match=str(depth)):
        WideResNet(depth)


def test_first_weights_are_kaiming_normal_and_the_bias_is_zero() -> None:
    net = wide_resnet.build(16, 2, 10, 0.0, 0)
    for name, weight in wide_resnet.prunable(net).items():
        if weight.ndim == 4 and weight.numel() > 4000:
            n_out, _, height, width = weight.shape
            std = math.sqrt(2 / (n_out * height * width))
            assert weight.std().item() == pytest.approx(std, rel=0.05), name
            assert abs(weight.mean().item()) < 4 * std / math.sqrt(weight.numel()), name
    assert not net.fc.bias.any()


def test_dropout_acts_in_training_alone_and_at_its_rate() -> None:
    net = network(10, 1, dropout=0.4)
    assert torch.equal(net(images(size=8)).logits, network(10, 1)(images(size=8)).logits)
    shares = []
    for block in (net.block1, net.block2, net.block3):
        block.layer[0].bn2.register_forward_hook(lambda *_: torch.ones_like(_[2]))
        block.layer[0].conv2.register_forward_pre_hook(
            lambda _, inputs: shares.append((inputs[0] == 0).double().mean().item())
        )
    net.train()
    net(images(64, 8))
    assert shares == pytest.approx([0.4] * 3, abs=0.05)


def test_projection_heads() -> None:
    mlp, linear = ProjectionHead(64), ProjectionHead(64, "linear", 32)
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    weights = mlp.state_dict()
    hidden = (x @ weights["head.0.weight"].T + weights["head.0.bias"]).clamp(min=0)
    assert weights["head.0.weight"].shape == (64, 64)
    expected = hidden @ weights["head.2.weight"].T + weights["head.2.bias"]
    assert expected.shape == (5, 128)
    torch.testing.assert_close(mlp(x), expected)
    weights = linear.state_dict()
    torch.testing.assert_close(linear(x), x @ weights["head.0.weight"].T + weights["head.0.bias"])
    assert linear(x).shape == (5, 32)
