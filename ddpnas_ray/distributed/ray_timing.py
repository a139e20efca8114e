"""Time networks as Ray tasks, on nodes with a device's label (``ray start --labels ddpnas-device=jetson``)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray

from ddpnas_ray.core.errors import ResourceError, WorkerLostError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.devices.config import TimingOptions, device_label
from ddpnas_ray.devices.table import Latency, Timings, reference_latency
from ddpnas_ray.execution.ray_errors import fetched
from ddpnas_ray.runs.environment import machine
from ddpnas_ray.spaces.base import Part, SpaceSpec
from ddpnas_ray.spaces.target import Target

log = logging.getLogger(__name__)

PARTS_A_TASK = 16
POLL_S = 5.0
SILENCE_S = 60.0  # without a result: warn about likely causes
LOST = "timing: a task's process kept dying; check the device's node (ray status) and its memory"
GONE_S = 120.0  # without a node of the device: give up

OnTimed = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Device:
    """The nodes of a device, and the resources that one timing task reserves there.

    A task takes *all* CPUs of its node, however few threads it times with, so that nothing else of Ray's runs there.

    Args:
        label: ``key=value``.
        cpus: CPUs of each node.
        gpus: GPUs that a task needs.
    """

    label: str
    cpus: float
    gpus: int

    @classmethod
    def find(cls, label: str, options: TimingOptions) -> Device:
        """Find the device in the connected cluster.

        Args:
            label: See ``devices.config.device_label``.
            options: Required threads and GPU.

        Raises:
            ResourceError: No node has the label, or the nodes differ or lack CPUs or a GPU.
        """
        label, gpus = device_label(label), int(options.device == "cuda")
        if not (nodes := _nodes(label)):
            others = sorted({text for node in _nodes() for text in _labels(node) if not text.startswith("ray.io/")})
            known = f"labels in the cluster: {', '.join(others)}" if others else "no node has a custom label"
            raise ResourceError(
                f"--device-label: no node of the cluster has {label}; {known}; start Ray on the device with "
                f"`ray start --address=... --labels {label}`"
            )
        sizes = {(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)) for node in nodes}
        if len(sizes) > 1:
            raise ResourceError(
                f"--device-label: nodes with {label} differ: {', '.join(f'{c:g} CPU, {g:g} GPU' for c, g in sizes)}; "
                "give each kind of machine its own label"
            )
        cpus, node_gpus = sizes.pop()
        if cpus < max(1, options.threads) or node_gpus < gpus:
            raise ResourceError(
                f"--device-label: nodes with {label} have {cpus:g} CPU and {node_gpus:g} GPU; {options.threads} "
                f"threads and {gpus} GPU are needed"
            )
        return cls(label, cpus, gpus)

    def task(self, function: Callable[..., Any], name: str) -> Any:
        """Make a function a Ray task on the device. Timing has no side effects, so Ray may retry it if a node dies."""
        key, value = self.label.split("=", 1)
        return ray.remote(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            label_selector={key: value},
            max_retries=3,
            max_calls=0,  # one process for all tasks of a node; by default a GPU task exits its process
        )(function).options(name=name)

    def results(self, refs: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Yield results as they arrive, each with the index of its reference.

        Raises:
            DdpnasError: A task's own error.
            WorkerLostError: A task's process kept dying, or no node of the device is left.
        """
        index = {ref: i for i, ref in enumerate(refs)}
        pending, heard_s, silent, seen_s = list(refs), time.monotonic(), False, time.monotonic()
        while pending:
            done, pending = ray.wait(pending, num_returns=1, timeout=POLL_S)
            now_s = time.monotonic()
            if done:
                yield index[done[0]], fetched(done[0], LOST)
                heard_s = seen_s = time.monotonic()
                continue
            if _nodes(self.label):
                seen_s = now_s
            elif now_s - seen_s > GONE_S:
                raise WorkerLostError(
                    f"timing: no node with {self.label} for {GONE_S:g} s; restart Ray there, then repeat the command"
                )
            if now_s - heard_s > SILENCE_S and not silent:
                silent = True
                log.warning(
                    "no timing came back for %.0f s; a task waits until all %g CPUs of a node with %s are free: "
                    "`ray status` shows what is in use",
                    SILENCE_S,
                    self.cpus,
                    self.label,
                )


def describe(label: str, options: TimingOptions) -> dict[str, Any]:
    """Return hardware and versions of a device: its ``runs.environment.machine``, and the GPU's name if it is timed.

    Raises:
        ResourceError: See ``Device.find``.
    """
    device = Device.find(label, options)
    [(_, metadata)] = device.results([device.task(_describe, "describe the device").remote(options.device)])
    return dict(metadata)


def time_parts(
    reference: Part,
    parts: Sequence[Part],
    label: str,
    options: TimingOptions,
    *,
    whole: bool = False,
    seed: int = 0,
    on_timed: OnTimed | None = None,
) -> list[Timings]:
    """Time parts on a device in several passes, each in its own order, so that drift does not bias them.

    Args:
        reference: The whole network timed beside them; see ``devices.timing.time_parts``.
        parts: The parts to time.
        label: The device; see ``devices.config.device_label``.
        options: How to time.
        whole: The parts are whole networks; see ``devices.timing.time_network``.
        seed: Keys the orders.
        on_timed: Called with the number of parts of each finished task; ``passes * len(parts)`` in total.

    Returns:
        One ``Timings`` per part, over all passes.

    Raises:
        ResourceError: See ``Device.find``.
        WorkerLostError: See ``Device.results``.
    """
    device = Device.find(label, options)
    orders = [np.random.default_rng((seed, number)).permutation(len(parts)) for number in range(options.passes)]
    chunks = [order[i : i + PARTS_A_TASK] for order in orders for i in range(0, len(parts), PARTS_A_TASK)]
    task = device.task(_time, "time parts")
    refs = [task.remote(reference, [parts[i] for i in chunk], options, whole) for chunk in chunks]
    found: list[list[Timings]] = [[] for _ in parts]
    for which, timings in device.results(refs):
        for i, timing in zip(chunks[which], timings, strict=True):
            found[i].append(timing)
        if on_timed is not None:
            on_timed(len(timings))
    return [
        Timings(np.concatenate([t.ns_T for t in passes]), np.concatenate([t.reference_ns_T for t in passes]))
        for passes in found
    ]


def measure_networks(
    spec: SpaceSpec,
    target: Target,
    alphas: Sequence[IntArray],
    label: str,
    options: TimingOptions,
    *,
    on_timed: OnTimed | None = None,
) -> list[Latency]:
    """Measure whole deploy networks on a device, end to end, with drift divided out.

    Args:
        spec: The space.
        target: The deploy network's target.
        alphas: The architectures; the first is also the reference.
        label: The device; see ``devices.config.device_label``.
        options: How to time.
        on_timed: See ``time_parts``.

    Raises:
        ResourceError: See ``time_parts``.
        WorkerLostError: See ``time_parts``.
    """
    networks = [network(spec, target, alpha_E) for alpha_E in alphas]
    timings = time_parts(networks[0], networks, label, options, whole=True, on_timed=on_timed)
    level = reference_latency(timings).median_ns
    return [timing.at(level) for timing in timings]


def network(spec: SpaceSpec, target: Target, alpha_E: Sequence[int] | IntArray) -> Part:
    """Return a whole deploy network as a part to time."""
    build = partial(spec.deploy, np.asarray(alpha_E), target)
    return Part(edge=None, key="network", example=target.inputs, build=build)


def _time(reference: Part, parts: Sequence[Part], options: TimingOptions, whole: bool) -> list[Timings]:
    """The body of a task."""
    from ddpnas_ray.devices import timing
    from ddpnas_ray.training.epoch import fixed_threads

    def timed(part: Part) -> timing.Timed:
        """The part, warmed up."""
        return timing.Timed(part.build, part.example, options)

    with fixed_threads(options.threads):
        beside = timed(reference)
        if whole:
            return [timing.time_network(beside, timed(part), options) for part in parts]
        return timing.time_parts(beside, [timed(part) for part in parts], options)


def _describe(device: str) -> dict[str, Any]:
    import torch

    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return machine() | gpu


def _nodes(label: str | None = None) -> list[dict[str, Any]]:
    """Living nodes, optionally only those with a label."""
    return [node for node in ray.nodes() if node["Alive"] and (label is None or label in _labels(node))]


def _labels(node: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in node["Labels"].items()]
