"""Run many whole searches as Ray tasks: seeds, and variants of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from ddpnas_ray.distributed.ray_data import DataSource
from ddpnas_ray.execution.ray_errors import fetched
from ddpnas_ray.execution.ray_members import fitting_workers
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.run import run_experiment

TABLE_TRIALS = 25  # tabular trials per task, at most: a search takes milliseconds, as does starting a task
LOST = "trials: a task's process kept dying; check its node's memory (ray status), or lower execution.workers"


@dataclass(frozen=True, slots=True)
class Trial:
    """One search.

    Args:
        label: Name of its variant.
        config: Its complete configuration, including the seed.
    """

    label: str
    config: SearchConfig


def run_trials(
    experiment: Experiment,
    trials: Sequence[Trial],
    *,
    on_done: Callable[[int], None] = lambda n: None,
    on_result: Callable[[int, dict[str, Any]], None] = lambda i, result: None,
) -> list[dict[str, Any]]:
    """Run every trial on the CPUs or GPUs of the connected cluster; results do not depend on its size.

    Args:
        experiment: A search of the same space; tabular trials read its table instead of the file.
        trials: The searches.
        on_done: Called with the number of trials of each finished task.
        on_result: Called with the index and the result of each trial when its task ends.

    Returns:
        The content of ``result.json`` of every trial, in order.

    Raises:
        DdpnasError: The error that ended a search.
        WorkerLostError: A task's process kept dying.
    """
    if not trials:
        return []
    tabular = not experiment.config.trains
    config = trials[0].config
    size = (
        fitting_workers(dataclasses.replace(config.execution, group=1), config.training.threads)
        if not tabular
        else None
    )
    per_task = max(1, min(TABLE_TRIALS, len(trials) // 8)) if tabular else 1
    chunks = [list(trials[i : i + per_task]) for i in range(0, len(trials), per_task)]
    shared: Any = ray.put(experiment) if tabular else DataSource.here()
    task = ray.remote(
        num_cpus=1 if size is None else size.cpus_per_worker,
        num_gpus=0 if size is None else size.gpus_per_worker,
        max_retries=3,
        max_calls=0,
    )(_search)
    refs = [task.options(name=_name(chunk)).remote(shared, chunk) for chunk in chunks]
    found: dict[Any, list[dict[str, Any]]] = {}
    pending = list(refs)
    while pending:
        done, pending = ray.wait(pending, num_returns=1)
        found[done[0]] = fetched(done[0], LOST)
        for i, result in enumerate(found[done[0]], start=per_task * refs.index(done[0])):
            on_result(i, result)
        on_done(len(found[done[0]]))
    return [result for ref in refs for result in found[ref]]


def _search(shared: Experiment | DataSource, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """The body of a task: several tabular trials, or one with images."""
    return search_all(shared.experiment(trials[0].config) if isinstance(shared, DataSource) else shared, trials)


def search_all(base: Experiment | None, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Run every trial in this process, without a cluster.

    Args:
        base: Provides the table or images; None: each trial prepares its own data.
        trials: The searches.
    """
    results = []
    for trial in trials:
        experiment = dataclasses.replace(base, config=trial.config) if base else Experiment.prepare(trial.config)
        result = run_experiment(experiment, None, experiment.executor(), experiment.progress())
        assert result is not None  # there is no time limit
        results.append(result)
    return results


def _name(chunk: Sequence[Trial]) -> str:
    seeds = [trial.config.seed for trial in chunk]
    return f"{chunk[0].label} seed {seeds[0]}" + (f"-{seeds[-1]}" if len(seeds) > 1 else "")
