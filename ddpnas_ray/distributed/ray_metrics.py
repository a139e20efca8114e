"""Progress of a search or a retraining as Ray metrics, on every node's Prometheus endpoint, and so in Grafana."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

TAGS = ("run", "space")
GAUGES = {  # key of Progress.snapshot: description
    "round": "Current round, from 1",
    "rounds": "Total rounds",
    "epochs_done": "Epochs merged and saved",
    "epochs": "Total epochs",
    "architecture_epochs": "Architectures scored, one epoch each",
    "architecture_epochs_planned": "Architectures to score in total",
    "candidates_left": "Operations not pruned, over all edges",
    "candidates": "Operations at the start, over all edges",
    "best": "Best validation score so far, a fraction",
    "mean": "Mean validation score of the current or the last epoch, a fraction",
    "workers": "Ready workers",
    "retries": "Lost and retried evaluations since the driver started",
    "seconds_left": "Estimated seconds to the end",
}


class Metrics:
    """Ray metrics of one search.

    Ray prefixes names with ``ray_`` and appends ``_total`` to counters. Gauges hold the current progress, also after a
    resume; counters restart with every driver process, as Prometheus expects.

    Args:
        run: The run directory; a tag of every metric.
        space: The name of the search space; also a tag.
    """

    def __init__(self, run: str, space: str) -> None:
        self._tags = {"run": run, "space": space}
        self._gauges = {key: Gauge(f"ddpnas_{key}", meaning, TAGS) for key, meaning in GAUGES.items()}
        entropy = "Normalised entropy of theta over live operations, mean over edges of a kind; 1: uniform over all"
        self._entropy = Gauge("ddpnas_theta_entropy", entropy, (*TAGS, "kind"))
        self._seconds = Counter("ddpnas_seconds", "Seconds spent, summed over workers", (*TAGS, "phase"))
        self._bytes = Counter("ddpnas_bytes_moved", "Bytes of weights through the object store", TAGS)
        self._counted: dict[tuple[Any, ...], float] = {}

    def show(self, now: Mapping[str, Any]) -> None:
        """Set all metrics from a snapshot of ``Progress``."""
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


RETRAINING_TAGS = ("run", "network")
RETRAINING_GAUGES = {  # key of RetrainingProgress.snapshot: description
    "epochs_done": "Epochs trained and saved, of the current seed",
    "epochs": "Epochs per seed",
    "loss": "Mean training loss of the last epoch",
    "lr": "Learning rate at the end of the last epoch",
    "val": "Validation score after the last epoch, a fraction",
    "examples_per_s": "Training examples per second in the last epoch, over all workers",
    "workers": "Workers that share each batch",
    "seconds_left": "Estimated seconds to the end",
}


class RetrainingMetrics:
    """Ray metrics of one retraining.

    Args:
        run: Its folder; a tag of every metric.
        network: Its label; also a tag.
    """

    def __init__(self, run: str, network: str) -> None:
        self._tags = {"run": run, "network": network}
        self._gauges = {
            key: Gauge(f"ddpnas_retraining_{key}", meaning, RETRAINING_TAGS)
            for key, meaning in RETRAINING_GAUGES.items()
        }

    def show(self, now: Mapping[str, Any]) -> None:
        """Set all metrics from a snapshot of ``RetrainingProgress``."""
        for key, gauge in self._gauges.items():
            if now.get(key) is not None:
                gauge.set(now[key], self._tags)
