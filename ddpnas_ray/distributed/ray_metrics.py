"""A search's numbers as Ray metrics: on every node's Prometheus endpoint, and from there in Grafana."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

TAGS = ("run", "space")
GAUGES = {  # a key of Progress.snapshot: what it is
    "round": "Round that is under way, from 1",
    "rounds": "Rounds in all",
    "epochs_done": "Epochs merged and saved",
    "epochs": "Epochs in all",
    "architecture_epochs": "Architectures scored, one epoch each",
    "architecture_epochs_planned": "Architectures that will have been scored at the end",
    "candidates_left": "Operations not pruned, over all edges",
    "candidates": "Operations that there were",
    "best": "Best validation score so far, a fraction",
    "mean": "Mean validation score of the epoch under way, or of the last one, a fraction",
    "workers": "Workers that are ready",
    "retries": "Evaluations that were lost and done again, since the driver's start",
    "seconds_left": "Estimated seconds to the end",
}


class Metrics:
    """Shows snapshots of one search.

    Ray puts ``ray_`` before names, and ``_total`` behind those of counters. Gauges say where the search stands, also
    after a resume; counters begin anew with every process of the driver, as Prometheus expects.

    Args:
        run: The run directory; a tag of every metric.
        space: The name of the search space; a tag too.
    """

    def __init__(self, run: str, space: str) -> None:
        self._tags = {"run": run, "space": space}
        self._gauges = {key: Gauge(f"ddpnas_{key}", meaning, TAGS) for key, meaning in GAUGES.items()}
        entropy = "Entropy of theta among live operations, mean over edges of a kind; 1: uniform among all"
        self._entropy = Gauge("ddpnas_theta_entropy", entropy, (*TAGS, "kind"))
        self._seconds = Counter("ddpnas_seconds", "Seconds spent, summed over workers", (*TAGS, "phase"))
        self._bytes = Counter("ddpnas_bytes_moved", "Bytes of weights through the object store", TAGS)
        self._counted: dict[tuple[Any, ...], float] = {}

    def show(self, now: Mapping[str, Any]) -> None:
        """Set everything to a snapshot of ``Progress``."""
        if now["phase"] != "searching":
            return
        for key, gauge in self._gauges.items():
            if now[key] is not None:
                gauge.set(now[key], self._tags)
        for kind, share in now["entropy"].items():
            self._entropy.set(share, self._tags | {"kind": kind})
        for phase, seconds in now["seconds_in"].items():
            self._count(self._seconds, seconds, phase=phase)
        self._count(self._bytes, now["bytes_moved"])

    def _count(self, counter: Counter, total: float, **tags: str) -> None:
        key = (counter, *tags.values())
        if (more := total - self._counted.get(key, 0.0)) > 0:  # Ray refuses an increment of 0
            counter.inc(more, self._tags | tags)
            self._counted[key] = total
