"""Score architectures with the weights of a finished search, in this process or on the connected cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ddpnas_ray.core.requests import EvalRequest
from ddpnas_ray.execution.base import Executor
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.runs.directory import parsed
from ddpnas_ray.runs.files import read_weights


def inherited_scores(
    run: FinishedRun,
    experiment: Experiment,
    alphas: Sequence[Sequence[int]],
    *,
    on_ray: bool,
    on_done: Callable[[int], None] = lambda n: None,
) -> list[float]:
    """Return the validation scores, in order.

    Args:
        run: Gives the weights.
        experiment: ``run.experiment()``: gives the data.
        alphas: The architectures.
        on_ray: Score on the connected cluster.
        on_done: Called with 1 for every scored architecture.
    """
    requests = [
        EvalRequest(round=0, epoch=0, architecture=i, alpha_E=np.array(alpha_E), lr=0.0, train=False)
        for i, alpha_E in enumerate(alphas)
    ]
    with _executor(experiment, on_ray) as executor:
        executor.load_weights(parsed(run.folder, "weights.safetensors", read_weights))
        results = executor.evaluate(requests, on_result=lambda request, result: on_done(1))
    return [result.score for result in results]


@contextmanager
def _executor(experiment: Experiment, on_ray: bool) -> Iterator[Executor]:
    if not on_ray or not experiment.config.trains:
        yield experiment.executor()
        return
    from ddpnas_ray.execution.ray_members import fitting_workers
    from ddpnas_ray.execution.ray_pool import RayPool

    config = experiment.config.execution
    size = fitting_workers(config, experiment.config.training.threads)
    pool = RayPool(experiment.evaluator.trainer("cuda" if size.gpus_per_worker else "cpu"), config, size)
    try:
        yield pool
    finally:
        pool.close()
