"""Time modules beside a reference network, which captures the device's current speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from ddpnas_ray.core.errors import ResourceError
from ddpnas_ray.devices.config import TimingOptions
from ddpnas_ray.devices.table import Timings
from ddpnas_ray.spaces.target import Example
from ddpnas_ray.training.batches import each

WARM_UP_CALLS = 3  # enough to choose kernels and settle buffers
WARM_UP_NS = 10_000_000
FEWEST_TIMINGS = 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Timed:
    """A warmed-up module on its device, with an input batch, of texts without padding.

    Args:
        build: Makes the module.
        example: What it takes.
        options: Device, data type and batch size.

    Raises:
        ResourceError: There is no GPU, or the module does not support the data type on the device.
    """

    def __init__(self, build: Callable[[], nn.Module], example: Example, options: TimingOptions) -> None:
        if options.device == "cuda" and not torch.cuda.is_available():
            raise ResourceError("--device cuda: PyTorch finds no GPU on the node; leave it out to time on the CPU")
        device, dtype = torch.device(options.device), DTYPES[options.dtype]
        self._module = build().eval().to(device, dtype)
        self._batch = each(
            example.random(options.batch, padded=False),
            lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype),
        )
        self._cuda = options.device == "cuda"
        try:
            self._warm_up()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ResourceError(
                f"--dtype {options.dtype} --device {options.device}, batch {options.batch}: {reason}"
            ) from error

    @torch.inference_mode()
    def call_ns(self) -> int:
        """Return the nanoseconds of one call, until its result is ready."""
        if self._cuda:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            start.record()
            self._module(self._batch)
            end.record()
            end.synchronize()
            return round(1e6 * start.elapsed_time(end))
        begin = time.perf_counter_ns()
        self._module(self._batch)
        return time.perf_counter_ns() - begin

    def _warm_up(self) -> None:
        calls, begin = 0, time.perf_counter_ns()
        while calls < WARM_UP_CALLS or time.perf_counter_ns() - begin < WARM_UP_NS:
            self.call_ns()
            calls += 1


def time_parts(reference: Timed, parts: Sequence[Timed], options: TimingOptions) -> list[Timings]:
    """Time parts in shuffled rounds, each starting with the reference network.

    Each part thus runs between others, as inside a network. (On a 5 ms network, sums of parts timed in a tight loop
    were 20 to 30 % too small, sums of parts each right after the reference network 8 % too large; these are within
    2 %.)

    Args:
        reference: The reference network.
        parts: The parts to time.
        options: Number of timings.

    Returns:
        One ``Timings`` per part, with the reference network's times of the same rounds.
    """
    rng = np.random.default_rng(0)
    reference_ns: list[int] = []
    ns: list[list[int]] = [[] for _ in parts]
    for _ in _rounds(options, len(parts)):
        reference_ns.append(reference.call_ns())
        for i in rng.permutation(len(parts)):
            ns[i].append(parts[i].call_ns())
    return [_timings(part_ns, reference_ns) for part_ns in ns]


def time_network(reference: Timed, network: Timed, options: TimingOptions) -> Timings:
    """Time a whole network and the reference network alternately, each right after an untimed call of its own.

    Args:
        reference: The reference network.
        network: The network to time.
        options: Number of timings.
    """
    reference_ns: list[int] = []
    ns: list[int] = []
    for _ in _rounds(options, 1):
        for timed, times in ((reference, reference_ns), (network, ns)):
            timed.call_ns()
            times.append(timed.call_ns())
    return _timings(ns, reference_ns)


def _rounds(options: TimingOptions, timed: int) -> Iterator[int]:
    """Yield round numbers up to ``options.timings``, fewer if time runs out, but at least ``FEWEST_TIMINGS``."""
    end = time.perf_counter() + options.seconds * timed
    for number in range(options.timings):
        if number >= FEWEST_TIMINGS and time.perf_counter() > end:
            return
        yield number


def _timings(ns: Sequence[int], reference_ns: Sequence[int]) -> Timings:
    return Timings(np.array(ns, dtype=np.int64), np.array(reference_ns, dtype=np.int64))
