"""Tabular scores: searches against known accuracies, in milliseconds and without training.

The table is one Parquet file with one row per architecture of the whole space (docs/tables.md):

- ``alpha``: list of integers, the candidate of every edge; or ``arch_str``: the architecture string of NAS-Bench-201.
- scores, one column each, named ``<data>_<split>_e<epochs>``, such as ``cifar10_test_e200``: the mean over trainings;
  ``<data>_<split>_e<epochs>_seed<seed>`` is one training. Fractions, or percentages if the file's metadata has
  ``unit`` = ``percent`` or, without a unit, if a score exceeds 1.

Neither torch nor ray is imported here. Axes: N architectures, E edges.
"""

from __future__ import annotations

import hashlib
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ddpnas_ray.core.errors import DataError, GenotypeError, did_you_mean
from ddpnas_ray.core.space import FloatArray, IntArray, SearchSpace
from ddpnas_ray.storage.parquet import read_parquet

NAME = re.compile(r"(?P<data>\w+)_(?P<split>train|val|valid|test)_e(?P<epochs>[0-9]+)(_seed(?P<seed>[0-9]+))?")
SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}


@dataclass(frozen=True)
class ScoreTable:
    """Scores of every architecture of a space.

    Args:
        row_of: alpha -> row.
        scores: Column name -> fractions, shape (N,); NaN where the table has none.
        digest: SHA-256 of the file.
        source: The file's name, for messages.
    """

    row_of: Mapping[tuple[int, ...], int]
    scores: Mapping[str, FloatArray]
    digest: str
    source: str

    @classmethod
    def read(cls, path: str, space: SearchSpace, encode: Callable[[dict[str, Any]], IntArray]) -> ScoreTable:
        """Read a table and check all of it.

        Args:
            path: A Parquet file.
            space: Its space.
            encode: Genotype -> alpha_E, for tables with architecture strings.

        Raises:
            DataError: It cannot be read, is for another space, is incomplete, or has a score out of range.
        """
        try:
            data = Path(path).read_bytes()
            table = read_parquet(data)
        except (OSError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"evaluation.table: {path} cannot be read: {reason}; a Parquet file is needed") from error
        row_of = _rows(_alphas(table, encode, path), space, path)
        names = [name for name in table.column_names if NAME.fullmatch(name)]
        if not names:
            raise DataError(
                f"{path}: no score columns; their names are <data>_<split>_e<epochs>, such as cifar10_val_e12"
            )
        unit = (table.schema.metadata or {}).get(b"unit", b"").decode()
        scores = {name: _scores(table, name, unit, path) for name in names}
        return cls(row_of, scores, hashlib.sha256(data).hexdigest(), path)

    def column(self, name: str | None, split: str, key: str) -> str:
        """Find a column by name; without a name, the split's column with the fewest (``val``) or most epochs
        (``test``), the first of equals.

        Raises:
            DataError: There is none, or it belongs to another split.
        """
        means = [column for column in self.scores if split_of(column) == split and not NAME.fullmatch(column)["seed"]]  # type: ignore[index]
        if name is None:
            if not means:
                raise DataError(f"{self.source}: no column for the {split} split; {key} needs one")
            return (min if split == "val" else max)(means, key=epochs_of)
        if name not in self.scores:
            raise DataError(f"{key}: {self.source} has no column {name!r}{did_you_mean(name, self.scores)}")
        if split_of(name) != split:
            raise DataError(f"{key}: {name} is a column of the {split_of(name)} split; {split} is needed")
        return name

    def trainings(self, column: str) -> list[str]:
        """List the columns of the single trainings that a column averages."""
        return [name for name in self.scores if name.startswith(f"{column}_seed")]

    def score(self, column: str, alpha_E: IntArray) -> float:
        """Return one score, a fraction."""
        return float(self.scores[column][self.row_of[tuple(int(k) for k in alpha_E)]])


def split_of(column: str) -> str:
    """Return the split of a column: ``train``, ``val`` or ``test``.

    Example:
        >>> split_of("cifar10valid_valid_e12")
        'val'
    """
    match = NAME.fullmatch(column)
    assert match is not None, column
    return SPLITS[match["split"]]


def epochs_of(column: str) -> int:
    """Return the number of training epochs behind a column."""
    match = NAME.fullmatch(column)
    assert match is not None, column
    return int(match["epochs"])


def expected_best(val_N: FloatArray, final_N: FloatArray, evaluations: int) -> float:
    """Return the exact expectation of random search: the final score of the best by val of n distinct architectures.

    Of N architectures sorted by descending val, the r-th (from 0) is the best of n with probability
    C(N - r - 1, n - 1) / C(N, n).

    Example:
        >>> expected_best(np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 6.0]), evaluations=2)
        4.666666666666667
    """
    order, n, size = np.argsort(-val_N, kind="stable"), min(evaluations, len(val_N)), len(val_N)
    r = np.arange(size - n)
    p_R = n / size * np.concatenate([[1.0], np.cumprod((size - r - n) / np.maximum(1, size - r - 1))])
    return math.fsum(p_R * final_N[order[: size - n + 1]])  # exact for any number of threads


def _alphas(table: pa.Table, encode: Callable[[dict[str, Any]], IntArray], path: str) -> list[tuple[int, ...]]:
    if "alpha" in table.column_names:
        try:
            return [tuple(map(operator.index, alpha)) for alpha in table.column("alpha").to_pylist()]
        except TypeError as error:
            kind = table.schema.field("alpha").type
            raise DataError(f"{path}: column alpha holds {kind}; a list of integers per row is needed") from error
    if "arch_str" not in table.column_names:
        raise DataError(f"{path}: no column alpha or arch_str, which name the architecture of each row")
    try:
        return [tuple(encode({"arch_str": text}).tolist()) for text in table.column("arch_str").to_pylist()]
    except GenotypeError as error:
        raise DataError(f"{path}: column arch_str does not fit this space: {error}") from error


def _rows(alphas: list[tuple[int, ...]], space: SearchSpace, path: str) -> dict[tuple[int, ...], int]:
    candidates = [len(edge.candidates) for edge in space.edges]
    for i, alpha in enumerate(alphas):
        if len(alpha) != len(candidates) or not all(0 <= k < n for k, n in zip(alpha, candidates, strict=True)):
            raise DataError(f"{path}: row {i}: alpha {list(alpha)} is not an architecture of space {space.name!r}")
    row_of = {alpha: i for i, alpha in enumerate(alphas)}
    if len(row_of) < len(alphas):
        duplicate = next(alpha for i, alpha in enumerate(alphas) if row_of[alpha] != i)
        raise DataError(f"{path}: duplicate rows of alpha {list(duplicate)}")
    if len(row_of) < (needed := math.prod(candidates)):
        raise DataError(
            f"{path}: has {len(row_of):,} architectures; a table of space {space.name!r} needs all {needed:,}"
        )
    return row_of


def _scores(table: pa.Table, name: str, unit: str, path: str) -> FloatArray:
    kind = table.schema.field(name).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind)):
        raise DataError(f"{path}: column {name} holds {kind}; numbers are needed")
    scores_N = np.array(table.column(name).to_numpy(), dtype=np.float64)
    largest = float(np.nanmax(np.abs(scores_N), initial=0.0))
    if unit == "percent" or (not unit and largest > 1.0):
        scores_N, largest = scores_N / 100.0, largest / 100.0
    if largest > 1.0:
        raise DataError(f"{path}: column {name} has {largest:g}; fractions are at most 1, percentages at most 100")
    return scores_N
