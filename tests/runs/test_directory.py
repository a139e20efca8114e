"""Run directories: creation, locks, reading, and the fingerprint.

Axes: E edges, K candidates.
"""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, ItemsView, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from ddpnas_ray.core.errors import RunDirError, WorkerLostError
from ddpnas_ray.core.space import CostFunction, CostTable, Edge, Gate, LongestPath, Op, SearchSpace
from ddpnas_ray.core.state import Evaluation, RoundRecord
from ddpnas_ray.runs.directory import create_run, existing_run, parsed
from ddpnas_ray.runs.files import (
    SCHEMA_VERSION,
    evaluations_table,
    json_file,
    read_costs,
    read_evaluations,
    read_space,
    space_json,
    theta_table,
    weights_file,
)
from ddpnas_ray.runs.fingerprint import search_fingerprint, verify_fingerprint
from ddpnas_ray.runs.lock import locked
from ddpnas_ray.runs.log import append_log, failure_logged, read_log
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.storage.parquet import parquet_bytes, read_parquet

ROOT = Path(__file__).parents[1]
CONV, SKIP, NONE = Op("conv", "parameter"), Op("skip", "non_parameter"), Op("none", "non_parameter", generable=False)
SPACE = SearchSpace("small", (Edge("a", (CONV, SKIP, NONE)), Edge("b", (SKIP, CONV))), ((1,), (0,)))
EXISTS_EK = SPACE.exists_EK
FILES = {"space.json": b"{}", "config.yaml": b"seed: 0\n"}


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


# --- locks ---

HOLDER = """
import sys
from ddpnas_ray.runs.lock import locked
from ddpnas_ray.storage.folder import Folder
with locked(Folder.open(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holding(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_until_the_first_was_killed(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    with another_process_holding(tmp_path) as holder:
        for _ in range(2):
            with (
                pytest.raises(RunDirError, match=rf"process {holder.pid} on .* is writing to this run"),
                locked(folder),
            ):
                pytest.fail("locked twice")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert folder.has("LOCK"), "the file of a killed process stays, and counts for nothing"
    with locked(folder):
        assert json.loads(folder.read("LOCK"))["pid"] == os.getpid()
    assert folder.names() == []


def test_a_process_that_ends_well_gives_the_lock_back(tmp_path: Path) -> None:
    with another_process_holding(tmp_path) as holder:
        holder.communicate()
        assert holder.returncode == 0
    assert not os.listdir(tmp_path)
    with locked(Folder.open(str(tmp_path))):
        pass


def test_an_error_gives_the_lock_back(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    with pytest.raises(RuntimeError, match="inside"), locked(folder):
        raise RuntimeError("inside")
    with locked(folder), pytest.raises(RunDirError), locked(folder):
        pytest.fail("locked twice")


def test_who_can_wait_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    free = threading.Event()

    def hold_a_while() -> None:
        with locked(folder):
            held.set()
            free.wait(10)

    held, thread = threading.Event(), threading.Thread(target=hold_a_while)
    thread.start()
    assert held.wait(10)
    with pytest.raises(RunDirError, match="is writing to this run"), locked(folder):
        pytest.fail("locked twice")
    threading.Timer(0.3, free.set).start()
    with locked(folder, wait_s=30.0):
        assert folder.has("LOCK")
    thread.join()


def test_the_lock_says_who_holds_it(tmp_path: Path) -> None:
    folder = Folder.open(str(tmp_path))
    with locked(folder):
        assert set(json.loads(folder.read("LOCK"))) == {"host", "pid", "start"}


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    """A folder as on an object store: not local, and without file locks."""
    folder = Folder(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "run", "store://bucket/run")
    folder.make()
    return folder


def test_on_an_object_store_a_removed_lock_is_no_error(store: Folder) -> None:
    with locked(store):
        store.filesystem.delete_file(f"{store.path}/LOCK")
    assert not store.has("LOCK")


def test_what_ends_a_search_is_the_last_event_of_its_log(tmp_path: Path) -> None:
    folder = create_run(str(tmp_path / "run"), FILES)
    with pytest.raises(RunDirError), failure_logged(folder):
        raise RunDirError("bad input")
    assert not folder.has("log.jsonl")
    with pytest.raises(WorkerLostError), failure_logged(folder):
        raise WorkerLostError("all gone")
    (event,) = parsed(folder, "log.jsonl", read_log)
    assert (event["event"], event["error"]) == ("failed", "all gone")


def test_on_an_object_store_a_lock_taken_by_another_process_is_left(store: Folder) -> None:
    with locked(store):
        store.write("LOCK", b'{"host": "elsewhere", "pid": 1, "start": "then"}')
    assert store.read("LOCK") == b'{"host": "elsewhere", "pid": 1, "start": "then"}'


def test_on_an_object_store_the_lock_is_a_file(store: Folder) -> None:
    with locked(store):
        with pytest.raises(RunDirError, match=f"process {os.getpid()} on"), locked(store):
            pytest.fail("locked twice")
        assert store.has("LOCK")
    assert not store.has("LOCK")


def test_on_an_object_store_the_lock_of_a_dead_process_is_taken_over(store: Folder) -> None:
    import socket

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    store.write("LOCK", json.dumps({"host": socket.gethostname(), "pid": dead.pid, "start": "then"}).encode())
    with locked(store):
        assert json.loads(store.read("LOCK"))["pid"] == os.getpid()


@pytest.mark.parametrize(
    "content", [b'{"host": "elsewhere", "pid": 1, "start": "then"}', b"", b"damaged", b"[]", b"{}"]
)
def test_on_an_object_store_a_lock_of_who_knows_whom_is_respected(store: Folder, content: bytes) -> None:
    store.write("LOCK", content)
    with pytest.raises(RunDirError, match="remove LOCK if that process has ended"), locked(store):
        pytest.fail("locked twice")
    assert store.read("LOCK") == content


# --- files and back ---


def evaluation(number: int = 0, **changes: Any) -> Evaluation:
    found = Evaluation(
        round=number // 4,
        epoch=number // 2,
        architecture=number % 2,
        alpha_E=(number % 3, number % 2),
        split="val",
        score=0.1 + number / 100,
        loss=2.5 - number / 10,
        trained=True,
        ok=True,
        seconds=0.25,
        worker="local",
        node="",
    )
    return replace(found, **changes)


def record(number: int) -> RoundRecord:
    rng = np.random.default_rng(number)
    live_EK = EXISTS_EK & (rng.random(SPACE.shape) < 0.7)
    return RoundRecord(
        round=number,
        theta_EK=np.where(EXISTS_EK, rng.random(SPACE.shape), 0.0),
        utility_EK=np.where(live_EK, rng.random(SPACE.shape), np.nan),
        momentum_EK=np.where(EXISTS_EK, rng.random(SPACE.shape), 0.0),
        live_EK=live_EK,
        pruned_at_EK=np.where(live_EK, -1, number),
    )


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


# --- fingerprint ---


@dataclass(frozen=True)
class Found:
    """Arguments of a fingerprint."""

    theta_EK: np.ndarray
    momentum_EK: np.ndarray
    pruned_at_EK: np.ndarray
    evaluations: tuple[Evaluation, ...]
    tensors: dict[str, np.ndarray]

    def fingerprint(self) -> str:
        return search_fingerprint(self.theta_EK, self.momentum_EK, self.pruned_at_EK, self.evaluations, self.tensors)

    def with_row(self, **changes: Any) -> Found:
        first, *others = self.evaluations
        return replace(self, evaluations=(replace(first, **changes), *others))

    def with_tensor(self, name: str, tensor: np.ndarray) -> Found:
        return replace(self, tensors=self.tensors | {name: tensor})


def found() -> Found:
    last = record(1)
    rng = np.random.default_rng(5)
    return Found(
        last.theta_EK,
        last.momentum_EK,
        last.pruned_at_EK,
        tuple(evaluation(i) for i in range(6)),
        {"a.weight": rng.random((2, 3), dtype=np.float32), "b.weight": rng.random(4, dtype=np.float32)},
    )


def next_float(array: np.ndarray, at: tuple[int, ...]) -> np.ndarray:
    """Return the next float."""
    other = array.copy()
    other[at] = np.nextafter(other[at], np.array(np.inf, dtype=array.dtype))
    return other


def one_more(array: np.ndarray, at: tuple[int, ...]) -> np.ndarray:
    other = array.copy()
    other[at] += 1
    return other


CHANGES: dict[str, Callable[[Found], Found]] = {
    "theta": lambda f: replace(f, theta_EK=next_float(f.theta_EK, (0, 1))),
    "V": lambda f: replace(f, momentum_EK=next_float(f.momentum_EK, (1, 0))),
    "pruned_at": lambda f: replace(f, pruned_at_EK=one_more(f.pruned_at_EK, (0, 0))),
    "alpha": lambda f: f.with_row(alpha_E=(1, 0)),
    "score": lambda f: f.with_row(score=math.nextafter(f.evaluations[0].score, 1.0)),
    "loss": lambda f: f.with_row(loss=math.nextafter(f.evaluations[0].loss, 1.0)),
    "loss that diverged": lambda f: f.with_row(loss=math.nan),
    "round": lambda f: f.with_row(round=9),
    "epoch": lambda f: f.with_row(epoch=9),
    "architecture": lambda f: f.with_row(architecture=9),
    "an evaluation less": lambda f: replace(f, evaluations=f.evaluations[:-1]),
    "a weight": lambda f: f.with_tensor("b.weight", next_float(f.tensors["b.weight"], (3,))),
    "a weight's name": lambda f: replace(
        f, tensors={"a.weight": f.tensors["a.weight"], "c.weight": f.tensors["b.weight"]}
    ),
    "a weight's shape": lambda f: f.with_tensor("a.weight", f.tensors["a.weight"].reshape(3, 2)),
    "a weight's type": lambda f: f.with_tensor("a.weight", f.tensors["a.weight"].view(np.int32)),
    "a weight more": lambda f: f.with_tensor("c.weight", np.zeros(0, dtype=np.float32)),
    "weights swapped": lambda f: replace(
        f, tensors={"a.weight": f.tensors["a.weight"][::-1], "b.weight": f.tensors["b.weight"]}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_fingerprint_changes_with(change: Callable[[Found], Found]) -> None:
    assert change(found()).fingerprint() != found().fingerprint()


SAME: dict[str, Callable[[Found], Found]] = {
    "nothing": lambda f: f,
    "the order of evaluations": lambda f: replace(f, evaluations=f.evaluations[::-1]),
    "the order of weights": lambda f: replace(f, tensors=dict(reversed(f.tensors.items()))),
    "the worker": lambda f: f.with_row(worker="ddpnas-worker-3/17"),
    "the node": lambda f: f.with_row(node="ab12"),
    "the time": lambda f: f.with_row(seconds=99.0),
    "the memory order": lambda f: replace(
        f.with_tensor("a.weight", np.asfortranarray(f.tensors["a.weight"])), theta_EK=np.asfortranarray(f.theta_EK)
    ),
    "the byte order": lambda f: replace(
        f.with_tensor("a.weight", f.tensors["a.weight"].astype(">f4")), theta_EK=f.theta_EK.astype(">f8")
    ),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_the_fingerprint_does_not_depend_on(change: Callable[[Found], Found]) -> None:
    assert change(found()).fingerprint() == found().fingerprint()


def test_every_nan_has_one_fingerprint() -> None:
    negative = float(np.frombuffer(np.uint64(0xFFF8000000000001).tobytes(), dtype="<f8")[0])
    assert found().with_row(loss=math.nan).fingerprint() == found().with_row(loss=negative).fingerprint()


def test_the_fingerprint_is_64_hexadecimal_digits() -> None:
    assert len(found().fingerprint()) == 64
    int(found().fingerprint(), 16)


@pytest.fixture
def finished(tmp_path: Path) -> Folder:
    """Write the files of a finished run that the fingerprint is recomputed from."""
    f = found()
    folder = Folder.open(str(tmp_path))
    folder.write("space.json", space_json(SPACE, {}, {}))
    folder.write("theta.parquet", theta_table([record(0), record(1)], SPACE))
    folder.write("evaluations.parquet", evaluations_table(f.evaluations))
    folder.write("weights.safetensors", weights_file(f.tensors))
    # Padding in the files is as in the algorithm: theta and V are 0, pruned_at is -1.
    pruned_at_EK = np.where(EXISTS_EK, f.pruned_at_EK, -1)
    folder.write("result.json", json_file({"fingerprint": replace(f, pruned_at_EK=pruned_at_EK).fingerprint()}))
    return folder


def test_the_fingerprint_is_recomputed_from_the_files(finished: Folder) -> None:
    assert verify_fingerprint(finished).agrees


def test_a_changed_file_is_found(finished: Folder) -> None:
    finished.write("theta.parquet", theta_table([record(0)], SPACE))
    assert not verify_fingerprint(finished).agrees


def test_an_unfinished_run_has_no_fingerprint(finished: Folder) -> None:
    (Path(finished.path) / "result.json").unlink()
    with pytest.raises(
        RunDirError, match=r"has not finished; resume with: python -m ddpnas_ray.search --out .* --resume"
    ):
        verify_fingerprint(finished)


@pytest.mark.parametrize("name", ["space.json", "theta.parquet", "evaluations.parquet", "weights.safetensors"])
def test_a_missing_file_is_said(finished: Folder, name: str) -> None:
    (Path(finished.path) / name).unlink()
    with pytest.raises(RunDirError, match="cannot be read"):
        verify_fingerprint(finished)


@pytest.mark.parametrize(
    "name",
    [
        "space.json",
        "theta.parquet",
        "evaluations.parquet",
        "weights.safetensors",
        "result.json",
    ],
)
def test_a_truncated_file_is_said(finished: Folder, name: str) -> None:
    data = finished.read(name)
    finished.write(name, data[: len(data) // 2])
    with pytest.raises(RunDirError, match=r"cannot be read|damaged"):
        verify_fingerprint(finished)
