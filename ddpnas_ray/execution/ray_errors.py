"""Ray errors: those that mean a lost process, node or object, and our own errors that Ray wrapped."""

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
    """Unwrap the package's own error from a ``RayTaskError``; any other error is returned unchanged."""
    return error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, DdpnasError) else error


def fetched(ref: Any, lost: str) -> Any:
    """Get the result of a task.

    Args:
        ref: The task's reference.
        lost: Error text if Ray gave up retrying; the error's name follows in brackets.

    Raises:
        DdpnasError: The task's own error.
        WorkerLostError: The task's process kept dying.
    """
    try:
        return ray.get(ref)
    except RayTaskError as error:
        raise own_error(error) from None
    except INFRASTRUCTURE as error:
        raise WorkerLostError(f"{lost} ({type(error).__name__})") from error
