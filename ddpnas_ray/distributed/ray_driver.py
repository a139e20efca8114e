"""A whole search as one named, restartable actor.

The actor holds the strategy's state and the weights. When its process dies, Ray starts it again and invokes ``run``
again, which goes on from the newest checkpoint. It is not detached: it ends with the command, so that a killed command
never leaves a second writer behind.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ddpnas_ray.distributed.ray_attach import Attached
from ddpnas_ray.distributed.ray_metrics import Metrics
from ddpnas_ray.execution.ray_pool import RayPool, fetched, fitting_workers
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.progress import Progress
from ddpnas_ray.experiment.run import run_experiment
from ddpnas_ray.storage.folder import Folder


class Driver:
    """The loop of a search. Threaded: ``status`` answers while ``run`` blocks.

    Args:
        out: The run directory; it exists, and the command holds its lock.
        until_s: See ``run_experiment``.
    """

    def __init__(self, out: str, until_s: float | None) -> None:
        self._out, self._until_s = out, until_s
        self._progress: Progress | None = None
        self._pool: RayPool | None = None
        self._running = threading.Lock()

    def __repr__(self) -> str:
        return "ddpnas-driver"

    def run(self, job: Experiment) -> dict[str, Any] | None:
        """Search to the end, or until stopped; idempotent, since it starts from the newest checkpoint.

        Args:
            job: What to search. The command owns the object, so that it is there for a restarted driver too.

        Returns:
            The content of ``result.json``; None when stopped before the end.
        """
        with self._running:  # Ray may invoke it again though this process lives, when a connection broke
            return self._search(job)

    def _search(self, job: Experiment) -> dict[str, Any] | None:
        logging.basicConfig(level=logging.WARNING)
        config = job.config.execution
        progress = job.progress()
        progress.on_change = Metrics(self._out, job.spec.space.name).show
        self._progress = progress
        size = fitting_workers(config, job.config.training.threads, job.widest_epoch())
        if (config.workers or 0) > size.workers:
            progress.note = f"{size.workers} of {config.workers} workers fit"
        trainer = job.evaluator.trainer("cuda" if size.gpus_per_worker else "cpu")
        if size.elastic:
            progress.note = "waiting for the first node"
        self._pool = RayPool(trainer, config, size)
        if size.elastic:
            progress.note = ""
        try:
            return run_experiment(
                job,
                Folder.open(self._out),
                self._pool,
                progress,
                until_s=self._until_s,
            )
        finally:
            self._pool.close()

    @ray.method(enable_task_events=False)  # asked four times a second: the dashboard's tasks are to be architectures
    def status(self) -> dict[str, Any]:
        """The progress of this moment, in milliseconds."""
        if self._progress is None:
            return {"phase": "starting", "note": "", "workers": 0, "driver_pid": os.getpid()}
        if self._pool is not None:
            self._progress.workers = self._pool.worker_names
        return self._progress.snapshot() | {"driver_pid": os.getpid()}


@dataclass(frozen=True)
class Search(Attached):
    """A search of ours: its driver's name, the pending result, and the object that a restarted driver reads again."""

    name: str
    result: Any
    job_ref: Any

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended, after at most ``timeout_s``."""
        return bool(ray.wait([self.result], timeout=timeout_s)[0])

    def outcome(self) -> dict[str, Any] | None:
        """What ``Driver.run`` returned.

        Raises:
            DdpnasError: What ended the search, or its driver.
        """
        gone = "the search's driver is gone; every finished epoch is saved: go on with --resume"
        outcome: dict[str, Any] | None = fetched(self.result, gone)
        return outcome


def start(job: Experiment, folder: Folder, until_s: float | None = None) -> Search:
    """Start a search in the connected cluster.

    With a local run directory the driver is pinned to this node, where the directory is; with a URI it may move.
    """
    here = ray.get_runtime_context().get_node_id()
    options: dict[str, Any] = {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}
    name = f"ddpnas-{secrets.token_hex(4)}"  # its own: the driver of a stopped search may still be on its way out
    actor_class = ray.remote(Driver).options(
        name=name,
        num_cpus=0,
        max_concurrency=4,
        max_restarts=-1,
        max_task_retries=-1,
        **(options if folder.is_local else {}),
    )
    job_ref = ray.put(job)
    driver: Any = actor_class.remote(folder.path if folder.is_local else folder.uri, until_s)
    return Search(driver, name, driver.run.remote(job_ref), job_ref)
