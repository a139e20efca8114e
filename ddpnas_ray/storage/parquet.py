"""Read and write Parquet files as bytes."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(data: bytes) -> pa.Table:
    """Read a table without Arrow's threads: with them one process in thirty aborted at exit (pyarrow 26.0.1)."""
    return pq.ParquetFile(io.BytesIO(data)).read(use_threads=False)


def parquet_bytes(table: pa.Table) -> bytes:
    """Write a table to the bytes of a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
