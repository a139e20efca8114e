"""The executor on Ray: long-lived worker actors, fed one architecture at a time, longest first.

The pool runs in the driver. Weights travel as flat arrays through the object store: down, one object with the pieces
that all architectures of the epoch share and one an architecture with its own; up, one an architecture. Merging waits
until all are in and goes in architecture order, so the result does not depend on who finished when, nor on how many
workers there were, as long as all are of one kind of device: nodes may come and go in the middle of an epoch.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import Any

import ray
from ray._private.state import state as cluster_state
from ray.exceptions import (
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.util import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ddpnas_ray.core.errors import DdpnasError, ResourceError, WorkerLostError
from ddpnas_ray.core.requests import EvalRequest, EvalResult, Work
from ddpnas_ray.execution.base import ExecutionConfig, OnResult, ignore_result
from ddpnas_ray.execution.failures import Attempts, Decision, backoff_s, decide
from ddpnas_ray.execution.mixed_devices import refuse_mixed
from ddpnas_ray.nn.weights import Float32Array, Layout, Weights, joined, split_shared
from ddpnas_ray.training.device import Device, find_device
from ddpnas_ray.training.trainer import Trainer

log = logging.getLogger(__name__)

READY_DEADLINE_S = 180.0  # for the first worker: importing torch on a cold disk takes its time
LATE_S = 20.0  # after the first; a worker that comes later joins then
NODE_DEADLINE_S = 1800.0  # instead of both on an elastic cluster, where a machine is bought, booted and set up first
WORKER_LOST = (RayActorError, NodeDiedError, OutOfMemoryError, WorkerCrashedError)
INFRASTRUCTURE = (*WORKER_LOST, ObjectLostError, RaySystemError, GetTimeoutError, ActorUnschedulableError)
Shared = tuple[Layout, Float32Array]


class Worker:
    """One process that trains architectures; it keeps nothing between two of them."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    @ray.method(enable_task_events=False)
    def ready(self, trainer: Trainer) -> tuple[str, int, Device]:
        """Node id, process id and device, once everything that training needs has been imported and fetched."""
        return ray.get_runtime_context().get_node_id(), os.getpid(), find_device(trainer.device)

    def evaluate(
        self, trainer: Trainer, request: EvalRequest, shared: Shared, own: Layout, flat_own: Float32Array
    ) -> tuple[EvalResult, Float32Array]:
        """Train and score one architecture from its slice; returns the new slice.

        ``trainer`` comes with every call, so that a restarted process needs no second set-up; its images are views of
        the node's object store.
        """
        import numpy as np

        layout, flat_shared = shared
        flat = np.concatenate([flat_shared, flat_own])
        result, learned = trainer.train_and_score(request, joined(layout, own), flat)
        node = ray.get_runtime_context().get_node_id()
        return replace(result, worker=f"{self._name}/{os.getpid()}", node=node), learned


@dataclass(frozen=True, slots=True)
class PoolSize:
    """How many workers there are, and what Ray reserves for each; ``elastic``: at most so many, as nodes come."""

    workers: int
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    elastic: bool = False

    def __str__(self) -> str:
        most = "up to " if self.elastic else ""
        return f"{most}{self.workers} worker(s) of {self.cpus_per_worker:g} CPU and {self.gpus_per_worker:g} GPU"


@dataclass
class _Member:
    """A worker as the pool sees it. ``probe`` is the pending answer that says it lives (again); ``left`` is the process
    that was told to end on a draining node, and may answer once more."""

    name: str
    actor: Any
    node: str = ""
    pid: int = 0
    left: tuple[str, int] | None = None
    ready: bool = False
    failures: int = 0
    probe: Any = None
    probe_at_s: float = 0.0


class RayPool:
    """Trains on Ray actors.

    Args:
        trainer: Trains any architecture; sent to every node once.
        config: How long to retry.
        size: Number and size of the workers.

    Raises:
        ResourceError: Not even one worker fits into the cluster.
    """

    def __init__(self, trainer: Trainer, config: ExecutionConfig, size: PoolSize) -> None:
        if size.elastic:
            config = replace(config, retry_deadline_s=max(config.retry_deadline_s, NODE_DEADLINE_S))
        self._config, self._size = config, size
        self._reserved = get_current_placement_group()
        self._effort = trainer.spec.effort
        self._inputs = trainer.task.inputs
        self._trainer_ref = ray.put(trainer)
        tensors, self._supernet = trainer.supernet()
        self._weights = Weights(tensors)
        self.work = Work()
        self.devices: dict[str, Mapping[str, Any]] = {}
        self._actor_class = ray.remote(Worker).options(
            num_cpus=size.cpus_per_worker,
            num_gpus=size.gpus_per_worker,
            max_restarts=-1,
            max_task_retries=0,
            scheduling_strategy=self._strategy(),
        )
        self._members: list[_Member] = []
        self._resize(size.workers)
        self._await_members()

    @property
    def worker_names(self) -> tuple[str, ...]:
        """The workers that are ready."""
        return tuple(member.name for member in self._members if member.ready)

    def worker_pids(self) -> dict[str, int]:
        """Process ids of the ready workers, by name."""
        return {m.name: ray.get(m.actor.ready.remote(self._trainer_ref))[1] for m in self._members if m.ready}

    def evaluate(self, requests: Sequence[EvalRequest], on_result: OnResult | None = None) -> list[EvalResult]:
        """See ``Executor``."""
        on_result = on_result or ignore_result
        start = time.perf_counter()
        shared, owns = split_shared([self._supernet.pieces(request.alpha_E) for request in requests])
        shared_ref = self._put((shared, self._weights.cut(shared)))
        own_refs = [self._put(self._weights.cut(own)) for own in owns]
        self.work.transfer_s += time.perf_counter() - start
        todo = sorted(range(len(requests)), key=lambda i: -self._effort(requests[i].alpha_E, self._inputs))
        attempts = [Attempts() for _ in requests]
        avoid: dict[int, str] = {}
        answers: dict[int, tuple[EvalResult, Float32Array]] = {}
        running: dict[Any, tuple[int, _Member, float]] = {}  # with when it was sent
        nobody_since_s: float | None = None
        if self._size.elastic:
            self._resize(min(self._size.workers, len(requests)))

        while len(answers) < len(requests):
            busy = {member.name for _, member, _ in running.values()}
            self._leave_draining(busy)
            for member in [m for m in self._members if m.ready and m.name not in busy]:
                if (i := self._next(todo, member, avoid)) is None:
                    continue
                todo.remove(i)
                call = member.actor.evaluate.options(name=f"r{requests[i].round} e{requests[i].epoch} arch {i}")
                ref = call.remote(self._trainer_ref, requests[i], shared_ref, owns[i], own_refs[i])
                running[ref] = (i, member, time.perf_counter())
            self._probe_lost()
            nobody_since_s = self._nobody(running, nobody_since_s)
            probes = {m.probe: m for m in self._members if m.probe is not None}
            done, _ = ray.wait([*running, *probes], num_returns=1, timeout=0.25)
            for ref in done:
                if ref in probes:
                    self._probed(probes[ref])
                    continue
                i, member, sent = running.pop(ref)
                try:
                    result, learned = ray.get(ref)
                except INFRASTRUCTURE as error:
                    attempts[i] = self._lost(requests[i], owns[i], shared, member, error, attempts[i])
                    avoid[i] = member.name
                    todo.insert(0, i)
                    continue
                except RayTaskError as error:
                    raise own_error(error) from None
                self.work.bytes_moved += learned.nbytes
                self.work.transfer_s += time.perf_counter() - sent - result.seconds
                answers[i] = (result, learned)
                on_result(requests[i], result)

        start = time.perf_counter()
        self._weights.merge(
            [
                (joined(shared, own), answers[i][1])
                for i, own in enumerate(owns)
                if answers[i][0].ok and requests[i].train
            ]
        )
        self.work.merge_s += time.perf_counter() - start
        return [answers[i][0] for i in range(len(requests))]

    def weights(self) -> Mapping[str, Float32Array]:
        """See ``Executor``."""
        return self._weights.tensors

    def load_weights(self, tensors: Mapping[str, Float32Array]) -> None:
        """See ``Executor``."""
        self._weights = Weights(tensors)

    def close(self) -> None:
        """End the workers."""
        for member in self._members:
            ray.kill(member.actor, no_restart=True)
        self._members = []

    def _strategy(self) -> Any:
        """Within what is reserved for this process, where something is; else spread over the nodes."""
        return "SPREAD" if self._reserved is None else PlacementGroupSchedulingStrategy(self._reserved)

    def _resize(self, workers: int) -> None:
        """Have so many workers. A pending one is the demand that an autoscaler sees; one that ends frees its node.

        Who goes first: who has not started yet, then who shares a node with the fewest others, then who came last.
        """
        neighbours = Counter(member.node for member in self._members)
        self._members.sort(key=lambda m: (not m.ready, -neighbours[m.node], m.node))
        for member in self._members[workers:]:
            ray.kill(member.actor, no_restart=True)
        del self._members[workers:]
        taken = {member.name for member in self._members}
        free = (name for i in count() if (name := f"ddpnas-worker-{i}") not in taken)
        self._members += [_Member(name, self._actor_class.remote(name)) for name in islice(free, workers - len(taken))]

    def _leave_draining(self, busy: Container[str]) -> None:
        """Start workers again elsewhere whose node is about to go. What one is busy with it may finish.

        A worker for which there is no room waits for some, and the others go on. The last ones of a cluster that does
        not grow stay to the end of their node, and so do workers in a placement group, which has no other place.
        """
        if self._reserved is not None:
            return
        draining = cluster_state.get_draining_nodes()
        leaving = [m for m in self._members if m.ready and m.node in draining]
        if not leaving or not (self._size.elastic or self._place_elsewhere(draining)):
            return
        for member in leaving:
            if member.name not in busy:
                log.warning("the node of %s is being drained; the worker starts again elsewhere", member.name)
                ray.kill(member.actor, no_restart=False)
                member.ready, member.left = False, (member.node, member.pid)
                member.probe_at_s = time.monotonic() + backoff_s(1)

    def _place_elsewhere(self, draining: Container[str]) -> bool:
        """Whether a worker is ready, or would fit, on a node that stays."""
        if any(m.ready and m.node not in draining for m in self._members):
            return True
        return any(
            free.get("CPU", 0) >= self._size.cpus_per_worker and free.get("GPU", 0) >= self._size.gpus_per_worker
            for node, free in cluster_state.available_resources_per_node().items()
            if node not in draining
        )

    def _put(self, value: Any) -> Any:
        self.work.bytes_moved += (value[1] if isinstance(value, tuple) else value).nbytes
        return ray.put(value)

    def _next(self, todo: Sequence[int], member: _Member, avoid: Mapping[int, str]) -> int | None:
        """The longest architecture left, one that this member has just lost only if nobody else is there."""
        others = any(m.ready for m in self._members if m is not member)
        return next((i for i in todo if not (others and avoid.get(i) == member.name)), None)

    def _lost(
        self, request: EvalRequest, own: Layout, shared: Layout, member: _Member, error: Exception, before: Attempts
    ) -> Attempts:
        """Note a failure; raise when it is one too many."""
        now_s = time.monotonic()
        worker_died = isinstance(error, WORKER_LOST)
        after = before.after(now_s, node_alive=_node_alive(member.node), worker_died=worker_died)
        if worker_died:
            member.ready, member.failures = False, member.failures + 1
            member.probe_at_s = now_s + backoff_s(member.failures)
        self.work.retries += 1
        what = f"architecture {request.architecture} of round {request.round}, epoch {request.epoch}"
        if decide(after, now_s, self._config) is Decision.FAIL:
            mebibytes = 4 * (shared.size + own.size) / 2**20
            raise WorkerLostError(
                f"{what} could not be evaluated: its worker died {after.crashes} times on living nodes, "
                f"{after.failures} failures in all ({type(error).__name__}); "
                f"alpha={[int(k) for k in request.alpha_E]}, weights {mebibytes:.1f} MiB plus activations; "
                "give workers more memory (fewer workers, smaller training.batch_size), then --resume"
            ) from error
        log.warning("%s was lost with %s (%s); it is evaluated again", what, member.name, type(error).__name__)
        return after

    def _probe_lost(self) -> None:
        for member in self._members:
            if not member.ready and member.probe is None and time.monotonic() >= member.probe_at_s:
                member.probe = member.actor.ready.remote(self._trainer_ref)

    def _probed(self, member: _Member) -> None:
        try:
            member.node, member.pid, there = ray.get(member.probe)
            self._join(there)
            member.ready, member.failures = (member.node, member.pid) != member.left, 0
            member.probe_at_s = time.monotonic() + backoff_s(1)
        except INFRASTRUCTURE:
            member.failures += 1
            member.probe_at_s = time.monotonic() + backoff_s(member.failures)
        except RayTaskError as error:
            raise own_error(error) from None
        member.probe = None

    def _join(self, there: Device) -> None:
        """Note the kind of a worker's device, before it evaluates anything."""
        if self._config.mixed_devices == "refuse":
            try:
                refuse_mixed([*self.devices, there.kind])
            except ResourceError:
                self.close()
                raise
        self.devices[there.kind] = there.details

    def _nobody(self, running: Mapping[Any, object], since_s: float | None) -> float | None:
        """Since when no worker has been there at all; raises when that is too long."""
        if running or any(member.ready for member in self._members):
            return None
        now_s = time.monotonic()
        since_s = now_s if since_s is None else since_s
        if now_s - since_s > self._config.retry_deadline_s:
            raise WorkerLostError(
                f"no worker came back within {self._config.retry_deadline_s:g} s; every finished epoch is saved: "
                "look at the nodes (ray status), then --resume"
            )
        return since_s

    def _await_members(self) -> None:
        """Wait for the workers: for the first up to a deadline, for the others not long. Late ones join later."""
        ready_s, late_s = (NODE_DEADLINE_S, 0.0) if self._size.elastic else (READY_DEADLINE_S, LATE_S)
        start_s, first_s = time.monotonic(), float("inf")
        while not all(member.ready for member in self._members):
            now_s = time.monotonic()
            if any(member.ready for member in self._members):
                first_s = min(first_s, now_s)
            elif now_s - start_s > ready_s:
                self.close()
                raise ResourceError(
                    f"execution: none of {self._size} started within {ready_s:g} s; "
                    f"available: {_resources(ray.available_resources())}"
                )
            if now_s - first_s >= late_s:
                level = logging.INFO if self._size.elastic else logging.WARNING
                log.log(level, "%d of %s started; others join when there is room", len(self.worker_names), self._size)
                return
            self._probe_lost()
            probes = {member.probe: member for member in self._members if member.probe is not None}
            done, _ = ray.wait(list(probes), num_returns=1, timeout=0.5) if probes else ([], [])
            for ref in done:
                self._probed(probes[ref])
            if not probes:
                time.sleep(0.05)


def fitting_workers(config: ExecutionConfig, threads: int, architectures: int | None = None) -> PoolSize:
    """How many workers to start in the connected cluster, and how large.

    Args:
        config: What was asked for.
        threads: CPU threads of one worker.
        architectures: How many there are at once; an elastic cluster is asked for one worker each.

    Raises:
        ResourceError: GPUs were asked for and there are none, or not one worker fits.
    """
    total = ray.cluster_resources()
    gpus = config.gpus_per_worker if config.gpus_per_worker is not None else float(total.get("GPU", 0) > 0)
    cpus = float(threads) if config.cpus_per_worker is None else config.cpus_per_worker
    fit = int(total.get("CPU", 0) / cpus + 1e-9)
    if gpus:
        fit = min(fit, int(total.get("GPU", 0) / gpus + 1e-9))
    if config.elastic:
        return PoolSize(config.workers or architectures or max(fit, 1), cpus, gpus, elastic=True)
    if fit < 1:
        raise ResourceError(
            f"execution: one worker needs {cpus:g} CPU and {gpus:g} GPU; the cluster has {_resources(total)}; "
            "lower execution.gpus_per_worker or execution.cpus_per_worker, or set execution.elastic=true where an "
            "autoscaler adds nodes"
        )
    size = PoolSize(min(config.workers or fit, fit), cpus, gpus)
    if (config.workers or 0) > fit:
        log.warning("%d workers were asked for, %s fit into %s", config.workers, size, _resources(total))
    return size


def own_error(error: RayTaskError) -> Exception:
    """The package's own error inside one that Ray wrapped on its way out of a process; Ray's otherwise."""
    return error.cause if isinstance(error.cause, DdpnasError) else error


def fetched(ref: Any, lost: str) -> Any:
    """The result of a task.

    Args:
        ref: The task's reference.
        lost: What to say where Ray has given up repeating it; the error's name follows in brackets.

    Raises:
        DdpnasError: What the task raised.
        WorkerLostError: Its process died again and again.
    """
    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise own_error(error) from None
    except INFRASTRUCTURE as error:
        raise WorkerLostError(f"{lost} ({type(error).__name__})") from error


def _node_alive(node_id: str) -> bool:
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def _resources(resources: Mapping[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPU, {resources.get('GPU', 0):g} GPU"
