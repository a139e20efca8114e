"""A search on a cluster that grows and shrinks under it has the fingerprint of the one in this process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ddpnas_ray.search import main as search
from tests.commands import options, run
from tests.conftest import ROOT, TINY

# An epoch must outlast the start of a node, or there is nothing left to do for the second one.
KEYS = [*TINY, "space.channels=8", "data.train_limit=512", "data.val_limit=128", "pruning.epochs_per_round=2"]
ELASTIC = ["execution.elastic=true", "execution.workers=3", "execution.gpus_per_worker=0"]
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--net", "--mount-proc"]
ISOLATED = 'ip link set lo up && mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray && exec "$@"'


def missing() -> str:
    """Why namespaces cannot be made here; empty where they can."""
    if absent := [tool for tool in ("unshare", "ip", "mount") if shutil.which(tool) is None]:
        return f"{', '.join(absent)} not installed"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_nodes_that_come_drain_die_and_go_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(f"namespaces of its own are needed, by root or a user who may make them: {reason}")
    assert run(search, "--out", tmp_path / "local", *options(*KEYS, "execution.backend=local")).code == 0
    command = [sys.executable, "-m", "tests.clusters.autoscaled", str(tmp_path / "run"), *KEYS, *ELASTIC]
    done = subprocess.run(
        [*UNSHARE, "sh", "-c", ISOLATED, "sh", *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert seen["code"] == 0, seen["said"]
    assert "up to 3 worker(s) of 1 CPU" in seen["said"]

    nodes = [moment["nodes"] for moment in seen["moments"]]
    assert nodes[0] == 0 and max(nodes) == 3, "pending workers are the demand that nodes are started for"
    assert nodes[-1] == 0, "nodes without workers go"
    assert seen["drained"] and seen["killed"]

    rows = pq.read_table(tmp_path / "run" / "evaluations.parquet").to_pylist()
    first = [row["node"] for row in rows if row["epoch"] == 0]
    assert len(set(first)) > 1, "the search began with one node, and the others took work in the middle of the epoch"
    after_drain = [row["node"] for row in rows if row["epoch"] >= 3]
    assert seen["drained"] not in after_drain

    local, elastic = (json.loads((tmp_path / name / "result.json").read_bytes()) for name in ("local", "run"))
    assert elastic["fingerprint"] == local["fingerprint"]
