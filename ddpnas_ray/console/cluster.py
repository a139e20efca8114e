"""Connect a command to a Ray cluster; ``ray_connect`` is imported only when needed."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO

from ddpnas_ray.core.errors import ResourceError

_kept: tuple[ExitStack, int] | None = None  # set by `kept`: closes the connection; least number of workers


def checked_address(option: str | None, *, client: bool = True) -> str:
    """Return ``--address``, else ``RAY_ADDRESS``, else an empty string: start a cluster.

    ``RAY_ADDRESS`` is ignored if this process is connected to Ray: ``cluster`` uses that connection.

    Args:
        option: Value of ``--address``.
        client: Whether Ray's client port is allowed. Through it, a search would write its directory on another machine.

    Raises:
        ResourceError: Nothing listens there, or it is a client port.
    """
    here = is_connected()
    address = option or ("" if here else os.environ.get("RAY_ADDRESS")) or ""
    if here and not client:
        from ddpnas_ray.console import ray_connect

        if ray_connect.through_client():
            raise ResourceError(
                "Ray: this process is connected by Ray Client (ray://), and a search runs inside its cluster: call it "
                "in a script that `ray job submit` starts (clusters/README.md), or in a Ray task"
            )
    if address.startswith("ray://") and not client:
        raise ResourceError(
            f"{address}: a search runs inside its cluster; submit it: ray job submit --address http://HEAD:8265 -- "
            "python -m ddpnas_ray.search --address auto --out DIR (clusters/README.md)"
        )
    refuse_dead_address(address)
    return address


def refuse_dead_address(address: str) -> None:
    """Refuse a HOST:PORT where nothing listens; Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResourceError(
            f"{address}: no Ray cluster answers ({reason}); give --address what `ray start` printed, or auto on one of "
            "its machines; without --address and RAY_ADDRESS, a cluster starts here"
        ) from error


def is_connected() -> bool:
    """Return whether this process is connected to Ray; does not import it."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


@contextmanager
def kept(workers: int | None = None) -> Iterator[None]:
    """Keep the connection that ``cluster`` opens in this block until the block ends, as the next stage needs it too.

    Args:
        workers: Most workers of any stage: a started cluster has that many CPUs at least, and one more.
    """
    global _kept
    with ExitStack() as stack:
        _kept = stack, workers or 0
        try:
            yield
        finally:
            _kept = None


@contextmanager
def cluster(
    address: str, purpose: str, lines: TextIO, *, workers: int | None = None, label: str | None = None
) -> Iterator[str]:
    """Connect to a running cluster, or start one on this machine, for the duration of the block; prints which.

    If this process is connected already (in a Ray job, a task, or a notebook that called ``ray.init``), that connection
    is used, nothing is printed, and it stays open.

    Args:
        address: From ``checked_address``; empty starts a cluster.
        purpose: Completes the line "starting Ray on this machine to ...".
        lines: Stream of that line.
        workers: A started cluster has one CPU per worker, and one more.
        label: ``key=value`` label of the started node.

    Yields:
        The dashboard's address as text, with the command that prints its token if it needs one.

    Raises:
        ResourceError: The cluster cannot be reached, refuses the connection, or does not start.
    """
    reused = is_connected()
    if not reused:
        doing = f"connecting to Ray at {address}" if address else "starting Ray on this machine"
        print(f"{doing} to {purpose} ...", file=lines, flush=True)
    from ddpnas_ray.console import ray_connect

    if _kept is not None and not reused:
        stack, most = _kept
        stack.enter_context(ray_connect.connected(address, max(workers or 0, most) or None, label))
    with ray_connect.connected(address, workers, label) as dashboard:
        token = " (for its token: ray get-auth-token)" if ray_connect.auth_mode() == "token" else ""
        without = "on the connected cluster" if reused else "no dashboard"
        yield f"dashboard http://{dashboard}{token}" if dashboard else without
