"""The ``Executor`` protocol: train and score architectures, and own the shared weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt

from ddpnas_ray.core.requests import EvalRequest, EvalResult, Work

OnResult = Callable[[EvalRequest, EvalResult], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionConfig:
    """Section ``execution``: where the work runs. On one kind of device no key here changes the result of a
    search; the weights of a retraining depend on its number of workers too."""

    backend: Literal["ray", "local"] = "ray"
    """ray: concurrent workers on this machine or a cluster; local: in this process, the reference"""
    workers: Annotated[int, Ge(1)] | None = None
    """Worker actors; null: one per GPU, or one per CPU if there are no GPUs"""
    gpus_per_worker: Annotated[float, Ge(0.0)] | None = None
    """GPUs per worker, fractions allowed (0.5: two workers share one GPU and its memory); null: 1 if there are GPUs,
    else 0. GPU and CPU results differ"""
    cpus_per_worker: Annotated[float, Gt(0.0)] | None = None
    """CPUs that Ray reserves per worker; null: training.threads"""
    group: Annotated[int, Ge(1)] = 1
    """Processes of one node that train each architecture together; it must divide training.shards. A worker is then
    such a group, with group times the CPUs and GPUs. backend local trains alone"""
    elastic: bool = False
    """The cluster autoscales: request workers that do not fit yet, release idle ones"""
    retry_deadline_s: Annotated[float, Gt(0.0)] = 120.0
    """How long an architecture is retried after lost workers, nodes or objects; attempts that ran for longer than
    this are repeated, 20 times"""
    max_crashes: Annotated[int, Ge(1)] = 3
    """Crashes that end the search: of workers on living nodes (or their GPUs) under one architecture, or of the driver
    in one epoch"""
    overlap_checkpoints: bool = False
    """Write a checkpoint while the next epoch trains, for epochs of seconds; a kill may then lose one epoch more"""
    mixed_devices: Literal["warn", "refuse"] = "warn"
    """Warn about, or refuse, workers on different kinds of CPU or GPU, whose results differ in the last bits"""


class Executor(Protocol):
    """Trains and scores architectures. On one kind of device (``training.device``), equal requests on equal weights
    give bit-equal results from any executor."""

    work: Work

    @property
    def devices(self) -> Mapping[str, Mapping[str, Any]]:
        """Details of the workers' devices by kind; empty if nothing is trained."""
        ...

    def evaluate(self, requests: Sequence[EvalRequest], on_result: OnResult | None = None) -> list[EvalResult]:
        """Evaluate one epoch's architectures and merge the trained weights into the shared ones.

        Args:
            requests: The architectures; all start from the same weights.
            on_result: Called with each result as it arrives, in any order.

        Returns:
            One result per request, in request order; ``ok`` is False if the loss was not finite.

        Raises:
            WorkerLostError: An architecture could not be evaluated before the deadline.
        """
        ...

    def weights(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """The shared weights by name; views, valid until the next ``evaluate``."""
        ...

    def load_weights(self, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Replace the shared weights."""
        ...

    def close(self) -> None:
        """Release workers and memory."""
        ...


def ignore_result(request: EvalRequest, result: EvalResult) -> None:
    """No-op ``on_result`` callback."""
