"""A configured search, loaded and checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.generation.limits import Limits
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.schedule import architectures_by_round
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.execution.base import Executor
from ddpnas_ray.experiment.config import SearchConfig, make_strategy
from ddpnas_ray.experiment.evaluators import Evaluator, SupernetEvaluator, TableEvaluator
from ddpnas_ray.experiment.groups import refuse_small_shards
from ddpnas_ray.experiment.progress import Progress
from ddpnas_ray.experiment.recorder import NoRecorder, Recorder
from ddpnas_ray.runs.environment import environment
from ddpnas_ray.runs.files import json_file, space_json
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.target import Inputs, Target
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.strategies.base import Strategy
from ddpnas_ray.tabular.benchmark import Benchmark
from ddpnas_ray.tasks.base import Task, find_task

TABLE_INPUTS = Inputs(shape=(3, 32, 32), outputs=10)  # CIFAR-10, unless section target overrides it


@dataclass(frozen=True)
class Experiment:
    """A configuration with its space and data, loaded without importing torch or ray.

    Args:
        config: The resolved configuration.
        spec: Its search space.
        task: The task to train for; None for tabular searches.
        benchmark: Its table of known scores, if any.
        target: The deploy network whose costs are counted.
    """

    config: SearchConfig
    spec: SpaceSpec
    task: Task | None
    benchmark: Benchmark | None
    target: Target

    @classmethod
    def prepare(cls, config: SearchConfig) -> Experiment:
        """Load the data and create the space.

        Raises:
            BadInput: The data, the table or the space does not match the configuration.
        """
        spec = find_space(config.space.name)(**config.space.options)
        if not architectures_by_round(spec.space, config.pruning.keep_per_group):
            raise ConfigError(
                f"pruning.keep_per_group is {config.pruning.keep_per_group}: no edge of space {spec.space.name!r} has "
                "more operations of a group, so there is nothing to prune; lower it, or add candidates"
            )
        table, score, final = config.evaluation.table, config.evaluation.score, config.evaluation.final
        benchmark = None if table is None else Benchmark.read(table, spec.space, spec.encode, score, final)
        task, inputs = None, TABLE_INPUTS
        if config.trains:
            task = find_task(config.task.name)(config.data, config.seed, **config.task.options)
            inputs = task.inputs
            refuse_small_shards(config.training, task.train_examples)
        experiment = cls(config, spec, task, benchmark, Target.resolve(config.target, inputs, spec.target))
        experiment.strategy()
        if not config.trains:
            experiment.executor()
        return experiment

    @property
    def evaluator(self) -> Evaluator:
        """Source of its scores."""
        if self.task is not None:
            return SupernetEvaluator(self.config, self.spec, self.task, self.benchmark)
        assert self.benchmark is not None  # without a task there is a table
        return TableEvaluator(self.config, self.benchmark)

    @property
    def digest(self) -> str:
        """SHA-256 of its data."""
        return self.evaluator.digest

    def strategy(self) -> Strategy:
        """Create its strategy.

        Raises:
            ConfigError: ``evaluation.budget`` is smaller than pruning needs, or it cannot keep to ``target.budgets``.
            BudgetError: A budget cannot be parsed, or nothing fits it.
        """
        return make_strategy(self.config, self.spec.space, self.limits)

    @cached_property
    def limits(self) -> Limits | None:
        """``target.budgets``; None if there are none."""
        if not self.config.target.budgets:
            return None
        space = self.spec.space
        costs = {name: cost(self.target) for name, cost in self.spec.costs.items()}
        problem = Problem(space, np.zeros(space.shape), space.generable_EK, costs)
        return Limits.parse(problem, self.config.target.budgets)

    def executor(self) -> Executor:
        """Create its local executor; see ``Evaluator.executor``."""
        return self.evaluator.executor()

    def progress(self) -> Progress:
        """Create its progress counter."""
        strategy, space = self.strategy(), self.spec.space
        epochs = strategy.epochs(space)
        per_round = self.config.pruning.epochs_per_round if strategy.by_rounds else len(epochs)
        return Progress(space, epochs, per_round, self.config.unit)

    def widest_epoch(self) -> int:
        """Return the largest number of architectures in an epoch; more workers would idle."""
        return max(self.strategy().epochs(self.spec.space))

    def costs(self, alpha_E: IntArray) -> dict[str, int]:
        """Count the exact costs of an architecture's deploy network."""
        return {name: cost(self.target)(alpha_E) for name, cost in self.spec.costs.items()}

    def first_files(self, config_text: str) -> dict[str, bytes]:
        """Return the initial files of a run directory."""
        tables = {name: cost(self.target) for name, cost in self.spec.costs.items()}
        # With a table the digest covers it too; what is trained later only needs the same examples.
        known = {"task_digest": self.task.digest} if self.task is not None and self.benchmark is not None else {}
        return {
            "space.json": space_json(self.spec.space, tables, dataclasses.asdict(self.target)),
            "environment.json": json_file(environment(self.config.seed, self.digest) | known),
            "config.yaml": config_text.encode(),
        }

    def recorder(self, folder: Folder | None) -> Recorder:
        """Create the recorder of a run directory; None records nothing."""
        if folder is None:
            return NoRecorder()
        keep_per_group = self.config.pruning.keep_per_group
        overlap = self.config.execution.overlap_checkpoints
        return Recorder(folder, self.spec.space, keep_per_group, self.evaluator.save_every_s, overlap=overlap)
