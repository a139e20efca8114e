"""What an executor is: it trains and scores architectures, and owns the shared weights."""

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
    """Section ``execution``: where the work is done. On one kind of device no key here changes the result."""

    backend: Literal["ray", "local"] = "ray"
    """ray: concurrent workers on this machine or a cluster; local: in this process, the reference"""
    workers: Annotated[int, Ge(1)] | None = None
    """Worker actors; null: one a GPU, or one a CPU where there is no GPU"""
    gpus_per_worker: Annotated[float, Ge(0.0)] | None = None
    """GPUs of one worker, fractions allowed (0.5: two workers share one GPU and its memory); null: 1 where there are
    GPUs, else 0. GPU and CPU results differ"""
    cpus_per_worker: Annotated[float, Gt(0.0)] | None = None
    """CPUs that Ray reserves for one worker; null: training.threads"""
    elastic: bool = False
    """The cluster starts and ends nodes by need: ask for workers that do not fit yet; let those go that have no work"""
    retry_deadline_s: Annotated[float, Gt(0.0)] = 120.0
    """How long one architecture is retried after lost workers, nodes or objects"""
    max_crashes: Annotated[int, Ge(1)] = 3
    """Deaths that end the search: of workers on living nodes by one architecture (or a GPU that fails under it), or of
    the driver in one epoch"""
    mixed_devices: Literal["warn", "refuse"] = "warn"
    """Workers of several kinds of CPU or GPU, whose results differ in the last bits: say so, or refuse"""


class Executor(Protocol):
    """Trains and scores. On one kind of device (``training.device``), equal requests on equal weights give bit-equal
    results from any executor."""

    work: Work

    @property
    def devices(self) -> Mapping[str, Mapping[str, Any]]:
        """Details of the workers' devices by kind; empty where nothing is trained."""
        ...

    def evaluate(self, requests: Sequence[EvalRequest], on_result: OnResult | None = None) -> list[EvalResult]:
        """Evaluate one epoch's architectures and merge what they learned into the shared weights.

        Args:
            requests: The architectures; all start from the same weights.
            on_result: Told each result as it comes, in any order.

        Returns:
            One result a request, in request order. An architecture whose loss was not finite has ``ok`` False.

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
        """Give back workers and memory."""
        ...


def ignore_result(request: EvalRequest, result: EvalResult) -> None:
    """The listener of those who do not listen."""
