"""Timing as Ray tasks: on the right nodes, one at a time, retried when a process dies."""

from __future__ import annotations

import os
import re
import signal
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import BadInput, ResourceError, WorkerLostError
from ddpnas_ray.devices.config import TimingOptions
from ddpnas_ray.devices.table import Timings
from ddpnas_ray.spaces.base import Part
from ddpnas_ray.spaces.cell.space import make
from ddpnas_ray.spaces.target import Target

SPEC = make(nodes=1)
TARGET = Target(cells=3, channels=4, image_size=8, classes=10, stem="cifar")
QUICK = TimingOptions(passes=2, timings=3)


@pytest.fixture(scope="module")
def label(ray_cluster: None) -> str:
    """A label that Ray itself sets on the node of the session's cluster."""
    import ray

    return f"ray.io/node-id={ray.get_runtime_context().get_node_id()}"


def fake_nodes(monkeypatch: pytest.MonkeyPatch, *nodes: tuple[dict[str, str], dict[str, float], bool]) -> None:
    from ddpnas_ray.distributed import ray_timing

    found = [{"Labels": labels, "Resources": resources, "Alive": alive} for labels, resources, alive in nodes]
    monkeypatch.setattr(ray_timing.ray, "nodes", lambda: found)


# --- which nodes ---


@pytest.mark.parametrize(
    ("nodes", "named"),
    [
        ([({"ray.io/node-id": "1"}, {"CPU": 4.0}, True)], "no node has a custom label"),
        (
            [({"ddpnas-device": "phone", "rack": "3"}, {"CPU": 4.0}, True)],
            "labels in the cluster: ddpnas-device=phone, rack=3",
        ),
        ([({"ddpnas-device": "jetson"}, {"CPU": 4.0}, False)], "no node of the cluster has ddpnas-device=jetson"),
        (
            [({"ddpnas-device": "jetson"}, {"CPU": 4.0}, True), ({"ddpnas-device": "jetson"}, {"CPU": 8.0}, True)],
            "its own label",
        ),
        ([({"ddpnas-device": "jetson"}, {"CPU": 1.0}, True)], "have 1 CPU and 0 GPU; 2 threads"),
        ([({"ddpnas-device": "jetson"}, {}, True)], "have 0 CPU and 0 GPU"),
    ],
)
def test_a_cluster_without_the_device_is_refused(monkeypatch: pytest.MonkeyPatch, nodes: Any, named: str) -> None:
    from ddpnas_ray.distributed.ray_timing import Device

    fake_nodes(monkeypatch, *nodes)
    with pytest.raises(ResourceError) as error:
        Device.find("jetson", TimingOptions(threads=2))
    assert named in str(error.value) and "\n" not in str(error.value)


def test_a_gpu_is_asked_for_where_one_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    from ddpnas_ray.distributed.ray_timing import Device

    fake_nodes(monkeypatch, ({"a": "b"}, {"CPU": 8.0, "GPU": 2.0}, True), ({"a": "c"}, {"CPU": 2.0}, True))
    assert Device.find("a=b", TimingOptions(device="cuda")) == Device("a=b", 8.0, 1)
    assert Device.find("a=b", TimingOptions()) == Device("a=b", 8.0, 0)
    with pytest.raises(ResourceError, match="have 2 CPU and 0 GPU; 1 threads and 1 GPU are needed"):
        Device.find("a=c", TimingOptions(device="cuda"))


# --- tasks ---


def _interval() -> tuple[float, float]:
    start = time.monotonic()
    time.sleep(0.05)
    return start, time.monotonic()


@pytest.mark.ray
def test_no_two_run_on_a_node_at_once(label: str) -> None:
    from ddpnas_ray.distributed.ray_timing import Device

    device = Device.find(label, TimingOptions(threads=1))
    task = device.task(_interval, "sleep")
    intervals = sorted(interval for _, interval in device.results([task.remote() for _ in range(6)]))
    assert all(end <= start for (_, end), (start, _) in pairwise(intervals))


def _die_once(marker: Path) -> str:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "lived"


@pytest.mark.ray
def test_a_process_that_dies_is_replaced(label: str, tmp_path: Path) -> None:
    from ddpnas_ray.distributed.ray_timing import Device

    device = Device.find(label, TimingOptions())
    ref = device.task(_die_once, "die once").remote(tmp_path / "died")
    assert list(device.results([ref])) == [(0, "lived")]


@pytest.mark.ray
def test_a_device_that_is_gone_for_good_ends_the_command(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import ray

    from ddpnas_ray.distributed import ray_timing

    for name, seconds in (("POLL_S", 0.05), ("SILENCE_S", 0.0), ("GONE_S", 0.2)):
        monkeypatch.setattr(ray_timing, name, seconds)
    device = ray_timing.Device("ddpnas-device=gone", 1.0, 0)
    ref = device.task(_interval, "never").remote()
    with pytest.raises(WorkerLostError, match="no node with ddpnas-device=gone for"):
        list(device.results([ref]))
    ray.cancel(ref)
    assert "a task waits until all 1 CPUs of a node with ddpnas-device=gone are free" in caplog.text


@pytest.mark.ray
def test_the_device_describes_itself(label: str) -> None:
    from ddpnas_ray.distributed.ray_timing import describe

    facts = describe(label, QUICK)
    assert facts["cpu"] and facts["cores"] == os.cpu_count() and facts["packages"]["torch"]
    assert "gpu" not in facts


@pytest.mark.ray
def test_every_part_is_timed_in_every_pass(label: str) -> None:
    from ddpnas_ray.distributed.ray_timing import network, time_parts

    parts = list({part.key: part for part in SPEC.parts(TARGET)}.values()) if SPEC.parts else []
    assert len(parts) > 16, "more than one task a pass"
    counts: list[int] = []
    reference = network(SPEC, TARGET, [4, 4, 4, 4])
    timings = time_parts(reference, parts, label, QUICK, on_timed=counts.append)
    assert sum(counts) == 2 * len(parts) and len(counts) > 2
    assert [timing.ns_T.shape for timing in timings] == [(6,)] * len(parts)
    assert all((timing.ns_T > 0).all() and (timing.reference_ns_T > 0).all() for timing in timings)


def _key_as_time(reference: Part, parts: list[Part], options: TimingOptions, whole: bool) -> list[Timings]:
    return [Timings(np.array([int(part.key)]), np.array([1])) for part in parts]


@pytest.mark.ray
def test_timings_come_back_in_the_order_of_the_parts(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddpnas_ray.distributed import ray_timing

    monkeypatch.setattr(ray_timing, "_time", _key_as_time)
    parts = [Part(edge=None, key=str(i), example=TARGET.inputs, build=_broken) for i in range(40)]
    timings = ray_timing.time_parts(parts[0], parts, label, QUICK)
    assert [timing.ns_T.tolist() for timing in timings] == [[i, i] for i in range(40)]


@pytest.mark.ray
def test_whole_networks_are_measured(label: str) -> None:
    from ddpnas_ray.distributed.ray_timing import measure_networks

    latencies = measure_networks(SPEC, TARGET, [np.full(4, k) for k in (1, 5, 7)], label, QUICK)
    assert len(latencies) == 3
    assert all(0 < latency.q1_ns <= latency.median_ns <= latency.q3_ns for latency in latencies)
    assert [latency.runs for latency in latencies] == [6, 6, 6]


def _broken() -> Any:
    raise BadInput("this part cannot be built")


@pytest.mark.ray
def test_an_error_of_a_part_arrives_as_itself(label: str) -> None:
    from ddpnas_ray.distributed.ray_timing import network, time_parts

    part = Part(edge=None, key="broken", example=TARGET.inputs, build=_broken)
    with pytest.raises(BadInput, match=r"^this part cannot be built$"):
        time_parts(network(SPEC, TARGET, [4, 4, 4, 4]), [part], label, QUICK)


@pytest.mark.ray
def test_a_cluster_without_the_label_is_refused(ray_cluster: None) -> None:
    from ddpnas_ray.distributed.ray_timing import describe

    with pytest.raises(ResourceError, match=re.escape("has ddpnas-device=jetson; no node has a custom label")):
        describe("jetson", QUICK)
