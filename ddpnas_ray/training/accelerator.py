"""What an evaluation needs of its device: a stream, steps recorded and replayed, and data kept in its memory.

A training step is some 2,000 kernels, which Python launches one by one. A GPU records them once per architecture, as a
CUDA graph, and replays them with one launch. A recorded step runs on the tensors of its recording: its batch is copied
into them first (``Recorded``). It must not read from the device, since nothing runs while it is recorded.

A CPU records nothing, as nothing is gained, unless asked to: then it is the twin of a GPU on which tests run the same
code, with replayed closures on static tensors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ddpnas_ray.tasks.base import Batch, DeviceBatches, PreparesOnDevice, Task
from ddpnas_ray.training.batches import each, tensors_of
from ddpnas_ray.training.device import first_line
from ddpnas_ray.training.epoch import Step

log = logging.getLogger(__name__)

EAGER_CALLS = 3  # before a recording: libraries choose their kernels, and the optimiser makes its state
KEPT_SHARE = 8  # of a GPU's memory, one part in this many is for data


class Accelerator(Protocol):
    """A device of this process."""

    def running(self) -> AbstractContextManager[None]:
        """Context of an evaluation, from the first tensor to the last; ends its recordings."""
        ...

    def record(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Record a function without running it; what is returned runs it again, on the same tensors.

        Its results are overwritten by the next run.

        Raises:
            RuntimeError: It cannot be recorded; a function that reads from the device is the usual cause.
        """
        ...

    def recorded(self, step: Step) -> Step:
        """Return a step that is recorded after a few batches, if this device records."""
        ...

    def resident(self, task: Task, channels_last: bool) -> DeviceBatches | None:
        """Return a task's batches from data in the device's memory; None if the task cannot, or they do not fit."""
        ...


class Recorded:
    """A step that is called a few times as it is, then recorded, and from then on replayed.

    Batches of other shapes than the recorded one are computed as they are. If the step cannot be recorded, all are.

    Args:
        step: A function of a batch that returns tensors, or None.
        record: See ``Accelerator.record``.
        eager: Calls before the recording.
    """

    def __init__(self, step: Step, record: Callable[[Callable[[], Any]], Callable[[], Any]], eager: int) -> None:
        self._step, self._record, self._eager = step, record, eager
        self._inputs: Batch | None = None
        self._replay: Callable[[], Any] | None = None

    def __call__(self, batch: Batch) -> Any:
        """Run the step on a batch. Results are the caller's own."""
        if self._eager:
            self._eager -= 1
            return self._step(batch)
        if self._inputs is None:
            self._inputs = each(batch, torch.clone)
            self._replay = self._recording(self._inputs)
        if self._replay is None or not _copied(batch, self._inputs):
            return self._step(batch)
        found = self._replay()
        return None if found is None else each(found, torch.clone)

    def _recording(self, inputs: Batch) -> Callable[[], Any] | None:
        try:
            return self._record(lambda: self._step(inputs))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning("steps are launched one by one, since one cannot be recorded (%s)", first_line(error))
            return None


class CpuAccelerator:
    """The CPU: one stream, no recordings, no copies.

    Args:
        records: Record and replay as a GPU does; for tests.
        kept_bytes: Memory for prepared data. None by default: on CPUs preparation takes far less time than training.
    """

    device = torch.device("cpu")

    def __init__(self, *, records: bool = False, kept_bytes: int = 0) -> None:
        self._records, self._residents = records, _Residents(self.device, kept_bytes)

    def running(self) -> AbstractContextManager[None]:
        """See ``Accelerator``."""
        return nullcontext()

    def record(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """See ``Accelerator``: replays into the tensors of the first replay, and refuses to read from the device."""
        kept: list[Any] = []

        def replay() -> Any:
            with _RefusesReading():
                found = function()
            if kept and found is not None:
                _copied(found, kept[0])
            elif not kept:
                kept.append(found)
            return kept[0]

        return replay

    def recorded(self, step: Step) -> Step:
        """See ``Accelerator``."""
        return Recorded(step, self.record, EAGER_CALLS) if self._records else step

    def resident(self, task: Task, channels_last: bool) -> DeviceBatches | None:
        """See ``Accelerator``."""
        return self._residents.of(task, channels_last)


class CudaAccelerator:
    """A GPU: everything runs on one stream of our own, as recording demands.

    The recordings of an evaluation share one memory pool, which is given back at its end.

    Args:
        device: ``cuda`` or ``cuda:0``.
        records: Whether steps are recorded.
        kept_bytes: Memory for data; by default an eighth of the GPU's.
    """

    def __init__(self, device: str, *, records: bool = True, kept_bytes: int | None = None) -> None:
        self.device, self._records = torch.device(device), records
        if kept_bytes is None:
            kept_bytes = torch.cuda.get_device_properties(self.device).total_memory // KEPT_SHARE
        self._residents = _Residents(self.device, kept_bytes)
        self._stream = torch.cuda.Stream(self.device)
        self._pool: Any = None
        self._last: torch.cuda.CUDAGraph | None = None  # keeps the pool until the next recording joins it

    @contextmanager
    def running(self) -> Iterator[None]:
        """See ``Accelerator``."""
        outside = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(outside)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            self._pool = self._last = None
        outside.wait_stream(self._stream)

    def record(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """See ``Accelerator``. Other threads must not use the GPU meanwhile."""
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                found = function()
        except RuntimeError as error:
            self._pool = self._last = None  # a pool that lost its last graph cannot be joined again
            self._records = isinstance(error, torch.OutOfMemoryError)  # other networks of the space will fail too
            raise
        self._last = graph

        def replay() -> Any:
            graph.replay()
            return found

        return replay

    def recorded(self, step: Step) -> Step:
        """See ``Accelerator``."""
        return Recorded(step, self.record, EAGER_CALLS) if self._records else step

    def resident(self, task: Task, channels_last: bool) -> DeviceBatches | None:
        """See ``Accelerator``."""
        return self._residents.of(task, channels_last)


class _Residents:
    """The data of the latest task in a device's memory; processes outlive the tasks that are sent to them.

    Args:
        device: Where.
        limit_bytes: The most that they may take; 0: none.
    """

    def __init__(self, device: torch.device, limit_bytes: int) -> None:
        self._device, self._limit_bytes = device, limit_bytes
        self._latest: DeviceBatches | None = None

    def of(self, task: Task, channels_last: bool) -> DeviceBatches | None:
        """See ``Accelerator.resident``."""
        if not self._limit_bytes or not isinstance(task, PreparesOnDevice):
            return None
        self._latest = task.on_device(self._device, self._limit_bytes, channels_last, self._latest)
        return self._latest


class _RefusesReading(TorchDispatchMode):
    """Raises where a value would be read from the device, as a GPU does while it records."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        by_mask = func is aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_mask or func in (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default):
            raise RuntimeError(f"{func} reads from the device, which a recorded step must not")
        return func(*args, **(kwargs or {}))


@cache
def accelerator_for(device: str) -> Accelerator:
    """Return this process's accelerator for a device.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    return CudaAccelerator(device) if device.startswith("cuda") else CpuAccelerator()


def _copied(source: Any, target: Any) -> bool:
    """Copy the tensors of a batch into those of another; return False, and copy nothing, if shapes or types differ."""
    pairs = list(zip(tensors_of(source), tensors_of(target), strict=True))
    if any(a.shape != b.shape or a.dtype != b.dtype for a, b in pairs):
        return False
    with torch.no_grad():
        for a, b in pairs:
            b.copy_(a)
    return True
