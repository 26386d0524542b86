"""Compiled steps: each loss is one graph that all networks share, and learns the same."""

from __future__ import annotations

import copy
import dataclasses
import shutil
import signal
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend
from torch._dynamo.utils import counters

from common import runtime, study
from common.data import datasets
from common.data.datasets import Dataset
from common.learning import loop, methods
from common.learning.loop import Run, Stage
from common.recipes import Config
from common.runtime import Interrupted

ConfigOf = Callable[..., Config]
Graph = torch.fx.GraphModule
LOSSES = {
    "supervised": ("supervised", {}, 0),
    "SupCon": ("SupCon", {}, 0),
    "SimCLR": ("SupCon", {"method": "SimCLR"}, 0),
    "classifier": ("SupCon", {}, 1),
    "fine-tuning": ("supervised", {"pruning_method": "global", "sparsity": 0.9}, 0),
    "dropout": ("supervised", {"dropout": 0.3}, 0),
}
HAS_COMPILER = shutil.which("g++") and (Path(sysconfig.get_path("include")) / "Python.h").exists()
needs_compiler = pytest.mark.skipif(
    not HAS_COMPILER, reason="torch.compile needs a C++ compiler and Python's headers"
)


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Stands for the compiler: both passes are captured as always, and then run operation by
    operation, without a C++ compiler and bit for bit as if they were not."""
    captured: list[Graph] = []
    compile_for_real = torch.compile
    run_as_captured = lookup_backend("aot_eager")

    def keep(graph: Graph, inputs: list[Tensor]) -> Callable[..., Any]:
        captured.append(graph)
        return run_as_captured(graph, inputs)

    def without_mode(function: Any, *, mode: str, **more: Any) -> Any:
        return compile_for_real(function, backend=keep, **more)

    monkeypatch.setattr(torch, "compile", without_mode)
    return captured


def build(
    config: Config, network_id: int = 0, device: str = "cpu"
) -> tuple[dict[str, nn.Module], list[Stage]]:
    modules = methods.new_modules(config, 10, network_id)
    for module in modules.values():
        module.to(device, memory_format=torch.channels_last)
    return modules, methods.stages(modules, config)


def fit(
    config: Config, number: int, data: Dataset, compiled: bool, network_id: int = 0
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """All weights and statistics after one stage, and its history."""
    modules, stages = build(config, network_id, data.train.images.device.type)
    run = Run((5, network_id), config["precision"] == "bf16", compiled)
    history = loop.fit(stages[number], modules["network"], data, {}, run)
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
    """No value that Python would have to see breaks a graph, and the graph computes the same as
    plain code."""
    learner, changes, number = LOSSES[loss]
    config = config_of(learner, precision=precision, **changes)
    captured, history = fit(config, number, data, compiled=True)
    assert len(graphs) == 2  # the last batch is smaller
    if (loss, precision) == ("dropout", "bf16"):
        return  # captured, dropout draws another mask
    plain, plain_history = fit(config, number, data, compiled=False)
    assert history == plain_history
    for name, tensor in plain.items():
        assert torch.equal(captured[name], tensor), name


@pytest.mark.parametrize("loss", LOSSES)
def test_a_population_is_compiled_once(
    config_of: ConfigOf, data: Dataset, graphs: list[Graph], loss: str
) -> None:
    """Five networks, of two recipes by turns. PyTorch refuses to compile a ninth version."""
    learner, changes, number = LOSSES[loss]
    epochs = {"epochs": 1, "head_epochs": 1} if learner == "SupCon" else {"epochs": 1}
    for network_id in range(5):
        config = config_of(learner, **changes | epochs, seed=network_id % 2)
        fit(
            config | {"parent": str(network_id)}, number, data, compiled=True, network_id=network_id
        )
    assert len(graphs) == 2


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("learner", study.LEARNERS)
def test_compiled_a_network_learns_the_same(
    config_of: ConfigOf, data: Dataset, learner: str
) -> None:
    """Four steps, with pruning in between, in float64: in float32, different rounding may put an
    activation on the other side of zero and change a gradient by 5 % (seen). The logits of
    cross-entropy are float32 even here."""
    steps = {"begin_step": 1, "end_step": 3, "frequency": 1}
    config = config_of(learner, sparsity=0.5, pruning_method="GMP", batch_size=22, **steps)
    learned = []
    for compiled in (False, True):
        modules, stages = build(config)
        for module in modules.values():
            module.double()
        stage = in_float64(stages[0])
        history = loop.fit(stage, modules["network"], data, {}, Run((5, 0), compile_loss=compiled))
        learned.append((tensors_of(modules), [record["loss"] for record in history]))
    (plain, plain_losses), (compiled, losses) = learned
    assert losses == pytest.approx(plain_losses, rel=1e-5)
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def in_float64(stage: Stage) -> Stage:
    def loss(views: Tensor, labels: Tensor) -> tuple[Tensor, None]:
        return stage.loss(views.double(), labels)[0], None

    return dataclasses.replace(stage, loss=loss)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("loss", LOSSES)
def test_a_gpu_replays_its_passes_as_cuda_graphs(config_of: ConfigOf, loss: str) -> None:
    """No pass runs outside a graph, for two networks one after the other."""
    learner, changes, number = LOSSES[loss]
    config = config_of(learner, epochs=3, **changes)
    on_gpu = datasets.load_dataset("digits", Path("unused"), torch.device("cuda"), 8, 44, 30)
    counters["inductor"].clear()
    for network_id in (0, 1):
        losses = []
        for compiled in (False, True):
            _, history = fit(config, number, on_gpu, compiled, network_id)
            losses.append([record["loss"] for record in history])
        if loss != "dropout":  # which draws other masks
            assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert counters["inductor"]["cudagraph_skips"] == 0


@pytest.mark.slow
@needs_compiler
def test_a_compiled_training_continues_bit_for_bit(
    config_of: ConfigOf, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, saved = config_of("supervised", dropout=0.2, batch_size=22), []

    def train(**of_run: Any) -> dict[str, Tensor]:
        modules, stages = build(config)
        loop.train(stages, modules, {}, data, Run((5, 0), compile_loss=True, **of_run))
        return tensors_of(modules)

    whole = train()
    asked = iter([None] * 3 + [signal.SIGTERM])
    monkeypatch.setattr(runtime, "stop_requested", lambda: next(asked, None))
    with pytest.raises(Interrupted):
        train(save=lambda state: saved.append(copy.deepcopy(state)))
    continued = train(resume=saved[-1])
    for name, tensor in whole.items():
        assert torch.equal(continued[name], tensor), name
