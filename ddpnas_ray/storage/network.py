"""Check in seconds whether a server is reachable: download libraries may otherwise retry for minutes, or forever."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

PROBE_S = 8.0
STALL_S = 20.0


def why_unreachable(url: str, *, timeout_s: float = PROBE_S) -> str | None:
    """Send a HEAD request, through the environment's proxy if it sets one.

    Args:
        url: An http(s) address; any response counts.
        timeout_s: Total wait, name resolution included.

    Returns:
        None if the server responds, else the reason.

    Example:
        >>> why_unreachable("http://127.0.0.1:9/") is None
        False
    """
    outcome: list[str | None] = [f"no response within {timeout_s:g} s"]

    def probe() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s):
                outcome[0] = None
        except urllib.error.HTTPError as error:  # still a response
            error.close()
            outcome[0] = None
        except (OSError, ValueError) as error:
            outcome[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=probe, daemon=True)  # name resolution has no timeout of its own
    thread.start()
    thread.join(timeout_s)
    return outcome[0]


@contextmanager
def stall_limit(timeout_s: float = STALL_S) -> Iterator[None]:
    """Set a default timeout for this process's new sockets while the block runs."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout_s)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
