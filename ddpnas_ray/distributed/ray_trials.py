"""Many whole searches as Ray tasks: seeds, and variants of a configuration. Each runs in its task's own process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from ddpnas_ray.distributed.ray_data import DataSource
from ddpnas_ray.execution.ray_pool import fetched, fitting_workers
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.run import run_experiment

TABLE_TRIALS = 25  # of a table in one task, at most: a search is milliseconds, a task's start a few of them
LOST = "trials: a task died again and again; look at its node's memory (ray status), or lower execution.workers"


@dataclass(frozen=True, slots=True)
class Trial:
    """One search.

    Args:
        label: What it is a trial of.
        config: All of it, its seed included.
    """

    label: str
    config: SearchConfig


def run_trials(
    job: Experiment,
    trials: Sequence[Trial],
    *,
    on_done: Callable[[int], None] = lambda n: None,
    on_result: Callable[[int, dict[str, Any]], None] = lambda i, result: None,
) -> list[dict[str, Any]]:
    """Search once a trial, on all CPUs or GPUs of the connected cluster; results do not depend on how many there are.

    Args:
        job: A search of the same space; trials by table read its table instead of the file.
        trials: The searches.
        on_done: Told how many trials a finished task had.
        on_result: Told each result as its task ends, with the number of its trial.

    Returns:
        The content of ``result.json`` of every trial, in order.

    Raises:
        DdpnasError: What ended a search.
        WorkerLostError: A task's process died again and again.
    """
    if not trials:
        return []
    by_table = not job.config.trains
    config = trials[0].config
    size = fitting_workers(config.execution, config.training.threads) if not by_table else None
    per_task = max(1, min(TABLE_TRIALS, len(trials) // 8)) if by_table else 1
    chunks = [list(trials[i : i + per_task]) for i in range(0, len(trials), per_task)]
    shared: Any = ray.put(job) if by_table else DataSource.here()
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
    """The body of a task: trials by a table, or one with images."""
    return search_all(shared.job(trials[0].config) if isinstance(shared, DataSource) else shared, trials)


def search_all(job: Experiment | None, trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Search once a trial, in this process; needs no cluster.

    Args:
        job: Whose table or images are used; None: each trial prepares its own data.
        trials: The searches.
    """
    results = []
    for trial in trials:
        own = Experiment.prepare(trial.config) if job is None else dataclasses.replace(job, config=trial.config)
        result = run_experiment(own, None, own.executor(), own.progress())
        assert result is not None  # there is no time limit
        results.append(result)
    return results


def _name(chunk: Sequence[Trial]) -> str:
    seeds = [trial.config.seed for trial in chunk]
    return f"{chunk[0].label} seed {seeds[0]}" + (f"-{seeds[-1]}" if len(seeds) > 1 else "")
