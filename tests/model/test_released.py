"""Files named and keyed as the released code of arXiv 2207.00200 did it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.utils import prune

from common import paths, study
from common.data.datasets import Dataset, Split
from common.data.named import CIFAR10_CLASSES
from common.experiments import population
from common.model import checkpoints, evaluation, wide_resnet
from common.model.wide_resnet import ProjectionHead, WideResNet
from common.paths import NetworkFiles
from common.runtime import EXIT_CHECKPOINT, Failure
from common.study import Cell

CPU = torch.device("cpu")
State = dict[str, Tensor]

SUPERVISED = "wideResNet_0.0pruning_205epochs_16depth_0.0dropout_id3.pt"
ENCODER = "WideResNet_encoder_SupCon_0.3pruning_later_1024batch_0.5temperature_500epochs_id3.pt"
HEAD = "WideResNet_head_SupCon_0.3pruning_later_1024batch_0.5temperature_100epochs_id3.pt"
DENSE = Cell("supervised", "dense", 0.0)
LATER, SIMCLR = Cell("SupCon", "later_GMP", 0.3), Cell("SupCon", "GMP", 0.5)

# Every kind of name that the released code wrote. Encoder and head name their own epochs.
NETWORKS = [
    (DENSE, 3, [SUPERVISED]),
    (Cell("supervised", "GMP", 0.9), 29, [
        "wideResNet_0.9pruning_205epochs_16depth_0.0dropout_id29.pt"]),
    (Cell("supervised", "global", 0.5), 0, [
        "wideResNet_global_0.5pruning_30epochs_16depth_0.0dropout_id0.pt"]),
    (LATER, 3, [ENCODER, HEAD]),
    # Dense ones carry the tag of the schedule that they did not need.
    (Cell("SupCon", "dense", 0.0), 7, [
        "WideResNet_encoder_SupCon_0.0pruning_later_1024batch_0.5temperature_500epochs_id7.pt",
        "WideResNet_head_SupCon_0.0pruning_later_1024batch_0.5temperature_100epochs_id7.pt"]),
    (Cell("SupCon", "dense", 0.0), 0, [
        "WideResNet_encoder_SupCon_0.0pruning_1024batch_0.5temperature_500epochs_id0.pt",
        "WideResNet_head_SupCon_0.0pruning_1024batch_0.5temperature_100epochs_id0.pt"]),
    (Cell("SupCon", "GMP", 0.7), 12, [
        "WideResNet_encoder_SupCon_0.7pruning_1024batch_0.5temperature_500epochs_id12.pt",
        "WideResNet_head_SupCon_0.7pruning_1024batch_0.5temperature_100epochs_id12.pt"]),
    (SIMCLR, 1, [
        "WideResNet_encoder_SimCLR_0.5pruning_1024batch_0.5temperature_500epochs_id1.pt",
        "WideResNet_head_SimCLR_0.5pruning_1024batch_0.5temperature_100epochs_id1.pt"]),
    (Cell("SupCon", "global", 0.9), 3, [
        "WideResNet_encoder_SupCon_0.9pruning_global_128batch_0.5temperature_30epochs_id3.pt",
        "WideResNet_head_SupCon_0.9pruning_global_128batch_0.5temperature_30epochs_id3.pt"]),
]  # fmt: skip


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def network(cell: Cell = DENSE, seed: int = 0) -> WideResNet:
    """A small network whose batch norm has seen images, pruned as its cell says."""
    made = wide_resnet.build(10, 1, 10, 0.0, seed).train()
    with torch.no_grad():
        made(torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(seed)))
        for weight in wide_resnet.prunable(made).values():
            weight.view(-1)[: round(cell.sparsity * weight.numel())] = 0
    return made.eval()


def store(folder: Path, names: list[str], made: WideResNet) -> list[Path]:
    """The files of a network, keyed as the released code did it."""
    paths_of = [folder / name for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    if len(names) == 1:
        torch.save(prefixed("base.", made.state_dict()), paths_of[0])
        return paths_of
    model = {name: t for name, t in made.state_dict().items() if not name.startswith("fc.")}
    if "_global_" not in names[0]:  # there the inner encoder's keys only
        model = prefixed("encoder.", model) | ProjectionHead(64).state_dict()
    torch.save({"model": model}, paths_of[0])
    torch.save({"head": {f"fc.{k}": t for k, t in made.fc.state_dict().items()}}, paths_of[1])
    return paths_of


def refusal(models: Path, cell: Cell = DENSE, network_id: int = 3) -> str:
    with pytest.raises(Failure) as refused:
        checkpoints.describe(NetworkFiles(models, cell, network_id))
    assert refused.value.code == EXIT_CHECKPOINT
    assert "\n" not in str(refused.value)
    return str(refused.value)


def some_data(classes: tuple[str, ...] = CIFAR10_CLASSES) -> Dataset:
    """Ten images, with another mean and std than the released code's."""
    images = torch.randint(0, 256, (10, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    split = Split(images.to(torch.uint8), torch.arange(10), "digest")
    return Dataset("cifar10", classes, split, split, torch.zeros(3), torch.ones(3))


def flags(models: Path, **changes: object) -> argparse.Namespace:
    given = {"image_size": 32, "released_quirks": True, "architecture": {}}
    return argparse.Namespace(models=models, **given | changes)


@pytest.mark.parametrize("inside", [False, True], ids=["beside the folder", "in the folder"])
@pytest.mark.parametrize(("cell", "network_id", "names"), NETWORKS)
def test_released_files_give_the_network(
    tmp_path: Path, cell: Cell, network_id: int, names: list[str], inside: bool
) -> None:
    models, made = tmp_path / "models" / "cifar10", network(cell)
    files = store(models if inside else models.parent, names, made)
    assert paths.networks_present(models) == {cell: {network_id}}
    where = NetworkFiles(models, cell, network_id)
    assert checkpoints.describe(where) is checkpoints.describe(where)  # read once
    found = checkpoints.load(where, CPU)
    state = made.state_dict()
    assert list(found.network.state_dict()) == list(state)
    assert all(torch.equal(found.network.state_dict()[name], state[name]) for name in state)
    assert not found.network.training
    assert (found.projection is not None) == (len(names) == 2 and "global" not in names[0])
    assert list(found.masks) == (list(wide_resnet.prunable(made)) if cell.sparsity else [])
    assert all(torch.equal(m, state[name] != 0) for name, m in found.masks.items())
    assert found.results["sparsity_reached"] == pytest.approx(cell.sparsity, abs=1e-3)
    # Any of its files gives it, and it classifies images as its own code normalised them.
    images = some_data().test.images
    mean = torch.tensor([0.4915, 0.4823, 0.4468])[:, None, None]
    std = torch.tensor([0.2047, 0.2435, 0.2616])[:, None, None]
    with torch.no_grad():
        labels = made((images / 255 - mean) / std).logits.argmax(1)
    for path in files:
        from_file = checkpoints.from_path(path)
        assert from_file.digest == found.digest
        assert from_file.config["released"]
        assert from_file.config.get("method") == ("SimCLR" if "SimCLR" in path.name else None)
        assert from_file.data["classes"] == list(CIFAR10_CLASSES)
        assert torch.equal(from_file.classify(images), labels)


def test_the_method_does_not_change_the_digest(tmp_path: Path) -> None:
    """Earlier versions did not read it from the name; what they made names the network by this."""
    cell, network_id, names = next(known for known in NETWORKS if known[0] == SIMCLR)
    found = {}
    for method in ("SimCLR", "SupCon"):
        folder = tmp_path / method / "cifar10"
        torch.manual_seed(0)
        store(folder, [name.replace("SimCLR", method) for name in names], network(cell))
        found[method] = checkpoints.load(NetworkFiles(folder, cell, network_id), CPU)
    assert [one.config.get("method") for one in found.values()] == ["SimCLR", None]
    assert found["SimCLR"].digest == found["SupCon"].digest


def test_a_whole_population_is_found_and_compared(tmp_path: Path) -> None:
    models = tmp_path / "cifar10"
    for cell, _, names in NETWORKS:
        store(tmp_path, names, network(cell))
    expected: dict[Cell, set[int]] = {}
    for cell, network_id, _ in NETWORKS:
        expected.setdefault(cell, set()).add(network_id)
    assert paths.networks_present(models) == expected
    data, args = some_data(), flags(models, allow_mixed=False)
    for cell, ids in expected.items():
        for network_id in ids:
            described = population.describe(args, data, cell, network_id)
            assert described["config"]["model_depth"] == 10
            assert Cell(*(described["config"][key] for key in Cell._fields)) == cell
    for learner in study.LEARNERS:
        cells = [cell for cell in expected if cell.learner == learner]
        cells.sort(key=lambda cell: cell.sparsity)
        of_one_method = {cell: sorted(expected[cell]) for cell in cells if cell != SIMCLR}
        population.check_recipes(args, data, of_one_method)
    with pytest.raises(Failure, match=r"method None \(not SimCLR\)"):
        of_two = {SIMCLR: [1], SIMCLR._replace(sparsity=0.7): [12]}
        population.check_recipes(args, data, of_two)


@pytest.mark.parametrize(
    ("changes", "classes", "words"),
    [
        ({"released_quirks": False}, CIFAR10_CLASSES, "--released_quirks"),
        ({"image_size": 64}, CIFAR10_CLASSES, "image_size is 32, not 64"),
        ({"architecture": {"model_depth": 16}}, CIFAR10_CLASSES, "model_depth is 10, not 16"),
        ({}, tuple("0123456789"), "classes of CIFAR-10"),
    ],
)
def test_released_networks_are_not_compared_on_other_images(
    tmp_path: Path, changes: dict[str, object], classes: tuple[str, ...], words: str
) -> None:
    store(tmp_path, [SUPERVISED], network())
    with pytest.raises(Failure, match=words) as refused:
        args = flags(tmp_path / "cifar10", **changes)
        population.describe(args, some_data(classes), DENSE, 3)
    assert refused.value.code == EXIT_CHECKPOINT


@pytest.mark.parametrize(
    ("folder", "is_cifar10"),
    [("cifar10", True), ("cifar10-jpeg", True), ("cifar10_png", True), ("cifar10.1", True)]
    + [(name, False) for name in ("cifar100", "digits", "svhn", "my-cifar10")],
)
def test_released_networks_belong_to_folders_named_after_cifar10(
    tmp_path: Path, folder: str, is_cifar10: bool
) -> None:
    store(tmp_path, [SUPERVISED], network())
    store(tmp_path, [ENCODER, HEAD], network(LATER))
    expected = {DENSE: {3}, LATER: {3}} if is_cifar10 else {}
    assert paths.networks_present(tmp_path / folder) == expected
    found = checkpoints.describe(NetworkFiles(tmp_path / folder, LATER, 3))
    assert (found is not None) == is_cifar10


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_and_pruning_pairs_of_torch_are_folded_away(tmp_path: Path, wrapper: str) -> None:
    made = network()
    path = store(tmp_path, [SUPERVISED], made)[0]
    prune.l1_unstructured(made.conv1, "weight", 0.5)
    state = made.state_dict()
    assert "conv1.weight_mask" in state
    del state["bn1.num_batches_tracked"]  # old versions of torch did not save it
    torch.save(prefixed(wrapper + "base.", state), path)
    found = evaluation.classify(checkpoints.from_path(path).network, some_data(), some_data().test)
    expected = evaluation.classify(made, some_data(), some_data().test)
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


# What is refused


@pytest.mark.parametrize(
    ("names", "wrong", "change", "words"),
    [
        ([SUPERVISED], 0, lambda state: state.pop("base.block2.layer.0.conv1.weight"),
         "lacks block2.layer.0"),
        ([SUPERVISED], 0, lambda state: state.update({"base.extra": torch.ones(1)}),
         "unknown extra"),
        ([SUPERVISED], 0, lambda state: state["base.fc.bias"].fill_(torch.nan), "non-finite"),
        ([SUPERVISED], 0, lambda state: state.update({"base.fc.bias": torch.ones(3)}), "shape"),
        ([SUPERVISED], 0, lambda state: state.update({"base.fc.bias": "text"}), "more than"),
        ([SUPERVISED], 0, lambda state: state.clear(), "has no parameter"),
        ([ENCODER, HEAD], 0, lambda state: state["model"].pop("encoder.conv1.weight"), "lacks"),
        ([ENCODER, HEAD], 0, lambda state: state.update(head=state.pop("model")), "no 'model'"),
        ([ENCODER, HEAD], 1, lambda state: state["head"].pop("fc.weight"), "fc.weight"),
        ([ENCODER, HEAD], 1, lambda state: state["head"]["fc.bias"].fill_(torch.inf), "fc.bias"),
        ([ENCODER, HEAD], 1, lambda state: state.update(model=state.pop("head")), "no 'head'"),
    ],
)  # fmt: skip
def test_wrong_contents_are_named_with_the_file(
    tmp_path: Path, names: list[str], wrong: int, change: Callable[[State], object], words: str
) -> None:
    cell = LATER if len(names) == 2 else DENSE
    path = store(tmp_path, names, network())[wrong]
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    message = refusal(tmp_path / "cifar10", cell)
    assert str(path) in message
    assert words in message


@pytest.mark.parametrize(("names", "wrong"), [([SUPERVISED], 0), ([ENCODER, HEAD], 0),
                                              ([ENCODER, HEAD], 1)])  # fmt: skip
def test_damaged_files_are_named(tmp_path: Path, names: list[str], wrong: int) -> None:
    cell = LATER if len(names) == 2 else DENSE
    files = store(tmp_path, names, network())
    files[wrong].write_bytes(files[wrong].read_bytes()[:1000])
    assert str(files[wrong]) in refusal(tmp_path / "cifar10", cell)
    with pytest.raises(Failure, match=files[wrong].name):
        checkpoints.from_path(files[0])


@pytest.mark.parametrize(
    ("names", "other", "ambiguous"),
    [
        ([SUPERVISED], [SUPERVISED.replace("205epochs", "100epochs")], ""),
        ([SUPERVISED], [f"cifar10/{SUPERVISED}"], ""),
        ([ENCODER, HEAD], [ENCODER.replace("500epochs", "200epochs")], HEAD),
        ([ENCODER, HEAD], [HEAD.replace("100epochs", "50epochs")], ENCODER),
        ([ENCODER, HEAD], [name.replace("SupCon", "SimCLR") for name in (ENCODER, HEAD)], ""),
        ([ENCODER, HEAD], [name.replace("0.5temp", "0.1temp") for name in (ENCODER, HEAD)], ""),
        ([name.replace("0.3", "0.0") for name in (ENCODER, HEAD)],
         [name.replace("0.3pruning_later", "0.0pruning") for name in (ENCODER, HEAD)], ""),
    ],
)  # fmt: skip
def test_two_candidates_for_one_network_are_refused_by_name(
    tmp_path: Path, names: list[str], other: list[str], ambiguous: str
) -> None:
    """A path tells which one is meant, unless its other part is one of two."""
    files = store(tmp_path, names, network())
    (tmp_path / "cifar10").mkdir()
    for name in other:
        like = next(path for path in files if path.name.split("_")[1] == name.split("_")[1])
        (tmp_path / name).write_bytes(like.read_bytes())
    cell = next(iter(paths.networks_present(tmp_path / "cifar10")))  # it is there, but which one?
    message = refusal(tmp_path / "cifar10", cell)
    assert all(name in message for name in [*names, *other])
    assert message.count(".pt") == len([*names, *other])
    for path in files:
        if path.name == ambiguous:
            with pytest.raises(Failure, match="several files"):
                checkpoints.from_path(path)
        else:
            assert checkpoints.from_path(path).digest


@pytest.mark.parametrize("left", [0, 1], ids=["encoder", "head"])
@pytest.mark.parametrize(
    ("old", "new"),
    [(None, ""), ("id3", "id4"), ("_later", ""), ("1024batch", "128batch"), ("SupCon", "SimCLR")],
)
def test_encoder_and_head_of_two_networks_are_none(
    tmp_path: Path, left: int, old: str | None, new: str
) -> None:
    """A pair differs in nothing but its epochs; a part without the other one is no network."""
    pair = store(tmp_path, [ENCODER, HEAD], network())
    other = pair[1 - left]
    if old is None:
        other.unlink()
    else:
        other.rename(other.with_name(other.name.replace(old, new)))
    assert paths.networks_present(tmp_path / "cifar10") == {}
    assert checkpoints.describe(NetworkFiles(tmp_path / "cifar10", LATER, 3)) is None
    with pytest.raises(Failure, match=pair[left].name):
        checkpoints.from_path(pair[left])


def test_a_network_of_this_project_comes_first_but_a_path_means_its_file(tmp_path: Path) -> None:
    models, made, released = tmp_path / "cifar10", network(seed=1), network(seed=2)
    path = store(tmp_path, [SUPERVISED], released)[0]
    config = {"model_depth": 10, "widen_factor": 1, "dropout": 0.0}
    digest = checkpoints.save(NetworkFiles(models, DENSE, 3), {"network": made}, {}, config, {}, {})
    assert paths.networks_present(models) == {DENSE: {3}}
    assert checkpoints.load(NetworkFiles(models, DENSE, 3), CPU).digest == digest
    ours = NetworkFiles(models, DENSE, 3).parts["network"]
    for file, expected in ((ours, made), (path, released)):
        weights = checkpoints.from_path(file).network.conv1.weight
        assert torch.equal(weights, expected.conv1.weight)
