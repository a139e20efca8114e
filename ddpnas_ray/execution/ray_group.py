"""Groups: a worker that trains each architecture together with peers, processes of its own on the same node.

A peer holds no resources of Ray: the worker reserves CPUs and GPUs for all, so that Ray places, moves and restarts a
group as one actor. A peer ends with its worker, which owns it. Whatever fails, the worker ends all peers, and starts
new ones before the next architecture.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch.distributed as dist
from ray.exceptions import RayTaskError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.execution.local import evaluate_here
from ddpnas_ray.execution.ray_errors import INFRASTRUCTURE, own_error
from ddpnas_ray.nn.weights import Float32Array, Layout, joined
from ddpnas_ray.training.device import try_device
from ddpnas_ray.training.group import GroupBrokenError, ProcessGroup

TIMEOUT = timedelta(minutes=5)  # of one exchange: a peer that hangs ends the attempt
REASON_S = 10.0  # for a peer that broke an exchange to say why


class Peer:
    """Process that trains architectures together with its worker.

    Args:
        name: Name of the worker.
        rank: From 1; the worker is 0.
        gpu: Its GPU, one of the worker's; empty on CPUs.
    """

    def __init__(self, name: str, rank: int, gpu: str) -> None:
        self._name, self._rank = name, rank
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # Ray hides the GPUs from an actor that reserves none

    def __repr__(self) -> str:
        return f"{self._name}.{self._rank}"

    def started(self, device: str) -> int:
        """Return the process id, with imports done and the GPU tested."""
        try_device(device)
        return os.getpid()

    def join(self, port: int, world: int, device: str) -> None:
        """Join the worker's process group."""
        join(dist.TCPStore("127.0.0.1", port, timeout=TIMEOUT), self._rank, world, device)

    def evaluate(self, refs: Sequence[Any], request: EvalRequest, own: Layout) -> None:
        """Do this process's part of ``Worker.evaluate_together``."""
        try:
            evaluate_together(refs, request, own)
        except Exception:
            dist.destroy_process_group()  # else the others wait for this one
            raise


class Peers:
    """The peers of a worker.

    Args:
        name: Name of the worker.
        world: Processes of the group, the worker included.
    """

    def __init__(self, name: str, world: int) -> None:
        self._name, self._world = name, world
        self._peers: list[Any] = []

    def form(self, device: str) -> None:
        """Start the peers and connect them, if they are not.

        Raises:
            DeviceError: A peer cannot use its GPU.
        """
        if self._peers:
            return
        here = ray.get_runtime_context().get_node_id()
        actor = ray.remote(Peer).options(
            num_cpus=0, num_gpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False)
        )
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if device != "cpu" else [""] * self._world
        self._peers = [actor.remote(self._name, rank, gpus[rank]) for rank in range(1, self._world)]
        try:
            ray.get([peer.started.remote(device) for peer in self._peers])
            store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
            joining = [peer.join.remote(store.port, self._world, device) for peer in self._peers]
            join(store, 0, self._world, device)
            ray.get(joining)
        except Exception as error:
            self.end()
            found = own_error(error)
            if isinstance(found, RuntimeError) and not isinstance(found, INFRASTRUCTURE):
                raise WorkerCrashedError() from error  # a peer was lost while they connected
            raise found from None

    def pids(self) -> list[int]:
        """Process ids of the peers."""
        return list(ray.get([peer.started.remote("cpu") for peer in self._peers]))

    def evaluate(
        self, refs: Sequence[Any], request: EvalRequest, own: Layout, gpus: float
    ) -> tuple[EvalResult, Float32Array]:
        """Train and score one architecture together; see ``Worker.evaluate_together``.

        Raises:
            DdpnasError: As ``evaluate_here``, in any of the processes.
            RayError: A peer died, or does not answer.
        """
        parts = [peer.evaluate.remote(refs, request, own) for peer in self._peers]
        try:
            found = evaluate_together(refs, request, own, gpus)
            ray.get(parts)
        except GroupBrokenError as error:
            reason = _reason(parts)
            self.end()
            raise reason from error
        except Exception as error:
            self.end()
            raise own_error(error) from None
        return found

    def end(self) -> None:
        """End the peers, and with them the process group."""
        for peer in self._peers:
            ray.kill(peer)
        self._peers = []
        if dist.is_initialized():
            dist.destroy_process_group()


def _reason(parts: Sequence[Any]) -> Exception:
    """Return why an exchange broke: a peer's own error or death, or silence."""
    waiting = list(parts)
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=1, timeout=REASON_S)
        if not done:
            break
        try:
            ray.get(done)
        except INFRASTRUCTURE as error:
            return error
        except RayTaskError as error:
            if own_error(error) is not error:
                return own_error(error)
    return WorkerCrashedError()


def evaluate_together(
    refs: Sequence[Any], request: EvalRequest, own: Layout, gpus: float = 1.0
) -> tuple[EvalResult, Float32Array]:
    """Train and score one architecture as a member of this process's group.

    Args:
        refs: References to the trainer, the shared pieces with their layout, and the architecture's own pieces.
        request: The architecture.
        own: Layout of its own pieces.
        gpus: This process's share of a GPU.
    """
    trainer, (shared, flat_shared), flat_own = ray.get(list(refs))
    flat = np.concatenate([flat_shared, flat_own])
    return evaluate_here(trainer, request, joined(shared, own), flat, gpus=gpus, group=ProcessGroup())


def join(store: Any, rank: int, world: int, device: str) -> None:
    """Join a process group of one node: gloo on CPUs, NCCL on GPUs."""
    if Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else by the host's name, which need not resolve
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
