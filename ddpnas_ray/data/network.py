"""Whether a server answers, decided in seconds: libraries that download may otherwise try for minutes, or for ever."""

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
    """Ask a server for the head of a page, by way of the proxy that the environment names.

    Args:
        url: An http(s) address; any answer from its server will do.
        timeout_s: How long to wait in all, name resolution included.

    Returns:
        None where the server answers, else why not.

    Example:
        >>> why_unreachable("http://127.0.0.1:9/") is None
        False
    """
    outcome: list[str | None] = [f"no answer within {timeout_s:g} s"]

    def probe() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s):
                outcome[0] = None
        except urllib.error.HTTPError as error:  # it answered
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
    """Let new sockets of this process give up after a silence, while the block runs."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout_s)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
