"""Score random networks with the supernet's weights after every epoch, to compare its ranking with the table (Fig. 7).

Axes: N networks of the probe, E edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from ddpnas_ray.core.generation.problem import Problem, random_alphas
from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import IntArray, SearchSpace
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.execution.base import Executor
from ddpnas_ray.storage.parquet import parquet_bytes, read_parquet
from ddpnas_ray.tabular.table import ScoreTable

Rows: TypeAlias = Sequence[dict[str, Any]]
_PROBE = 6  # generator key: draws the networks
ROWS = pa.schema(
    [
        ("epoch", pa.int32()),  # epochs trained, from 1
        ("architecture", pa.int32()),
        ("alpha", pa.list_(pa.int16())),
        ("score", pa.float64()),  # val, with inherited weights
        ("table_score", pa.float64()),
    ]
)


@dataclass
class Probe:
    """Scores the same networks after every epoch and keeps the measurements.

    Args:
        alphas_NE: The networks.
        truth_N: Their scores in the table.
        rows: Measurements so far, as ``ROWS``.
    """

    alphas_NE: IntArray
    truth_N: list[float]
    rows: list[dict[str, Any]]

    @classmethod
    def make(cls, space: SearchSpace, table: ScoreTable, column: str, networks: int, before: Rows = ()) -> Probe:
        """Draw the networks, the same for every seed.

        Args:
            space: Sampled uniformly.
            table: Gives their true scores.
            column: The column to compare with.
            networks: Number of networks.
            before: Measurements of a resumed run.
        """
        problem = Problem(space, initial_state(space, 0).theta_EK, space.generable_EK)
        drawn = random_alphas(problem, 10 * networks, rng_for(0, _PROBE))
        alphas_NE = np.array(list(dict.fromkeys(drawn))[:networks], dtype=np.int64)
        truth_N = [table.score(column, alpha_E) for alpha_E in alphas_NE]
        return cls(alphas_NE, truth_N, list(before))

    def measure(self, executor: Executor, state: SearchState) -> None:
        """Score all networks with the current weights, once per epoch."""
        self.rows = [row for row in self.rows if row["epoch"] <= state.epoch]
        if not state.epoch or any(row["epoch"] == state.epoch for row in self.rows):
            return
        requests = [EvalRequest(state.round, state.epoch, n, a, 0.0, train=False) for n, a in enumerate(self.alphas_NE)]
        for n, (result, truth) in enumerate(zip(executor.evaluate(requests), self.truth_N, strict=True)):
            alpha = self.alphas_NE[n].tolist()
            self.rows.append(
                {"epoch": state.epoch, "architecture": n, "alpha": alpha, "score": result.score, "table_score": truth}
            )

    def tau_by_epoch(self) -> dict[int, float]:
        """See the function ``tau_by_epoch``."""
        return tau_by_epoch(self.rows)

    def table(self) -> bytes:
        """Return the content of ``probe.parquet``."""
        return parquet_bytes(pa.Table.from_pylist(self.rows, schema=ROWS))


def read_probe(data: bytes) -> Rows:
    """Read the rows of ``probe.parquet``."""
    rows: Rows = read_parquet(data).select(ROWS.names).to_pylist()
    return rows


def tau_by_epoch(rows: Rows) -> dict[int, float]:
    """Return Kendall's tau between inherited and table scores by epochs trained; NaN where undefined."""
    from scipy.stats import kendalltau

    taus = {}
    for epoch in sorted({row["epoch"] for row in rows}):
        pairs = [(row["score"], row["table_score"]) for row in rows if row["epoch"] == epoch]
        known = np.array([pair for pair in pairs if all(map(math.isfinite, pair))])
        taus[epoch] = float(kendalltau(*known.T).statistic) if len(known) > 1 else math.nan
    return taus
