"""Fingerprints of one search under execution changes that must not matter.

Runs the real command in separate processes: in process (`local`), on 1, 2 and 4 Ray workers, with a worker killed
(SIGKILL), with the driver actor killed, with the whole process group killed and the run resumed, on a cluster of three
nodes (`ray.cluster_utils.Cluster`) that loses one, and with another seed. Fingerprints are recomputed from the files by
`python -m ddpnas_ray.report RUN --verify-fingerprint`. Exit code 0 only if all but the last are equal.

    python benchmarks/fingerprints.py [--config FILE] [--set KEY=VALUE ...] [--folder DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ddpnas_ray.core.state import Evaluation
from ddpnas_ray.runs.files import read_evaluations
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.storage.folder import Folder

DEFAULT = ("space.cells=3", "space.channels=8", "pruning.epochs_per_round=1")
CLUSTER = """
import json, sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "remove":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("removed", flush=True)
cluster.shutdown()
"""


@dataclass(frozen=True)
class Row:
    """One case, and its result."""

    way: str
    fingerprint: str
    workers: int
    nodes: int
    starts: int
    seconds: float


class Runner:
    """Starter of searches in a folder, all with the same configuration and overrides."""

    def __init__(self, folder: Path, config: str | None, overrides: tuple[str, ...]) -> None:
        self.folder, self.overrides = folder, overrides
        self.config = [] if config is None else ["--config", config]
        self.env = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Start the command in its own process group."""
        sets = [word for override in self.overrides for word in ("--set", override)]
        log = open(self.folder / f"{name}.log", "ab")  # noqa: SIM115 (the process keeps it)
        command = [sys.executable, "-m", "ddpnas_ray.search", "--out", str(self.folder / name)]
        command += [*self.config, *sets, *words]
        return subprocess.Popen(command, stdout=log, stderr=log, env=self.env, start_new_session=True)

    def finish(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Wait for a search to succeed."""
        if process.wait(timeout=1800) != 0:
            raise SystemExit(f"{name} ended with {process.returncode}:\n{(self.folder / f'{name}.log').read_text()}")

    def await_epoch(self, name: str, process: subprocess.Popen[bytes], epochs: int) -> None:
        """Wait until at least the given number of epochs is saved."""
        checkpoints = Folder.open(str(self.folder / name / "checkpoints"))
        while newest_epoch(checkpoints) < epochs:
            if process.poll() is not None:
                raise SystemExit(f"{name} ended too early:\n{(self.folder / f'{name}.log').read_text()}")
            time.sleep(0.02)

    def worker_pid(self, name: str) -> int:
        """Return the process of a worker with a finished evaluation."""
        return int(self._evaluations(name)[-1].worker.split("/")[1])

    def driver_pid(self, name: str) -> int:
        """Return the process of the driver."""
        return int(self._starts(name)[-1]["pid"])

    def row(self, way: str, name: str, seconds: float) -> Row:
        """Return the result of a finished search, with its fingerprint recomputed from the files."""
        command = [sys.executable, "-m", "ddpnas_ray.report", str(self.folder / name), "--verify-fingerprint"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, env=self.env).stdout
        rows = self._evaluations(name)
        return Row(
            way=way,
            fingerprint=printed.split()[0],
            workers=len({row.worker for row in rows}),
            nodes=len({row.node for row in rows}),
            starts=len(self._starts(name)),
            seconds=round(seconds, 1),
        )

    def _evaluations(self, name: str) -> tuple[Evaluation, ...]:
        return read_evaluations((self.folder / name / "evaluations.parquet").read_bytes())

    def _starts(self, name: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in (self.folder / name / "log.jsonl").read_text().splitlines()]
        return [line for line in lines if line["event"] == "start"]


def plain(runner: Runner, name: str, *words: str) -> None:
    """Do nothing."""
    runner.finish(name, runner.start(name, *words))


def worker_killed(runner: Runner, name: str) -> None:
    """Kill a worker (SIGKILL) in the middle of an epoch."""
    process = runner.start(name, "--set", "execution.workers=2")
    runner.await_epoch(name, process, 2)
    os.kill(runner.worker_pid(name), signal.SIGKILL)
    runner.finish(name, process)


def driver_killed(runner: Runner, name: str) -> None:
    """Kill the driver actor (SIGKILL); Ray restarts it."""
    process = runner.start(name, "--set", "execution.workers=2")
    runner.await_epoch(name, process, 2)
    os.kill(runner.driver_pid(name), signal.SIGKILL)
    runner.finish(name, process)


def group_killed(runner: Runner, name: str) -> None:
    """Kill the command and Ray (SIGKILL), then --resume."""
    process = runner.start(name, "--set", "execution.workers=2")
    runner.await_epoch(name, process, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    plain(runner, name, "--resume")


def node_lost(runner: Runner, name: str) -> None:
    """Remove one of three nodes in the middle of a search."""
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=runner.env
    )
    assert cluster.stdin is not None and cluster.stdout is not None
    try:
        address = cluster.stdout.readline().strip()
        process = runner.start(name, "--address", address, "--set", "execution.workers=3")
        runner.await_epoch(name, process, 1)
        cluster.stdin.write("remove\n")
        cluster.stdin.flush()
        runner.finish(name, process)
    finally:
        with contextlib.suppress(BrokenPipeError):
            cluster.stdin.close()
        cluster.wait(timeout=60)


WAYS: tuple[tuple[str, str, Callable[[Runner, str], None]], ...] = (
    ("local executor", "local", lambda r, n: plain(r, n, "--set", "execution.backend=local")),
    ("ray, 1 worker", "ray1", lambda r, n: plain(r, n, "--set", "execution.workers=1")),
    ("ray, 2 workers", "ray2", lambda r, n: plain(r, n, "--set", "execution.workers=2")),
    ("ray, 4 workers", "ray4", lambda r, n: plain(r, n, "--set", "execution.workers=4")),
    ("ray, a worker SIGKILLed", "worker", worker_killed),
    ("ray, the driver actor SIGKILLed", "driver", driver_killed),
    ("ray, the process group SIGKILLed, resumed", "group", group_killed),
    ("ray, 3 nodes, one lost", "node", node_lost),
    ("local, seed 1", "seed1", lambda r, n: plain(r, n, "--set", "execution.backend=local", "--set", "seed=1")),
)


def main() -> int:
    """Run all cases; returns 0 if all fingerprints but the last are equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="default: the digits quick start")
    parser.add_argument("--set", dest="overrides", action="append", metavar="KEY=VALUE", help=f"default: {DEFAULT}")
    parser.add_argument("--folder", type=Path, help="keep the runs there (default: a temporary folder)")
    parser.add_argument("--only", nargs="+", help=f"of {[name for _, name, _ in WAYS]}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        runner = Runner(folder, args.config, tuple(args.overrides or (() if args.config else DEFAULT)))
        rows = []
        print("| run | fingerprint | worker processes | nodes | starts of the loop | s |\n|---|---|---|---|---|---|")
        for way, name, run in WAYS:
            if args.only and name not in args.only:
                continue
            start = time.monotonic()
            run(runner, name)
            row = runner.row(way, name, time.monotonic() - start)
            rows.append(row)
            print(
                f"| {row.way} | `{row.fingerprint[:16]}` |",
                f"{row.workers} | {row.nodes} | {row.starts} | {row.seconds} |",
                flush=True,
            )
    same = {row.fingerprint for row in rows if "seed" not in row.way}
    other = {row.fingerprint for row in rows if "seed" in row.way}
    good = len(same) == 1 and not same & other
    print(f"\n{'all equal, another seed differs' if good else 'NOT EQUAL'}: {sorted(same)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
