"""Connect to Ray, with actionable errors."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any

import ray

from ddpnas_ray.console.command import redirected
from ddpnas_ray.core.errors import ResourceError

NAMESPACE = "ddpnas"  # of the drivers' names, also on a connection that the user made
OPTIONS: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": NAMESPACE}

_opened: tuple[str, str] | None = None  # address and dashboard of the connection that `connected` opened


@contextmanager
def connected(address: str, workers: int | None = None, label: str | None = None) -> Iterator[str]:
    """Connect to a cluster or start one (see ``cluster``); yields HOST:PORT of the dashboard, or an empty string.

    A connection that this process already has is used instead, and left open.
    """
    global _opened
    if is_connected():
        _refuse_another(address)
        yield _opened[1] if _opened else ""
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    context = _connect(address) if address else _start(workers, label)
    _opened = address, getattr(context, "dashboard_url", None) or ""
    try:
        yield _opened[1]
    finally:
        _opened = None
        ray.shutdown()


def is_connected() -> bool:
    """Return whether this process is connected: by ``connected``, by the user, or as a worker of a cluster."""
    return bool(ray.is_initialized())


def through_client() -> bool:
    """Return whether the connection is one of Ray Client (``ray://``): this machine is not in the cluster."""
    return bool(ray.util.client.ray.is_connected())


def _refuse_another(address: str) -> None:
    """Refuse an address other than that of the existing connection: Ray allows one per process."""
    if address in ("", "auto") or (_opened is not None and address == _opened[0]) or address == gcs_address():
        return
    raise ResourceError(
        f"{address}: this process is already connected to the Ray cluster at {gcs_address()}; omit the address to use "
        "that one, or call ray.shutdown() first"
    )


def _start(workers: int | None, label: str | None) -> Any:
    cpus = max(os.cpu_count() or 1, (workers or 0) + 1)
    labels = dict([label.split("=", 1)]) if label else None
    try:
        return ray.init(address="local", num_cpus=cpus, labels=labels, **OPTIONS)
    except Exception as error:  # Ray raises a bare Exception if a node does not start in time
        hint = "check free memory and running processes on this machine"
        raise ResourceError(f"Ray: local cluster: {_reason(error)}; {hint}") from error


def _connect(address: str) -> Any:
    with TemporaryFile() as said:
        try:
            with redirected(2, said.fileno()):  # only Ray's C++ part reports a refused token
                return ray.init(address=address, **OPTIONS)
        except Exception as error:  # Ray raises many types: no node of the cluster here, another version, no token
            said.seek(0)
            refused = b"InvalidAuthToken" in said.read() or isinstance(error, ray.exceptions.AuthenticationError)
            hint = "outside the cluster try ray://HOST:10001; without --address and RAY_ADDRESS, a cluster starts here"
            why = _token_needed() if refused else f"{_reason(error)}; {hint}"
            raise ResourceError(f"Ray: {address}: {why}") from error


def _token_needed() -> str:
    """Explain why a cluster with token authentication refused the connection."""
    copy = "set RAY_AUTH_TOKEN to what `ray get-auth-token` prints where the cluster was started"
    if auth_mode() != "token":
        return f"the cluster asks for a token: set RAY_AUTH_MODE=token and, unless ~/.ray/auth_token holds it, {copy}"
    return f"the cluster asks for its token, which this process lacks: {copy}"


def auth_mode() -> str:
    """Return the connected cluster's authentication, ``token`` or ``disabled``; ``ray.init`` sets the variable."""
    return os.environ.get("RAY_AUTH_MODE", "disabled").lower()


def gcs_address() -> str:
    """Return the address of the connected cluster."""
    return str(ray.get_runtime_context().gcs_address)


def _reason(error: Exception) -> str:
    """Return the first line of a Ray error."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
