"""Finals on Ray: every epoch of a network is a task, whose snapshot the command seals before the next one starts.

Not Ray Tune's schedulers: ASHA decides by the order in which trials finish, so equal seeds would not give equal
results; and a killed command goes on from our own checkpoints, of which none is older than an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray

from ddpnas_ray.core.errors import DivergedError
from ddpnas_ray.execution.ray_errors import fetched
from ddpnas_ray.execution.ray_members import PoolSize, fitting_workers, level_env
from ddpnas_ray.finals.finals import Advance, Checkpoints, Finals

if TYPE_CHECKING:
    from ddpnas_ray.training.snapshot import Snapshot

LOST = "finals: a task's process kept dying; check its node's memory (ray status), then repeat the command to go on"
RETRIES = 3


def task_size(finals: Finals) -> PoolSize:
    """Choose number and size of the tasks that run at once in the connected cluster.

    Raises:
        ResourceError: None fits.
    """
    config = finals.trainings[0].config
    return fitting_workers(config.execution, config.retraining.threads, len(finals.networks))


def advance_on_ray(finals: Finals, size: PoolSize) -> Advance:
    """Return what trains the networks of a rung as Ray tasks, as many at once as fit."""
    shared = ray.put(finals)
    task: Any = ray.remote(
        num_cpus=size.cpus_per_worker,
        num_gpus=size.gpus_per_worker,
        max_retries=RETRIES,
        runtime_env=level_env(finals.trainings[0].config.training.cpu_isa),
    )(_epoch)

    def advance(alive: Sequence[int], until: int, checkpoints: Checkpoints) -> dict[int, str]:
        pending: dict[Any, int] = {}
        diverged: dict[int, str] = {}

        def submit(i: int, snapshot: Any, epoch: int) -> None:
            name = f"{finals.networks[i].label} epoch {epoch}"
            pending[task.options(name=name).remote(shared, i, snapshot, epoch)] = i

        for i in alive:
            snapshot = checkpoints.restore(i)
            if (done := 0 if snapshot is None else snapshot.epoch) < until:
                submit(i, snapshot, done + 1)
        while pending:
            (reference,), _ = ray.wait(list(pending), num_returns=1)
            i, found = pending.pop(reference), fetched(reference, LOST)
            if isinstance(found, str):
                diverged[i] = found
                continue
            checkpoints.save(i, found)
            if found.epoch < until:
                submit(i, reference, found.epoch + 1)
        return diverged

    return advance


def _epoch(finals: Finals, i: int, snapshot: Snapshot | None, epoch: int) -> Snapshot | str:
    """Train one network up to an epoch, as a task; returns the snapshot, or why it diverged."""
    import torch

    from ddpnas_ray.retraining.run import check_here, gpu_faults

    device = "cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu"
    check_here(finals.trainings[i], device)
    try:
        with gpu_faults(lost=True):
            return finals.train(i, snapshot, epoch, device, lambda snapshot: None)
    except DivergedError as error:
        return str(error)
