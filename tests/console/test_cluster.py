"""Cluster of a command: the address is checked first, and waiting is announced."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ddpnas_ray.console import cluster as console_cluster
from ddpnas_ray.console import ray_connect
from ddpnas_ray.console.cluster import checked_address, cluster, kept
from ddpnas_ray.core.errors import ResourceError


@pytest.fixture(autouse=True)
def not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the session's cluster, to which this process may be connected."""
    monkeypatch.setattr(console_cluster, "is_connected", lambda: False)
    monkeypatch.setattr(ray_connect, "is_connected", lambda: False)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Record the output, and connections instead of making them."""
    printed = io.StringIO()

    @contextmanager
    def connected(*arguments: Any) -> Iterator[str]:
        print(*arguments, file=printed)
        yield "127.0.0.1:8265"

    monkeypatch.setattr(ray_connect, "connected", connected)
    return printed


@pytest.mark.parametrize(
    ("address", "first"),
    [("", "starting Ray on this machine to time parts ..."), ("auto", "connecting to Ray at auto to time parts ...")],
)
def test_what_takes_seconds_is_said_before(lines: io.StringIO, address: str, first: str) -> None:
    with cluster(address, "time parts", lines, workers=2, label="a=b"):
        assert lines.getvalue().splitlines() == [first, f"{address} 2 a=b"]


@pytest.mark.parametrize(
    ("mode", "where"),
    [
        ("disabled", "dashboard http://127.0.0.1:8265"),
        ("token", "dashboard http://127.0.0.1:8265 (for its token: ray get-auth-token)"),
    ],
)
def test_the_dashboard_that_asks_for_a_token_comes_with_the_way_to_get_it(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch, mode: str, where: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with cluster("", "search", lines) as said:
        assert said == where


def test_the_address_of_the_option_goes_before_that_of_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert (checked_address(None), checked_address("local-name")) == ("auto", "local-name")
    monkeypatch.delenv("RAY_ADDRESS")
    assert checked_address(None) == ""


def test_a_client_port_is_refused_where_files_would_land_elsewhere() -> None:
    with pytest.raises(ResourceError, match="a search runs inside its cluster; submit it: ray job submit"):
        checked_address("ray://head:10001", client=False)


def test_a_cluster_that_is_started_here_carries_the_label_and_a_cpu_for_every_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(ray_connect.ray, "init", lambda **options: given.update(options))
    monkeypatch.setattr(ray_connect.ray, "shutdown", lambda: None)
    with ray_connect.connected("", 1000, "ddpnas-device=here"):
        assert (given["address"], given["num_cpus"]) == ("local", 1001)
        assert given["labels"] == {"ddpnas-device": "here"}
    given.clear()
    with ray_connect.connected("auto", 1000, "ddpnas-device=here"):
        assert given["address"] == "auto" and not {"labels", "num_cpus"} & set(given)


def test_a_connection_is_kept_over_several_stages_with_a_cpu_for_the_most_workers_of_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[dict[str, Any]] = []
    connections: list[str] = []

    def shutdown() -> None:
        connections.pop()

    def init(**options: Any) -> None:
        given.append(options)
        connections.append("open")

    for module in (console_cluster, ray_connect):
        monkeypatch.setattr(module, "is_connected", lambda: bool(connections))
    monkeypatch.setattr(ray_connect.ray, "init", init)
    monkeypatch.setattr(ray_connect.ray, "shutdown", shutdown)
    lines = io.StringIO()
    with kept(1000):
        for stage in ("search", "retrain"):
            with cluster("", stage, lines, workers=2):
                assert connections == ["open"]
            assert connections == ["open"]
    assert connections == []
    assert [options["num_cpus"] for options in given] == [1001]
    assert lines.getvalue() == "starting Ray on this machine to search ...\n", "said once"
    with cluster("", "search", lines):
        pass
    assert (len(given), connections) == (2, []), "nothing is kept after the block"


def test_a_connection_of_the_user_is_used_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (console_cluster, ray_connect):
        monkeypatch.setattr(module, "is_connected", lambda: True)
    monkeypatch.setattr(ray_connect, "gcs_address", lambda: "10.0.0.1:6379")
    monkeypatch.setattr(ray_connect, "through_client", lambda: False)
    monkeypatch.setattr(ray_connect.ray, "shutdown", lambda: pytest.fail("it is not ours"))
    monkeypatch.setenv("RAY_ADDRESS", "10.9.9.9:6379")
    lines = io.StringIO()
    for address in (checked_address(None, client=False), "auto", "10.0.0.1:6379"):
        with cluster(address, "search", lines) as said:
            assert said == "on the connected cluster"
    assert lines.getvalue() == "", "no waiting"
    with (
        pytest.raises(ResourceError, match=r"^10\.0\.0\.2:6379: this process is already connected .* 10\.0\.0\.1:6379"),
        cluster("10.0.0.2:6379", "search", lines),
    ):
        pass
    monkeypatch.setattr(ray_connect, "through_client", lambda: True)
    with pytest.raises(ResourceError, match="this process is connected by Ray Client"):
        checked_address(None, client=False)
