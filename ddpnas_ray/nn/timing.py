"""How long a module takes, next to a reference network that tells how fast the device is at that moment."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ddpnas_ray.core.errors import ResourceError
from ddpnas_ray.costs.latency import Timings
from ddpnas_ray.nn.timing_config import TimingOptions

WARM_UP_CALLS = 3  # kernels are chosen, and buffers come to stay where they are
WARM_UP_NS = 10_000_000
FEWEST_TIMINGS = 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Timed:
    """A module on its device with a batch to work on, warmed up.

    Args:
        build: Makes the module.
        input_shape: (C, H, W) of what it takes.
        options: Device, data type and batch size.

    Raises:
        ResourceError: There is no GPU, or the module cannot work with the data type there.
    """

    def __init__(
        self, build: Callable[[], nn.Module], input_shape: tuple[int, int, int], options: TimingOptions
    ) -> None:
        if options.device == "cuda" and not torch.cuda.is_available():
            raise ResourceError("--device cuda: PyTorch finds no GPU there; leave it out to time on the CPU")
        device, dtype = torch.device(options.device), DTYPES[options.dtype]
        self._module = build().eval().to(device, dtype)
        self._batch = torch.randn(options.batch, *input_shape).to(device, dtype)
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
        """Nanoseconds of one call, until its result is there."""
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


def time_beside(reference: Timed, timed: Timed, options: TimingOptions, *, settle: int) -> Timings:
    """Time a module right after the reference network, again and again.

    Args:
        reference: The reference network.
        timed: What is timed.
        options: How often.
        settle: Untimed calls before each timed one. A part of a network is timed with 0: in a network, too, everything
            else has been computed since its last call. A whole network is timed with 1: it follows itself.

    Returns:
        Its times and those of the reference network, shape (T,).
    """

    def after_settling(what: Timed) -> int:
        for _ in range(settle):
            what.call_ns()
        return what.call_ns()

    pairs: list[tuple[int, int]] = []
    end = time.perf_counter() + options.seconds
    while len(pairs) < FEWEST_TIMINGS or (len(pairs) < options.timings and time.perf_counter() < end):
        pairs.append((after_settling(reference), after_settling(timed)))
    reference_ns_T, ns_T = np.array(pairs, dtype=np.int64).T
    return Timings(ns_T, reference_ns_T)
