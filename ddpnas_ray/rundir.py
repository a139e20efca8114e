"""A run directory: what lies in it, who may write to it, how it is read back, and its fingerprint.

A run directory stands alone: `report` and `generate` need nothing else. Neither torch nor ray is imported here.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import io
import json
import math
import os
import shlex
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ddpnas_ray.core.errors import BadInput, DdpnasError, RunDirError
from ddpnas_ray.core.ledger import LedgerRow
from ddpnas_ray.core.space import (
    BoolArray,
    CostFunction,
    CostTable,
    Edge,
    FloatArray,
    IntArray,
    LongestPath,
    Op,
    SearchSpace,
    every_edge_active,
)
from ddpnas_ray.core.state import Evaluation, RoundRecord
from ddpnas_ray.storage import Folder, writing

T = TypeVar("T")

LOOK_S = 0.2  # what looking at a lock takes at most
SCHEMA_VERSION = 2  # 2: space.json has inputs, conditional, and costs that do not add up
EVALUATIONS = pa.schema(
    [
        ("round", pa.int32()),
        ("epoch", pa.int32()),
        ("architecture", pa.int32()),
        ("alpha", pa.list_(pa.int16())),
        ("split", pa.string()),
        ("score", pa.float64()),
        ("loss", pa.float64()),
        ("trained", pa.bool_()),
        ("ok", pa.bool_()),
        ("seconds", pa.float64()),
        ("worker", pa.string()),
        ("node", pa.string()),
        ("start_s", pa.float64()),
        ("train_s", pa.float64()),
        ("validate_s", pa.float64()),
    ]
)
THETA = pa.schema(
    [
        ("round", pa.int32()),
        ("edge", pa.string()),
        ("operation", pa.string()),
        ("theta", pa.float64()),
        ("utility", pa.float64()),
        ("momentum", pa.float64()),
        ("live", pa.bool_()),
        ("pruned_at", pa.int32()),
    ]
)

LEDGER = pa.schema(
    [
        ("round", pa.int32()),
        ("edge", pa.string()),
        ("pruned", pa.string()),
        ("margin", pa.float64()),
        ("sigma", pa.float64()),
        ("p_worst_two_confused", pa.float64()),
        ("p_best_pruned", pa.float64()),
    ]
)


def create(out: str, files: Mapping[str, bytes]) -> Folder:
    """Make a new run directory that appears whole, by rename.

    Args:
        out: Where: absent, or an empty folder.
        files: Its first files; in a folder that was there already the last of them makes it a run.

    Raises:
        RunDirError: It exists and is not empty, or cannot be written.
    """
    folder = Folder.open(out)
    refuse_existing(folder)
    target = Path(folder.path)
    if not folder.is_local or target.is_dir():
        folder.make()
        _fill(folder, files)
        return folder
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with writing(out):
        try:
            temporary.mkdir(parents=True)
            for name, data in files.items():
                Folder(folder.filesystem, str(temporary), out).write(name, data)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _fill(folder: Folder, files: Mapping[str, bytes]) -> None:
    """All of the files or none, in a folder that stays: it may be a mount point, or where the user is."""
    written: list[str] = []
    try:
        for name, data in files.items():
            folder.write(name, data)
            written.append(name)
    except BaseException:
        for name in written:
            folder.filesystem.delete_file(f"{folder.path}/{name}")
        raise


def free_name(name: str) -> str:
    """``name``, or ``name-2``, ``name-3``, ... where something lies there already."""
    candidates = (name, *(f"{name}-{n}" for n in range(2, 10_000)))
    return next(candidate for candidate in candidates if not Path(candidate).exists())


def refuse_existing(folder: Folder) -> None:
    """Raise where a new run would meet somebody's files.

    Raises:
        RunDirError: The folder is not empty, or a file of that name exists.
    """
    if folder.is_local and Path(folder.path).is_file():
        raise RunDirError(f"{folder.uri}: is a file; --out needs a new folder")
    if names := folder.names():
        what = "run" if "config.yaml" in names else "sweep"
        way_out = f"add --resume to go on with that {what}, or choose another --out"
        raise RunDirError(
            f"{folder.uri}: exists and is not empty ({len(names)} entries, such as {names[0]}); "
            + (way_out if {"config.yaml", "sweep.yaml"} & set(names) else "choose another --out")
        )


def existing(out: str) -> Folder:
    """The folder of a run that was started.

    Raises:
        RunDirError: There is no run.
    """
    folder = Folder.open(out)
    if not folder.has("config.yaml"):
        raise RunDirError(
            f"{out}: is no run directory (no config.yaml there); give the folder that search wrote with --out"
        )
    return folder


class Lock:
    """The lock of a run directory while it is held. What its file says is for those who look at the run."""

    def __init__(self, folder: Folder, descriptor: int | None) -> None:
        self._folder, self._descriptor = folder, descriptor
        self._facts: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "start": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }

    def add(self, **facts: str) -> None:
        """Say more about who holds it. A reader finds the file before or after, never half of it."""
        self._facts |= facts
        content = json.dumps(self._facts).encode()
        if self._descriptor is None:
            self._folder.write("LOCK", content)
            return
        path = Path(self._folder.path) / "LOCK"
        temporary = path.with_name(f".LOCK.{os.getpid()}.tmp")
        with writing(self._folder.uri):
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # before it takes the place of the file that we hold
                os.write(descriptor, content)
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                os.close(descriptor)
                raise
        os.close(self._descriptor)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back."""
        if self._descriptor is None:
            with suppress(FileNotFoundError):  # somebody has removed it, or it could not be written
                if _facts(self._folder.read("LOCK")) == self._facts:  # or has taken it
                    self._folder.filesystem.delete_file(f"{self._folder.path}/LOCK")
            return
        (Path(self._folder.path) / "LOCK").unlink(missing_ok=True)
        os.close(self._descriptor)


@contextmanager
def locked(folder: Folder, *, wait_s: float = LOOK_S) -> Iterator[Lock]:
    """Be the only writer. The operating system gives a local lock back when its process ends, however it ends.

    On an object store the lock is a file that names host and process; one left behind by a dead process of this host is
    taken over.

    Args:
        folder: The run directory.
        wait_s: How long another process of this host is given to end, of a local folder; a moment at least, since
            somebody may just be looking.

    Raises:
        RunDirError: Another process writes to the run.
    """
    if folder.is_local:
        with writing(folder.uri):
            lock = Lock(folder, _lock_file(Path(folder.path) / "LOCK", folder.uri, time.monotonic() + wait_s))
    else:
        if (facts := holder(folder)) is not None:
            raise RunDirError(
                f"{folder.uri}: {holder_text(facts)} writes to this run; "
                "wait for it, or remove LOCK there if it is gone"
            )
        lock = Lock(folder, None)
    try:
        lock.add()
        yield lock
    finally:
        lock.release()


def holder(folder: Folder) -> dict[str, Any] | None:
    """Who writes to a run.

    Returns:
        What its lock says: ``host``, ``pid``, ``start`` and what ``Lock.add`` was given; nothing where the file cannot
        be understood. None where nobody writes. On an object store the lock of a dead process of another host counts.
    """
    if folder.is_local:
        return _local_holder(Path(folder.path) / "LOCK")
    try:
        facts = _facts(folder.read("LOCK"))
    except FileNotFoundError:
        return None
    pid = str(facts.get("pid", ""))
    dead = facts.get("host") == socket.gethostname() and pid.isdecimal() and not Path(f"/proc/{pid}").exists()
    return None if dead else facts


def holder_text(facts: Mapping[str, Any]) -> str:
    """Who holds a lock, in words."""
    if {"host", "pid", "start"} <= facts.keys():
        return f"process {facts['pid']} on {facts['host']} (since {facts['start']})"
    return "another process"


def _lock_file(path: Path, uri: str, until_s: float) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            facts = _facts(os.pread(descriptor, 2**16, 0))
            os.close(descriptor)
            if time.monotonic() < until_s:
                time.sleep(0.01)
                continue
            raise RunDirError(f"{uri}: {holder_text(facts)} writes to this run; wait for it, or end it") from None
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _local_holder(path: Path) -> dict[str, Any] | None:
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return None
        except BlockingIOError:
            return _facts(os.pread(descriptor, 2**16, 0))
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the file is still the one of that name: its holder may have removed or replaced it after our open."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _facts(content: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(content)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


# --- tables ---------------------------------------------------------------------------------------------------------


def evaluations_table(evaluations: Iterable[Evaluation]) -> bytes:
    """``evaluations.parquet``: a row an architecture-epoch, in order."""
    rows = list(evaluations)
    columns: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows] for name in EVALUATIONS.names if name != "alpha"
    }
    columns["alpha"] = [list(row.alpha_E) for row in rows]
    return parquet_bytes(pa.table({name: columns[name] for name in EVALUATIONS.names}, schema=EVALUATIONS))


def read_evaluations(data: bytes) -> tuple[Evaluation, ...]:
    """The rows of ``evaluations.parquet``."""
    rows = read_parquet(data).to_pylist()
    return tuple(Evaluation(alpha_E=tuple(row.pop("alpha")), **row) for row in rows)


def theta_table(history: Iterable[RoundRecord], space: SearchSpace) -> bytes:
    """``theta.parquet``: a row a round, edge and operation."""
    rows = [
        {
            "round": record.round,
            "edge": edge.name,
            "operation": op.name,
            "theta": record.theta_EK[e, k],
            "utility": record.utility_EK[e, k],
            "momentum": record.momentum_EK[e, k],
            "live": record.live_EK[e, k],
            "pruned_at": record.pruned_at_EK[e, k],
        }
        for record in history
        for e, edge in enumerate(space.edges)
        for k, op in enumerate(edge.candidates)
    ]
    return parquet_bytes(pa.Table.from_pylist(rows, schema=THETA))


def ledger_table(rows: Iterable[LedgerRow]) -> bytes:
    """``ledger.parquet``: a row a round and edge: what was pruned, and the probabilities that it was a mistake."""
    return parquet_bytes(pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=LEDGER))


def read_ledger(data: bytes) -> list[LedgerRow]:
    """The rows of ``ledger.parquet``."""
    return [LedgerRow(**row) for row in read_parquet(data).to_pylist()]


def space_json(space: SearchSpace, costs: Mapping[str, CostFunction], target: Mapping[str, Any]) -> bytes:
    """``space.json``: what was searched, with the cost of every choice in the target network."""
    return json_file(
        {
            "schema_version": SCHEMA_VERSION,
            "name": space.name,
            "edges": [
                {
                    "name": edge.name,
                    "candidates": [
                        {"name": op.name, "group": op.group, "generable": op.generable} for op in edge.candidates
                    ],
                }
                for edge in space.edges
            ],
            "blocks": [list(block) for block in space.blocks],
            "inputs": space.inputs,
            "conditional": space.conditional,
            "target": dict(target),
            "costs": {name: _cost_json(cost) for name, cost in costs.items()},
        }
    )


def refuse_other_data(folder: Folder, digest: str) -> None:
    """Raise where data are not those that a run was started with.

    Args:
        folder: The run directory.
        digest: SHA-256 of the data at hand.

    Raises:
        RunDirError: They are others.
    """
    before = parsed(folder, "environment.json", lambda data: str(json.loads(data)["data_digest"]))
    if before != digest:
        raise RunDirError(
            f"{folder.uri}: the data are not those that the run was started with (SHA-256 {digest[:12]}, "
            f"then {before[:12]}); point data.path or evaluation.table to them, or start a new run with another --out"
        )


def _cost_json(cost: CostFunction) -> dict[str, Any]:
    if isinstance(cost, LongestPath):
        return {"arcs": [list(arc) for arc in cost.arcs], "counts": cost.counts_EK.tolist()}
    return {"base": cost.base, "entries": cost.entries_EK.tolist()}


def read_costs(data: bytes) -> dict[str, CostFunction]:
    """The costs of ``space.json``.

    Raises:
        ValueError: It is of schema version 1, which did not say what a generated network may look like.
    """
    content, costs = json.loads(data), dict[str, CostFunction]()
    if content["schema_version"] < 2:
        raise ValueError("it is of an earlier version of this package, which could not generate; search again")
    for name, cost in content["costs"].items():
        if "arcs" in cost:
            arcs = tuple((edge, source, node) for edge, source, node in cost["arcs"])
            costs[name] = LongestPath(arcs, np.array(cost["counts"], dtype=bool))
        else:
            costs[name] = CostTable(cost["base"], np.array(cost["entries"], dtype=np.int64))
    return costs


def read_space(data: bytes) -> SearchSpace:
    """The space of ``space.json``; of its gate only is known whether there is one."""
    content = json.loads(data)
    edges = tuple(
        Edge(edge["name"], tuple(Op(op["name"], op["group"], op["generable"]) for op in edge["candidates"]))
        for edge in content["edges"]
    )
    blocks = tuple(tuple(block) for block in content["blocks"])
    gate = _unknown_gate if content.get("conditional") else every_edge_active
    return SearchSpace(content["name"], edges, blocks, gate, content.get("inputs"))


def _unknown_gate(alpha_E: IntArray) -> BoolArray:
    raise NotImplementedError("the gate of a space is not kept in space.json")


def weights_file(tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """``weights.safetensors``: the final supernet."""
    return bytes(save_tensors({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))


def read_weights(data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """The tensors of ``weights.safetensors``."""
    return dict(load_tensors(data))


def append_log(folder: Folder, event: str, **facts: Any) -> None:
    """Add one line to ``log.jsonl``."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **facts}) + "\n"
    if folder.is_local:
        with writing(folder.uri), open(Path(folder.path) / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(line)
    else:  # object stores cannot append
        before = folder.read("log.jsonl") if folder.has("log.jsonl") else b""
        folder.write("log.jsonl", before + line.encode())


@contextmanager
def failure_logged(folder: Folder) -> Iterator[None]:
    """What ends a search is the last event of its ``log.jsonl``; bad input ends it before anything is written."""
    try:
        yield
    except DdpnasError as error:
        if not isinstance(error, BadInput):
            append_log(folder, "failed", error=str(error))
        raise


def read_log(data: bytes) -> list[dict[str, Any]]:
    """The events of ``log.jsonl``: the lines that are whole; a kill may have cut the last one."""
    events = []
    for line in data.decode(errors="replace").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return [event for event in events if isinstance(event, dict) and "event" in event and "time" in event]


# --- fingerprint ----------------------------------------------------------------------------------------------------


def fingerprint(
    theta_EK: FloatArray,
    momentum_EK: FloatArray,
    pruned_at_EK: IntArray,
    evaluations: Iterable[Evaluation],
    tensors: Mapping[str, npt.NDArray[Any]],
) -> str:
    """SHA-256 over all that a search decided and learned; equal for equal searches, however they ran.

    Args:
        theta_EK: Final distribution, shape (E, K), 0 in the padding.
        momentum_EK: Final V, 0 in the padding.
        pruned_at_EK: -1 where not pruned, and in the padding.
        evaluations: In any order.
        tensors: Supernet weights by name.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for array, kind in ((theta_EK, "<f8"), (momentum_EK, "<f8"), (pruned_at_EK, "<i8")):
        digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
    for row in sorted(evaluations, key=lambda row: (row.round, row.epoch, row.architecture)):
        digest.update(np.array([row.round, row.epoch, row.architecture, *row.alpha_E], dtype="<i8").tobytes())
        loss = math.nan if math.isnan(row.loss) else row.loss
        digest.update(np.array([row.score, loss], dtype="<f8").tobytes())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {tensor.dtype.name} {tensor.shape}".encode())
        digest.update(tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Recomputed:
    """A fingerprint as recorded and as its files give it."""

    recorded: str
    recomputed: str

    @property
    def agrees(self) -> bool:
        """Whether the files are what the search wrote."""
        return self.recorded == self.recomputed


def verify_fingerprint(folder: Folder) -> Recomputed:
    """Recompute the fingerprint of a finished run from theta.parquet, evaluations.parquet and weights.safetensors.

    Raises:
        RunDirError: The run has not finished, or a file is missing or unreadable.
    """
    result = read_result(folder)
    space = parsed(folder, "space.json", read_space)
    arrays = parsed(folder, "theta.parquet", lambda data: _last_round(data, space))
    evaluations = parsed(folder, "evaluations.parquet", read_evaluations)
    tensors = parsed(folder, "weights.safetensors", load_tensors)
    return Recomputed(str(result["fingerprint"]), fingerprint(*arrays, evaluations, tensors))


def _last_round(data: bytes, space: SearchSpace) -> tuple[FloatArray, FloatArray, IntArray]:
    """Final theta, V and pruned_at out of ``theta.parquet``."""
    history = read_history(data, space)
    if not history:
        raise ValueError("it has no rows")
    return history[-1].theta_EK, history[-1].momentum_EK, history[-1].pruned_at_EK


def read_history(data: bytes, space: SearchSpace) -> tuple[RoundRecord, ...]:
    """The rounds of ``theta.parquet``, in order; padding is 0, NaN (utility), not live and not pruned."""
    place = {(edge.name, op.name): (e, k) for e, edge in enumerate(space.edges) for k, op in enumerate(edge.candidates)}
    history: dict[int, RoundRecord] = {}
    for row in read_parquet(data).to_pylist():
        if row["round"] not in history:
            zero_EK, nothing_EK = np.zeros(space.shape), np.full(space.shape, np.nan)
            never_EK = np.full(space.shape, -1, dtype=np.int64)
            history[row["round"]] = RoundRecord(
                row["round"], zero_EK, nothing_EK, zero_EK.copy(), np.zeros(space.shape, dtype=bool), never_EK
            )
        record, at = history[row["round"]], place[row["edge"], row["operation"]]
        for name in ("theta", "utility", "momentum", "live", "pruned_at"):
            getattr(record, f"{name}_EK")[at] = row[name]
    return tuple(history[number] for number in sorted(history))


def read_result(folder: Folder) -> dict[str, Any]:
    """``result.json`` of a finished run.

    Raises:
        RunDirError: The run has not finished, or the file is damaged.
    """
    if not folder.has("result.json"):
        raise RunDirError(
            f"{folder.uri}: this run has not finished; go on with: "
            f"python -m ddpnas_ray.search --out {shlex.quote(folder.uri)} --resume"
        )
    result: dict[str, Any] = parsed(folder, "result.json", json.loads)
    if not isinstance(result, dict) or "fingerprint" not in result:
        raise RunDirError(f"{folder.uri}: result.json is no result of a search; {_REWRITE}")
    return result


def parsed(folder: Folder, name: str, parse: Callable[[bytes], T]) -> T:
    """A file of a run, parsed.

    Raises:
        RunDirError: It is missing or damaged.
    """
    try:
        return parse(folder.read(name))
    except FileNotFoundError:
        reason = "no such file"
    except KeyError as error:
        reason = f"it knows no {error}"
    except (OSError, ValueError, TypeError, pa.ArrowException, SafetensorError) as error:
        reason = str(error)
    written_at_the_end = ("theta.parquet", "evaluations.parquet", "weights.safetensors", "result.json")
    way_out = _REWRITE if name in written_at_the_end else "copy it from a backup, or start a new run with another --out"
    raise RunDirError(f"{folder.uri}: {name} cannot be read: {reason}; {way_out}")


_REWRITE = "delete result.json, and --resume writes it and the tables again from the last checkpoint"


def json_file(content: Mapping[str, Any]) -> bytes:
    """A JSON file as we write them."""
    return (json.dumps(content, indent=1) + "\n").encode()


def read_parquet(data: bytes) -> pa.Table:
    """A table, read without Arrow's threads: with them one process in thirty aborted at its exit (pyarrow 26.0.1)."""
    return pq.ParquetFile(io.BytesIO(data)).read(use_threads=False)


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
