"""A retraining on Ray Train: a restartable driver actor, and workers that share each batch.

Ray Train gives placement, process groups and retries. Checkpoints are our own: worker 0 sends each snapshot to the
driver, which seals it in the run directory, so workers need no shared storage.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from ddpnas_ray.console.ray_connect import NAMESPACE
from ddpnas_ray.core.errors import DdpnasError, ResourceError, WorkerLostError
from ddpnas_ray.distributed.ray_attach import Running, start_driver
from ddpnas_ray.distributed.ray_metrics import RetrainingMetrics
from ddpnas_ray.execution.ray_errors import own_error
from ddpnas_ray.execution.ray_internals import orphaned_groups
from ddpnas_ray.execution.ray_members import PoolSize, level_env
from ddpnas_ray.retraining.progress import RetrainingProgress
from ddpnas_ray.retraining.retraining import Retraining
from ddpnas_ray.retraining.run import Keeper, check_here, gpu_faults, retrain
from ddpnas_ray.runs.log import append_log
from ddpnas_ray.storage.folder import Folder

if TYPE_CHECKING:
    from ddpnas_ray.training.snapshot import Snapshot

# Ray Train looks after its workers this often; with its default of 2 s a lost worker costs that much more
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")  # the dashboard's page of trainings
STEP_S = 0.25  # between two reports of progress
RELEASE_S = 1.0  # between two looks for what dead controllers have reserved


@dataclass(frozen=True, slots=True)
class GroupSize:
    """Workers of a retraining, and the resources of each; fewer, down to ``least``, while nodes are missing."""

    workers: int
    least: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        count = f"{self.workers}" if self.least == self.workers else f"{self.least} to {self.workers}"
        return f"{count} worker(s) of {self.cpus:g} CPU and {self.gpus:g} GPU"


def group_size(retraining: Retraining) -> GroupSize:
    """Choose the workers of a retraining in the connected cluster.

    Raises:
        ResourceError: They do not fit, and the cluster does not autoscale.
    """
    config, recipe = retraining.config.execution, retraining.config.retraining
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    here = sum(node.get("GPU", 0.0) for node in nodes)
    asked = float(here > 0) if config.gpus_per_worker is None else config.gpus_per_worker
    gpus = float(math.ceil(asked))  # NCCL needs a GPU per worker
    cpus = float(recipe.threads) if config.cpus_per_worker is None else config.cpus_per_worker
    workers = recipe.workers or (max(1, int(here // gpus)) if gpus else 1)
    if gpus and config.gpus_per_worker is None:
        workers = min(workers, int(here // gpus))
    least = min(recipe.min_workers or workers, workers)
    fit = PoolSize(1, cpus, gpus).fitting(nodes)
    if fit < least and not config.elastic:
        keys = "retraining.workers, retraining.threads (or execution.cpus_per_worker)"
        keys += " or execution.gpus_per_worker" if gpus else ""
        raise ResourceError(
            f"retraining: {least} worker(s) of {cpus:g} CPU and {gpus:g} GPU are needed, {fit} fit into the cluster; "
            f"lower {keys}, or set retraining.min_workers, or execution.elastic=true if an autoscaler adds nodes"
        )
    return GroupSize(workers, least, cpus, gpus)


class RetrainingDriver:
    """Actor that runs a retraining and keeps its checkpoints. Threaded: it responds while ``run`` blocks.

    Args:
        out: The retraining's folder; it exists, and the command holds its lock.
        name: Name of this actor, by which workers find it.
        size: Workers, chosen once: another number after a restart would change the weights.
    """

    def __init__(self, out: str, name: str, size: GroupSize) -> None:
        self._out, self._name, self._size = out, name, size
        self._progress: RetrainingProgress | None = None
        self._keeper: Keeper | None = None
        self._retraining_ref: Any = None
        self._test_ref: Any = None
        self._pids: dict[int, int] = {}
        self._group = ""  # the worker group that trains now; what older ones still send is ignored
        self._error: DdpnasError | None = None
        self._running, self._writing = threading.Lock(), threading.Lock()

    def __repr__(self) -> str:
        return "ddpnas-retraining"

    def run(self, retraining: Retraining) -> dict[str, Any]:
        """Retrain to the end; idempotent, since every training starts from its newest checkpoint.

        Returns:
            The content of ``result.json``.
        """
        with self._running:  # after a broken connection Ray may call it again in a living process
            logging.basicConfig(level=logging.WARNING)
            logging.getLogger("ray.train").setLevel(logging.WARNING)
            folder, recipe = Folder.open(self._out), retraining.config.retraining
            append_log(folder, "driver", name=self._name, pid=os.getpid())
            progress = RetrainingProgress(retraining.chosen.label, retraining.seeds, recipe.epochs)
            progress.on_change = RetrainingMetrics(self._out, retraining.chosen.label).show
            self._progress, self._retraining_ref = progress, ray.put(retraining)
            progress.workers = self._size.workers

            def train(keeper: Keeper) -> Snapshot:
                self._keeper = keeper
                return self._fit(keeper, retraining)

            return retrain(retraining, folder, progress, train)

    def _fit(self, keeper: Keeper, retraining: Retraining) -> Snapshot:
        """Train one seed on Ray Train."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError

        recipe, size = retraining.config.retraining, self._size
        finished = keeper.restore()
        if finished is not None and finished.epoch == recipe.epochs:
            return finished
        with tempfile.TemporaryDirectory(prefix="ddpnas-train-") as bookkeeping:
            scaling: Any = ScalingConfig  # Ray's hints are those of version 1 of Ray Train
            running: Any = RunConfig
            trainer = TorchTrainer(
                _loop,
                train_loop_config={"driver": self._name, "namespace": NAMESPACE},
                scaling_config=scaling(
                    num_workers=size.workers if size.least == size.workers else (size.least, size.workers),
                    use_gpu=size.gpus > 0,
                    resources_per_worker={"CPU": size.cpus, **({"GPU": size.gpus} if size.gpus else {})},
                ),
                run_config=running(
                    name=self._name,
                    storage_path=bookkeeping,
                    failure_config=FailureConfig(max_failures=recipe.max_failures),
                    worker_runtime_env=level_env(retraining.config.training.cpu_isa),
                ),
            )
            try:
                with _orphans_released():
                    trainer.fit()
            except TrainingFailedError as error:
                if self._error is not None:
                    raise self._error from None
                last = str(error).strip().splitlines()[-1]
                raise WorkerLostError(
                    f"the retraining failed more than retraining.max_failures={recipe.max_failures} times (last: "
                    f"{last}); every finished epoch is saved: check memory and logs of the nodes, then --resume"
                ) from error
        if self._error is not None:
            raise self._error
        snapshot = keeper.restore()
        assert snapshot is not None and snapshot.epoch == recipe.epochs  # worker 0 saved it before it returned
        return snapshot

    @ray.method(enable_task_events=False)
    def begin(
        self, rank: int, world: int, pid: int, node: str, group: str
    ) -> tuple[list[Any], int, DdpnasError | None]:
        """Record a worker, and return what it starts with: the retraining (a reference in a list), the seed, an earlier
        own error, which a retry would only repeat."""
        assert self._keeper is not None
        seed = self._keeper.seed
        with self._writing:
            append_log(Folder.open(self._out), "worker", seed=seed, rank=rank, world=world, pid=pid, node=node)
            self._group = group
            self._pids = {other: p for other, p in self._pids.items() if other < world} | {rank: pid}
        return [self._retraining_ref], seed, self._error

    def restore(self) -> Snapshot | None:
        """Return the latest snapshot of the current seed."""
        assert self._keeper is not None
        with self._writing:
            return self._keeper.restore()

    def save(self, snapshot: Snapshot, group: str) -> None:
        """Seal a snapshot of the current seed; ignored from a group that was given up and does not know it yet."""
        assert self._keeper is not None
        with self._writing:
            if group == self._group:
                self._keeper.save(snapshot)

    def on_test(self) -> list[Any]:
        """Read the test examples, once; returns a reference to the task on them, or nothing."""
        assert self._keeper is not None
        with self._writing:
            if self._test_ref is None:
                task = self._keeper.on_test()
                self._test_ref = [] if task is None else [ray.put(task)]
            return list(self._test_ref)

    @ray.method(enable_task_events=False)
    def step(self, epoch: int, step: int, steps: int, world: int) -> None:
        """Record worker 0's progress."""
        if self._progress is not None:
            self._progress.workers = world
            self._progress.step(epoch, step, steps)

    def fail(self, error: DdpnasError) -> None:
        """Record an own error of a worker."""
        self._error = error

    @ray.method(enable_task_events=False)
    def status(self) -> dict[str, Any]:
        """Return the current progress, within milliseconds."""
        if self._progress is None:
            return {"phase": "starting", "note": "", "workers": 0, "driver_pid": os.getpid()}
        return self._progress.snapshot() | {"driver_pid": os.getpid(), "worker_pids": dict(self._pids)}


@contextmanager
def _orphans_released() -> Iterator[None]:
    """Release, during the block, what controllers of Ray Train that died have reserved.

    That of a killed driver may live for seconds, and reserve anew for workers that it sees fail. Ray Train's cleaner
    may not know of that, and the next group would wait for ever in a full cluster.
    """
    job, done = ray.get_runtime_context().get_job_id(), threading.Event()

    def release() -> None:
        while not done.wait(RELEASE_S):
            with suppress(ray.exceptions.RayError):  # such as while the head restarts: asked again
                for group in orphaned_groups(job):
                    ray.util.remove_placement_group(group)

    thread = threading.Thread(target=release, name="orphans", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _loop(settings: dict[str, Any]) -> None:
    """Train as one worker of a group."""
    import torch
    import torch.distributed as dist
    from ray import train

    from ddpnas_ray.training.fit import fit

    context = train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    placement: Any = ray.util.get_current_placement_group()
    node, group = ray.get_runtime_context().get_node_id(), placement.id.hex()
    driver: Any = ray.get_actor(settings["driver"], namespace=settings["namespace"])
    (reference,), seed, failed = ray.get(driver.begin.remote(rank, world, os.getpid(), node, group))
    if failed is not None:
        return
    retraining: Retraining = ray.get(reference)
    device = "cuda" if torch.cuda.is_available() and ray.get_gpu_ids() else "cpu"
    said_s = 0.0

    def restore() -> Snapshot | None:
        """Let worker 0 ask, so that all start from the same."""
        found = [ray.get(driver.restore.remote()) if rank == 0 else None]
        if world > 1:
            dist.broadcast_object_list(found, 0)
        return found[0]

    def on_test() -> Any:
        found = ray.get(driver.on_test.remote())
        return ray.get(found[0]) if found else None

    def on_step(epoch: int, step: int, steps: int) -> None:
        nonlocal said_s
        if rank == 0 and time.monotonic() - said_s > STEP_S:
            said_s = time.monotonic()
            driver.step.remote(epoch, step, steps, world)

    try:
        check_here(retraining, device)
        with gpu_faults(lost=False):
            fit(
                retraining.network(seed),
                retraining.task,
                retraining.config.retraining,
                rank,
                world,
                restore,
                lambda snapshot: ray.get(driver.save.remote(snapshot, group)),
                seed=seed,
                device=device,
                teacher=None if retraining.teacher is None else retraining.teacher.module().to(device),
                on_test=on_test,
                on_step=on_step,
                illustrate=True,
            )
    except DdpnasError as error:
        ray.get(driver.fail.remote(own_error(error)))
        raise


def start(retraining: Retraining, folder: Folder, size: GroupSize) -> Running:
    """Start a retraining in the connected cluster; see ``start_driver``."""
    options = {"max_concurrency": 16, "max_restarts": retraining.config.execution.max_crashes}
    return start_driver("retraining", RetrainingDriver, folder, retraining, size, **options)
