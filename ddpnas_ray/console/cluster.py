"""The Ray cluster that a command uses; ``ray_connect`` is imported only when it is really used."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from ddpnas_ray.core.errors import ResourceError


def checked_address(option: str | None, *, client: bool = True) -> str:
    """``--address``, or ``RAY_ADDRESS``, or an empty string: start a cluster.

    Args:
        option: Value of ``--address``.
        client: Whether Ray's client port will do. A search would write its directory on a machine not the user's.

    Raises:
        ResourceError: Nothing listens there, or it is a client port.
    """
    address = option or os.environ.get("RAY_ADDRESS") or ""
    if address.startswith("ray://") and not client:
        raise ResourceError(
            f"{address}: searches run inside their cluster; submit them: ray job submit --address http://HEAD:8265 -- "
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
            f"{address}: no Ray cluster answers there ({reason}); give --address what `ray start` printed, or auto on "
            "one of its machines; leave --address and RAY_ADDRESS out to start one here"
        ) from error


@contextmanager
def cluster(
    address: str, purpose: str, lines: TextIO, *, workers: int | None = None, label: str | None = None
) -> Iterator[str]:
    """Connect to a running cluster, or start one on this machine for as long as the block lasts; says so first.

    Args:
        address: From ``checked_address``; empty starts a cluster.
        purpose: Completes the line "starting Ray on this machine to ...".
        lines: Stream of that line.
        workers: A cluster that is started has a CPU for each, and one more.
        label: ``key=value`` label of the node that is started.

    Yields:
        The dashboard's address in words, with the way to get its token where it asks for one.

    Raises:
        ResourceError: The cluster cannot be reached, refuses us, or does not start.
    """
    doing = f"connecting to Ray at {address}" if address else "starting Ray on this machine"
    print(f"{doing} to {purpose} ...", file=lines, flush=True)
    from ddpnas_ray.console import ray_connect

    with ray_connect.connected(address, workers, label) as dashboard:
        token = " (for its token: ray get-auth-token)" if ray_connect.auth_mode() == "token" else ""
        yield f"dashboard http://{dashboard}{token}" if dashboard else "no dashboard"
