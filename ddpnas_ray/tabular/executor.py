"""The tabular executor: reads scores from a table instead of training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.core.requests import EvalRequest, EvalResult, Work
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.execution.base import OnResult, ignore_result
from ddpnas_ray.tabular.table import ScoreTable

_TABLE = 5  # generator key: picks a training


class TableExecutor:
    """Executor that looks scores up; it has no weights.

    Args:
        table: The scores.
        column: The column to read.
        training: ``mean``: the column itself; ``random``: one of the architecture's trainings, redrawn for every
            query; a number: the training of that seed.
        seed: Keys the draws.

    Raises:
        DataError: The table has no such trainings, or lacks them for some architectures.
    """

    def __init__(self, table: ScoreTable, column: str, *, training: str | int = "mean", seed: int = 0) -> None:
        self._table, self._seed = table, seed
        self.work = Work()
        self.devices: dict[str, dict[str, Any]] = {}
        if training == "mean":
            self._columns = [column]
        elif training == "random":
            self._columns = table.trainings(column)
        else:
            self._columns = [name for name in table.trainings(column) if name == f"{column}_seed{training}"]
        if not self._columns:
            seeds = [name.rpartition("_seed")[2] for name in table.trainings(column)]
            raise DataError(
                f"evaluation.training is {training}: {table.source} has "
                + (f"trainings {', '.join(seeds)} of {column}" if seeds else f"no single trainings of {column}")
                + "; mean takes the column itself"
            )
        lacking = int(np.isnan([table.scores[name] for name in self._columns]).all(axis=0).sum())
        if lacking:
            raise DataError(
                f"{table.source}: {self._columns[0]} lacks {lacking:,} of {len(table.row_of):,} architectures, and a "
                "search may query any; set evaluation.score to another column, or change evaluation.training"
            )

    def evaluate(self, requests: Sequence[EvalRequest], on_result: OnResult | None = None) -> list[EvalResult]:
        """See ``Executor``."""
        on_result = on_result or ignore_result
        results = []
        for request in requests:
            scores = [self._table.score(column, request.alpha_E) for column in self._columns]
            known = [score for score in scores if not math.isnan(score)]
            if len(known) > 1:
                rng = rng_for(self._seed, request.epoch, request.architecture, _TABLE)
                known = [known[rng.integers(len(known))]]
            results.append(EvalResult(score=known[0], loss=math.nan, worker="table"))
            on_result(request, results[-1])
        return results

    def weights(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """See ``Executor``."""
        return {}

    def load_weights(self, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Nothing to replace."""

    def close(self) -> None:
        """Nothing to release."""
