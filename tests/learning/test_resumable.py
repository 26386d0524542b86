"""A training that was interrupted, wherever, ends with the same network, bit for bit."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from common import paths, runtime
from common.data.datasets import Dataset
from common.learning import loop, methods, pruning, resumable
from common.learning.methods import METHODS
from common.model import wide_resnet
from common.paths import Cell
from common.runtime import Interrupted

ConfigOf = Callable[..., dict[str, Any]]
# Steps of a whole training: 2 epochs of 3 batches, for SupCon 2 more for the classifier.
N_STEPS = {"supervised": 6, "SupCon": 12}
# Gradual pruning, dropout, momentum, weight decay, a schedule: everything that has a state.
CHANGES = {
    "pruning_method": "GMP",
    "sparsity": 0.9,
    "begin_step": 1,
    "end_step": 5,
    "frequency": 2,
    "allocation": "global",
    "dropout": 0.2,
    "cosine_annealing": True,
    "warmup_epochs": 1,
}


class Learned(NamedTuple):
    modules: dict[str, nn.Module]
    masks: dict[str, Tensor]
    history: list[dict[str, Any]]

    def tensors(self) -> dict[str, Tensor]:
        """Weights, batch norm statistics and masks, by name."""
        of_modules = {
            f"{name}.{key}": tensor
            for name, module in self.modules.items()
            for key, tensor in module.state_dict().items()
        }
        return of_modules | {f"mask.{name}": mask for name, mask in self.masks.items()}


def cell_of(config: dict[str, Any]) -> Cell:
    return Cell(config["learner"], config["pruning_method"], config["sparsity"])


def train(folder: Path, data: Dataset, config: dict[str, Any], network_id: int = 0) -> Learned:
    """With fresh modules, as a new process would do it."""
    method = METHODS[config["learner"]]
    modules = method.new_modules(config, data.n_classes, network_id)
    masks: dict[str, Tensor] = {}
    history = resumable.train(
        modules, method.stages(modules, config), masks, cell_of(config), network_id, config, data,
        folder / "models", folder / "logs",
    )  # fmt: skip
    return Learned(modules, masks, history)


def finetune(folder: Path, data: Dataset, config: dict[str, Any]) -> Learned:
    """One-shot pruning of a new network, then fine-tuning."""
    modules = METHODS[config["learner"]].new_modules(config, data.n_classes, 0)
    weights = wide_resnet.prunable(modules["network"])
    masks = pruning.magnitude_masks(weights, config["sparsity"])
    pruning.apply_masks(masks, weights)
    history = resumable.train(
        modules, methods.finetuning_stages(modules, config), masks, cell_of(config), 0, config,
        data, folder / "models", folder / "logs",
    )  # fmt: skip
    return Learned(modules, masks, history)


def state_path(folder: Path, config: dict[str, Any], network_id: int = 0) -> Path:
    return paths.training_state(folder / "models", cell_of(config), network_id)


@pytest.fixture
def stop_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """`stop_before(n)`: from now on a signal is noticed n steps later; never, for None."""

    def stop_before(n: int | None) -> None:
        asked = -1

        def stop_requested() -> int | None:
            nonlocal asked
            asked += 1
            return signal.SIGTERM if n is not None and asked >= n else None

        monkeypatch.setattr(runtime, "stop_requested", stop_requested)

    return stop_before


@pytest.fixture(scope="module")
def whole(
    data: Dataset, config_of: ConfigOf, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Learned]:
    """Trainings of both methods without an interruption."""
    return {
        learner: train(tmp_path_factory.mktemp("whole"), data, config_of(learner, **CHANGES))
        for learner in paths.LEARNERS
    }


def assert_same(a: Learned, b: Learned) -> None:
    ours, others = a.tensors(), b.tensors()
    assert ours.keys() == others.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, others[name]), name
    assert a.history == b.history


def test_the_whole_trainings_are_as_intended(whole: dict[str, Learned]) -> None:
    """Otherwise the comparisons below would say little."""
    for learner, learned in whole.items():
        stages = [record["stage"] for record in learned.history]
        expected = {"supervised": ["network"] * 2, "SupCon": ["encoder"] * 2 + ["head"] * 2}
        assert stages == expected[learner]
        assert [record["epoch"] for record in learned.history] == [0, 1] * (len(stages) // 2)
        weights = wide_resnet.prunable(learned.modules["network"])
        zeros, total = pruning.count_zeros(weights.values())
        assert abs(zeros - 0.9 * total) <= 1
        assert set(learned.masks) == set(weights)
        assert "test_accuracy" in learned.history[-1]


@pytest.mark.parametrize(
    ("learner", "n"), [(learner, n) for learner in N_STEPS for n in range(N_STEPS[learner])]
)
def test_interrupted_before_any_step_it_ends_the_same(
    tmp_path: Path,
    data: Dataset,
    config_of: ConfigOf,
    whole: dict[str, Learned],
    stop_before: Callable[[int | None], None],
    learner: str,
    n: int,
) -> None:
    config = config_of(learner, **CHANGES)
    stop_before(n)
    with pytest.raises(Interrupted):
        train(tmp_path, data, config)
    assert state_path(tmp_path, config).exists()
    stop_before(N_STEPS[learner] - n)  # so many steps are left, and no more are done
    assert_same(train(tmp_path, data, config), whole[learner])


@pytest.mark.parametrize("learner", N_STEPS)
def test_interrupted_after_every_step_it_ends_the_same(
    tmp_path: Path,
    data: Dataset,
    config_of: ConfigOf,
    whole: dict[str, Learned],
    stop_before: Callable[[int | None], None],
    learner: str,
) -> None:
    config = config_of(learner, **CHANGES)
    for _ in range(N_STEPS[learner] - 1):
        stop_before(1)
        with pytest.raises(Interrupted):
            train(tmp_path, data, config)
    stop_before(1)
    assert_same(train(tmp_path, data, config), whole[learner])


@pytest.mark.parametrize(
    ("learner", "loss", "n_steps"),
    [("supervised", None, 6), ("SupCon", "cross_entropy", 6), ("SupCon", "supcon", 12)],
)
def test_interrupted_finetuning_ends_the_same(
    tmp_path: Path,
    data: Dataset,
    config_of: ConfigOf,
    stop_before: Callable[[int | None], None],
    learner: str,
    loss: str | None,
    n_steps: int,
) -> None:
    config = config_of(learner, pruning_method="global", sparsity=0.9, dropout=0.2)
    config |= {"finetune_loss": loss} if loss else {}
    expected = finetune(tmp_path / "whole", data, config)
    for n in range(0, n_steps, 3 if n_steps > 6 else 2):
        folder = tmp_path / str(n)
        stop_before(n)
        with pytest.raises(Interrupted):
            finetune(folder, data, config)
        stop_before(None)
        assert_same(finetune(folder, data, config), expected)


@pytest.mark.parametrize("learner", N_STEPS)
def test_the_same_seed_gives_the_same_network(
    tmp_path: Path, data: Dataset, config_of: ConfigOf, whole: dict[str, Learned], learner: str
) -> None:
    """Whatever the state of torch's generator."""
    torch.manual_seed(12345)
    again = train(tmp_path, data, config_of(learner, **CHANGES))
    assert_same(again, whole[learner])


@pytest.mark.parametrize("learner", N_STEPS)
def test_other_seeds_and_other_ids_give_other_networks(
    tmp_path: Path, data: Dataset, config_of: ConfigOf, whole: dict[str, Learned], learner: str
) -> None:
    other_id = train(tmp_path, data, config_of(learner, **CHANGES), network_id=1)
    other_seed = train(tmp_path, data, config_of(learner, **CHANGES, seed=6))
    for a, b in ((whole[learner], other_id), (whole[learner], other_seed), (other_id, other_seed)):
        for name in ("network.conv1.weight", "network.fc.weight", "mask.conv1.weight"):
            assert not torch.equal(a.tensors()[name], b.tensors()[name]), name


def test_a_network_does_not_depend_on_what_was_trained_before_it(
    tmp_path: Path, data: Dataset, config_of: ConfigOf, whole: dict[str, Learned]
) -> None:
    train(tmp_path, data, config_of("SupCon", **CHANGES), network_id=2)
    assert_same(train(tmp_path, data, config_of("supervised", **CHANGES)), whole["supervised"])


# The state on disk


def interrupt(
    folder: Path,
    data: Dataset,
    config: dict[str, Any],
    stop_before: Callable[[int | None], None],
    n: int = 4,
) -> Path:
    stop_before(n)
    with pytest.raises(Interrupted):
        train(folder, data, config)
    stop_before(None)
    return state_path(folder, config)


def test_a_training_that_ends_leaves_no_state(
    tmp_path: Path, data: Dataset, config_of: ConfigOf
) -> None:
    config = config_of("supervised", **CHANGES)
    train(tmp_path, data, config)
    assert not state_path(tmp_path, config).exists()


@pytest.mark.parametrize("change", [{"seed": 6}, {"learning_rate": 0.01}, {"frequency": 4}])
def test_the_state_of_another_configuration_is_not_continued(
    tmp_path: Path,
    data: Dataset,
    config_of: ConfigOf,
    whole: dict[str, Learned],
    stop_before: Callable[[int | None], None],
    change: dict[str, Any],
) -> None:
    interrupt(tmp_path, data, config_of("supervised", **CHANGES | change), stop_before)
    assert_same(train(tmp_path, data, config_of("supervised", **CHANGES)), whole["supervised"])


def test_the_state_of_another_network_is_not_continued(
    tmp_path: Path,
    data: Dataset,
    config_of: ConfigOf,
    whole: dict[str, Learned],
    stop_before: Callable[[int | None], None],
) -> None:
    config = config_of("supervised", **CHANGES)
    stop_before(4)
    with pytest.raises(Interrupted):
        train(tmp_path, data, config, network_id=1)
    stop_before(None)
    assert_same(train(tmp_path, data, config), whole["supervised"])
    assert state_path(tmp_path, config, 1).exists()


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_damaged_state_is_not_continued(
    tmp_path: Path,
    data: Dataset,
    config_of: ConfigOf,
    whole: dict[str, Learned],
    stop_before: Callable[[int | None], None],
    capsys: pytest.CaptureFixture[str],
    share: float,
) -> None:
    config = config_of("supervised", **CHANGES)
    path = interrupt(tmp_path, data, config, stop_before)
    contents = path.read_bytes()
    path.write_bytes(contents[: int(share * len(contents))])
    assert_same(train(tmp_path, data, config), whole["supervised"])
    assert str(path) in capsys.readouterr().err


def test_a_state_with_one_changed_bit_is_not_continued(
    tmp_path: Path,
    data: Dataset,
    config_of: ConfigOf,
    whole: dict[str, Learned],
    stop_before: Callable[[int | None], None],
) -> None:
    config = config_of("supervised", **CHANGES)
    path = interrupt(tmp_path, data, config, stop_before)
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    assert_same(train(tmp_path, data, config), whole["supervised"])


@pytest.mark.parametrize("learner", N_STEPS)
def test_states_are_saved_now_and_then_for_the_case_of_a_sudden_end(
    tmp_path: Path,
    data: Dataset,
    config_of: ConfigOf,
    whole: dict[str, Learned],
    monkeypatch: pytest.MonkeyPatch,
    learner: str,
) -> None:
    """Here: the power fails at the first step of the last epoch."""
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", -1.0)
    steps = 0

    def fail() -> None:
        nonlocal steps
        steps += 1
        if steps == N_STEPS[learner] - 2:
            raise SystemError("power failure")

    config = config_of(learner, **CHANGES)
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "stop_requested", fail)
        with pytest.raises(SystemError):
            train(tmp_path, data, config)
    left = 0

    def count() -> None:
        nonlocal left
        left += 1

    monkeypatch.setattr(runtime, "stop_requested", count)
    assert_same(train(tmp_path, data, config), whole[learner])
    assert left == 3


def test_masks_are_those_of_the_caller(
    tmp_path: Path, data: Dataset, config_of: ConfigOf, stop_before: Callable[[int | None], None]
) -> None:
    """They are filled in place, also when a training is continued after the last pruning event."""
    config = config_of("SupCon", **CHANGES)
    interrupt(tmp_path, data, config, stop_before, n=11)
    learned = train(tmp_path, data, config)
    weights = wide_resnet.prunable(learned.modules["network"])
    assert {name: (weight != 0).equal(learned.masks[name]) for name, weight in weights.items()} == (
        dict.fromkeys(weights, True)
    )


# Logs and precision


def read_log(folder: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
    path = paths.log(folder / "logs", cell_of(config), 0)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_log_has_every_epoch_once(
    tmp_path: Path, data: Dataset, config_of: ConfigOf, stop_before: Callable[[int | None], None]
) -> None:
    config = config_of("SupCon", **CHANGES)
    for n in (4, 5):
        interrupt(tmp_path, data, config, stop_before, n)
    history = train(tmp_path, data, config).history
    lines = read_log(tmp_path, config)
    assert [line for line in lines if "stage" in line] == history
    starts = [line for line in lines if "config" in line]
    assert [line["continued"] for line in starts] == [False, True, True]
    assert all(line["config"] == config for line in starts)


def test_a_log_that_cannot_be_written_stops_nothing(
    tmp_path: Path, data: Dataset, config_of: ConfigOf, whole: dict[str, Learned]
) -> None:
    (tmp_path / "logs").write_text("in the way")
    assert_same(train(tmp_path, data, config_of("supervised", **CHANGES)), whole["supervised"])


def test_precision(
    tmp_path: Path, data: Dataset, config_of: ConfigOf, whole: dict[str, Learned]
) -> None:
    """On a CPU `auto` is float32."""
    auto = train(tmp_path, data, config_of("supervised", **CHANGES, precision="auto"))
    assert_same(auto, whole["supervised"])
    half = train(tmp_path, data, config_of("supervised", **CHANGES, precision="bf16"))
    name = "network.fc.weight"
    assert half.tensors()[name].dtype == torch.float32
    assert not torch.equal(half.tensors()[name], auto.tensors()[name])
    assert half.history[-1]["loss"] == pytest.approx(auto.history[-1]["loss"], rel=0.2)
