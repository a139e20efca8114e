"""Cost of draining a node in the middle of an epoch, and whether the result stays the same.

Runs one search with two workers, each time on a new cluster of a head and two nodes (`ray.cluster_utils.Cluster`):
undisturbed; with a node drained by Ray's own call, as on a spot machine's notice, where the other node has room for its
worker and where it has none; and with the node killed while training the architecture it had at the notice. Exit code 0
only if all fingerprints equal the local executor's and a drained node gets no new work.

    python benchmarks/drain.py [--set KEY=VALUE ...]

`lost` is the search's time minus the mean of the two undisturbed ones. It consists of `repeated`, the time spent on a
lost evaluation, and the seconds `a worker short`: until the worker was ready on the other node, or to the end if that
has no room.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from common import facts, say
from draining import drain_node
from ray.cluster_utils import Cluster

from ddpnas_ray.core.requests import EvalRequest, EvalResult
from ddpnas_ray.execution.base import OnResult, ignore_result
from ddpnas_ray.execution.ray_members import PoolSize
from ddpnas_ray.execution.ray_pool import RayPool
from ddpnas_ray.experiment.config import dump, load
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.run import run_experiment
from ddpnas_ray.runs.directory import create_run
from ddpnas_ray.runs.fingerprint import verify_fingerprint

DEFAULT = ("space.cells=3", "space.channels=8", "pruning.epochs_per_round=1")
WORKERS = 2
EPOCH = 1  # the one in whose middle the notice comes; of six at T = 1


@dataclass(frozen=True)
class Way:
    """Disturbance of a cluster."""

    name: str
    cpus: int  # of each node
    notice: bool = False
    death: bool = False


WAYS = (
    Way("left alone", cpus=2),
    Way("drained, room on the other node", cpus=2, notice=True),
    Way("drained, no room", cpus=1, notice=True),
    Way("drained and killed, room on the other node", cpus=2, notice=True, death=True),
    Way("left alone again", cpus=2),
)


@dataclass
class Seen:
    """Events of a drained node: when the notice was due, when it was sent, and what followed."""

    node: str = ""
    notice_s: float = 0.0
    came_s: float = float("inf")
    after_notice: int = 0
    short_s: float | None = None
    repeated_s: float = 0.0


@dataclass(frozen=True)
class Row:
    """One search."""

    way: Way
    fingerprint: str
    retries: int
    seconds: float
    seen: Seen = field(default_factory=Seen)


class WatchedPool(RayPool):
    """Executor that drains a node when an architecture of the drained epoch is half done, and records times."""

    def watch(self, drain: Callable[[str], None] | None) -> Seen:
        """Call ``drain`` with a node in the middle of training an architecture."""
        self._drain, self.seen = drain, Seen()
        self._free_s: dict[str, float] = {}
        return self.seen

    def evaluate(self, requests: Sequence[EvalRequest], on_result: OnResult | None = None) -> Any:
        """See ``Executor``."""
        on_result = on_result or ignore_result
        start_s = time.monotonic()
        self._free_s = {member.name: start_s for member in self._members}

        def told(request: EvalRequest, result: EvalResult) -> None:
            on_result(request, result)
            self._free_s[result.worker.partition("/")[0]] = now_s = time.monotonic()
            if self.seen.node:
                self.seen.after_notice += result.node == self.seen.node and now_s > self.seen.came_s
                elsewhere = [m for m in self._members if m.ready and m.node != self.seen.node]
                if self.seen.short_s is None and len(elsewhere) == WORKERS:
                    self.seen.short_s = now_s - self.seen.notice_s
            elif self._drain is not None and request.epoch == EPOCH:  # its worker begins another one at once
                self.seen.node, self.seen.notice_s = result.node, now_s + result.seconds / 2
                threading.Timer(result.seconds / 2, self._drain, (result.node,)).start()

        return super().evaluate(requests, told)

    def _lost(self, request: Any, own: Any, shared: Any, member: Any, *more: Any) -> Any:
        self.seen.repeated_s += time.monotonic() - self._free_s[member.name]
        return super()._lost(request, own, shared, member, *more)


def search(way: Way, job: Experiment, out: Path) -> Row:
    """Run one search on its own cluster."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = {node.node_id: node for node in (cluster.add_node(num_cpus=way.cpus) for _ in range(2))}
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

        def drain(node: str) -> None:
            drain_node(node)
            seen.came_s = time.monotonic()
            if way.death:
                cluster.remove_node(nodes[node], allow_graceful=False)

        pool = WatchedPool(job.evaluator.trainer("cpu"), job.config.execution, PoolSize(WORKERS))
        seen = pool.watch(drain if way.notice else None)
        folder = create_run(str(out), job.first_files(dump(job.config)))
        start_s = time.monotonic()
        result = run_experiment(job, folder, pool, job.progress())
        end_s = time.monotonic()
        if seen.node and seen.short_s is None:
            seen.short_s = end_s - seen.notice_s
        assert result is not None
        found = verify_fingerprint(folder)
        assert found.agrees
        pool.close()
        return Row(way, found.recomputed, pool.work.retries, end_s - start_s, seen)
    finally:
        ray.shutdown()
        cluster.shutdown()


def main() -> int:
    """Run all cases; returns 0 if only time was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="overrides", action="append", metavar="KEY=VALUE", help=f"default: {DEFAULT}")
    args = parser.parse_args()
    job = Experiment.prepare(load(None, list(args.overrides or DEFAULT)))
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for number, way in enumerate(WAYS):
            say(way.name)
            rows.append(search(way, job, Path(folder, str(number))))
        say("the local executor, for its fingerprint")
        local = run_experiment(job, None, job.executor(), job.progress())
    assert local is not None
    alone = [row.seconds for row in rows if not row.way.notice]
    usual_s = sum(alone) / len(alone)
    print(facts(f"{WORKERS} workers, notice in the middle of epoch {EPOCH}; `{' '.join(args.overrides or DEFAULT)}`"))
    heads = ("run", "fingerprint", "retries", "ended there after the notice", "repeated, s", "a worker short, s")
    heads += ("search, s", "lost, s")
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for row in rows:
        print(f"| {row.way.name} | `{row.fingerprint[:16]}` | {row.retries} | {_figures(row, usual_s)} |")
    equal = {row.fingerprint for row in rows} == {local["fingerprint"]}
    left = all(row.seen.after_notice <= 1 for row in rows)  # the one that was being trained
    kept = all((row.retries > 0) == row.way.death for row in rows)
    print(f"\n{'all equal to the local executor' if equal else 'NOT EQUAL'}: `{local['fingerprint'][:16]}`")
    if not left or not kept:
        print("NOT AS IT SHOULD BE: new work for a drained node, or work repeated that could have been finished")
    return 0 if equal and left and kept else 1


def _figures(row: Row, usual_s: float) -> str:
    if not row.way.notice:
        return f"- | - | - | {row.seconds:.1f} | -"
    seen = row.seen
    return (
        f"{seen.after_notice} | {seen.repeated_s:.1f} | {seen.short_s or 0:.1f} | {row.seconds:.1f} | "
        f"{row.seconds - usual_s:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
