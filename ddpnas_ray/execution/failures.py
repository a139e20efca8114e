"""What to do when an evaluation did not come back: a pure decision from facts, so that it can be tested without Ray."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ddpnas_ray.execution.base import ExecutionConfig


class Decision(Enum):
    """Repeat the same pure call, or end the search."""

    RETRY = "retry"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Attempts:
    """What has happened to one architecture of an epoch so far.

    Args:
        crashes: Deaths of its worker while the node lived on.
        failures: All losses: workers, nodes, objects.
        first_failure_s: Monotonic time of the first.
    """

    crashes: int = 0
    failures: int = 0
    first_failure_s: float = 0.0

    def after(self, now_s: float, *, node_alive: bool, worker_died: bool) -> Attempts:
        """One more failure."""
        return Attempts(
            crashes=self.crashes + (node_alive and worker_died),
            failures=self.failures + 1,
            first_failure_s=self.first_failure_s if self.failures else now_s,
        )


def decide(attempts: Attempts, now_s: float, config: ExecutionConfig) -> Decision:
    """Repeat infrastructure failures until the deadline, but not what kills its worker again and again.

    An architecture is never skipped: that would change the result.

    Args:
        attempts: Its failures, the last one included; at least one.
        now_s: Monotonic time.
        config: ``retry_deadline_s`` and ``max_crashes``.
    """
    if attempts.crashes >= config.max_crashes or now_s - attempts.first_failure_s > config.retry_deadline_s:
        return Decision.FAIL
    return Decision.RETRY


def backoff_s(failures: int) -> float:
    """Wait before asking a lost worker again: 0.25 s, doubling up to 4 s.

    Example:
        >>> [backoff_s(n) for n in (1, 2, 3, 4, 5, 6)]
        [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]
    """
    return min(0.25 * 2.0 ** (max(failures, 1) - 1), 4.0)
