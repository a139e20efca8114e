"""Ray's errors: which ones say that a process, node or object was lost, and ours inside those that Ray wraps."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)

from ddpnas_ray.core.errors import DdpnasError, WorkerLostError

WORKER_LOST = (RayActorError, NodeDiedError, OutOfMemoryError, WorkerCrashedError)
INFRASTRUCTURE = (*WORKER_LOST, ObjectLostError, RaySystemError, GetTimeoutError, ActorUnschedulableError)


def own_error(error: Exception) -> Exception:
    """The package's own error inside one that Ray wrapped on its way out of a process; Ray's otherwise."""
    return error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, DdpnasError) else error


def fetched(ref: Any, lost: str) -> Any:
    """The result of a task.

    Args:
        ref: The task's reference.
        lost: What to say where Ray has given up repeating it; the error's name follows in brackets.

    Raises:
        DdpnasError: What the task raised.
        WorkerLostError: Its process died again and again.
    """
    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise own_error(error) from None
    except INFRASTRUCTURE as error:
        raise WorkerLostError(f"{lost} ({type(error).__name__})") from error
