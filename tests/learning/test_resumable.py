"""A training that was interrupted, wherever, ends with the same network, bit for bit."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from common import paths, recipes, runtime
from common.data.datasets import Dataset
from common.experiments import making
from common.learning import loop, methods, pruning, resumable
from common.model import wide_resnet
from common.paths import NetworkFiles
from common.recipes import Config
from common.runtime import EXIT_CHECKPOINT, Damaged, Failure, Interrupted
from common.study import Cell

ConfigOf = Callable[..., Config]
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
    "decay": "weights",
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


def assert_same(a: Learned, b: Learned) -> None:
    ours, others = a.tensors(), b.tensors()
    assert ours.keys() == others.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, others[name]), name
    assert a.history == b.history


def cell_of(config: Config) -> Cell:
    return Cell(config["learner"], config["pruning_method"], config["sparsity"])


class Lab(NamedTuple):
    """A place where networks are trained, each time as a new process would do it."""

    folder: Path
    data: Dataset
    monkeypatch: pytest.MonkeyPatch

    def train(self, config: Config, network_id: int = 0) -> Learned:
        """By fresh modules; one-shot pruning comes first where the configuration says so."""
        modules = methods.new_modules(config, self.data.n_classes, network_id)
        masks: dict[str, Tensor] = {}
        if config["pruning_method"] == "global":
            weights = wide_resnet.prunable(modules["network"])
            masks = pruning.magnitude_masks(weights, config["sparsity"])
            pruning.apply_masks(masks, weights)
        args = SimpleNamespace(models=self.models, logs=self.folder / "logs", compile=False)
        where = NetworkFiles(self.models, cell_of(config), network_id)
        run = making._begin(args, self.data, where, config)
        stages = methods.stages(modules, config)
        history = loop.train(stages, modules, masks, self.data, run)
        return Learned(modules, masks, history)

    def interrupt(self, config: Config, n: int = 4, network_id: int = 0) -> Path:
        """Train until a signal is noticed, n steps from now; the path of the state."""
        self.stop_before(n)
        with pytest.raises(Interrupted):
            self.train(config, network_id)
        self.stop_before(None)
        return NetworkFiles(self.models, cell_of(config), network_id).state

    def stop_before(self, n: int | None) -> None:
        """From now on a signal is noticed n steps later; never, for None."""
        asked = iter(range(10**6))
        answer = lambda: signal.SIGTERM if next(asked) >= n else None  # noqa: E731
        self.monkeypatch.setattr(runtime, "stop_requested", answer if n is not None else int)

    @property
    def models(self) -> Path:
        return self.folder / "models"


@pytest.fixture
def lab(tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, data, monkeypatch)


@pytest.fixture(scope="module")
def whole(
    data: Dataset, config_of: ConfigOf, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Learned]:
    """Trainings of both methods without an interruption."""
    lab = Lab(tmp_path_factory.mktemp("whole"), data, pytest.MonkeyPatch())
    return {learner: lab.train(config_of(learner, **CHANGES)) for learner in N_STEPS}


def test_the_whole_trainings_are_as_intended(whole: dict[str, Learned]) -> None:
    """Otherwise the comparisons below would say little."""
    expected = {"supervised": ["network"] * 2, "SupCon": ["encoder"] * 2 + ["head"] * 2}
    for learner, learned in whole.items():
        assert [record["stage"] for record in learned.history] == expected[learner]
        assert [record["epoch"] for record in learned.history] == [0, 1] * (N_STEPS[learner] // 6)
        weights = wide_resnet.prunable(learned.modules["network"])
        assert set(learned.masks) == set(weights)
        assert pruning.reached(weights, learned.masks, 0.9)
        assert "test_accuracy" in learned.history[-1]


@pytest.mark.parametrize(
    ("learner", "n"), [(learner, n) for learner in N_STEPS for n in range(N_STEPS[learner])]
)
def test_interrupted_before_any_step_it_ends_the_same(
    lab: Lab, config_of: ConfigOf, whole: dict[str, Learned], learner: str, n: int
) -> None:
    config = config_of(learner, **CHANGES)
    assert lab.interrupt(config, n).exists()
    lab.stop_before(N_STEPS[learner] - n)  # so many steps are left, and no more are done
    assert_same(lab.train(config), whole[learner])


@pytest.mark.parametrize("learner", N_STEPS)
def test_interrupted_after_every_step_it_ends_the_same(
    lab: Lab, config_of: ConfigOf, whole: dict[str, Learned], learner: str
) -> None:
    """The log also has every epoch exactly once."""
    config = config_of(learner, **CHANGES)
    for _ in range(N_STEPS[learner] - 1):
        lab.interrupt(config, 1)
    lab.stop_before(1)
    assert_same(lab.train(config), whole[learner])
    log = paths.log(lab.folder / "logs", cell_of(config), 0).read_text().splitlines()
    lines = [json.loads(line) for line in log]
    assert [line for line in lines if "stage" in line] == whole[learner].history
    starts = [line for line in lines if "config" in line]
    assert [line["continued"] for line in starts] == [False] + [True] * (N_STEPS[learner] - 1)
    assert all(line["config"] == config for line in starts)


@pytest.mark.parametrize(
    ("learner", "loss", "steps"),
    [
        ("supervised", "cross_entropy", (0, 2, 4)),
        ("SupCon", "cross_entropy", (0, 2, 4)),
        ("SupCon", "supcon", (0, 3, 6, 9)),
    ],
)
def test_interrupted_finetuning_ends_the_same(
    lab: Lab, config_of: ConfigOf, learner: str, loss: str, steps: tuple[int, ...]
) -> None:
    changes = {"pruning_method": "global", "sparsity": 0.9, "dropout": 0.2}
    config = config_of(learner, **changes, finetune_loss=loss)
    expected = lab.train(config)
    for n in steps:
        of_its_own = lab._replace(folder=lab.folder / str(n))
        of_its_own.interrupt(config, n)
        assert_same(of_its_own.train(config), expected)


@pytest.mark.parametrize("learner", N_STEPS)
def test_seed_and_id_alone_decide(
    lab: Lab, config_of: ConfigOf, whole: dict[str, Learned], learner: str
) -> None:
    """Not torch's generator, and not what was trained before."""
    config = config_of(learner, **CHANGES)
    other_id = lab.train(config, network_id=1)
    other_seed = lab.train(config | {"seed": 6})
    torch.manual_seed(12345)
    assert_same(lab.train(config), whole[learner])
    for a, b in ((whole[learner], other_id), (whole[learner], other_seed), (other_id, other_seed)):
        for name in ("network.conv1.weight", "network.fc.weight", "mask.conv1.weight"):
            assert not torch.equal(a.tensors()[name], b.tensors()[name]), name


# The state on disk


@pytest.mark.parametrize("change", [{"seed": 6}, {"learning_rate": 0.01}, {"frequency": 4}])
def test_the_state_of_another_configuration_is_not_continued(
    lab: Lab, config_of: ConfigOf, whole: dict[str, Learned], change: dict[str, Any]
) -> None:
    path = lab.interrupt(config_of("supervised", **CHANGES | change))
    assert_same(lab.train(config_of("supervised", **CHANGES)), whole["supervised"])
    assert not path.exists()


def test_a_state_from_before_a_flag_was_introduced_is_continued(
    lab: Lab, config_of: ConfigOf
) -> None:
    """Every key that came later is missing in it: these have the values that all networks had."""
    config = config_of("supervised", **CHANGES | {"decay": "all"})
    expected = lab._replace(folder=lab.folder / "whole").train(config)
    lab.interrupt(config)
    state = resumable.read(NetworkFiles(lab.models, cell_of(config), 0))
    later = recipes.complete({}).keys()
    assert later >= {"criterion", "image_size", "nesterov", "decay", "min_crop_area"}
    early = {key: value for key, value in config.items() if key not in later}
    learned = {key: state[key] for key in ("loop", "finished", "masks", "modules")}
    resumable.write(NetworkFiles(lab.models, cell_of(config), 0), early, state["versions"], learned)
    lab.stop_before(2)  # of its six steps, four are done
    assert_same(lab.train(config), expected)


def test_the_state_of_another_network_is_not_continued(
    lab: Lab, config_of: ConfigOf, whole: dict[str, Learned]
) -> None:
    """It waits in its place; one that lies in the place of another is refused."""
    config = config_of("supervised", **CHANGES)
    path = lab.interrupt(config, network_id=1)
    assert_same(lab.train(config), whole["supervised"])
    place = NetworkFiles(lab.models, cell_of(config), 0).state
    path.replace(place)
    with pytest.raises(Failure, match="the state of another network") as refused:
        lab.train(config)
    assert refused.value.code == EXIT_CHECKPOINT
    assert place.exists()


@pytest.mark.parametrize("share", [0, 0.5, 0.99, 1])
def test_a_damaged_state_is_set_aside_and_training_begins_anew(
    lab: Lab,
    config_of: ConfigOf,
    whole: dict[str, Learned],
    capsys: pytest.CaptureFixture[str],
    share: float,
) -> None:
    """The state is truncated, or intact except for one bit."""
    config = config_of("supervised", **CHANGES)
    path = lab.interrupt(config)
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    damaged = bytes(contents[: int(share * len(contents))])
    path.write_bytes(damaged)
    aside = paths.corrupt(path)
    with pytest.raises(Damaged):
        resumable.read(NetworkFiles(lab.models, cell_of(config), 0))
    assert_same(lab.train(config), whole["supervised"])
    assert str(path) in capsys.readouterr().err
    assert not path.exists()
    assert aside.read_bytes() == damaged


@pytest.mark.parametrize("learner", N_STEPS)
def test_states_are_saved_now_and_then_for_the_case_of_a_sudden_end(
    lab: Lab, config_of: ConfigOf, whole: dict[str, Learned], learner: str
) -> None:
    """Here: the power fails at the second step of the last epoch."""
    lab.monkeypatch.setattr(loop, "SECONDS_BETWEEN_SAVES", -1.0)
    asked = iter(range(N_STEPS[learner] - 2))
    lab.monkeypatch.setattr(runtime, "stop_requested", lambda: next(asked) * 0)
    config = config_of(learner, **CHANGES)
    with pytest.raises(StopIteration):
        lab.train(config)
    lab.stop_before(3)  # the steps of the last epoch
    assert_same(lab.train(config), whole[learner])


def test_who_continues_elsewhere_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    begun = resumable.environment(torch.device("cpu"), compile_loss=True)
    now = resumable.environment(torch.device("cpu"), compile_loss=False) | {"torch": "9.0"}
    assert resumable.warn_of_another_environment(now, None) == {"versions": now}
    assert resumable.warn_of_another_environment(now, {"versions": now}) == {"versions": now}
    assert capsys.readouterr().err == ""
    logged = resumable.warn_of_another_environment(now, {"versions": begun})
    assert logged == {"versions": now, "begun_under": begun}
    told = f"continued under torch 9.0 and steps plain, begun under torch {begun['torch']} and "
    assert told + "steps compiled: the result may differ" in capsys.readouterr().err
