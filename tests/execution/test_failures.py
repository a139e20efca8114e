"""Failures that are retried, and those that end the search."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from ddpnas_ray.execution.base import ExecutionConfig
from ddpnas_ray.execution.failures import Attempts, Decision, Fault, backoff_s, decide, gpu_fault

CONFIG = ExecutionConfig(retry_deadline_s=60.0, max_crashes=3)
CRASH = {"node_alive": True, "worker_died": True}
LOST_NODE = {"node_alive": False, "worker_died": True}
LOST_OBJECT = {"node_alive": True, "worker_died": False}


def after(
    *events: dict[str, bool], every_s: float = 1.0, start_s: float = 1000.0, ran_s: float | None = None
) -> Attempts:
    attempts = Attempts()
    for i, event in enumerate(events):
        attempts = attempts.after(start_s + i * every_s, ran_s=every_s if ran_s is None else ran_s, **event)
    return attempts


@pytest.mark.parametrize(("event", "crashes"), [(CRASH, 1), (LOST_NODE, 0), (LOST_OBJECT, 0)])
def test_only_a_death_on_a_living_node_is_a_crash(event: dict[str, bool], crashes: int) -> None:
    assert after(event) == Attempts(crashes=crashes, failures=1, first_failure_s=1000.0, ran_s=1.0)


def test_the_clock_starts_with_the_first_failure() -> None:
    assert after(LOST_NODE, CRASH, LOST_OBJECT) == Attempts(crashes=1, failures=3, first_failure_s=1000.0, ran_s=1.0)


def test_a_first_failure_at_time_zero_counts_too() -> None:
    attempts = Attempts().after(0.0, ran_s=9.0, **CRASH).after(5.0, ran_s=2.0, **CRASH)
    assert attempts == Attempts(crashes=2, failures=2, first_failure_s=0.0, ran_s=2.0)


@pytest.mark.parametrize("event", [CRASH, LOST_NODE, LOST_OBJECT])
def test_a_first_failure_is_repeated(event: dict[str, bool]) -> None:
    assert decide(after(event), 1000.0, CONFIG) is Decision.RETRY


def test_what_kills_its_worker_again_and_again_ends_the_search() -> None:
    assert decide(after(CRASH, CRASH), 1001.0, CONFIG) is Decision.RETRY
    assert decide(after(CRASH, CRASH, CRASH), 1002.0, CONFIG) is Decision.FAIL
    assert decide(after(CRASH), 1000.0, ExecutionConfig(max_crashes=1)) is Decision.FAIL


def test_lost_nodes_and_objects_are_repeated_until_the_deadline() -> None:
    many = after(*[LOST_NODE, LOST_OBJECT] * 15, every_s=2.0)
    assert decide(many, 1058.0, CONFIG) is Decision.RETRY
    assert decide(many, 1060.0, CONFIG) is Decision.RETRY
    assert decide(many, 1060.1, CONFIG) is Decision.FAIL


def test_long_architectures_that_lose_their_node_each_time_are_repeated() -> None:
    """Each attempt of 27 minutes ends with its node: the deadline of one minute is for attempts that end at once."""
    long = after(*[LOST_NODE] * 19, every_s=1620.0)
    assert decide(long, 1000.0 + 18 * 1620.0, CONFIG) is Decision.RETRY
    assert decide(after(*[LOST_NODE] * 20, every_s=1620.0), 1000.0 + 19 * 1620.0, CONFIG) is Decision.FAIL
    assert decide(after(*[CRASH] * 3, every_s=1620.0), 1000.0 + 2 * 1620.0, CONFIG) is Decision.FAIL
    assert decide(after(*[LOST_NODE] * 3, every_s=1620.0, ran_s=60.0), 1000.0 + 2 * 1620.0, CONFIG) is Decision.FAIL


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), Fault.MEMORY),
        (RuntimeError("CUDA error: out of memory"), Fault.MEMORY),  # of cudaHostAlloc and the like
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), Fault.MEMORY),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Fault.DEVICE),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), Fault.DEVICE),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle)`"), Fault.DEVICE),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), Fault.DEVICE),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), None),
        (ValueError("CUDA error: in another library's text"), None),
        (MemoryError("CUDA error"), None),
    ],
)
def test_gpu_faults_are_distinguished_from_other_errors(error: Exception, fault: Fault | None) -> None:
    assert gpu_fault(error) is fault


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="this PyTorch has no AcceleratorError; update it")
def test_an_accelerators_own_error_is_a_fault_whatever_it_says() -> None:
    assert gpu_fault(torch.AcceleratorError("unspecified launch failure")) is Fault.DEVICE
    assert gpu_fault(torch.AcceleratorError("CUDA error: out of memory")) is Fault.MEMORY


def test_the_wait_doubles_up_to_four_seconds() -> None:
    waits = [backoff_s(failures) for failures in range(1, 12)]
    assert waits[:5] == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert all(a <= b for a, b in pairwise(waits))
    assert set(waits[4:]) == {4.0}
    assert backoff_s(0) == 0.25
