"""The reference executor: one architecture at a time, in this process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch

from ddpnas_ray.core.errors import DeviceError, ResourceError
from ddpnas_ray.core.requests import EvalRequest, EvalResult, Work
from ddpnas_ray.execution.base import ExecutionConfig, OnResult, ignore_result
from ddpnas_ray.execution.failures import Fault, gpu_fault
from ddpnas_ray.nn.weights import Float32Array, Layout, Weights, joined, split_shared
from ddpnas_ray.training.device import find_device, first_line, set_precision, try_device
from ddpnas_ray.training.group import ALONE, Group
from ddpnas_ray.training.trainer import Trainer


class LocalExecutor:
    """Executor that trains in this process.

    Args:
        trainer: Trains any architecture.

    Raises:
        DeviceError: The GPU cannot be used.
    """

    def __init__(self, trainer: Trainer) -> None:
        try_device(trainer.device)
        self._trainer = trainer
        tensors, self._supernet = trainer.supernet()
        self._weights = Weights(tensors)
        self.work = Work()
        here = find_device(trainer.device)
        self.devices = {here.kind: here.details}

    def evaluate(self, requests: Sequence[EvalRequest], on_result: OnResult | None = None) -> list[EvalResult]:
        """See ``Executor``. Under ``training.merge: sequential``, each architecture inherits from the previous one."""
        on_result = on_result or ignore_result
        sequential = self._trainer.config.merge == "sequential"
        shared, owns = split_shared([self._supernet.pieces(request.alpha_E) for request in requests])
        results, learned = [], []
        for request, own in zip(requests, owns, strict=True):
            layout = joined(shared, own)
            result, flat = evaluate_here(self._trainer, request, layout, self._weights.cut(layout))
            if result.ok and request.train and self._trainer.config.merge != "none":
                learned.append((layout, flat))
            if sequential:
                self._merge(learned)
                learned = []
            results.append(result)
            on_result(request, result)
        self._merge(learned)
        return results

    def weights(self) -> Mapping[str, Float32Array]:
        """See ``Executor``."""
        return self._weights.tensors

    def load_weights(self, tensors: Mapping[str, Float32Array]) -> None:
        """See ``Executor``."""
        self._weights = Weights(tensors)

    def close(self) -> None:
        """Nothing to release."""

    def _merge(self, learned: Sequence[tuple[Layout, Float32Array]]) -> None:
        start = time.perf_counter()
        self._weights.merge(learned)
        self.work.merge_s += time.perf_counter() - start


def evaluate_here(
    trainer: Trainer,
    request: EvalRequest,
    layout: Layout,
    flat: Float32Array,
    *,
    gpus: float = 1.0,
    group: Group = ALONE,
) -> tuple[EvalResult, Float32Array]:
    """Train and score one architecture in this process; retry once if GPU memory ran out.

    Args:
        trainer: Trains any architecture.
        request: The architecture.
        layout: Positions of its weights in ``flat``.
        flat: The weights; not modified.
        gpus: This process's share of a GPU.
        group: Processes that do this together; then nothing is retried here.

    Raises:
        ResourceError: The architecture does not fit into GPU memory.
        DeviceError: The GPU failed, or this process can no longer use it.
    """
    set_precision(trainer.config.precision, trainer.device)
    what = f"architecture {request.architecture} of epoch {request.epoch}"
    again = group.world > 1  # the others cannot repeat what one of them lacked memory for
    while True:
        try:
            return trainer.train_and_score(request, layout, flat, group)
        except RuntimeError as error:
            fault = gpu_fault(error)
            if fault is Fault.DEVICE:
                raise DeviceError(
                    f"{what}: the GPU failed ({first_line(error)}), and this process can no longer use it; check it "
                    "(nvidia-smi, Xid in dmesg), then continue the search with --resume"
                ) from error
            if fault is None:
                raise
            if again:
                neighbour = "; another process may fill the shared GPU" if 0 < gpus < 1 else ""
                raise ResourceError(
                    f"{what} does not fit into the GPU's memory ({first_line(error)}){neighbour}; "
                    f"alpha={[int(k) for k in request.alpha_E]}; lower training.batch_size, or raise "
                    "execution.gpus_per_worker"
                ) from error
        torch.cuda.empty_cache()  # outside the handler, whose traceback keeps the network alive
        again = True


def local_device(config: ExecutionConfig) -> str:
    """Return ``cuda`` if this machine has a GPU or ``execution.gpus_per_worker`` requests one, else ``cpu``."""
    gpus = config.gpus_per_worker
    return "cuda" if gpus or (gpus is None and torch.cuda.is_available()) else "cpu"
