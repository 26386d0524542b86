"""Files named and keyed as the released code of arXiv 2207.00200 did it."""

from pathlib import Path

import pytest
import torch
from torch.nn.utils import prune

from common import paths
from common.model import checkpoints
from common.model.wide_resnet import ProjectionHead, WideResNet, build
from common.paths import Cell
from common.runtime import EXIT_CHECKPOINT, Failure

CPU = torch.device("cpu")
SUPERVISED = "wideResNet_{tag}{s}pruning_{epochs}epochs_10depth_0.0dropout_id{i}.pt"
SUPCON = "WideResNet_{part}_SupCon_{s}pruning{tag}_{batch}batch_0.5temperature_{epochs}epochs_id{i}"


def network(seed: int = 0, sparsity: float = 0.0) -> WideResNet:
    made = build(10, 1, 10, 0.0, seed).eval()
    if sparsity:
        with torch.no_grad():
            for module in made.modules():
                if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                    flat = module.weight.view(-1)
                    flat[: round(sparsity * flat.numel())] = 0
    return made


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def save_supervised(root: Path, made: WideResNet, s: float, tag: str = "", i: int = 3) -> Path:
    path = root / SUPERVISED.format(tag=tag, s=s, epochs=30 if tag else 205, i=i)
    torch.save(prefixed("base.", made.state_dict()), path)
    return path


def save_supcon(root: Path, made: WideResNet, s: float, tag: str = "", i: int = 3) -> Path:
    inner = {name: t for name, t in made.state_dict().items() if not name.startswith("fc.")}
    model = inner
    if tag != "_global":
        torch.manual_seed(0)
        model = prefixed("encoder.", inner) | ProjectionHead(64).state_dict()
    batch, epochs = (128, 30) if tag == "_global" else (1024, 500)
    name = SUPCON.format(part="encoder", s=s, tag=tag, batch=batch, epochs=epochs, i=i)
    torch.save({"model": model}, root / f"{name}.pt")
    head = {"fc.weight": made.fc.weight.data, "fc.bias": made.fc.bias.data}
    name = SUPCON.format(
        part="head", s=s, tag=tag, batch=batch, epochs=epochs if tag == "_global" else 500, i=i
    )
    torch.save({"head": head}, root / f"{name}.pt")
    return root / f"{name}.pt"


def assert_same_logits(root: Path, cell: Cell, made: WideResNet, i: int = 3) -> None:
    assert paths.networks_present(root / "cifar10") == {cell: {i}}
    loaded = checkpoints.load(root / "cifar10", cell, i, CPU)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.network(images).logits, made(images).logits, rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(
    ("tag", "sparsity", "pruning"),
    [("", 0.0, "dense"), ("", 0.9, "GMP"), ("global_", 0.5, "global")],
)
def test_supervised_files_give_the_networks_logits(
    tmp_path: Path, tag: str, sparsity: float, pruning: str
) -> None:
    made = network(sparsity=sparsity)
    save_supervised(tmp_path, made, sparsity, tag)
    assert_same_logits(tmp_path, Cell("supervised", pruning, sparsity), made)


@pytest.mark.parametrize(
    ("tag", "sparsity", "pruning"),
    [
        ("", 0.0, "dense"),
        ("", 0.9, "GMP"),
        ("_later", 0.7, "later_GMP"),
        ("_global", 0.5, "global"),
    ],
)
def test_supcon_files_give_the_networks_logits(
    tmp_path: Path, tag: str, sparsity: float, pruning: str
) -> None:
    made = network(sparsity=sparsity)
    save_supcon(tmp_path, made, sparsity, tag)
    assert_same_logits(tmp_path, Cell("SupCon", pruning, sparsity), made)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_of_torch_are_folded_away(tmp_path: Path, wrapper: str) -> None:
    made = network()
    path = save_supervised(tmp_path, made, 0.0)
    torch.save(prefixed(wrapper + "base.", made.state_dict()), path)
    assert_same_logits(tmp_path, Cell("supervised", "dense", 0.0), made)


def test_pruning_pairs_of_torch_are_folded(tmp_path: Path) -> None:
    made = network()
    path = save_supervised(tmp_path, made, 0.0)
    prune.l1_unstructured(made.conv1, "weight", 0.5)
    state = made.state_dict()
    assert "conv1.weight_mask" in state
    torch.save(prefixed("base.", state), path)
    assert_same_logits(tmp_path, Cell("supervised", "dense", 0.0), made)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("base.block2.layer.0.conv1.weight"), ["lacks", "block2.layer.0"]),
        (lambda state: state.update({"base.extra": torch.ones(1)}), ["unknown", "extra"]),
        (lambda state: state["base.fc.bias"].fill_(torch.nan), ["non-finite", "fc.bias"]),
    ],
)
def test_wrong_keys_are_named_with_the_file(tmp_path: Path, change, words: list[str]) -> None:
    state = prefixed("base.", network().state_dict())
    change(state)
    path = save_supervised(tmp_path, network(), 0.0)
    torch.save(state, path)
    with pytest.raises(Failure) as refused:
        checkpoints.load(tmp_path / "cifar10", Cell("supervised", "dense", 0.0), 3, CPU)
    assert refused.value.code == EXIT_CHECKPOINT
    assert all(word in str(refused.value) for word in [path.name, *words])


def test_two_files_for_one_network_are_refused(tmp_path: Path) -> None:
    path = save_supervised(tmp_path, network(), 0.0)
    (tmp_path / path.name.replace("205epochs", "100epochs")).write_bytes(path.read_bytes())
    with pytest.raises(Failure, match="several networks"):
        checkpoints.load(tmp_path / "cifar10", Cell("supervised", "dense", 0.0), 3, CPU)


def test_released_networks_belong_to_cifar10_alone(tmp_path: Path) -> None:
    save_supervised(tmp_path, network(), 0.0)
    assert paths.networks_present(tmp_path / "digits") == {}


def test_half_a_released_supcon_network_is_none(tmp_path: Path) -> None:
    save_supcon(tmp_path, network(), 0.0).unlink()
    assert paths.networks_present(tmp_path / "cifar10") == {}
