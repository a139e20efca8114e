"""Run directories: creation, and files that are read back.

Axes: E edges, K candidates.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import ItemsView, Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ddpnas_ray.core.errors import RunDirError, WorkerLostError
from ddpnas_ray.core.space import CostFunction, CostTable, Gate, LongestPath
from ddpnas_ray.core.state import Evaluation
from ddpnas_ray.runs.directory import create_run, existing_run, parsed
from ddpnas_ray.runs.files import (
    SCHEMA_VERSION,
    evaluations_table,
    read_costs,
    read_evaluations,
    read_space,
    space_json,
    theta_table,
)
from ddpnas_ray.runs.log import append_log, failure_logged, read_log
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.storage.parquet import parquet_bytes, read_parquet
from tests.runs.made import FILES, SPACE, evaluation, record

# --- creation ---


@pytest.mark.parametrize("there", [False, True])
def test_a_run_directory_appears_with_its_files(tmp_path: Path, there: bool) -> None:
    out = tmp_path / "runs" / "a"
    if there:
        out.mkdir(parents=True)
    folder = create_run(str(out), FILES)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == FILES
    assert folder.names() == sorted(FILES)
    assert os.listdir(out.parent) == ["a"], "nothing temporary is left"
    assert existing_run(str(out)).path == folder.path


def test_it_appears_by_rename(tmp_path: Path) -> None:
    out = tmp_path / "a"

    class Watching(dict[str, bytes]):
        def items(self) -> ItemsView[str, bytes]:
            def each() -> Iterator[tuple[str, bytes]]:
                for name, data in FILES.items():
                    assert not out.exists()
                    yield name, data

            return each()  # type: ignore[return-value]

    create_run(str(out), Watching(FILES))
    assert sorted(os.listdir(out)) == sorted(FILES)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("name", ["no/such/folder", "x" * 300])
def test_when_a_write_fails_midway_nothing_has_appeared(tmp_path: Path, name: str, there: bool) -> None:
    out = tmp_path / "a"
    if there:
        out.mkdir()
    with pytest.raises(RunDirError, match="cannot be written"):
        create_run(str(out), {**FILES, name: b"", "later": b""})
    assert os.listdir(tmp_path) == (["a"] if there else [])
    assert not there or not os.listdir(out)


def test_when_the_files_cannot_be_made_nothing_has_appeared(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        create_run(str(tmp_path / "a"), {**FILES, "later": "no bytes"})  # type: ignore[dict-item]
    assert not os.listdir(tmp_path)


def test_an_empty_folder_that_is_there_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    create_run(".", FILES)
    assert tmp_path.stat().st_ino == before
    assert sorted(os.listdir()) == sorted(FILES), "the working folder is still there"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "config.yaml",
            "exists and is not empty (1 entries, such as config.yaml); add --resume to resume that run",
        ),
        ("thesis.tex", "exists and is not empty (1 entries, such as thesis.tex); choose another --out"),
    ],
)
def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunDirError) as error:
        create_run(str(tmp_path), FILES)
    assert message in str(error.value)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}


def test_a_file_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "a"
    out.write_text("mine")
    with pytest.raises(RunDirError, match="is a file; --out needs a new folder"):
        create_run(str(out), FILES)
    assert out.read_text() == "mine"


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunDirError):
        create_run(str(tmp_path / "file" / "a"), FILES)
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_without_a_configuration_is_no_run(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunDirError, match=r"is not a run directory \(no config.yaml in it\)"):
            existing_run(str(out))


# --- files and back ---


def same(one: Evaluation, other: Evaluation) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Evaluation)]
    return all(a == b or (a != a and b != b) for a, b in pairs) and all(type(a) is type(b) for a, b in pairs)


def test_evaluations_come_back_as_they_were() -> None:
    rows = [evaluation(i) for i in range(5)]
    rows.append(evaluation(5, loss=math.nan, ok=False, trained=False, worker="w/1", node="n", alpha_E=(2, 1)))
    rows.append(evaluation(6, score=-1.0, loss=math.inf, seconds=0.1 + 0.2))
    back = read_evaluations(evaluations_table(rows))
    assert len(back) == len(rows)
    assert all(same(a, b) for a, b in zip(rows, back, strict=True))


def test_no_evaluations_come_back_as_none() -> None:
    assert read_evaluations(evaluations_table(())) == ()


def test_the_columns_of_evaluations_are_those_of_the_design_three_times_and_the_device() -> None:
    schema = pq.read_schema(io.BytesIO(evaluations_table([evaluation()])))
    assert {field.name: str(field.type) for field in schema} == {
        "round": "int32",
        "epoch": "int32",
        "architecture": "int32",
        "alpha": "list<element: int16>",
        "split": "string",
        "score": "double",
        "loss": "double",
        "trained": "bool",
        "ok": "bool",
        "seconds": "double",
        "worker": "string",
        "node": "string",
        "start_s": "double",
        "train_s": "double",
        "validate_s": "double",
        "device": "string",
    }


def test_evaluations_of_earlier_versions_are_read() -> None:
    table = read_parquet(evaluations_table([evaluation(start_s=5.0, train_s=0.1, validate_s=0.1)]))
    before = parquet_bytes(table.drop_columns(["start_s", "train_s", "validate_s"]))
    assert read_evaluations(before) == (evaluation(),)


def test_theta_has_a_row_a_round_edge_and_operation() -> None:
    history = [record(0), record(1)]
    rows = pq.read_table(io.BytesIO(theta_table(history, SPACE))).to_pylist()
    assert [(row["round"], row["edge"], row["operation"]) for row in rows] == [
        (r, edge.name, op.name) for r in range(2) for edge in SPACE.edges for op in edge.candidates
    ]
    for row in rows:
        e = [edge.name for edge in SPACE.edges].index(row["edge"])
        k = [op.name for op in SPACE.edges[e].candidates].index(row["operation"])
        for name in ("theta", "utility", "momentum", "live", "pruned_at"):
            np.testing.assert_equal(row[name], getattr(history[row["round"]], f"{name}_EK")[e, k].item())


def test_theta_of_no_round_is_an_empty_table() -> None:
    assert pq.read_table(io.BytesIO(theta_table((), SPACE))).num_rows == 0


def test_the_space_comes_back_with_the_costs_of_its_target() -> None:
    table = CostTable(7, np.arange(6).reshape(2, 3))
    data = space_json(SPACE, {"macs": table}, {"cells": 20})
    assert read_space(data) == SPACE
    content = json.loads(data)
    assert content["costs"] == {"macs": {"base": 7, "entries": [[0, 1, 2], [3, 4, 5]]}}
    assert content["target"] == {"cells": 20}
    assert content["schema_version"] == SCHEMA_VERSION


def test_a_conditional_space_comes_back_with_its_gate() -> None:
    space = replace(SPACE, gate=Gate(0, inactive=((1,), (), ())))
    costs: dict[str, CostFunction] = {
        "macs": CostTable(7, np.arange(6).reshape(2, 3), space.gate),
        "height": LongestPath(((0, 0, 1), (1, 1, 2)), space.generable_EK, space.gate),
    }
    data = space_json(space, costs, {})
    assert read_space(data) == space
    for alpha in ((0, 1), (1, 0), (2, 1)):
        read = {name: cost(np.array(alpha)) for name, cost in read_costs(data).items()}
        assert read == {name: cost(np.array(alpha)) for name, cost in costs.items()}


def test_files_of_version_2_are_read_unless_edges_are_conditional() -> None:
    content = json.loads(space_json(SPACE, {"macs": CostTable(7, np.arange(6).reshape(2, 3))}, {}))
    del content["gate"]
    old = content | {"schema_version": 2, "conditional": False}
    assert read_space(json.dumps(old).encode()) == SPACE
    assert read_costs(json.dumps(old).encode())["macs"](np.array([0, 1])) == 7 + 4
    for read in (read_space, read_costs):
        with pytest.raises(ValueError, match="its space has conditional edges, which only schema version 3 and"):
            read(json.dumps(old | {"conditional": True}).encode())


@pytest.mark.parametrize("remote", [False, True])
def test_log_lines_are_added(tmp_path: Path, store: Folder, remote: bool) -> None:
    folder = store if remote else Folder.open(str(tmp_path))
    append_log(folder, "start", epoch=0)
    append_log(folder, "epoch", mean=0.5)
    lines = [json.loads(line) for line in folder.read("log.jsonl").decode().splitlines()]
    assert [line["event"] for line in lines] == ["start", "epoch"]
    assert lines[1]["mean"] == 0.5
    assert lines[0]["time"] <= lines[1]["time"]


def test_what_ends_a_search_is_the_last_event_of_its_log(tmp_path: Path) -> None:
    folder = create_run(str(tmp_path / "run"), FILES)
    with pytest.raises(RunDirError), failure_logged(folder):
        raise RunDirError("bad input")
    assert not folder.has("log.jsonl")
    with pytest.raises(WorkerLostError), failure_logged(folder):
        raise WorkerLostError("all gone")
    (event,) = parsed(folder, "log.jsonl", read_log)
    assert (event["event"], event["error"]) == ("failed", "all gone")
