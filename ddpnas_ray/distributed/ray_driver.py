"""A whole search as one named, restartable actor.

The actor holds the strategy's state and the weights. If its process dies, Ray restarts it and calls ``run`` again,
which resumes from the newest checkpoint, unless it has died too often in one epoch. It is not detached: it ends with
the command, so that a killed command never leaves a second writer behind.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import ray

from ddpnas_ray.core.errors import WorkerLostError
from ddpnas_ray.distributed.ray_attach import Running, start_driver
from ddpnas_ray.distributed.ray_metrics import Metrics
from ddpnas_ray.execution.ray_members import fitting_workers, level_env
from ddpnas_ray.execution.ray_pool import RayPool
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.progress import Progress
from ddpnas_ray.experiment.run import run_experiment
from ddpnas_ray.runs import sealed
from ddpnas_ray.runs.directory import parsed
from ddpnas_ray.runs.log import append_log, read_log
from ddpnas_ray.storage.folder import Folder


class Driver:
    """Actor that runs a search. Threaded: ``status`` responds while ``run`` blocks.

    Args:
        out: The run directory; it exists, and the command holds its lock.
        name: Name of this actor.
        until_s: See ``run_experiment``.
    """

    def __init__(self, out: str, name: str, until_s: float | None) -> None:
        self._out, self._name, self._until_s = out, name, until_s
        self._progress: Progress | None = None
        self._pool: RayPool | None = None
        self._running = threading.Lock()

    def __repr__(self) -> str:
        return "ddpnas-driver"

    def run(self, experiment: Experiment) -> dict[str, Any] | None:
        """Search to the end, or until stopped; idempotent, since it starts from the newest checkpoint.

        Args:
            experiment: The search. The command owns the object, so a restarted driver can read it too.

        Returns:
            The content of ``result.json``; None if stopped before the end.
        """
        with self._running:  # after a broken connection Ray may call it again in a living process
            return self._search(experiment)

    def _search(self, experiment: Experiment) -> dict[str, Any] | None:
        logging.basicConfig(level=logging.WARNING)
        config, folder = experiment.config.execution, Folder.open(self._out)
        if self._progress is None:
            _log_start(folder, self._name, config.max_crashes)
        progress = experiment.progress()
        progress.on_change = Metrics(self._out, experiment.spec.space.name).show
        self._progress = progress
        size = fitting_workers(config, experiment.config.training.threads, experiment.widest_epoch())
        if (config.workers or 0) > size.workers:
            progress.note = f"{size.workers} of {config.workers} workers fit"
        trainer = experiment.evaluator.trainer("cuda" if size.gpus_per_worker else "cpu")
        if size.elastic:
            progress.note = "waiting for the first node"
        self._pool = RayPool(trainer, config, size)
        if size.elastic:
            progress.note = ""
        try:
            return run_experiment(experiment, folder, self._pool, progress, until_s=self._until_s)
        finally:
            self._pool.close()

    @ray.method(enable_task_events=False)  # four calls per second would bury the architectures in the dashboard
    def status(self) -> dict[str, Any]:
        """Return the current progress, within milliseconds."""
        if self._progress is None:
            return {"phase": "starting", "note": "", "workers": 0, "driver_pid": os.getpid()}
        if self._pool is not None:
            self._progress.workers = self._pool.worker_names
        return self._progress.snapshot() | {"driver_pid": os.getpid()}


def _log_start(folder: Folder, name: str, max_crashes: int) -> None:
    """Record the start of a driver process, before anything that may kill it.

    Raises:
        WorkerLostError: It has died too often in this epoch; ``--resume`` uses another name and counts from zero.
    """
    epoch = sealed.newest_epoch(folder / "checkpoints")
    events = parsed(folder, "log.jsonl", read_log) if folder.has("log.jsonl") else []
    starts = [event["epoch"] for event in events if event["event"] == "driver" and event["name"] == name]
    deaths = [*starts, epoch][1:].count(epoch)  # each start but the first follows a death
    append_log(folder, "driver", name=name, epoch=epoch, pid=os.getpid(), deaths=deaths)
    if deaths >= max_crashes:
        raise WorkerLostError(
            f"the search's driver died {deaths} times in epoch {epoch} (execution.max_crashes is {max_crashes}); every "
            "finished epoch is saved: check its node's memory and Ray logs, then --resume"
        )


def start(experiment: Experiment, folder: Folder, until_s: float | None = None) -> Running:
    """Start a search in the connected cluster; see ``start_driver``."""
    return start_driver(
        "search",
        Driver,
        folder,
        experiment,
        until_s,
        max_concurrency=4,
        max_restarts=-1,
        runtime_env=level_env(experiment.config.training.cpu_isa),
    )
