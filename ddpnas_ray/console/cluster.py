"""Connect a command to a Ray cluster; ``ray_connect`` is imported only when needed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from ddpnas_ray.core.errors import ResourceError


def checked_address(option: str | None, *, client: bool = True) -> str:
    """Return ``--address``, else ``RAY_ADDRESS``, else an empty string: start a cluster.

    Args:
        option: Value of ``--address``.
        client: Whether Ray's client port is allowed. Through it, a search would write its directory on another machine.

    Raises:
        ResourceError: Nothing listens there, or it is a client port.
    """
    address = option or os.environ.get("RAY_ADDRESS") or ""
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


@contextmanager
def cluster(
    address: str, purpose: str, lines: TextIO, *, workers: int | None = None, label: str | None = None
) -> Iterator[str]:
    """Connect to a running cluster, or start one on this machine, for the duration of the block; prints which.

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
    doing = f"connecting to Ray at {address}" if address else "starting Ray on this machine"
    print(f"{doing} to {purpose} ...", file=lines, flush=True)
    from ddpnas_ray.console import ray_connect

    with ray_connect.connected(address, workers, label) as dashboard:
        token = " (for its token: ray get-auth-token)" if ray_connect.auth_mode() == "token" else ""
        yield f"dashboard http://{dashboard}{token}" if dashboard else "no dashboard"
