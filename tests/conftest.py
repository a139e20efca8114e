"""Fixtures of all tests: real data, one Ray cluster, and a search of seconds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Read by Ray at import: no token file in the home folder, no usage statistics.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# No test fails on a busy machine or passes by chance.
settings.register_profile("ddpnas", deadline=None, derandomize=True)
settings.load_profile("ddpnas")

ROOT = Path(__file__).parent.parent

TINY = [  # a whole search of 33 architecture-epochs in seconds
    "space.cells=2",
    "space.nodes=2",
    "space.channels=4",
    "data.train_limit=64",
    "data.val_limit=64",
    "pruning.epochs_per_round=1",
    "training.batch_size=32",
    "training.bn_images=32",
    "target.cells=3",
    "target.channels=4",
    "retraining.workers=1",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep in one process of pytest-xdist the tests of a file, which share fixtures, and all that share a cluster."""
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real data sets; if missing, the test is skipped, or fails with DDPNAS_REQUIRE_DATA=1."""
    folder = Path(os.environ.get("DDPNAS_TEST_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if folder.is_dir():
        return folder
    reason = f"no test data at {folder}; set DDPNAS_TEST_DATA to a folder that has them, such as cifar10 in it"
    if os.environ.get("DDPNAS_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local cluster for the whole session; more logical CPUs than this machine may have.

    It leaves the default port of a node's agent free, for which other clusters would wait.
    """
    import ray
    from ray.cluster_utils import Cluster

    head = {
        "num_cpus": 4,
        "include_dashboard": False,
        "dashboard_agent_listen_port": 0,
        "object_store_memory": 200 * 2**20,
        "_system_config": {"metrics_report_interval_ms": 1000},
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=cluster.address, log_to_driver=False, namespace="ddpnas")
    yield
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command in ``tmp_path`` that must fail with one line and leave every file unchanged."""
    from tests.commands import Command, contents, run

    monkeypatch.chdir(tmp_path)

    def command_refused(command: Command, words: list[str | Path], *fragments: str, code: int = 2) -> str:
        before = contents(tmp_path)
        said = run(command, *words)
        printed = [line for line in said.out.splitlines() if not line.startswith("starting Ray on this machine ")]
        assert (said.code, printed) == (code, []), said.err
        assert said.err.count("\n") == 1
        assert said.err.endswith("\n")
        for fragment in fragments:
            assert fragment in said.err
        assert contents(tmp_path) == before
        return said.err.removesuffix("\n")

    return command_refused
