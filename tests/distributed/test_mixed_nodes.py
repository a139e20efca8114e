"""A cluster of two kinds of node: one emulates an older CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ENVIRONMENT, SEARCH, options
from tests.conftest import TINY

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1, env_vars={"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"})
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def searched(out: Path, address: str, *keys: str) -> subprocess.CompletedProcess[str]:
    words = [*SEARCH, "--address", address, "--out", str(out), *options(*TINY, "execution.workers=2", *keys)]
    return subprocess.run(words, env=ENVIRONMENT, check=False, capture_output=True, text=True, timeout=300)


def test_workers_of_two_kinds_are_warned_about_and_recorded_or_refused(tmp_path: Path) -> None:
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        warned = searched(tmp_path / "warned", address)
        refused = searched(tmp_path / "refused", address, "execution.mixed_devices=refuse")
    finally:
        cluster.communicate(timeout=60)
    assert warned.returncode == 0, warned.stderr
    lines = warned.stdout.splitlines()
    first_epoch = next(i for i, line in enumerate(lines) if line.startswith("1/"))
    assert any(line.startswith("warning: 2 kinds of device") for line in lines[:first_epoch]), warned.stdout
    assert len(json.loads((tmp_path / "warned" / "result.json").read_text())["devices"]) == 2
    assert refused.returncode == 2
    assert "execution.mixed_devices is refuse, but there are 2 kinds of device" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
