from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ddpnas_ray.storage.network import stall_limit, why_unreachable


@contextmanager
def server(status: int) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def test_any_response_counts_as_reachable() -> None:
    for status in (200, 404):
        with server(status) as url:
            assert why_unreachable(url) is None


def test_a_closed_port_and_a_bad_address_are_unreachable() -> None:
    assert "refused" in str(why_unreachable("http://127.0.0.1:9/"))
    assert why_unreachable("no address") is not None


def test_a_silent_server_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        assert why_unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_s=0.2) is not None
        assert time.monotonic() - started < 2


def test_stall_limit_is_put_back() -> None:
    before = socket.getdefaulttimeout()
    with stall_limit(3.0):
        assert socket.getdefaulttimeout() == 3.0
    assert socket.getdefaulttimeout() == before
