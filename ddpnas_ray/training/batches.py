"""Batches on the training device: memory format, pinning and copies, one batch ahead of a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from ddpnas_ray.tasks.base import Batch, Task


class Streamed:
    """A task's batches, prepared on the CPU whenever they are asked for and copied to the device.

    Args:
        task: Any task.
        device: ``cpu`` or ``cuda``.
        channels_last: As for ``on_device``.
    """

    def __init__(self, task: Task, device: str, *, channels_last: bool) -> None:
        self._task, self._device, self._channels_last = task, device, channels_last

    def training_batches(self, epoch: int, seed: int, batch_size: int) -> Iterator[Batch]:
        """See ``Task``."""
        return self._ready(self._task.training_batches(epoch, seed, batch_size))

    def calibration_batches(self, examples: int, seed: int, batch_size: int) -> Iterator[Batch]:
        """See ``Task``."""
        return self._ready(self._task.calibration_batches(examples, seed, batch_size))

    def validation_batches(self, batch_size: int) -> Iterator[Batch]:
        """See ``Task``."""
        return self._ready(self._task.validation_batches(batch_size))

    def _ready(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        return on_device(batches, self._device, channels_last=self._channels_last)


def on_device(batches: Iterable[Batch], device: str, *, channels_last: bool) -> Iterator[Batch]:
    """Yield batches on the device; for a GPU, the next one is prepared and copied during computation.

    Args:
        batches: On the CPU.
        device: ``cpu`` or ``cuda``.
        channels_last: Whether images become NHWC in memory.
    """
    prepared = (_prepare(batch, device, channels_last) for batch in batches)
    if device == "cpu":
        yield from prepared
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(next, prepared, None)
        while (batch := ahead.result()) is not None:
            ahead = pool.submit(next, prepared, None)
            yield each(batch, lambda tensor: tensor.to(device, non_blocking=True))


def each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Apply ``change`` to every tensor of a batch."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: each(part, change) for key, part in value.items()}
    parts = [each(part, change) for part in value]
    return Batch(*parts) if isinstance(value, Batch) else type(value)(parts)


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Return every tensor of a batch, in order."""
    found: list[torch.Tensor] = []
    each(value, lambda tensor: (found.append(tensor), tensor)[1])  # type: ignore[func-returns-value]
    return found


def size(value: Any) -> int:
    """Return the number of examples of a batch."""
    while not isinstance(value, torch.Tensor):
        value = next(iter(value.values() if isinstance(value, dict) else value))
    return len(value)


def _prepare(batch: Batch, device: str, channels_last: bool) -> Batch:
    inputs = batch.inputs
    if channels_last and isinstance(inputs, torch.Tensor) and inputs.ndim == 4:
        # a copy even of one channel, whose strides else say NCHW, which the whole network would follow
        nhwc = torch.empty_like(inputs, memory_format=torch.channels_last).copy_(inputs)
        batch = Batch(nhwc, batch.targets)
    return batch if device == "cpu" else each(batch, torch.Tensor.pin_memory)
