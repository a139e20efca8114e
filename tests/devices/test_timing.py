"""Timing: the order and conditions of calls; measured times are only checked to be positive."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpnas_ray.core.errors import ConfigError, ResourceError
from ddpnas_ray.devices.config import TimingOptions, device_label
from ddpnas_ray.devices.timing import FEWEST_TIMINGS, WARM_UP_CALLS, Timed, time_network, time_parts
from ddpnas_ray.spaces.target import Example

IMAGE = Example(shape=(3, 8, 8))
UNHURRIED = TimingOptions(timings=4, seconds=60.0)


class Recorder(nn.Module):
    """Records how it was called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        super().__init__()
        self.name, self.calls = name, calls
        self.conv = nn.Conv2d(3, 2, 3)
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training and torch.is_inference_mode_enabled()
        self.calls.append(self.name)
        self.seen = x
        y: Tensor = self.conv(x)
        return y


def recorders(names: str, options: TimingOptions = UNHURRIED) -> tuple[dict[str, Timed], list[str]]:
    """Warmed-up modules, and the list of later calls."""
    calls: list[str] = []
    timed = {name: Timed(lambda name=name: Recorder(name, calls), IMAGE, options) for name in names}
    calls.clear()
    return timed, calls


def test_a_module_is_warmed_up_before_it_is_timed() -> None:
    calls: list[str] = []
    timed = Timed(lambda: Recorder("a", calls), IMAGE, TimingOptions())
    assert len(calls) >= WARM_UP_CALLS
    before = len(calls)
    assert timed.call_ns() > 0
    assert len(calls) == before + 1


def test_parts_run_in_shuffled_rounds_that_begin_with_the_reference() -> None:
    timed, calls = recorders("Rabcdef")
    parts = [timed[name] for name in "abcdef"]
    timings = time_parts(timed["R"], parts, UNHURRIED)
    rounds = ["".join(calls[i : i + 7]) for i in range(0, len(calls), 7)]
    assert len(rounds) == 4
    assert all(r[0] == "R" and sorted(r[1:]) == list("abcdef") for r in rounds)
    assert len(set(rounds)) > 1
    assert [t.ns_T.shape for t in timings] == [(4,)] * 6
    assert all((t.ns_T > 0).all() and (t.reference_ns_T == timings[0].reference_ns_T).all() for t in timings)


def test_a_network_is_timed_in_turn_with_the_reference_each_after_an_untimed_call() -> None:
    timed, calls = recorders("Rn")
    timings = time_network(timed["R"], timed["n"], UNHURRIED)
    assert "".join(calls) == 4 * "RRnn"
    assert timings.ns_T.shape == timings.reference_ns_T.shape == (4,)
    assert timings.ns_T.dtype == timings.reference_ns_T.dtype == np.int64


def test_slow_things_are_timed_a_few_times_only() -> None:
    timed, _ = recorders("Rn")
    timings = time_network(timed["R"], timed["n"], TimingOptions(timings=1_000, seconds=0.0))
    assert len(timings.ns_T) == FEWEST_TIMINGS
    assert time_parts(timed["R"], [timed["n"]], TimingOptions(timings=2, seconds=0.0))[0].ns_T.shape == (2,)


@pytest.mark.parametrize(("dtype", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_batch_size_and_data_type_are_what_was_asked_for(dtype: str, expected: torch.dtype) -> None:
    modules: list[Recorder] = []

    def build() -> nn.Module:
        modules.append(Recorder("a", []))
        return modules[0]

    Timed(build, IMAGE, TimingOptions(batch=5, dtype=dtype))  # type: ignore[arg-type]
    assert modules[0].seen is not None
    assert modules[0].seen.shape == (5, *IMAGE.shape)
    assert modules[0].seen.dtype == expected == modules[0].conv.weight.dtype


class OfTexts(nn.Module):
    """Keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.seen: dict[str, Tensor] = {}

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        self.seen = x
        y: Tensor = self.embedding(x["input_ids"])
        return y


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_token_ids_stay_integers_and_no_text_is_padded(dtype: str) -> None:
    module = OfTexts()
    Timed(lambda: module, Example(shape=(7,), vocabulary=9), TimingOptions(batch=5, dtype=dtype))  # type: ignore[arg-type]
    assert {name: (tuple(t.shape), t.dtype) for name, t in module.seen.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), ((5, 7), torch.int64)
    )
    assert module.seen["attention_mask"].all(), "as many tokens as the target has"
    assert module.embedding.weight.dtype == (torch.float32 if dtype == "fp32" else torch.bfloat16)


def test_hidden_states_are_a_float_tensor_of_any_rank() -> None:
    shapes: list[torch.Size] = []
    module = nn.Linear(4, 2)
    module.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    Timed(lambda: module, Example(shape=(7, 4)), TimingOptions(batch=3))
    assert set(shapes) == {(3, 7, 4)}


def test_what_cannot_run_is_refused_in_one_line() -> None:
    with pytest.raises(ResourceError, match=r"^--dtype fp32 --device cpu, batch 1: ") as error:
        Timed(lambda: nn.Conv2d(4, 4, 3), IMAGE, TimingOptions())
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU; CUDA_VISIBLE_DEVICES= hides it")
def test_without_a_gpu_cuda_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"--device cuda: PyTorch finds no GPU"):
        Timed(nn.Identity, IMAGE, TimingOptions(device="cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_on_a_gpu(dtype: str) -> None:
    options = TimingOptions(device="cuda", dtype=dtype, timings=5)  # type: ignore[arg-type]
    timed, _ = recorders("Rab", options)
    for timings in time_parts(timed["R"], [timed["a"], timed["b"]], options):
        assert (timings.ns_T > 0).all()
    assert (time_network(timed["R"], timed["a"], options).ns_T > 0).all()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("jetson", "ddpnas-device=jetson"),
        ("board=rev-b", "board=rev-b"),
        ("ray.io/node-id=0a1b", "ray.io/node-id=0a1b"),
        ("ddpnas-device=jetson", "ddpnas-device=jetson"),
    ],
)
def test_a_label_is_a_name_or_key_and_value(text: str, label: str) -> None:
    assert device_label(text) == label == device_label(label)


@pytest.mark.parametrize("text", ["", "a b", "=", "a=", "=b", "a=b=c", "-a", "a-", "a=in(b)", "a=!b", 64 * "x", "a,b"])
def test_what_ray_would_not_take_is_no_label(text: str) -> None:
    with pytest.raises(ConfigError, match="device label"):
        device_label(text)
