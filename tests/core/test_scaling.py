"""The cost model of a search on many GPUs, by its laws."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.scaling import (
    Constants,
    Workload,
    architecture_seconds,
    between_seconds,
    parse_constants,
    predict,
    read_constants,
)

CONSTANTS = Constants(
    train_step_s=0.02,
    train_step_fixed_s=0.002,
    validation_batch_s=0.007,
    validation_batch_fixed_s=0.001,
    host_step_s=0.004,
    architecture_s=0.1,
    allreduce_bytes_per_s=1e11,
    allreduce_latency_s=1e-5,
    transfer_bytes_per_s=1e9,
    merge_s=0.005,
    checkpoint_s=0.3,
    start_s=20.0,
)
WORK = Workload(architectures=(8, 7, 6), steps=48, validation_batches=50, shared_bytes=1e5, own_bytes=1e6)
works = st.builds(
    Workload,
    architectures=st.lists(st.integers(1, 20), min_size=1, max_size=8).map(tuple),
    steps=st.integers(1, 100),
    validation_batches=st.floats(0, 100),
    shared_bytes=st.floats(0, 1e8),
    own_bytes=st.floats(0, 1e8),
)


def test_one_gpu_takes_the_sum_of_all_parts_and_is_fully_used() -> None:
    step_s, batch_s = 0.02 + 0.002, 0.007 + 0.001
    each_s = 48 * step_s + 50 * batch_s + 0.1
    between_s = [((1 + n) * 1e5 + 2 * n * 1e6) / 1e9 + n * 0.005 + 0.3 for n in (8, 7, 6)]
    found = predict(WORK, CONSTANTS, 1)
    assert architecture_seconds(WORK, CONSTANTS) == pytest.approx(each_s)
    assert [between_seconds(WORK, CONSTANTS, n) for n in (8, 7, 6)] == pytest.approx(between_s)
    assert found.seconds == pytest.approx(20 + 21 * each_s + sum(between_s))
    assert found.gpu_hours == pytest.approx(found.seconds / 3600)
    assert (found.efficiency, found.idle) == (1.0, 0)


@given(work=works, gpus=st.integers(1, 40))
def test_more_gpus_are_never_slower_and_never_cheaper(work: Workload, gpus: int) -> None:
    fewer, more = predict(work, CONSTANTS, gpus), predict(work, CONSTANTS, gpus + 1)
    assert more.seconds <= fewer.seconds
    assert predict(work, CONSTANTS, 1).gpu_hours <= fewer.gpu_hours * (1 + 1e-12)
    assert 0 < more.efficiency <= 1 + 1e-12


@given(work=works, group=st.sampled_from([1, 2, 4]))
def test_beyond_one_group_per_architecture_more_gpus_are_idle(work: Workload, group: int) -> None:
    widest = max(work.architectures)
    most, beyond = predict(work, CONSTANTS, widest * group, group), predict(work, CONSTANTS, widest * group + 5, group)
    assert (most.idle, beyond.idle) == (0, 5)
    assert beyond.seconds == most.seconds


def test_gpus_that_make_no_whole_group_are_idle() -> None:
    seven, six = predict(WORK, CONSTANTS, 7, group=3), predict(WORK, CONSTANTS, 6, group=3)
    assert (seven.seconds, seven.idle, six.idle) == (six.seconds, 1, 0)


def test_a_group_divides_what_can_be_divided_and_pays_for_the_exchange() -> None:
    free = replace(CONSTANTS, allreduce_bytes_per_s=1e30, allreduce_latency_s=0.0, host_step_s=0.0)
    half_s = 48 * (0.01 + 0.002) + 50 * (0.0035 + 0.001) + 0.1
    assert architecture_seconds(WORK, free, 2) == pytest.approx(half_s)
    exchange_s = 2 * (1 / 2) * 1.1e6 / 1e11 + 2 * 1e-5
    paid = replace(CONSTANTS, host_step_s=0.0)
    assert architecture_seconds(WORK, paid, 2) == pytest.approx(half_s + 48 * exchange_s)


def test_no_step_is_faster_than_its_preparation() -> None:
    slow = replace(CONSTANTS, host_step_s=1.0)
    assert architecture_seconds(WORK, slow, 64) >= 48


def test_a_file_of_constants_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps(asdict(CONSTANTS) | {"device": "H100"}))
    assert read_constants(str(file)) == CONSTANTS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_step": 1}, "gpu.json: train_step is not a key; did you mean train_step_s?"),
        ({"merge_s": None}, "gpu.json: merge_s is None; a number of at least 0"),
        ({"merge_s": True}, "gpu.json: merge_s is True; a number of at least 0"),
        ({"merge_s": "1"}, "gpu.json: merge_s is '1'; a number of at least 0"),
        ({"merge_s": -1}, "gpu.json: merge_s is -1; a number of at least 0"),
        ({"start_s": math.nan}, "gpu.json: start_s is nan; a number of at least 0"),
        ({"start_s": math.inf}, "gpu.json: start_s is inf; a number of at least 0"),
        ({"transfer_bytes_per_s": 0}, "gpu.json: transfer_bytes_per_s is 0; a number above 0"),
    ],
)
def test_keys_that_are_unknown_or_no_numbers_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_constants(asdict(CONSTANTS) | change, "gpu.json")
    assert str(error.value) == message


def test_missing_keys_are_named() -> None:
    few = {key: value for key, value in asdict(CONSTANTS).items() if key not in ("merge_s", "start_s")}
    with pytest.raises(ConfigError, match=r"^gpu\.json: merge_s, start_s missing; every key"):
        parse_constants(few, "gpu.json")


@pytest.mark.parametrize(
    ("text", "message"), [("[1]", "is not a JSON object"), ("{", "is not valid JSON"), (None, "No such file")]
)
def test_a_file_that_is_no_json_object_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "gpu.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_constants(str(file))
    assert str(file) in str(error.value)
