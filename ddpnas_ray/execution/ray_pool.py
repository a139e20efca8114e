"""The executor on Ray: long-lived worker actors, fed one architecture at a time, longest first.

The pool runs in the driver. Weights travel as flat arrays through the object store: down, one object with the pieces
that all architectures of the epoch share, and one per architecture with its own; up, one per architecture. Merging
waits for all of them and runs in architecture order, so the result does not depend on finishing order or on the number
of workers, given one kind of device: nodes may come and go in the middle of an epoch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayTaskError

from ddpnas_ray.core.errors import DeviceError, WorkerLostError
from ddpnas_ray.core.requests import EvalRequest, EvalResult, Work
from ddpnas_ray.execution.base import ExecutionConfig, OnResult, ignore_result
from ddpnas_ray.execution.failures import Attempts, Decision, decide
from ddpnas_ray.execution.ray_errors import INFRASTRUCTURE, WORKER_LOST, own_error
from ddpnas_ray.execution.ray_members import NODE_DEADLINE_S, Member, Members, PoolSize, finished, node_alive
from ddpnas_ray.nn.weights import Float32Array, Layout, Weights, joined, split_shared
from ddpnas_ray.training.trainer import Trainer

log = logging.getLogger(__name__)


class RayPool:
    """Executor that trains on Ray actors.

    Args:
        trainer: Trains any architecture; sent to every node once.
        config: Retry limits.
        size: Number and size of the workers.

    Raises:
        ResourceError: No worker fits into the cluster, or one cannot use its GPU.
    """

    def __init__(self, trainer: Trainer, config: ExecutionConfig, size: PoolSize) -> None:
        if size.elastic:
            config = replace(config, retry_deadline_s=max(config.retry_deadline_s, NODE_DEADLINE_S))
        self._config, self._size = config, size
        self._effort = trainer.spec.effort
        self._inputs = trainer.task.inputs
        self._shares = trainer.config.merge != "none"
        self._trainer_ref = ray.put(trainer)
        tensors, self._supernet = trainer.supernet()
        self._weights = Weights(tensors)
        self.work = Work()
        self._members = Members(self._trainer_ref, config, size, trainer.config.cpu_isa)

    @property
    def devices(self) -> Mapping[str, Mapping[str, Any]]:
        """See ``Executor``."""
        return self._members.devices

    @property
    def worker_names(self) -> tuple[str, ...]:
        """Names of the ready workers."""
        return tuple(member.name for member in self._members.ready)

    def worker_pids(self) -> dict[str, int]:
        """Process ids of the ready workers, by name."""
        return self._members.pids()

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
        evaluated: dict[int, tuple[EvalResult, Float32Array]] = {}
        running: dict[Any, tuple[int, Member, float]] = {}  # index, worker, time sent
        if self._size.elastic:
            self._members.resize(min(self._size.workers, len(requests)))

        while len(evaluated) < len(requests):
            busy = {member.name for _, member, _ in running.values()}
            self._members.leave_draining(busy)
            ready = self._members.ready
            for member in ready if todo else ():
                if member.name in busy or (i := _next(todo, member, avoid, alone=len(ready) == 1)) is None:
                    continue
                todo.remove(i)
                name = f"r{requests[i].round} e{requests[i].epoch} arch {i}"
                if self._size.group == 1:
                    call = member.actor.evaluate.options(name=name)
                    ref = call.remote(self._trainer_ref, requests[i], shared_ref, owns[i], own_refs[i])
                else:
                    call = member.actor.evaluate_together.options(name=name)
                    ref = call.remote([self._trainer_ref, shared_ref, own_refs[i]], requests[i], owns[i])
                running[ref] = (i, member, time.perf_counter())
            probes = self._members.probes()
            self._members.check_present(working=bool(running))
            for ref in finished([*running, *probes], timeout_s=0.25):
                if ref in probes:
                    self._members.probed(probes[ref])
                    continue
                i, member, sent = running.pop(ref)
                try:
                    result, learned = ray.get(ref)
                except (*INFRASTRUCTURE, DeviceError) as error:
                    ran_s, lost = time.perf_counter() - sent, own_error(error)
                    attempts[i] = self._lost(requests[i], shared, owns[i], member, lost, attempts[i], ran_s)
                    avoid[i] = member.name
                    todo.insert(0, i)
                    continue
                except RayTaskError as error:
                    raise own_error(error) from None
                self.work.bytes_moved += learned.nbytes
                self.work.transfer_s += time.perf_counter() - sent - result.seconds
                evaluated[i] = (result, learned)
                on_result(requests[i], result)

        start = time.perf_counter()
        self._weights.merge(
            [
                (joined(shared, own), evaluated[i][1])
                for i, own in enumerate(owns)
                if evaluated[i][0].ok and requests[i].train and self._shares
            ]
        )
        self.work.merge_s += time.perf_counter() - start
        return [evaluated[i][0] for i in range(len(requests))]

    def weights(self) -> Mapping[str, Float32Array]:
        """See ``Executor``."""
        return self._weights.tensors

    def load_weights(self, tensors: Mapping[str, Float32Array]) -> None:
        """See ``Executor``."""
        self._weights = Weights(tensors)

    def close(self) -> None:
        """End the workers."""
        self._members.close()

    def _put(self, value: Any) -> Any:
        self.work.bytes_moved += (value[1] if isinstance(value, tuple) else value).nbytes
        return ray.put(value)

    def _lost(
        self,
        request: EvalRequest,
        shared: Layout,
        own: Layout,
        member: Member,
        error: Exception,
        before: Attempts,
        ran_s: float,
    ) -> Attempts:
        """Record a failure; raise if it is one too many."""
        now_s = time.monotonic()
        worker_died = isinstance(error, (*WORKER_LOST, DeviceError))
        after = before.after(now_s, ran_s=ran_s, node_alive=node_alive(member.node), worker_died=worker_died)
        if worker_died:
            self._members.lost(member, error)
        self.work.retries += 1
        what = f"architecture {request.architecture} of round {request.round}, epoch {request.epoch}"
        why = str(error) if isinstance(error, DeviceError) else type(error).__name__
        if decide(after, now_s, self._config) is Decision.FAIL:
            mebibytes = 4 * (shared.size + own.size) / 2**20
            memory = "give workers more memory (fewer workers, smaller training.batch_size), then --resume"
            raise WorkerLostError(
                f"{what} could not be evaluated: its worker died {after.crashes} times on living nodes, "
                f"{after.failures} failures in total; alpha={[int(k) for k in request.alpha_E]}, "
                f"weights {mebibytes:.1f} MiB plus activations; last failure: {why}"
                + ("" if isinstance(error, DeviceError) else f"; {memory}")
            ) from error
        log.warning("%s was lost with %s (%s); retrying", what, member.name, why)
        return after


def _next(todo: Sequence[int], member: Member, avoid: Mapping[int, str], *, alone: bool) -> int | None:
    """Next most expensive architecture; skips the one this worker just lost unless no other worker is available."""
    return next((i for i in todo if alone or avoid.get(i) != member.name), None)
