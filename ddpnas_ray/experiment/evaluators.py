"""The two sources of scores: a supernet, trained and validated, or a benchmark table."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.core.state import SearchState
from ddpnas_ray.execution.base import Executor
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.tabular.benchmark import Benchmark, RandomSearch
from ddpnas_ray.tabular.executor import TableExecutor
from ddpnas_ray.tabular.probe import Probe, Rows
from ddpnas_ray.tasks.base import Task
from ddpnas_ray.tasks.learning import few_steps, near_chance

if TYPE_CHECKING:
    from ddpnas_ray.training.trainer import Trainer


class Evaluator(Protocol):
    """Source of a search's scores."""

    save_every_s: float
    """Minimum seconds between two checkpoints."""

    @property
    def scores_of(self) -> str:
        """Description of the scored architectures."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the data."""
        ...

    def trainer(self, device: str) -> Trainer:
        """Create the trainer; imports torch.

        Raises:
            ConfigError: The search is tabular and trains nothing.
        """
        ...

    def executor(self) -> Executor:
        """Create an executor that runs in this process.

        Raises:
            ResourceError: GPUs were requested and this machine has none.
        """
        ...

    def probe(self, before: Rows) -> Probe | None:
        """Create the supernet's probe (``evaluation.probe``) with its measurements so far; None without one."""
        ...

    def warnings(self, scores: Sequence[float] = ()) -> list[str]:
        """Return reasons to doubt the search, from its data and from the last epoch's scores if given."""
        ...

    def score_sheet(
        self, executor: Executor, state: SearchState, alpha_E: IntArray, probe: Probe | None
    ) -> list[dict[str, Any]]:
        """Rate the result, one row per number: ``what``, ``split``, ``value`` (fraction or rank correlation).

        Args:
            executor: Holds the final weights.
            state: The last state.
            alpha_E: The result architecture.
            probe: The probe, if any.
        """
        ...


@dataclass(frozen=True)
class SupernetEvaluator:
    """Evaluator that trains architectures with shared weights and scores them on the validation split.

    Args:
        config: The resolved configuration.
        spec: The space.
        task: The task to train for.
        benchmark: Known scores to compare the supernet with, if any.
    """

    config: SearchConfig
    spec: SpaceSpec
    task: Task
    benchmark: Benchmark | None
    save_every_s = 0.0

    @property
    def scores_of(self) -> str:
        """See ``Evaluator``."""
        alone = self.config.shares_nothing
        return "architectures trained alone for an epoch" if alone else "sampled architectures with shared weights"

    @property
    def digest(self) -> str:
        """SHA-256 of the data, and of the benchmark if there is one."""
        if self.benchmark is None:
            return self.task.digest
        return hashlib.sha256((self.task.digest + self.benchmark.table.digest).encode()).hexdigest()

    def trainer(self, device: str) -> Trainer:
        """See ``Evaluator``."""
        from ddpnas_ray.training.trainer import Trainer

        config = self.config
        return Trainer(spec=self.spec, task=self.task, config=config.training, seed=config.seed, device=device)

    def executor(self) -> Executor:
        """See ``Evaluator``."""
        from ddpnas_ray.execution.local import LocalExecutor, local_device

        return LocalExecutor(self.trainer(local_device(self.config.execution)))

    def probe(self, before: Rows) -> Probe | None:
        """See ``Evaluator``."""
        networks = self.config.evaluation.probe
        if networks is None or self.benchmark is None:
            return None
        return self.benchmark.probe(self.spec.space, networks, before)

    def warnings(self, scores: Sequence[float] = ()) -> list[str]:
        """See ``Evaluator``."""
        found = few_steps(self.task.train_examples, self.config.training.batch_size)
        if scores and (chance := self.task.chance()) is not None:
            found += near_chance(scores, chance, self.task.val_examples)
        return found

    def score_sheet(
        self, executor: Executor, state: SearchState, alpha_E: IntArray, probe: Probe | None
    ) -> list[dict[str, Any]]:
        """See ``Evaluator``."""
        sheet = []
        if not self.config.shares_nothing:
            request = EvalRequest(state.round, state.epoch, 0, alpha_E, 0.0, train=False)
            score = executor.evaluate([request])[0].score
            sheet.append(_row("result architecture with inherited weights", "val", score))
        if self.benchmark is not None:
            epochs = sum(row.trained for row in state.evaluations)
            sheet += _known_scores(self.benchmark, alpha_E, self.benchmark.for_epochs(epochs))
        if probe is not None and self.benchmark is not None:
            what = (
                f"Kendall's tau of inherited scores (val) with {self.benchmark.final}, {len(probe.alphas_NE)} networks"
            )
            sheet.append(_row(what, "test", probe.tau_by_epoch()[state.epoch]))
        return sheet


@dataclass(frozen=True)
class TableEvaluator:
    """Evaluator that reads scores from a benchmark table; a search takes milliseconds.

    Args:
        config: The resolved configuration.
        benchmark: The scores.
    """

    config: SearchConfig
    benchmark: Benchmark
    scores_of = "evaluated architectures, from the table"
    save_every_s = 1.0  # epochs are milliseconds

    @property
    def digest(self) -> str:
        """SHA-256 of the table."""
        return self.benchmark.table.digest

    def trainer(self, device: str) -> Trainer:
        """See ``Evaluator``."""
        raise ConfigError("evaluation.kind is table, which trains nothing; set evaluation.kind=supernet")

    def executor(self) -> TableExecutor:
        """See ``Evaluator``."""
        training, seed = self.config.evaluation.training, self.config.seed
        return TableExecutor(self.benchmark.table, self.benchmark.score, training=training, seed=seed)

    def probe(self, before: Rows) -> None:
        """See ``Evaluator``."""

    def warnings(self, scores: Sequence[float] = ()) -> list[str]:
        """See ``Evaluator``."""
        return []

    def score_sheet(
        self, executor: Executor, state: SearchState, alpha_E: IntArray, probe: Probe | None
    ) -> list[dict[str, Any]]:
        """See ``Evaluator``."""
        return _known_scores(self.benchmark, alpha_E, RandomSearch(len(state.evaluations)))


def _known_scores(benchmark: Benchmark, alpha_E: IntArray, random: RandomSearch) -> list[dict[str, Any]]:
    """Return score sheet rows: the benchmark's scores of an architecture, and random search at equal cost."""
    rows = []
    for name, (score,) in benchmark.known([alpha_E]).items():
        split, _, column = name.partition(": ")
        rows.append(_row(f"result architecture, {column}", split, score))
    what = f"random search with {random} (expected), {benchmark.final}"
    return [*rows, _row(what, "test", benchmark.random_search(random.networks))]


def _row(what: str, split: str, value: float) -> dict[str, Any]:
    return {"what": what, "split": split, "value": value if math.isfinite(value) else None}
