"""Files of a run directory: schemas, writers and readers."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ddpnas_ray.core.ledger import LedgerRow
from ddpnas_ray.core.space import CostFunction, CostTable, Edge, Gate, LongestPath, Op, SearchSpace
from ddpnas_ray.core.state import Evaluation, RoundRecord
from ddpnas_ray.storage.parquet import parquet_bytes, read_parquet

SCHEMA_VERSION = 3  # 2: space.json has inputs and non-additive costs; 3: its gate
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
        ("device", pa.string()),
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


def evaluations_table(evaluations: Iterable[Evaluation]) -> bytes:
    """Write ``evaluations.parquet``: one row per architecture-epoch, in order."""
    rows = list(evaluations)
    columns: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows] for name in EVALUATIONS.names if name != "alpha"
    }
    columns["alpha"] = [list(row.alpha_E) for row in rows]
    return parquet_bytes(pa.table({name: columns[name] for name in EVALUATIONS.names}, schema=EVALUATIONS))


def read_evaluations(data: bytes) -> tuple[Evaluation, ...]:
    """Read ``evaluations.parquet``."""
    rows = read_parquet(data).to_pylist()
    return tuple(Evaluation(alpha_E=tuple(row.pop("alpha")), **row) for row in rows)


def theta_table(history: Iterable[RoundRecord], space: SearchSpace) -> bytes:
    """Write ``theta.parquet``: one row per round, edge and operation."""
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
    """Write ``ledger.parquet``: one row per round and edge, with the pruned operation and the risks of a mistake."""
    return parquet_bytes(pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=LEDGER))


def space_json(space: SearchSpace, costs: Mapping[str, CostFunction], target: Mapping[str, Any]) -> bytes:
    """Write ``space.json``: the search space, and the cost of every choice in the target network."""
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
            "gate": None if space.gate is None else dataclasses.asdict(space.gate),
            "target": dict(target),
            "costs": {name: _cost_json(cost) for name, cost in costs.items()},
        }
    )


def _cost_json(cost: CostFunction) -> dict[str, Any]:
    if isinstance(cost, LongestPath):
        return {"arcs": [list(arc) for arc in cost.arcs], "counts": cost.counts_EK.tolist()}
    return {"base": cost.base, "entries": cost.entries_EK.tolist()}


def read_costs(data: bytes) -> dict[str, CostFunction]:
    """Read the costs of ``space.json``."""
    content, costs = json.loads(data), dict[str, CostFunction]()
    gate = _gate(content)
    for name, cost in content["costs"].items():
        if "arcs" in cost:
            arcs = tuple((edge, source, node) for edge, source, node in cost["arcs"])
            costs[name] = LongestPath(arcs, np.array(cost["counts"], dtype=bool), gate)
        else:
            costs[name] = CostTable(cost["base"], np.array(cost["entries"], dtype=np.int64), gate)
    return costs


def read_space(data: bytes) -> SearchSpace:
    """Read the space of ``space.json``.

    Raises:
        ValueError: It has conditional edges and was written by a version that did not store its gate.
    """
    content = json.loads(data)
    edges = tuple(
        Edge(edge["name"], tuple(Op(op["name"], op["group"], op["generable"]) for op in edge["candidates"]))
        for edge in content["edges"]
    )
    blocks = tuple(tuple(block) for block in content["blocks"])
    return SearchSpace(content["name"], edges, blocks, _gate(content), content["inputs"])


def _gate(content: Mapping[str, Any]) -> Gate | None:
    if content.get("conditional"):  # of version 2
        raise ValueError("its space has conditional edges, which only schema version 3 and later describes")
    gate = content.get("gate")
    return None if gate is None else Gate(gate["edge"], tuple(map(tuple, gate["inactive"])))


def weights_file(tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Write ``weights.safetensors``: the final supernet."""
    return bytes(save_tensors({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))


def read_weights(data: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Read the tensors of ``weights.safetensors``."""
    return dict(load_tensors(data))


def read_history(data: bytes, space: SearchSpace) -> tuple[RoundRecord, ...]:
    """Read the rounds of ``theta.parquet``, in order; padding is 0, NaN (utility), not live and not pruned."""
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


def without_nan(value: Any) -> Any:
    """Replace NaN by None in plain JSON values."""
    if isinstance(value, dict):
        return {key: without_nan(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def json_file(content: Mapping[str, Any]) -> bytes:
    """Write a JSON file."""
    return (json.dumps(content, indent=1) + "\n").encode()
