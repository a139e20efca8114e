"""The reference executor: one architecture after the other, in this process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch

from ddpnas_ray.core.errors import ResourceError
from ddpnas_ray.core.requests import EvalRequest, EvalResult, Work
from ddpnas_ray.execution.base import ExecutionConfig, OnResult, ignore_result
from ddpnas_ray.nn.weights import Float32Array, Layout, Weights, joined, split_shared
from ddpnas_ray.training.device import find_device
from ddpnas_ray.training.trainer import Trainer


class LocalExecutor:
    """Trains in process.

    Args:
        trainer: Trains any architecture.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        tensors, self._supernet = trainer.supernet()
        self._weights = Weights(tensors)
        self.work = Work()
        here = find_device(trainer.device)
        self.devices = {here.kind: here.details}

    def evaluate(self, requests: Sequence[EvalRequest], on_result: OnResult | None = None) -> list[EvalResult]:
        """See ``Executor``. Under ``training.merge: sequential`` each architecture inherits from the one before."""
        on_result = on_result or ignore_result
        sequential = self._trainer.config.merge == "sequential"
        shared, owns = split_shared([self._supernet.pieces(request.alpha_E) for request in requests])
        results, learned = [], []
        for request, own in zip(requests, owns, strict=True):
            layout = joined(shared, own)
            result, flat = self._trainer.train_and_score(request, layout, self._weights.cut(layout))
            if result.ok and request.train:
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
        """Nothing to give back."""

    def _merge(self, learned: Sequence[tuple[Layout, Float32Array]]) -> None:
        start = time.perf_counter()
        self._weights.merge(learned)
        self.work.merge_s += time.perf_counter() - start


def local_device(config: ExecutionConfig) -> str:
    """``cuda`` where this machine has a GPU and ``execution.gpus_per_worker`` does not say 0, else ``cpu``.

    Raises:
        ResourceError: GPUs were asked for and there are none.
    """
    if config.gpus_per_worker and not torch.cuda.is_available():
        raise ResourceError(
            f"execution.gpus_per_worker is {config.gpus_per_worker:g}, and this machine has no GPU; set it to 0 or null"
        )
    return "cuda" if config.gpus_per_worker != 0 and torch.cuda.is_available() else "cpu"
