"""Progress counters of a running retraining; console/progress.py displays them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class RetrainingProgress:
    """Progress of a retraining, safe to read from another thread.

    Args:
        label: The network's.
        seeds: Seeds of the trainings.
        epochs: Epochs of each.
    """

    def __init__(self, label: str, seeds: Sequence[int], epochs: int) -> None:
        self._label, self._seeds, self._epochs = label, list(seeds), epochs
        self._lock = threading.Lock()
        self._seed: int | None = None
        self._history: tuple[Mapping[str, Any], ...] = ()
        self._at = (0, 0, 1)
        self._start, self._done_before = time.monotonic(), 0.0
        self.workers = 0
        self.note = ""
        self.on_change: Callable[[Mapping[str, Any]], None] | None = None  # called with every snapshot

    def begin(self, seed: int, history: tuple[Mapping[str, Any], ...]) -> None:
        """Record that a training starts, or resumes after the epochs of ``history``."""
        with self._lock:
            self._seed, self._history = seed, history
            self._at = (len(history), 0, 1)
            self._start, self._done_before = time.monotonic(), self._done()
        self._changed()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Record a step; epochs from 0, steps from 1."""
        with self._lock:
            self._at = (epoch, step, steps)

    def epoch_done(self, history: tuple[Mapping[str, Any], ...]) -> None:
        """Record a saved epoch."""
        with self._lock:
            self._history, self._at = history, (len(history), 0, 1)
        self._changed()

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change(self.snapshot())

    def _done(self) -> float:
        """Epochs trained, over all seeds."""
        epoch, step, steps = self._at
        before = 0 if self._seed is None else self._seeds.index(self._seed) * self._epochs
        return before + epoch + step / steps

    def snapshot(self) -> dict[str, Any]:
        """Return the current counters as plain values."""
        with self._lock:
            if self._seed is None:
                return {"phase": "starting", "note": self.note, "warning": "", "workers": self.workers}
            last = self._history[-1] if self._history else {}
            epoch, step, steps = self._at
            done, total = self._done(), len(self._seeds) * self._epochs
            elapsed = time.monotonic() - self._start
            fresh = done - self._done_before
            return {
                "phase": "retraining",
                "network": self._label,
                "seed": self._seed,
                "seeds": len(self._seeds),
                "training": self._seeds.index(self._seed) + 1,
                "epoch": min(epoch + 1, self._epochs),
                "epochs": self._epochs,
                "epochs_done": len(self._history),
                "step": step,
                "steps": steps,
                "done": done,
                "of": total,
                "lr": last.get("lr"),
                "loss": last.get("loss"),
                "val": last.get("val"),
                "best_val": max((row["val"] for row in self._history if row["val"] is not None), default=None),
                "examples_per_s": last.get("examples_per_s"),
                "seconds": round(elapsed, 1),
                "seconds_left": round(elapsed / fresh * (total - done), 1) if fresh > 0 else None,
                "workers": self.workers,
                "note": self.note,
                "warning": mixed_text(self._history),
            }


def mixed_text(history: Sequence[Mapping[str, Any]]) -> str:
    """Return a warning if the epochs of a training come from several numbers of workers or kinds of device, else "".

    Example:
        >>> mixed_text([{"workers": 2, "device": "cpu a"}, {"workers": 1, "device": "cpu a"}])
        'epochs by 2 worker(s) on cpu a; 1 worker(s) on cpu a: the weights are not those of a training by one of them'
    """
    kinds = dict.fromkeys(f"{row['workers']} worker(s) on {row['device']}" for row in history)
    if len(kinds) < 2:
        return ""
    return f"epochs by {'; '.join(kinds)}: the weights are not those of a training by one of them"
