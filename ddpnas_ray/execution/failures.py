"""Retry policy for failed or lost evaluations: pure functions, tested without Ray or a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ddpnas_ray.execution.base import ExecutionConfig

PATIENCE = 20  # losses of one architecture, however long each attempt ran


class Decision(Enum):
    """Retry the same pure call, or end the search."""

    RETRY = "retry"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Attempts:
    """Failures of one architecture of an epoch so far.

    Args:
        crashes: Worker deaths on a living node.
        failures: All failures: lost workers, nodes, objects.
        first_failure_s: Monotonic time of the first failure.
        ran_s: How long the latest attempt ran.
    """

    crashes: int = 0
    failures: int = 0
    first_failure_s: float = 0.0
    ran_s: float = 0.0

    def after(self, now_s: float, *, ran_s: float, node_alive: bool, worker_died: bool) -> Attempts:
        """Return the attempts with one more failure, of an attempt that ran for ``ran_s``."""
        return Attempts(
            crashes=self.crashes + (node_alive and worker_died),
            failures=self.failures + 1,
            first_failure_s=self.first_failure_s if self.failures else now_s,
            ran_s=ran_s,
        )


def decide(attempts: Attempts, now_s: float, config: ExecutionConfig) -> Decision:
    """Retry infrastructure failures until the deadline, but not architectures that keep crashing their worker.

    An architecture is never skipped: that would change the result. Time counts against architectures that are lost
    soon; one that trains for longer than the deadline and loses its node each time is not at fault.

    Args:
        attempts: Its failures, including the latest; at least one.
        now_s: Monotonic time.
        config: ``retry_deadline_s`` and ``max_crashes``.
    """
    deadline_s = config.retry_deadline_s
    soon = attempts.ran_s <= deadline_s or attempts.failures >= PATIENCE
    late = now_s - attempts.first_failure_s > deadline_s
    return Decision.FAIL if attempts.crashes >= config.max_crashes or (late and soon) else Decision.RETRY


class Fault(Enum):
    """GPU fault: out of memory, or unusable from now on in this process."""

    MEMORY = "memory"
    DEVICE = "device"


def gpu_fault(error: Exception) -> Fault | None:
    """Classify a GPU fault; None for any other error of an evaluation.

    After a failed kernel, an ECC error or a lost device (Xid), every later CUDA call of the process fails too; after a
    failed allocation the process is still usable.

    Args:
        error: As torch raised it. Types are matched by name: older versions lack ``AcceleratorError``.

    Example:
        >>> gpu_fault(RuntimeError("CUDA error: an illegal memory access was encountered"))
        <Fault.DEVICE: 'device'>
    """
    if not isinstance(error, RuntimeError):
        return None
    text, types = str(error), {kind.__name__ for kind in type(error).__mro__}
    full = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    if "OutOfMemoryError" in types or any(words in text for words in full):
        return Fault.MEMORY
    dead = ("CUDA error", "CUDA driver error", "cuDNN error", "HIP error")
    return Fault.DEVICE if "AcceleratorError" in types or any(words in text for words in dead) else None


def backoff_s(failures: int) -> float:
    """Wait before probing a lost worker again: 0.25 s, doubling up to 4 s.

    Example:
        >>> [backoff_s(n) for n in (1, 2, 3, 4, 5, 6)]
        [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]
    """
    return min(0.25 * 2.0 ** (max(failures, 1) - 1), 4.0)
