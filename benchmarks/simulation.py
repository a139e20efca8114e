"""Discrete-event simulation of a Ray pool: workers that are slow, crash or are preempted, without a single process.

``SimulatedPool`` is an ``Executor``, so the real search loop and the real strategy drive it: N falls as pruning prunes.
It hands out architectures as ``RayPool`` does: longest first, lost ones before all others, under the same retry policy.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from ddpnas_ray.core.errors import WorkerLostError
from ddpnas_ray.core.requests import EvalRequest, EvalResult, Work
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.execution.base import ExecutionConfig, OnResult, ignore_result
from ddpnas_ray.execution.failures import Attempts, Decision, decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Workers, and what happens to them. A worker is a group of GPUs where several train one architecture.

    Args:
        workers: Number of workers.
        start_s: From the start to the first architecture.
        crashes_per_hour: Crashes of a worker per hour; its evaluation is lost.
        restart_s: From a crash until the worker is ready again on its node.
        slow_share: Share of workers that are stragglers.
        slow_factor: Times as long that these take.
        preemptions_per_hour: Preemptions of a worker's spot node per hour.
        notice_s: Warning before the node goes. The worker gets no new work, and leaves when its evaluation ends.
        replace_s: From the loss of a node until a worker is ready on a new one.
    """

    workers: int
    start_s: float = 0.0
    crashes_per_hour: float = 0.0
    restart_s: float = 20.0
    slow_share: float = 0.0
    slow_factor: float = 1.0
    preemptions_per_hour: float = 0.0
    notice_s: float = 0.0
    replace_s: float = 300.0


@dataclass
class _Worker:
    """``life`` counts its processes; events of an earlier one are stale."""

    factor: float
    node_since_s: float | None = 0.0
    life: int = 0
    present: bool = True
    leaving: bool = False
    running: int | None = None
    began_s: float = 0.0


class SimulatedPool:
    """Executor that only lets time pass.

    Args:
        cluster: The workers.
        outcome: Request -> its result; ``seconds`` is how long a usual worker takes.
        effort: alpha_E -> relative time, by which the pool orders an epoch's architectures.
        between_s: Number of architectures -> seconds of transfer, merge and checkpoint after an epoch.
        config: Retry limits.
        seed: Keys crashes, preemptions and who is slow.
    """

    def __init__(
        self,
        cluster: Cluster,
        outcome: Callable[[EvalRequest], EvalResult],
        effort: Callable[[IntArray], float],
        between_s: Callable[[int], float],
        config: ExecutionConfig | None = None,
        seed: int = 0,
    ) -> None:
        self._cluster, self._outcome, self._effort, self._between_s = cluster, outcome, effort, between_s
        self._config, self._rng = config or ExecutionConfig(), np.random.default_rng(seed)
        self.now_s, self.busy_s, self.preemptions = cluster.start_s, 0.0, 0
        self.work = Work()
        self.devices: Mapping[str, Mapping[str, Any]] = {}
        self._held_s = 0.0
        self._events: list[tuple[float, int, str, _Worker, int]] = []
        self._number = count()
        slow = self._rng.random(cluster.workers) < cluster.slow_share
        self._workers = [_Worker(cluster.slow_factor if one else 1.0) for one in slow]
        for worker in self._workers:
            self._live(worker)

    @property
    def held_s(self) -> float:
        """Seconds for which workers had a node, summed: what a cloud charges."""
        since = [worker.node_since_s for worker in self._workers]
        return self._held_s + sum(self.now_s - since_s for since_s in since if since_s is not None)

    def evaluate(self, requests: Sequence[EvalRequest], on_result: OnResult | None = None) -> list[EvalResult]:
        """See ``Executor``."""
        on_result = on_result or ignore_result
        outcomes = [self._outcome(request) for request in requests]
        todo = sorted(range(len(requests)), key=lambda i: -self._effort(requests[i].alpha_E))
        attempts = [Attempts() for _ in requests]
        done: dict[int, EvalResult] = {}
        while len(done) < len(requests):
            for name, worker in enumerate(self._workers):
                if todo and worker.present and not worker.leaving and worker.running is None:
                    i = todo.pop(0)
                    seconds = outcomes[i].seconds * worker.factor
                    worker.running, worker.began_s = i, self.now_s
                    outcomes[i] = replace(outcomes[i], worker=str(name))
                    self._later(seconds, "done", worker)
            time_s, _, kind, worker, life = heapq.heappop(self._events)
            if life != worker.life:
                continue
            self.now_s = max(self.now_s, time_s)  # some came while the driver merged
            running = worker.running
            if kind == "back":
                worker.present = True
                worker.node_since_s = time_s if worker.node_since_s is None else worker.node_since_s
                self._live(worker)
            elif kind == "done":
                assert running is not None
                self._stop(worker)
                done[running] = outcomes[running]
                on_result(requests[running], outcomes[running])
                if worker.leaving:
                    self._leave(worker, node_gone=True)
            elif kind == "notice":
                self.preemptions += 1
                worker.leaving = True
                self._later(self._cluster.notice_s if running is not None else 0.0, "gone", worker)
            else:  # a crash, or the node is gone
                node_gone = kind == "gone" or worker.leaving
                if running is not None:
                    self._stop(worker)
                    ran_s = self.now_s - worker.began_s
                    attempts[running] = self._lost(attempts[running], ran_s, node_alive=not node_gone)
                    todo.insert(0, running)
                self._leave(worker, node_gone=node_gone)
        self.now_s += self._between_s(len(requests))
        return [done[i] for i in range(len(requests))]

    def weights(self) -> Mapping[str, Any]:
        """See ``Executor``; there are none."""
        return {}

    def load_weights(self, tensors: Mapping[str, Any]) -> None:
        """See ``Executor``."""

    def close(self) -> None:
        """Nothing to release."""

    def _later(self, seconds: float, kind: str, worker: _Worker) -> None:
        heapq.heappush(self._events, (self.now_s + seconds, next(self._number), kind, worker, worker.life))

    def _live(self, worker: _Worker) -> None:
        """Draw when a worker that has just started crashes and is preempted."""
        for kind, rate in (("crash", self._cluster.crashes_per_hour), ("notice", self._cluster.preemptions_per_hour)):
            if rate:
                self._later(self._rng.exponential(3600 / rate), kind, worker)

    def _stop(self, worker: _Worker) -> None:
        self.busy_s += self.now_s - worker.began_s
        worker.running = None

    def _leave(self, worker: _Worker, *, node_gone: bool) -> None:
        """Take a worker away until it has restarted, or has another node."""
        if node_gone and worker.node_since_s is not None:
            self._held_s += self.now_s - worker.node_since_s
            worker.node_since_s = None
        worker.present, worker.leaving = False, False
        worker.life += 1
        self._later(self._cluster.replace_s if node_gone else self._cluster.restart_s, "back", worker)

    def _lost(self, before: Attempts, ran_s: float, *, node_alive: bool) -> Attempts:
        after = before.after(self.now_s, ran_s=ran_s, node_alive=node_alive, worker_died=True)
        self.work.retries += 1
        if decide(after, self.now_s, self._config) is Decision.FAIL:
            raise WorkerLostError(f"an architecture was lost {after.failures} times, {after.crashes} times by crashes")
        return after
