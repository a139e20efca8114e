"""Progress counters of a running search; console/progress.py displays them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ddpnas_ray.core.requests import EvalRequest, EvalResult, Work
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import SearchState, entropy


class Progress:
    """Progress of a search, safe to read from another thread.

    Args:
        space: The search space.
        epochs: Number of architectures in each epoch.
        epochs_per_round: T.
        unit: Unit of evaluations.
    """

    def __init__(
        self, space: SearchSpace, epochs: Sequence[int], epochs_per_round: int, unit: str = "architecture-epochs"
    ) -> None:
        self._unit = unit
        self._lock = threading.Lock()
        self._plan = list(epochs)
        self._rounds = -(-len(self._plan) // epochs_per_round)
        self._total = int(space.exists_EK.sum())
        self._state: SearchState | None = None
        self._scores: list[float] = []
        self._best = float("nan")
        self._start = time.monotonic()
        self._done_before = 0
        self._work: Work | None = None
        self._train_s = self._validate_s = 0.0
        self._kinds, self._exists_EK = _edge_kinds(space), space.exists_EK
        self.workers: tuple[str, ...] = ()
        self.note = ""
        self.warning = ""
        self.on_change: Callable[[Mapping[str, Any]], None] | None = None  # called with every snapshot
        self.on_epoch: Callable[[SearchState], None] = lambda state: None  # called after every epoch

    def start(self, state: SearchState, work: Work) -> None:
        """Record that a search starts, or resumes from a checkpoint.

        Args:
            state: The initial or restored state.
            work: Counters of the executor.
        """
        with self._lock:
            self._start, self._done_before = time.monotonic(), len(state.evaluations)
            self._best = max((row.score for row in state.evaluations), default=float("nan"))
            self._work = work
        self.epoch_done(state)

    def result_in(self, request: EvalRequest, result: EvalResult) -> None:
        """Record the result of one architecture."""
        with self._lock:
            self._train_s += result.train_s
            self._validate_s += result.validate_s
            if result.ok:
                self._scores.append(result.score)
                self._best = float(np.fmax(self._best, result.score))
        self._changed()

    def epoch_done(self, state: SearchState) -> None:
        """Record that an epoch has been merged and saved."""
        with self._lock:
            self._state, self._scores = state, []
        self._changed()
        self.on_epoch(state)

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change(self.snapshot())

    def snapshot(self) -> dict[str, Any]:
        """Return the current counters as plain values: rounds and epochs from 1, scores as fractions, entropy of theta
        among live operations by kind of edge. Seconds by phase, bytes and retries are of this process alone."""
        with self._lock:
            state, scores, work = self._state, list(self._scores), self._work
            best, elapsed = self._best, time.monotonic() - self._start
            phases = {"train": self._train_s, "validate": self._validate_s}
        if state is None or work is None:
            return {"phase": "starting", "note": self.note, "warning": self.warning, "workers": len(self.workers)}
        done = len(state.evaluations) + len(scores)
        total = max(sum(self._plan), done)
        last = [row.score for row in state.evaluations if row.epoch == state.epoch - 1]
        shown = scores or last
        fresh = done - self._done_before
        return {
            "phase": "searching",
            "round": min(state.round + 1, max(1, self._rounds)),
            "rounds": self._rounds,
            "epoch": min(state.epoch + 1, len(self._plan)),
            "epochs": len(self._plan),
            "epochs_done": state.epoch,
            "done": len(scores),
            "of": self._plan[min(state.epoch, len(self._plan) - 1)],
            "architecture_epochs": done,
            "architecture_epochs_planned": total,
            "unit": self._unit,
            "best": None if np.isnan(best) else round(best, 4),
            "mean": round(float(np.mean(shown)), 4) if shown else None,
            "candidates_left": int(state.live_EK.sum()),
            "candidates": self._total,
            "seconds": round(elapsed, 1),
            "seconds_left": round(elapsed / fresh * (total - done), 1) if fresh else None,
            "workers": len(self.workers),
            "note": self.note,
            "warning": self.warning,
            "entropy": {
                kind: entropy(state.theta_EK[edges], state.live_EK[edges], self._exists_EK[edges])
                for kind, edges in self._kinds.items()
            },
            "seconds_in": phases | {"transfer": work.transfer_s, "merge": work.merge_s},
            "bytes_moved": work.bytes_moved,
            "retries": work.retries,
        }


def _edge_kinds(space: SearchSpace) -> dict[str, list[int]]:
    """Group edges with a choice by the prefix of their names: ``normal``, ``reduce``, ``stage2``."""
    kinds: dict[str, list[int]] = {}
    for e, edge in enumerate(space.edges):
        if len(edge.candidates) > 1:
            kinds.setdefault(edge.name.rpartition(".")[0] or "all", []).append(e)
    return kinds
