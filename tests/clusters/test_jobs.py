"""A search as a job of a cluster: submitted, left, looked at again, stopped."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray.util.state import list_actors, list_tasks

from ddpnas_ray.search import main as search
from tests.commands import ENVIRONMENT, SEARCH, options, run
from tests.conftest import TINY
from tests.test_attach import ATTACH, epochs_done, start, wait_for

RAY = str(Path(sys.executable).with_name("ray"))
KEYS = options(*TINY, "data.train_limit=256", "data.val_limit=128", "pruning.epochs_per_round=6")
CLUSTER = """
import json, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3} | json.loads(sys.argv[1]))
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, str]]:
    """A cluster with a dashboard; yields where it is, and where its job API is."""
    dashboard, agent = free_ports(2)
    with running(include_dashboard=True, dashboard_port=dashboard, dashboard_agent_listen_port=agent) as address:
        yield address, f"http://127.0.0.1:{dashboard}"


@contextmanager
def running(environment: Mapping[str, str] = ENVIRONMENT, **head: Any) -> Iterator[str]:
    """A cluster in a process and on ports of its own; yields its address."""
    command = [sys.executable, "-c", CLUSTER, json.dumps(head)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert ":" in address
        try:
            yield address
        finally:
            process.communicate(timeout=60)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def submitted(cluster: tuple[str, str], name: str, out: Path) -> list[str]:
    """The words of clusters/README.md, for a job that runs this interpreter.

    Ray looks a job's RAY_ADDRESS (``auto``) up by itself, and may take another cluster of the machine: so it is named.
    """
    address, dashboard = cluster
    words = ["job", "submit", "--address", dashboard, "--submission-id", name, "--"]
    return [RAY, *words, sys.executable, "-m", "ddpnas_ray.search", "--address", address, "--out", str(out), *KEYS]


def names(dashboard: str) -> tuple[set[str], set[str]]:
    """Actors and tasks as the Ray dashboard lists them."""
    actors = {actor.repr_name for actor in list_actors(dashboard, detail=True)}
    return actors, {task.name for task in list_tasks(dashboard, limit=1000)}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_submitted_search_outlives_its_client_and_is_looked_at_again(
    cluster: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    client = start(submitted(cluster, "search-1", out))
    wait_for(lambda: epochs_done(out) >= 1, client)
    client.send_signal(signal.SIGKILL)
    client.communicate()

    looking = start(ATTACH, out)
    first_epoch = {f"r0 e0 arch {i}" for i in range(8)}
    wait_for(lambda: first_epoch <= names(cluster[1])[1], looking)  # Ray reports a little late
    actors, tasks = names(cluster[1])
    assert {"ddpnas-driver", "ddpnas-worker-0"} <= actors
    assert not any("status" in task or "ready" in task for task in tasks), "what asks for progress is not listed"
    shown, errors = looking.communicate(timeout=200)
    assert looking.returncode == 0, errors
    assert ": attached to ddpnas-" in errors.splitlines()[0]
    assert shown.count(" epochs, round ") >= 2
    assert run(search, "--out", tmp_path / "local", *KEYS, *options("execution.backend=local")).code == 0
    job, local = (json.loads((tmp_path / name / "result.json").read_bytes()) for name in ("run", "local"))
    assert job["fingerprint"] == local["fingerprint"]
    assert f"fingerprint {local['fingerprint']}" in shown


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_stopped_job_is_said_to_have_ended_with_what_is_saved(cluster: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    client = start(submitted(cluster, "search-2", out))
    wait_for(lambda: epochs_done(out) >= 1, client)
    looking = start(ATTACH, out)
    assert looking.stdout is not None
    assert " epochs, round " in looking.stdout.readline()
    subprocess.run([RAY, "job", "stop", "--address", cluster[1], "search-2"], env=ENVIRONMENT, check=True, timeout=60)
    _, errors = looking.communicate(timeout=60)
    assert looking.returncode == 1
    assert " of 36 epochs are saved. Resume with: " in errors
    client.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(400)
def test_a_search_is_looked_at_through_the_client_port_and_only_with_the_token_of_its_cluster(tmp_path: Path) -> None:
    out, token = tmp_path / "run", tmp_path / "token"
    token.write_text("a" * 64)
    theirs = {**ENVIRONMENT, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    (port,) = free_ports(1)
    with running(theirs, include_dashboard=False, ray_client_server_port=port) as address:
        searching = start([*SEARCH, "--address", address, "--out", str(out), *KEYS], environment=theirs)
        wait_for(lambda: epochs_done(out) >= 1, searching)
        through = start([*ATTACH, str(out), "--address", f"ray://127.0.0.1:{port}"], environment=theirs)
        without = start([*ATTACH, str(out)])
        said, errors = through.communicate(timeout=200)
        assert through.returncode == 0, errors
        assert f", cluster ray://127.0.0.1:{port}" in errors.splitlines()[0]
        assert ": attached to ddpnas-" in errors.splitlines()[0]
        assert said.count(" epochs, round ") >= 2
        _, errors = without.communicate(timeout=200)
        assert without.returncode == 0, errors
        assert "following log.jsonl of process " in errors.splitlines()[0]
        assert "the cluster asks for a token: set RAY_AUTH_MODE=token and, unless ~/.ray/auth_token holds it" in errors
        searching.communicate(timeout=60)
