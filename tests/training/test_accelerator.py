"""Recorded steps, on the CPU twin of a GPU: static inputs, replays equal to plain steps, nothing read meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.costs.convnet import CELL_OPS
from ddpnas_ray.nn.weights import Layout, Weights
from ddpnas_ray.tasks.base import Batch
from ddpnas_ray.tasks.classification.task import ClassificationTask
from ddpnas_ray.testing import contract_trainer
from ddpnas_ray.training import trainer as trainer_module
from ddpnas_ray.training.accelerator import EAGER_CALLS, CpuAccelerator, CudaAccelerator, Recorded, accelerator_for
from ddpnas_ray.training.trainer import Trainer

NAMES = ("sep_conv_3x3", "max_pool_3x3", "skip_connect", "none", "dil_conv_5x5") * 2
REQUEST = EvalRequest(0, 1, 2, np.array([CELL_OPS.index(name) for name in NAMES]), lr=0.05)


def numbers(*values: float) -> Batch:
    return Batch(torch.tensor(values), {"of": [torch.tensor(values)]})


def doubled(batch: Batch) -> Tensor:
    found: Tensor = 2 * batch.inputs + batch.targets["of"][0]
    return found


# --- recordings ---


def test_a_step_runs_as_it_is_at_first_then_on_the_tensors_of_its_recording() -> None:
    seen: list[Tensor] = []

    def step(batch: Batch) -> Tensor:
        seen.append(batch.inputs)
        return doubled(batch)

    run = Recorded(step, CpuAccelerator().record, eager=2)
    given = [numbers(i, i + 1) for i in range(5)]
    found = [run(batch) for batch in given]
    for out, batch in zip(found, given, strict=True):
        assert torch.equal(out, doubled(batch)), "results of earlier batches are not overwritten"
    assert [x is batch.inputs for x, batch in zip(seen, given, strict=True)] == [True, True, False, False, False]
    assert seen[2] is seen[3] is seen[4], "static inputs"
    assert torch.equal(given[2].inputs, numbers(2, 3).inputs), "the caller's batches are not written to"


def test_a_batch_of_another_size_is_computed_as_it_is() -> None:
    run = Recorded(doubled, CpuAccelerator().record, eager=0)
    for batch in (numbers(1, 2, 3), numbers(4, 5), numbers(6, 7, 8)):
        assert torch.equal(run(batch), doubled(batch))


@pytest.mark.parametrize(
    "reads", [lambda x: float(x.sum()), lambda x: x[x > 1], lambda x: bool(x.any()), lambda x: x.nonzero()]
)
def test_a_recorded_step_must_not_read_from_the_device(reads: Callable[[Tensor], Any]) -> None:
    run = Recorded(lambda batch: (reads(batch.inputs), doubled(batch))[1], CpuAccelerator().record, eager=1)
    run(numbers(1, 2))
    with pytest.raises(RuntimeError, match="reads from the device"):
        run(numbers(1, 2))


def test_a_step_that_cannot_be_recorded_is_run_as_it_is_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def record(function: Callable[[], Any]) -> Callable[[], Any]:
        tried.append(function)
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more lines")

    run = Recorded(doubled, record, eager=1)
    with caplog.at_level(logging.WARNING):
        for i in range(4):
            assert torch.equal(run(numbers(i)), doubled(numbers(i)))
    assert len(tried) == 1
    (message,) = [r.getMessage() for r in caplog.records]
    assert "operation not permitted when stream is capturing)" in message and "\n" not in message


def test_memory_that_runs_out_while_recording_is_an_error() -> None:
    def record(function: Callable[[], Any]) -> Callable[[], Any]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Recorded(doubled, record, eager=0)(numbers(1))


# --- whole evaluations ---


def evaluate(trainer: Trainer) -> tuple[float, float, bytes]:
    tensors, supernet = trainer.supernet()
    layout = Layout.of(supernet.pieces(REQUEST.alpha_E))
    result, learned = trainer.train_and_score(REQUEST, layout, Weights(tensors).cut(layout))
    assert result.ok
    return result.score, result.loss, learned.tobytes()


def with_config(**changes: Any) -> Trainer:
    """Ten steps of six images, and a last validation batch of four."""
    return replace(contract_trainer(), config=replace(contract_trainer().config, batch_size=6, **changes))


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Trainers find an accelerator that records; returns the number of replays of each recording."""
    replays: list[int] = []

    class Counting(CpuAccelerator):
        def record(self, function: Callable[[], Any]) -> Callable[[], Any]:
            replay, number = super().record(function), len(replays)
            replays.append(0)

            def counted() -> Any:
                replays[number] += 1
                return replay()

            return counted

    accelerator = Counting(records=True, kept_bytes=2**30)
    monkeypatch.setattr(trainer_module, "accelerator_for", lambda device: accelerator)
    return replays


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"momentum": 0.0, "decay": "weights"},
        {"precision": "bf16", "decay": "weights"},
        {"bn_images": 0, "grad_clip": 0.0},
        {"channels_last": False, "kernels": "reference"},
    ],
    ids=str,
)
def test_replayed_training_and_scoring_give_the_same_bits(
    changes: dict[str, Any], twin: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = with_config(**changes)
    replayed = [evaluate(trainer) for _ in range(2)]
    steps, batches = 64 // 6, 64 // 6
    assert twin == [steps - EAGER_CALLS, batches - EAGER_CALLS] * 2
    monkeypatch.setattr(trainer_module, "accelerator_for", accelerator_for)
    assert replayed == [evaluate(trainer)] * 2


class OwnTask(ClassificationTask):
    """A task of one's own, with every image brighter."""

    def training_batches(self, *args: Any, **options: Any) -> Any:
        for batch in super().training_batches(*args, **options):
            yield Batch(batch.inputs + 1, batch.targets)


def test_a_task_of_ones_own_has_its_own_batches_and_is_not_recorded(
    twin: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    built_in: Any = with_config().task
    own = replace(with_config(), task=OwnTask(built_in.data, built_in.metric))
    found = evaluate(own)
    assert twin == [], "a thread may copy its batches to the GPU, which no recording survives"
    monkeypatch.setattr(trainer_module, "accelerator_for", accelerator_for)
    assert evaluate(own) == found
    assert evaluate(with_config())[1:] != found[1:]


def test_a_metric_may_collect_outputs_before_it_looks_at_them(twin: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def score(outputs: Iterable[tuple[Tensor, Any]]) -> float:
        return float(torch.cat([out for out, _ in list(outputs)]).softmax(1).max(1).values.mean())

    trainer = with_config()
    task: Any = trainer.task
    trainer = replace(trainer, task=replace(task, metric=replace(task.metric, score=score)))
    replayed = evaluate(trainer)
    assert len(twin) == 2
    monkeypatch.setattr(trainer_module, "accelerator_for", accelerator_for)
    assert evaluate(trainer) == replayed


def test_cpus_record_nothing_and_keep_nothing() -> None:
    """Preparation is a thousandth of a CPU's time (docs/measurements.md)."""
    accelerator = accelerator_for("cpu")
    assert accelerator_for("cpu") is accelerator
    assert accelerator.recorded(doubled) is doubled
    assert accelerator.resident(contract_trainer().task, True) is None


# --- the order of calls on a GPU; ``torch.cuda`` is a stand-in, and pytest -m gpu runs the real one ---


class Cuda:
    """What ``CudaAccelerator`` calls, written down; ``fails`` is raised while a graph is recorded."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.pools: list[Any] = []
        self.fails: RuntimeError | None = None

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        cuda = self

        class Stream:
            def __init__(self, name: Any = "own") -> None:
                self.name = "outer" if name == "outer" else "own"

            def wait_stream(self, other: Any) -> None:
                cuda.calls.append(f"{self.name} waits for {other.name}")

        class Graph:
            def replay(self) -> None:
                cuda.calls.append("replay")

        @contextmanager
        def graph(made: Any, *, pool: Any, stream: Any) -> Iterator[None]:
            assert isinstance(made, Graph) and stream.name == "own"
            cuda.pools.append(pool)
            cuda.calls.append("record")
            yield
            if cuda.fails is not None:
                raise cuda.fails

        @contextmanager
        def on(stream: Any) -> Iterator[None]:
            cuda.calls.append(f"on {stream.name}")
            yield

        memory = SimpleNamespace(total_memory=2**34)
        for name, value in {
            "Stream": Stream,
            "CUDAGraph": Graph,
            "graph": graph,
            "stream": on,
            "current_stream": lambda device: Stream("outer"),
            "graph_pool_handle": object,
            "get_device_properties": lambda device: memory,
        }.items():
            patch.setattr(torch.cuda, name, value)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    made = Cuda()
    made.patch(monkeypatch)
    return made


def test_an_evaluation_runs_on_one_stream_and_its_recordings_share_a_pool(cuda: Cuda) -> None:
    accelerator = CudaAccelerator("cuda")
    for _ in range(2):
        with accelerator.running():
            for _ in range(2):
                run = accelerator.recorded(doubled)
                for i in range(EAGER_CALLS + 3):
                    run(numbers(i))
    evaluation = ["own waits for outer", "on own", *["record", "replay", "replay", "replay"] * 2, "outer waits for own"]
    assert cuda.calls == evaluation * 2
    first, second, third, fourth = cuda.pools
    assert first is second and third is fourth and first is not third


def test_after_a_recording_that_failed_a_gpu_records_no_more(cuda: Cuda, caplog: pytest.LogCaptureFixture) -> None:
    accelerator = CudaAccelerator("cuda")
    cuda.fails = RuntimeError("operation failed due to a previous error during capture")
    for _ in range(2):
        with accelerator.running():
            run = accelerator.recorded(doubled)
            for i in range(EAGER_CALLS + 2):
                assert torch.equal(run(numbers(i)), doubled(numbers(i)))
    assert cuda.calls.count("record") == 1 and "replay" not in cuda.calls
    assert len(caplog.records) == 1


def test_after_memory_ran_out_while_recording_a_gpu_tries_again(cuda: Cuda) -> None:
    accelerator = CudaAccelerator("cuda")
    for fails in (torch.OutOfMemoryError("CUDA out of memory"), None):
        cuda.fails = fails
        with nullcontext() if fails is None else pytest.raises(torch.OutOfMemoryError), accelerator.running():
            run = accelerator.recorded(doubled)
            for i in range(EAGER_CALLS + 1):
                run(numbers(i))
    assert cuda.calls[-2:] == ["replay", "outer waits for own"]
    assert cuda.pools[0] is not cuda.pools[1]


def test_without_recordings_a_step_is_itself(cuda: Cuda) -> None:
    assert CudaAccelerator("cuda", records=False).recorded(doubled) is doubled
    own: Any = OwnTask(contract_trainer().task.data, contract_trainer().task.metric)  # type: ignore[attr-defined]
    assert CudaAccelerator("cuda").resident(own, True) is None
