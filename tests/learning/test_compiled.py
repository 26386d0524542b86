"""Compiled steps: each loss is one graph that all networks share, and learns the same."""

from __future__ import annotations

import dataclasses
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common import paths, runtime
from common.data.datasets import Dataset
from common.learning import loop, methods, resumable
from common.learning.loop import Stage
from common.learning.methods import METHODS
from common.runtime import Interrupted

ConfigOf = Callable[..., dict[str, Any]]
Graph = torch.fx.GraphModule
LOSSES = {
    "supervised": ("supervised", {}, 0),
    "SupCon": ("SupCon", {}, 0),
    "SimCLR": ("SupCon", {"method": "SimCLR"}, 0),
    "classifier": ("SupCon", {}, 1),
    "fine-tuning": ("supervised", {"pruning_method": "global", "sparsity": 0.9}, 0),
    "dropout": ("supervised", {"dropout": 0.3}, 0),
}
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"
)


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """What `loop.compiled` captures, run as it is: without a C++ compiler, and bit for bit."""
    captured: list[Graph] = []
    compile_for_real = torch.compile

    def keep(graph: Graph, inputs: list[Tensor]) -> Callable[..., Any]:
        captured.append(graph)
        return graph.forward

    def without_mode(function: Any, *, mode: str, **more: Any) -> Any:
        return compile_for_real(function, backend=keep, **more)

    monkeypatch.setattr(torch, "compile", without_mode)
    return captured


def stages_of(config: dict[str, Any], network_id: int) -> tuple[dict[str, nn.Module], list[Stage]]:
    modules = METHODS[config["learner"]].new_modules(config, 10, network_id)
    for module in modules.values():
        module.to(memory_format=torch.channels_last)
    if config["pruning_method"] == "global":
        return modules, methods.finetuning_stages(modules, config)
    return modules, METHODS[config["learner"]].stages(modules, config)


def fit(
    config: dict[str, Any], number: int, data: Dataset, compiled: bool, network_id: int = 0
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """All weights and statistics after one stage, and its history."""
    modules, stages = stages_of(config, network_id)
    stage = loop.compiled(stages[number]) if compiled else stages[number]
    bf16 = config["precision"] == "bf16"
    history = loop.fit(stage, modules["network"], data, (5, network_id), {}, bf16)
    return tensors_of(modules), history


def tensors_of(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("loss", LOSSES)
def test_each_loss_is_one_graph_for_each_size_of_batch(
    config_of: ConfigOf, data: Dataset, graphs: list[Graph], loss: str, precision: str
) -> None:
    """None is broken by a value that Python would have to see; captured, it computes the same."""
    learner, changes, number = LOSSES[loss]
    config = config_of(learner, precision=precision, **changes)
    captured, history = fit(config, number, data, compiled=True)
    assert len(graphs) == 2  # the last batch is smaller
    plain, plain_history = fit(config, number, data, compiled=False)
    assert history == plain_history
    for name, tensor in plain.items():
        assert torch.equal(captured[name], tensor), name


def test_a_population_is_compiled_once(
    config_of: ConfigOf, data: Dataset, graphs: list[Graph]
) -> None:
    """More networks than PyTorch would compile a function for, in two cells: after 8 versions it
    would go on without compiling."""
    for network_id in range(5):
        for sparsity in (0.0, 0.5):
            config = config_of("supervised", epochs=1, sparsity=sparsity, pruning_method="GMP")
            steps = {"begin_step": 0, "end_step": 2, "frequency": 1} if sparsity else {}
            fit(config | steps, 0, data, compiled=True, network_id=network_id)
    assert len(graphs) == 2


@needs_compiler
@pytest.mark.parametrize("learner", paths.LEARNERS)
def test_compiled_a_network_learns_the_same(
    config_of: ConfigOf, data: Dataset, learner: str
) -> None:
    """Four steps, pruned on the way. In float64: in float32 other rounding may put an activation
    on the other side of zero, and a gradient 5 % elsewhere (seen); the logits of
    cross-entropy are float32 even here."""
    steps = {"begin_step": 1, "end_step": 3, "frequency": 1}
    config = config_of(learner, sparsity=0.5, pruning_method="GMP", batch_size=22, **steps)
    learned = []
    for compiled in (False, True):
        modules, stages = stages_of(config, 0)
        for module in modules.values():
            module.double()
        stage = in_float64(stages[0])
        stage = loop.compiled(stage) if compiled else stage
        history = loop.fit(stage, modules["network"], data, (5, 0), {})
        learned.append((tensors_of(modules), [record["loss"] for record in history]))
    (plain, plain_losses), (compiled, losses) = learned
    assert losses == pytest.approx(plain_losses, rel=1e-6)
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def in_float64(stage: Stage) -> Stage:
    def loss(views: Tensor, labels: Tensor) -> tuple[Tensor, None]:
        return stage.loss(views.double(), labels)[0], None

    return dataclasses.replace(stage, loss=loss)


@needs_compiler
def test_a_compiled_training_continues_bit_for_bit(
    config_of: ConfigOf, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("supervised", dropout=0.2, batch_size=22)

    def train(folder: str) -> dict[str, Tensor]:
        modules, stages = stages_of(config, 0)
        resumable.train(
            modules, stages, {}, paths.dense_cell("supervised"), 0, config, data,
            tmp_path / folder, tmp_path / "logs", compile_steps=True,
        )  # fmt: skip
        return tensors_of(modules)

    whole = train("whole")
    asked = iter([None] * 3 + [signal.SIGTERM])
    monkeypatch.setattr(runtime, "stop_requested", lambda: next(asked, None))
    with pytest.raises(Interrupted):
        train("stopped")
    continued = train("stopped")
    for name, tensor in whole.items():
        assert torch.equal(continued[name], tensor), name


def test_a_state_says_whether_its_steps_were_compiled(
    config_of: ConfigOf,
    data: Dataset,
    graphs: list[Graph],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = config_of("supervised")
    asked = iter([None, signal.SIGTERM])
    monkeypatch.setattr(runtime, "stop_requested", lambda: next(asked, None))

    def train(compile_steps: bool) -> None:
        modules, stages = stages_of(config, 0)
        resumable.train(
            modules, stages, {}, paths.dense_cell("supervised"), 0, config, data,
            tmp_path / "models", tmp_path / "logs", compile_steps=compile_steps,
        )  # fmt: skip

    with pytest.raises(Interrupted):
        train(compile_steps=True)
    assert graphs
    train(compile_steps=False)
    assert "continued under compiled steps no, begun under compiled steps yes" in (
        capsys.readouterr().err
    )
