"""Latency tables: the latency of each part of a network on a device, in one Parquet file.

Everything is timed beside a *reference network*: dividing by the reference's time removes drift in the device's speed.

Axes: E edges, K candidates, T timings.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ddpnas_ray.core.errors import DataError, RunDirError
from ddpnas_ray.core.space import CostTable, IntArray, SearchSpace
from ddpnas_ray.spaces.target import same_target, target_text
from ddpnas_ray.storage.folder import place
from ddpnas_ray.storage.parquet import parquet_bytes, read_parquet

SCHEMA_VERSION = 1
COLUMNS = pa.schema(
    [
        ("edge", pa.string()),
        ("operation", pa.string()),
        ("key", pa.string()),
        ("count", pa.int32()),
        ("median_ns", pa.int64()),
        ("q1_ns", pa.int64()),
        ("q3_ns", pa.int64()),
        ("runs", pa.int32()),
    ]
)
METADATA = b"ddpnas_latency"  # key of the Parquet schema's metadata, a JSON object
_AGAIN = "rebuild it with `ddpnas latency build`"


@dataclass(frozen=True, slots=True)
class Timings:
    """Timings of one module, each paired with the reference network's timing just before.

    Args:
        ns_T: Nanoseconds of each call, shape (T,).
        reference_ns_T: Nanoseconds of the reference network's calls, shape (T,).
    """

    ns_T: IntArray
    reference_ns_T: IntArray

    def at(self, reference_ns: float) -> Latency:
        """Return the latency at a reference latency of ``reference_ns``, with drift divided out."""
        q1, median, q3 = np.percentile(self.ns_T / self.reference_ns_T, [25, 50, 75]) * reference_ns
        return Latency(round(median), round(q1), round(q3), len(self.ns_T))

    def as_measured(self) -> Latency:
        """Return the latency without drift correction."""
        q1, median, q3 = np.percentile(self.ns_T, [25, 50, 75])
        return Latency(round(median), round(q1), round(q3), len(self.ns_T))


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency distribution of a module.

    Args:
        median_ns: Median, nanoseconds.
        q1_ns: First quartile.
        q3_ns: Third quartile.
        runs: Number of timings.
    """

    median_ns: int
    q1_ns: int
    q3_ns: int
    runs: int


def reference_latency(timings: Sequence[Timings]) -> Latency:
    """Return the reference network's latency over a whole session."""
    reference_ns_T = np.concatenate([t.reference_ns_T for t in timings])
    return Timings(reference_ns_T, reference_ns_T).as_measured()


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One part of one choice.

    Args:
        edge: Name of the edge; None: common to all networks.
        operation: Name of the candidate; None if ``edge`` is None.
        key: Human-readable name of the part.
        count: How often the choice runs it (a cell occurs several times in a network).
        latency: Latency of running it once.
    """

    edge: str | None
    operation: str | None
    key: str
    count: int
    latency: Latency


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Latencies of the parts of a space's deploy networks on one device; a network's latency is their sum.

    Args:
        rows: Parts by choice; a choice without parts (``zero``, ``none``, identity) takes no time.
        device: Label of the Ray nodes, ``key=value``.
        machine: Their hardware and versions.
        timing: ``TimingOptions`` by name: threads, batch, dtype, ...
        space: Section ``space`` of a configuration.
        edges: Name and candidates of every edge.
        target: The deploy network's ``Target`` by name.
        reference_alpha: The reference network, shape (E,).
        reference: Its latency.
        date: Date of the measurement, ISO 8601.
    """

    rows: tuple[LatencyRow, ...]
    device: str
    machine: Mapping[str, Any]
    timing: Mapping[str, Any]
    space: Mapping[str, Any]
    edges: tuple[tuple[str, tuple[str, ...]], ...]
    target: Mapping[str, Any]
    reference_alpha: tuple[int, ...]
    reference: Latency
    date: str

    def cost(self, space: SearchSpace) -> CostTable:
        """Return the table as a cost, in nanoseconds.

        Args:
            space: The table's space.

        Raises:
            DataError: The space has other edges or operations.
        """
        self._refuse_other(space)
        entries_EK = np.zeros(space.shape, dtype=np.int64)
        index = {(name, op): (e, k) for e, (name, ops) in enumerate(self.edges) for k, op in enumerate(ops)}
        base = 0
        for row in self.rows:
            time_ns = row.count * row.latency.median_ns
            if row.edge is None:
                base += time_ns
            else:
                entries_EK[index[row.edge, row.operation or ""]] += time_ns
        return CostTable(base, entries_EK, space.gate)

    def require_target(self, target: Mapping[str, Any]) -> None:
        """Raise if the table is for another target.

        Args:
            target: The requested ``Target``, by name.

        Raises:
            DataError: The table is for another target.
        """
        if not same_target(self.target, target):
            raise DataError(
                f"latency table: it is for the target {_text(self.target)}, not {_text(target)}; "
                "build a table for that one with `ddpnas latency build`"
            )

    def _refuse_other(self, space: SearchSpace) -> None:
        edges = edge_names(space)
        if len(edges) != len(self.edges):
            raise DataError(
                f"latency table: it is for space {self.space['name']!r} with {len(self.edges)} edges; "
                f"space {space.name!r} has {len(edges)} here"
            )
        for (name, ops), (own_name, own_ops) in zip(edges, self.edges, strict=True):
            if (name, ops) != (own_name, own_ops):
                raise DataError(
                    f"latency table: it is for space {self.space['name']!r} whose edge {own_name!r} has "
                    f"{', '.join(own_ops)}; space {space.name!r} has edge {name!r} with {', '.join(ops)} here"
                )

    def save(self, path: str) -> None:
        """Write the file atomically.

        Args:
            path: Local path, or a URI.

        Raises:
            RunDirError: It cannot be written.
        """
        columns = {name: [_cell(row, name) for row in self.rows] for name in COLUMNS.names}
        about = {name: getattr(self, name) for name in _ABOUT} | {"reference": dataclasses.asdict(self.reference)}
        metadata = {METADATA: json.dumps({"schema_version": SCHEMA_VERSION, **about}).encode()}
        folder, name = place(path)
        folder.write(name, parquet_bytes(pa.table(columns, schema=COLUMNS.with_metadata(metadata))))


_ABOUT = ("device", "machine", "timing", "space", "edges", "target", "reference_alpha", "date")  # stored as JSON


def read_table(path: str) -> LatencyTable:
    """Read a table written by ``save``.

    Raises:
        DataError: The file does not exist, is damaged, or is not a latency table of this version.
    """
    folder, name = place(path)
    try:
        table = read_parquet(folder.read(name))
        about = json.loads(table.schema.metadata[METADATA])
        if about["schema_version"] != SCHEMA_VERSION:
            raise DataError(
                f"{path}: schema version {about['schema_version']}; this package reads {SCHEMA_VERSION}; {_AGAIN}"
            )
        rows = table.to_pylist()
        return LatencyTable(
            rows=tuple(_row(row) for row in rows),
            reference=Latency(**about["reference"]),
            edges=tuple((edge, tuple(ops)) for edge, ops in about["edges"]),
            reference_alpha=tuple(about["reference_alpha"]),
            **{name: about[name] for name in ("device", "machine", "timing", "space", "target", "date")},
        )
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; `ddpnas latency build` writes a table") from None
    except (OSError, RunDirError, pa.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as a latency table: {reason}; {_AGAIN}") from error
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: not a latency table ({type(error).__name__}: {error}); {_AGAIN}") from error


def edge_names(space: SearchSpace) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Name and candidates of every edge."""
    return tuple((edge.name, tuple(op.name for op in edge.candidates)) for edge in space.edges)


def _cell(row: LatencyRow, column: str) -> Any:
    return getattr(row.latency if column in Latency.__slots__ else row, column)


def _row(row: Mapping[str, Any]) -> LatencyRow:
    latency = Latency(**{name: row[name] for name in Latency.__slots__})
    return LatencyRow(row["edge"], row["operation"], row["key"], row["count"], latency)


def _text(target: Mapping[str, Any]) -> str:
    more = (("input_channels", "input channels"), ("vocabulary", "token ids"))
    return f"'{', '.join([target_text(target), *(f'{target[key]} {of}' for key, of in more if target.get(key))])}'"
