"""The workers of a pool: how many fit; starting, probing, losing and moving them off draining nodes."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ddpnas_ray.core.errors import DeviceError, ResourceError, WorkerLostError
from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.execution import ray_internals
from ddpnas_ray.execution.base import ExecutionConfig
from ddpnas_ray.execution.failures import backoff_s
from ddpnas_ray.execution.local import evaluate_here
from ddpnas_ray.execution.mixed_devices import refuse_mixed
from ddpnas_ray.execution.ray_errors import INFRASTRUCTURE, own_error
from ddpnas_ray.execution.ray_group import Peers
from ddpnas_ray.nn.weights import Float32Array, Layout, joined
from ddpnas_ray.training.cpu_isa import level_variables
from ddpnas_ray.training.device import Device, find_device, try_device
from ddpnas_ray.training.trainer import Trainer

log = logging.getLogger(__name__)

READY_DEADLINE_S = 180.0  # for the first worker: importing torch from a cold disk is slow
LATE_S = 20.0  # after the first worker; later ones join when ready
NODE_DEADLINE_S = 1800.0  # replaces both on an elastic cluster, which has to provision and boot machines first
BROKEN_S = 30.0  # before an unusable GPU is tried again
Shared = tuple[Layout, Float32Array]


class Worker:
    """Process that trains architectures, alone or in a group with peers; stateless between two of them."""

    def __init__(self, name: str, gpus: float, group: int = 1) -> None:
        self._name, self._gpus = name, gpus
        self._peers = Peers(name, group) if group > 1 else None

    def __repr__(self) -> str:
        return self._name

    @ray.method(enable_task_events=False)
    def ready(self, trainer: Trainer) -> tuple[str, int, Device]:
        """Return node id, process id and device, with imports and data fetched, the GPU tested and peers started."""
        try_device(trainer.device)
        if self._peers is not None:
            self._peers.form(trainer.device)
        return ray.get_runtime_context().get_node_id(), os.getpid(), find_device(trainer.device)

    def evaluate(
        self, trainer: Trainer, request: EvalRequest, shared: Shared, own: Layout, flat_own: Float32Array
    ) -> tuple[EvalResult, Float32Array]:
        """Train and score one architecture from its slice; returns the new slice.

        ``trainer`` comes with every call, so a restarted process needs no set-up; its images are views of the node's
        object store.
        """
        import numpy as np

        layout, flat_shared = shared
        flat = np.concatenate([flat_shared, flat_own])
        result, learned = evaluate_here(trainer, request, joined(layout, own), flat, gpus=self._gpus)
        return self._signed(result), learned

    def evaluate_together(
        self, refs: Sequence[Any], request: EvalRequest, own: Layout
    ) -> tuple[EvalResult, Float32Array]:
        """As ``evaluate``, in a group: each process gets what ``refs`` refer to from the node's object store.

        Args:
            refs: References to the trainer, the shared pieces with their layout, and the architecture's own pieces.
            request: The architecture.
            own: Layout of its own pieces.
        """
        assert self._peers is not None
        self._peers.form(ray.get(refs[0]).device)
        result, learned = self._peers.evaluate(refs, request, own, self._gpus)
        return self._signed(result), learned

    def peer_pids(self) -> list[int]:
        """Process ids of the peers."""
        return [] if self._peers is None else self._peers.pids()

    def _signed(self, result: EvalResult) -> EvalResult:
        node = ray.get_runtime_context().get_node_id()
        return replace(result, worker=f"{self._name}/{os.getpid()}", node=node)


@dataclass(frozen=True, slots=True)
class PoolSize:
    """Number of workers, and the resources that Ray reserves for each; ``elastic``: a maximum, as nodes come and go;
    ``group``: processes of each, which share its resources."""

    workers: int
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    elastic: bool = False
    group: int = 1

    def __str__(self) -> str:
        most = "up to " if self.elastic else ""
        together = f" and {self.group} processes" if self.group > 1 else ""
        return (
            f"{most}{self.workers} worker(s) of {self.cpus_per_worker:g} CPU and {self.gpus_per_worker:g} GPU{together}"
        )

    def fitting(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """Count the workers that fit: each on one node, and a GPU share on a single GPU.

        Args:
            nodes: Free resources of every node.

        Example:
            >>> PoolSize(3, gpus_per_worker=0.6).fitting([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}])
            2
        """
        cpus, gpus = self.cpus_per_worker, self.gpus_per_worker
        fit = 0
        for node in nodes:
            here, free = _times(node.get("CPU", 0.0), cpus), node.get("GPU", 0.0)
            if gpus >= 1:
                here = min(here, _times(free, gpus))
            elif gpus:
                here = min(here, int(free) * _times(1.0, gpus) + _times(free % 1, gpus))
            fit += here
        return fit


def fitting_workers(config: ExecutionConfig, threads: int, architectures: int | None = None) -> PoolSize:
    """Choose number and size of the workers in the connected cluster.

    Args:
        config: The requested size.
        threads: CPU threads per worker.
        architectures: Architectures per epoch, the default number of workers of an elastic cluster.

    Raises:
        ResourceError: No worker fits on any node, or GPUs were requested and there are none.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    total = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
    gpus = config.gpus_per_worker if config.gpus_per_worker is not None else float(total["GPU"] > 0)
    cpus = float(threads) if config.cpus_per_worker is None else config.cpus_per_worker
    one = PoolSize(1, cpus * config.group, gpus * config.group, group=config.group)
    fit = one.fitting(nodes)
    if config.elastic:
        return replace(one, workers=config.workers or architectures or max(fit, 1), elastic=True)
    if fit < 1:
        raise ResourceError(
            f"execution: one worker needs {one.cpus_per_worker:g} CPU and {one.gpus_per_worker:g} GPU of one node; the "
            f"cluster has {_resources(total)} on {len(nodes)} node(s); lower execution.gpus_per_worker, "
            "execution.cpus_per_worker or execution.group, or set execution.elastic=true if an autoscaler adds nodes"
        )
    size = replace(one, workers=min(config.workers or fit, fit))
    if (config.workers or 0) > fit:
        log.warning("%d workers requested, %s fit into %s", config.workers, size, _resources(total))
    return size


@dataclass
class Member:
    """A worker as seen by the pool. ``probe`` is its pending readiness reply; ``left`` is the killed process, which may
    still reply once."""

    name: str
    actor: Any
    node: str = ""
    pid: int = 0
    left: tuple[str, int] | None = None
    ready: bool = False
    failures: int = 0
    probe: Any = None
    probe_at_s: float = 0.0

    def restart(self) -> None:
        """Kill its process; Ray starts another one, on another node if this one is full or draining."""
        ray.kill(self.actor, no_restart=False)
        self.left = (self.node, self.pid)
        self.ask_later()

    def ask_later(self) -> None:
        """Mark it as not ready; probe again after a backoff."""
        self.ready = False
        self.failures += 1
        self.probe_at_s = time.monotonic() + backoff_s(self.failures)


class Members:
    """The workers of one pool.

    Args:
        trainer_ref: Reference to the trainer, which a worker fetches before it is ready.
        config: Deadlines, and whether kinds of device may mix.
        size: Number and size of the workers.
        cpu_isa: Their instruction set; None: the CPU's best.

    Raises:
        ResourceError: No worker started, or one cannot use its GPU.
    """

    def __init__(self, trainer_ref: Any, config: ExecutionConfig, size: PoolSize, cpu_isa: str | None = None) -> None:
        self._trainer_ref, self._config, self._size = trainer_ref, config, size
        self._group = get_current_placement_group()
        self._actor_class = ray.remote(Worker).options(
            num_cpus=size.cpus_per_worker,
            num_gpus=size.gpus_per_worker,
            max_restarts=-1,
            max_task_retries=0,
            # Inside this process's placement group, if it has one; else spread over the nodes.
            scheduling_strategy="SPREAD" if self._group is None else PlacementGroupSchedulingStrategy(self._group),
            runtime_env=level_env(cpu_isa),
        )
        self._all: list[Member] = []
        self._gone_since_s: float | None = None
        self._last_failure = ""
        self.devices: dict[str, Mapping[str, Any]] = {}
        self.resize(size.workers)
        try:
            self._await_first()
        except Exception:
            self.close()
            raise

    def __iter__(self) -> Iterator[Member]:
        return iter(self._all)

    @property
    def ready(self) -> list[Member]:
        """Workers that replied to their last probe."""
        return [member for member in self._all if member.ready]

    def pids(self) -> dict[str, int]:
        """Process ids of the ready workers, by name."""
        return {m.name: ray.get(m.actor.ready.remote(self._trainer_ref))[1] for m in self.ready}

    def resize(self, workers: int) -> None:
        """Set the number of workers. Pending workers are the demand that an autoscaler sees; removed ones free nodes.

        Removed first: workers not started yet, then those with the fewest neighbours on their node, then the newest.
        """
        neighbours = Counter(member.node for member in self._all)
        self._all.sort(key=lambda m: (not m.ready, -neighbours[m.node], m.node))
        for member in self._all[workers:]:
            ray.kill(member.actor, no_restart=True)
        del self._all[workers:]
        taken = {member.name for member in self._all}
        free = (name for i in count() if (name := f"ddpnas-worker-{i}") not in taken)
        gpus = self._size.gpus_per_worker / self._size.group
        for name in islice(free, workers - len(taken)):
            self._all.append(Member(name, self._actor_class.remote(name, gpus, self._size.group)))

    def close(self) -> None:
        """End all workers."""
        self.resize(0)

    def lost(self, member: Member, error: Exception) -> None:
        """Handle a worker that died, or whose GPU failed and whose process must end."""
        if isinstance(error, DeviceError):
            self._last_failure = str(error)
            member.restart()
        else:
            member.ask_later()

    def probes(self) -> dict[Any, Member]:
        """Probe workers that are not ready and whose backoff is over; returns all pending probes."""
        for member in self._all:
            if not member.ready and member.probe is None and time.monotonic() >= member.probe_at_s:
                member.probe = member.actor.ready.remote(self._trainer_ref)
        return {member.probe: member for member in self._all if member.probe is not None}

    def probed(self, member: Member, *, starting: bool = False) -> None:
        """Handle a finished probe.

        Args:
            member: The probed worker.
            starting: An unusable GPU ends the search; later the other workers continue without it.
        """
        probe, member.probe = member.probe, None
        try:
            member.node, member.pid, device = ray.get(probe)
        except INFRASTRUCTURE:
            member.ask_later()
        except RayTaskError as error:
            cause = own_error(error)
            if starting or not isinstance(cause, DeviceError):
                raise cause from None
            log.warning("%s is excluded for now: %s", member.name, cause)
            self.lost(member, cause)
            member.probe_at_s = time.monotonic() + BROKEN_S
        else:
            if self._config.mixed_devices == "refuse":
                refuse_mixed([*self.devices, device.kind])  # before it evaluates anything
            self.devices[device.kind] = device.details
            member.ready, member.failures = (member.node, member.pid) != member.left, 0
            member.probe_at_s = time.monotonic() + backoff_s(1)

    def check_present(self, *, working: bool) -> None:
        """Raise if no worker has been available for too long."""
        now_s = time.monotonic()
        if working or self.ready:
            self._gone_since_s = None
        elif self._gone_since_s is None:
            self._gone_since_s = now_s
        elif now_s - self._gone_since_s > self._config.retry_deadline_s:
            why = f" ({self._last_failure})" if self._last_failure else ""
            raise WorkerLostError(
                f"no worker came back within {self._config.retry_deadline_s:g} s{why}; every finished epoch is saved: "
                "check the nodes (ray status), then --resume"
            )

    def leave_draining(self, busy: Collection[str]) -> None:
        """Restart workers of draining nodes elsewhere, once they have finished their evaluation.

        A worker without room waits while the others continue. The last workers of a cluster that does not grow stay
        until their node is gone, as do workers in a placement group, which cannot move.
        """
        if self._group is not None:
            return
        draining = ray_internals.draining_nodes()
        leaving = [m for m in self.ready if m.node in draining]
        if not leaving:
            return
        stays = any(m.node not in draining for m in self.ready) or self._size.fitting(
            free for node, free in ray_internals.free_by_node().items() if node not in draining
        )
        if not (self._size.elastic or stays):
            return
        for member in leaving:
            if member.name not in busy:
                log.warning("the node of %s is draining; restarting the worker elsewhere", member.name)
                member.restart()

    def _await_first(self) -> None:
        """Wait for the first worker up to a deadline, and briefly for the others; late ones join later."""
        ready_s, late_s = (NODE_DEADLINE_S, 0.0) if self._size.elastic else (READY_DEADLINE_S, LATE_S)
        start_s, first_s = time.monotonic(), float("inf")
        while len(self.ready) < len(self._all):
            now_s = time.monotonic()
            if self.ready:
                first_s = min(first_s, now_s)
            elif now_s - start_s > ready_s:
                raise ResourceError(
                    f"execution: none of {self._size} started within {ready_s:g} s; "
                    f"available: {_resources(ray.available_resources())}"
                )
            if now_s - first_s >= late_s:
                level = logging.INFO if self._size.elastic else logging.WARNING
                log.log(level, "%d of %s started; others will join when there is room", len(self.ready), self._size)
                return
            probes = self.probes()
            for ref in finished(list(probes), timeout_s=0.5):
                self.probed(probes[ref], starting=True)


def finished(refs: list[Any], timeout_s: float) -> list[Any]:
    """Wait for the first results; returns all that are there: one wait for each would take n^2 time for n workers."""
    if not refs:
        time.sleep(0.05)
        return []
    done, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
    return done or ray.wait(refs, num_returns=1, timeout=timeout_s)[0]


def node_alive(node_id: str) -> bool:
    """Return whether a node is alive."""
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def _times(free: float, each: float) -> int:
    """Return how often a share fits, allowing for Ray's rounding."""
    return int(free / each + 1e-9)


def _resources(resources: Mapping[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPU, {resources.get('GPU', 0):g} GPU"


def level_env(level: str | None) -> dict[str, Any] | None:
    """Return the runtime environment for processes at ``training.cpu_isa``."""
    return {"env_vars": level_variables(level)} if level else None
