"""What a running search is doing: counted where it runs, shown where somebody looks."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np

from ddpnas_ray.core.requests import EvalRequest, EvalResult, Work
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import SearchState, entropy


class Progress:
    """Counts a search. Safe to read from another thread.

    Args:
        space: What is searched.
        epochs: How many architectures every epoch will have.
        epochs_per_round: T.
        unit: What an evaluation is called.
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
        self.on_change: Callable[[Mapping[str, Any]], None] | None = None  # told every snapshot
        self.on_epoch: Callable[[SearchState], None] = lambda state: None  # where somebody wants more than snapshots

    def start(self, state: SearchState, work: Work) -> None:
        """A search begins or goes on from a checkpoint.

        Args:
            state: Where.
            work: Counted by its executor as it goes.
        """
        with self._lock:
            self._start, self._done_before = time.monotonic(), len(state.evaluations)
            self._best = max((row.score for row in state.evaluations), default=float("nan"))
            self._work = work
        self.epoch_done(state)

    def result_in(self, request: EvalRequest, result: EvalResult) -> None:
        """One architecture has been scored."""
        with self._lock:
            self._train_s += result.train_s
            self._validate_s += result.validate_s
            if result.ok:
                self._scores.append(result.score)
                self._best = float(np.fmax(self._best, result.score))
        self._tell()

    def epoch_done(self, state: SearchState) -> None:
        """An epoch has been merged and saved."""
        with self._lock:
            self._state, self._scores = state, []
        self._tell()
        self.on_epoch(state)

    def _tell(self) -> None:
        if self.on_change is not None:
            self.on_change(self.snapshot())

    def snapshot(self) -> dict[str, Any]:
        """The numbers of this moment, plain values: rounds and epochs from 1, seconds, scores as fractions, entropy of
        theta among live operations by kind of edge. Seconds by phase, bytes and retries are of this process alone."""
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
    """Edges with a choice, by what stands before the last dot of their names: ``normal``, ``reduce``, ``stage2``."""
    kinds: dict[str, list[int]] = {}
    for e, edge in enumerate(space.edges):
        if len(edge.candidates) > 1:
            kinds.setdefault(edge.name.rpartition(".")[0] or "all", []).append(e)
    return kinds


@dataclass
class Display:
    """Shows snapshots: a live panel on a terminal, otherwise a plain line an epoch.

    Args:
        title: What is being searched.
        live: Whether there is a terminal to draw on (stderr).
        lines: Where plain lines go.
    """

    title: str
    live: bool
    lines: TextIO
    _shown: int = field(default=-1, init=False)
    _warned: str = field(default="", init=False)
    _live: Any = field(default=None, init=False)

    def __enter__(self) -> Display:
        if self.live:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, now: Mapping[str, Any]) -> None:
        """Show a snapshot; without a terminal only what finished an epoch is printed, and each warning once."""
        if (warning := now.get("warning", "")) != self._warned and self._live is None:
            self._warned = warning
            print(f"warning: {warning}", file=self.lines, flush=True)
        if self._live is not None:
            self._live.update(_panel(self.title, now))
        elif now["phase"] == "searching":
            finished = now["architecture_epochs"] - now["done"]
            if finished != self._shown and (finished or self._shown < 0):
                self._shown = finished
                print(line(now), file=self.lines, flush=True)


def line(now: Mapping[str, Any]) -> str:
    """A snapshot as one plain line."""
    left = "" if now["seconds_left"] is None else f", {duration(now['seconds_left'])} left"
    scores = "" if now["best"] is None else f", mean {now['mean']:.3f}, best {now['best']:.3f}"
    note = f" ({now['note']})" if now["note"] else ""
    return (
        f"{now['epochs_done']}/{now['epochs']} epochs, round {now['round']}/{now['rounds']}: "
        f"{now['architecture_epochs']}/{now['architecture_epochs_planned']} {now['unit']}, "
        f"{now['candidates_left']}/{now['candidates']} candidates{scores}{left}{note}"
    )


def duration(seconds: float) -> str:
    """Seconds for people.

    Example:
        >>> duration(59.6), duration(3725)
        ('1m00s', '1h02m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _panel(title: str, now: Mapping[str, Any]) -> Any:
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    if now["phase"] != "searching":
        table.add_row("starting", now.get("note") or "")
        return Panel(table, title=title)
    total, done = now["architecture_epochs_planned"], now["architecture_epochs"]
    left = "..." if now["seconds_left"] is None else duration(now["seconds_left"])
    table.add_row("round", f"{now['round']}/{now['rounds']}", "epoch", f"{now['epoch']}/{now['epochs']}")
    table.add_row("architectures", f"{now['done']}/{now['of']} of this epoch", "in all", f"{done}/{total}")
    if now["best"] is not None:
        table.add_row("best score (val)", f"{now['best']:.3f}", "mean", f"{now['mean']:.3f}")
    table.add_row("candidates left", f"{now['candidates_left']}/{now['candidates']}", "workers", str(now["workers"]))
    table.add_row("elapsed", duration(now["seconds"]), "left", left)
    if now["note"]:
        table.add_row("note", now["note"])
    if now.get("warning"):
        table.add_row("warning", now["warning"])
    outer = Table.grid()
    outer.add_row(ProgressBar(total=total, completed=done, width=60))
    outer.add_row(table)
    return Panel(outer, title=title)


@contextmanager
def counting(
    what: str, total: int, lines: TextIO, *, done: int = 0, every_s: float = 10.0
) -> Iterator[Callable[[int], None]]:
    """Count long work: a bar on a terminal (stderr), otherwise a plain line now and then; yields what is told of more.

    Args:
        what: What is counted.
        total: How many there are.
        lines: Where plain lines go.
        done: How many were done before.
        every_s: Seconds between two plain lines, at least; quick work prints none.
    """
    from rich.console import Console
    from rich.progress import Progress as Bar

    live, start = sys.stderr.isatty(), time.monotonic()
    count, said = done, start
    with Bar(console=Console(stderr=True), transient=True, disable=not live) as bar:
        task = bar.add_task(what, total=total, completed=done)

        def advance(n: int) -> None:
            nonlocal count, said
            count += n
            bar.advance(task, n)
            if not live and count < total and (now := time.monotonic()) - said >= every_s:
                said = now
                left = (now - start) / (count - done) * (total - count)
                print(f"{count}/{total} {what}, {duration(left)} left", file=lines, flush=True)

        yield advance
