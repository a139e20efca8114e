"""A search on a cluster whose nodes Ray's own autoscaler starts and ends; run by test_autoscaling.py, as one process.

Ray's fake provider starts every node as a raylet on this machine, so this runs in namespaces of its own: another
``/tmp/ray``, other ports, and when it ends, everything that it started ends with it.

    python -m tests.clusters.autoscaled OUT KEY=VALUE...

prints one JSON object: how many worker nodes there were at every moment, what was done to them, and what the search
said.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from benchmarks.draining import drain_node

NODES = 3
CLUSTER: dict[str, Any] = {
    "cluster_name": "fake",
    "max_workers": NODES,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 0.1,
    "provider": {  # as an external one: under its own name Ray looks for an example file that its wheel lacks
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "head_node_id": FAKE_HEAD_NODE_ID,
        "gcs_address": "127.0.0.1:6379",
        "launch_multiple": True,
        "disable_node_updaters": True,
    },
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": 100 * 2**20},
            "node_config": {},
            "min_workers": 0,
            "max_workers": NODES,
        },
    },
    "head_node_type": "ray.head.default",
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}


def main() -> None:
    out, *keys = sys.argv[1:]
    start_head(Path(out).parent)
    ray.init(address="127.0.0.1:6379", log_to_driver=False, logging_level="ERROR")
    words = [word for key in keys for word in ("--set", key)]
    command = [sys.executable, "-m", "ddpnas_ray.search", "--address", "127.0.0.1:6379", "--out", out, *words, "--json"]
    search = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    start = time.monotonic()
    moments: list[dict[str, Any]] = []
    drained = killed = None

    def look() -> list[str]:
        alive = worker_nodes()
        if not moments or moments[-1]["nodes"] != len(alive):
            moments.append({"s": round(time.monotonic() - start, 1), "nodes": len(alive)})
        return alive

    while search.poll() is None:
        alive = look()
        finished = epochs_done(out)
        if drained is None and finished >= 1 and len(alive) >= 2:
            drained = alive[0]
            drain_node(drained)
        elif drained and killed is None and finished >= 3 and len(alive) >= 2:
            killed = kill_raylet(alive[-1])
        time.sleep(0.2)
    ended = time.monotonic()
    while look() and time.monotonic() - ended < 60:
        time.sleep(0.2)
    said = search.stdout.read() if search.stdout else ""
    print(
        json.dumps(
            {
                "moments": moments,
                "search_s": round(ended - start, 1),
                "idle_s": round(time.monotonic() - ended, 1),
                "drained": drained,
                "killed": killed,
                "code": search.returncode,
                "said": said,
            }
        )
    )


def start_head(folder: Path) -> None:
    """A head without CPUs, whose autoscaler looks every second."""
    config = folder / "cluster.json"
    config.write_text(json.dumps(CLUSTER), encoding="utf-8")
    environment = os.environ | {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    ray_command = str(Path(sys.executable).with_name("ray"))
    words = [
        "start",
        "--head",
        "--num-cpus=0",
        "--port=6379",
        "--node-ip-address=127.0.0.1",
        "--include-dashboard=false",
    ]
    words += ["--object-store-memory=200000000", "--disable-usage-stats", f"--autoscaling-config={config}"]
    subprocess.run([ray_command, *words], env=environment, check=True, stdout=subprocess.DEVNULL)


def worker_nodes() -> list[str]:
    """Ids of the living nodes beside the head."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def epochs_done(out: str) -> int:
    log = Path(out, "log.jsonl")
    return log.read_text(encoding="utf-8").count('"event": "epoch"') if log.exists() else 0


def kill_raylet(node: str) -> str:
    """What happens without a notice."""
    for process in psutil.process_iter(["name", "environ"]):
        environment = process.info["environ"] or {}
        if process.info["name"] == "raylet" and environment.get("RAY_OVERRIDE_NODE_ID_FOR_TESTING") == node:
            process.send_signal(signal.SIGKILL)
            return node
    raise LookupError(f"no raylet of node {node}")


if __name__ == "__main__":
    main()
