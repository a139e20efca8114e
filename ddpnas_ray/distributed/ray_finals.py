"""Finals on Ray: every epoch of a network is a task, whose snapshot the command seals before the next one starts.

Not Ray Tune's schedulers: ASHA decides by the order in which trials finish, so equal seeds would not give equal
results; and a killed command goes on from our own checkpoints, of which none is older than an epoch.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray

from ddpnas_ray.core.errors import DeviceError, DivergedError
from ddpnas_ray.execution.ray_errors import fetched
from ddpnas_ray.execution.ray_members import PoolSize, fitting_workers, level_env
from ddpnas_ray.finals.finals import Advance, Checkpoints, Finals

if TYPE_CHECKING:
    from ddpnas_ray.training.snapshot import Snapshot

LOST = (
    "finals: a task's process kept dying; check its node's memory (ray status) and GPU (nvidia-smi), then repeat the "
    "command to go on"
)
RETRIES = 3


def task_size(finals: Finals) -> PoolSize:
    """Choose number and size of the tasks that run at once in the connected cluster.

    Raises:
        ResourceError: None fits.
    """
    config = finals.trainings[0].config
    return fitting_workers(
        dataclasses.replace(config.execution, group=1), config.retraining.threads, len(finals.networks)
    )


def advance_on_ray(finals: Finals, size: PoolSize) -> Advance:
    """Return what trains the networks of a rung as Ray tasks, ``size.workers`` at once."""
    shared = ray.put(finals)
    gpus = max(node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"])
    may_move = size.gpus_per_worker > 0 and gpus > 1
    remote: Any = ray.remote  # whose hints refuse None
    task = remote(
        num_cpus=size.cpus_per_worker,
        num_gpus=size.gpus_per_worker,
        max_retries=RETRIES,
        # processes are reused, but not where a task may be given another GPU than the one its process has opened
        max_calls=1 if may_move else 0,
        runtime_env=level_env(finals.trainings[0].config.training.cpu_isa),
    )(_epoch)

    def advance(alive: Sequence[int], until: int, checkpoints: Checkpoints) -> dict[int, str]:
        waiting = deque[tuple[int, Any]]()  # network, and the reference of its snapshot; None: that of the checkpoints
        waiting.extend((i, None) for i in alive if len(checkpoints.histories[i]) < until)
        pending: dict[Any, int] = {}
        diverged: dict[int, str] = {}
        while waiting or pending:
            while waiting and len(pending) < size.workers:
                i, before = waiting.popleft()
                before, epoch = before or checkpoints.restore(i), len(checkpoints.histories[i]) + 1
                name = f"{finals.networks[i].label} epoch {epoch}"
                pending[task.options(name=name).remote(shared, i, before, epoch)] = i
            (reference,), _ = ray.wait(list(pending), num_returns=1)
            i, found = pending.pop(reference), fetched(reference, LOST)
            if isinstance(found, str):
                diverged[i] = found
                continue
            checkpoints.save(i, found)
            if found.epoch < until:
                waiting.append((i, reference))
        return diverged

    return advance


def _epoch(finals: Finals, i: int, snapshot: Snapshot | None, epoch: int) -> Snapshot | str:
    """Train one network up to an epoch, as a task; returns the snapshot, or why it diverged."""
    import torch

    from ddpnas_ray.retraining.run import check_here, gpu_faults

    device = "cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu"
    check_here(finals.trainings[i], device)
    try:
        with gpu_faults(lost=True, then="repeat the command"):
            return finals.train(i, snapshot, epoch, device, lambda snapshot: None)
    except DivergedError as error:
        return str(error)
    except DeviceError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)  # its CUDA context is lost: Ray repeats the task in another process
