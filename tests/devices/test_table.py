"""Latency tables: exact sums, errors, and atomic files that round-trip."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.core.errors import DataError, RunDirError
from ddpnas_ray.core.space import Edge, Gate, Op, SearchSpace, each_edge_alone
from ddpnas_ray.devices.table import (
    METADATA,
    Latency,
    LatencyRow,
    LatencyTable,
    Timings,
    edge_names,
    read_table,
    reference_latency,
)

CONV, SKIP, NONE = Op("conv", "parameter"), Op("skip", "non_parameter"), Op("none", "non_parameter", generable=False)
EDGES = (Edge("a", (CONV, SKIP, NONE)), Edge("b", (SKIP, CONV)))
SPACE = SearchSpace("tiny", EDGES, each_edge_alone(EDGES))
TARGET = {"image_size": 8, "classes": 10, "input_channels": 3, "cells": None, "channels": 4, "stem": None}


def took(median_ns: int) -> Latency:
    return Latency(median_ns, median_ns - 1, median_ns + 2, 50)


def make_table(**changes: Any) -> LatencyTable:
    values: dict[str, Any] = {
        "rows": (
            LatencyRow(None, None, "stem", 1, took(1_000)),
            LatencyRow(None, None, "preprocess", 3, took(100)),
            LatencyRow("a", "conv", "conv 8", 2, took(70)),
            LatencyRow("a", "conv", "conv 16", 1, took(5)),
            LatencyRow("b", "conv", "conv 8", 1, took(70)),
            LatencyRow("b", "skip", "reduce", 1, took(40)),
        ),
        "device": "ddpnas-device=here",
        "machine": {"cpu": "a CPU", "packages": {"torch": "2"}},
        "timing": {"threads": 1, "batch": 1, "dtype": "fp32"},
        "space": {"name": "tiny", "widths": [1, 2]},
        "edges": edge_names(SPACE),
        "target": TARGET,
        "reference_alpha": (0, 1),
        "reference": took(1_500),
        "date": "2026-01-01T00:00:00+0000",
    }
    return LatencyTable(**values | changes)


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_network_costs_the_sum_of_its_parts_in_whole_nanoseconds() -> None:
    cost = make_table().cost(SPACE)
    assert cost.base == 1_300
    assert cost.entries_EK.tolist() == [[145, 0, 0], [40, 70, 0]]
    assert cost.entries_EK.dtype == np.int64
    assert [cost(np.array(alpha)) for alpha in ((0, 0), (1, 1), (2, 1))] == [1_485, 1_370, 1_370]


def test_parts_of_inactive_edges_cost_nothing() -> None:
    space = dataclasses.replace(SPACE, blocks=((0, 1),), gate=Gate(0, inactive=((1,), (), (1,))))
    cost = make_table().cost(space)
    assert [cost(np.array(alpha)) for alpha in ((0, 0), (0, 1), (1, 0), (1, 1))] == [1_445, 1_445, 1_340, 1_370]


def test_another_vocabulary_is_refused_and_both_are_named() -> None:
    texts = {"sequence_length": 128, "vocabulary": 1_000, "classes": 2, "image_size": None, "input_channels": None}
    table = make_table(target=texts)
    table.require_target(texts)
    with pytest.raises(DataError) as error:
        table.require_target(texts | {"vocabulary": 30_522})
    assert "'128 tokens, 2 classes, 1000 token ids'" in one_line(error)
    assert "'128 tokens, 2 classes, 30522 token ids'" in one_line(error)


@pytest.mark.parametrize(
    ("edges", "named"),
    [
        ((EDGES[0],), "2 edges; space 'tiny' has 1"),
        ((EDGES[0], Edge("c", (SKIP, CONV))), "edge 'b' has skip, conv; space 'tiny' has edge 'c'"),
        ((EDGES[0], Edge("b", (CONV, SKIP))), "edge 'b' has skip, conv; space 'tiny' has edge 'b' with conv, skip"),
    ],
)
def test_another_space_is_refused(edges: tuple[Edge, ...], named: str) -> None:
    with pytest.raises(DataError) as error:
        make_table().cost(SearchSpace("tiny", edges, each_edge_alone(edges)))
    assert named in one_line(error)


def test_another_target_is_refused_and_both_are_named() -> None:
    make_table().require_target(dict(reversed(TARGET.items())))
    with pytest.raises(DataError) as error:
        make_table().require_target(TARGET | {"image_size": 32})
    assert "'4 channels, 8 px, 10 classes, 3 input channels'" in one_line(error)
    assert "'4 channels, 32 px, 10 classes, 3 input channels'" in one_line(error)


def test_a_file_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = make_table()
    table.save(str(path))
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]
    again = read_table(str(path))
    assert dataclasses.asdict(again) == dataclasses.asdict(table)
    assert again.cost(SPACE).entries_EK.tolist() == table.cost(SPACE).entries_EK.tolist()
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    make_table(date="later").save(str(path))
    assert read_table(str(path)).date == "later"


def test_other_tools_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    make_table().save(str(path))
    rows = pq.ParquetFile(path).read(use_threads=False).to_pylist()
    assert rows[2] == {
        "edge": "a",
        "operation": "conv",
        "key": "conv 8",
        "count": 2,
        "median_ns": 70,
        "q1_ns": 69,
        "q3_ns": 72,
        "runs": 50,
    }


def test_an_unwritable_path_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="No such file or directory"):
        make_table().save(str(tmp_path / "absent" / "t.parquet"))


def rewritten(path: Path, metadata: dict[bytes, bytes] | None = None, drop: str | None = None) -> None:
    table = pq.ParquetFile(path).read(use_threads=False)
    table = table if drop is None else table.drop_columns([drop])
    pq.write_table(table if metadata is None else table.replace_schema_metadata(metadata), path)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), "cannot be read as a latency table"),
        (lambda path: path.write_text("no Parquet"), "cannot be read as a latency table"),
        (lambda path: pq.write_table(pa.table({"a": [1]}), path), "not a latency table"),
        (lambda path: rewritten(path, {METADATA: b"{"}), "cannot be read as a latency table"),
        (lambda path: rewritten(path, {METADATA: b"[]"}), "not a latency table"),
        (lambda path: rewritten(path, {METADATA: b'{"schema_version": 1}'}), "not a latency table"),
        (lambda path: rewritten(path, {METADATA: b'{"schema_version": 2}'}), "schema version 2"),
        (lambda path: rewritten(path, drop="median_ns"), "not a latency table"),
    ],
)
def test_an_invalid_table_is_refused_in_one_line(tmp_path: Path, damage: Any, named: str) -> None:
    path = tmp_path / "t.parquet"
    make_table().save(str(path))
    damage(path)
    with pytest.raises(DataError) as error:
        read_table(str(path))
    assert one_line(error).startswith(str(path))
    assert named in one_line(error)
    assert "ddpnas latency build" in one_line(error)


def test_a_folder_is_not_a_table(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        read_table(str(tmp_path))


def test_the_metadata_record_device_date_and_options(tmp_path: Path) -> None:
    make_table().save(str(tmp_path / "t.parquet"))
    about = json.loads(pq.ParquetFile(tmp_path / "t.parquet").schema_arrow.metadata[METADATA])
    assert about["schema_version"] == 1
    assert about["machine"]["cpu"] == "a CPU"
    assert about["space"] == {"name": "tiny", "widths": [1, 2]}
    assert about["reference"] == {"median_ns": 1_500, "q1_ns": 1_499, "q3_ns": 1_502, "runs": 50}


@given(st.lists(st.integers(1_000, 10**9), min_size=1, max_size=20), st.integers(1, 50))
def test_drift_of_both_is_divided_out(reference: list[int], times: int) -> None:
    reference_ns_T = np.array(reference)
    timings = Timings(times * reference_ns_T, reference_ns_T)
    assert timings.at(2_000.0) == Latency(2_000 * times, 2_000 * times, 2_000 * times, len(reference))
    assert timings.as_measured().median_ns == round(float(np.median(times * reference_ns_T)))


def test_the_reference_latency_is_that_of_all_timings() -> None:
    first, second = Timings(np.array([1]), np.array([10])), Timings(np.array([1, 1]), np.array([20, 40]))
    assert reference_latency([first, second]) == Latency(20, 15, 30, 3)
