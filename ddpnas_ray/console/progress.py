"""Progress display, on a terminal or as plain lines: of a search, or of any countable work."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO


@dataclass
class Display:
    """Display of a search's snapshots: a live panel on a terminal, otherwise one plain line per epoch.

    Args:
        title: Title of the panel.
        lines: Stream of the plain lines.
        live: Whether stderr is a terminal.
    """

    title: str
    lines: TextIO
    live: bool = field(default_factory=lambda: sys.stderr.isatty())
    _shown: int = field(default=-1, init=False)
    _warned: str = field(default="", init=False)
    _live: Any = field(default=None, init=False)

    def __enter__(self) -> Display:
        if self.live:
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, markup=False, emoji=False)  # titles and notes hold names as users gave them
            self._live = Live(console=console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    @contextmanager
    def following(self, snapshot: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
        """Show snapshots from a background thread for the duration of the block."""
        done = threading.Event()

        def follow() -> None:
            while not done.wait(0.25):
                self.show(snapshot())

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.show(snapshot())  # what came since the last look

    def show(self, now: Mapping[str, Any]) -> None:
        """Show a snapshot; without a terminal, print one line per finished epoch, and each warning once."""
        if (warning := now.get("warning", "")) != self._warned and self._live is None:
            self._warned = warning
            print(f"warning: {warning}", file=self.lines, flush=True)
        if self._live is not None:
            self._live.update(_panel(self.title, now))
        elif now["phase"] in LINES:
            finished = FINISHED[now["phase"]](now)
            if finished != self._shown and (finished or self._shown < 0):
                self._shown = finished
                print(LINES[now["phase"]](now), file=self.lines, flush=True)


def line(now: Mapping[str, Any]) -> str:
    """Format a snapshot as one line."""
    left = "" if now["seconds_left"] is None else f", {duration(now['seconds_left'])} left"
    scores = "" if now["best"] is None else f", mean {now['mean']:.3f}, best {now['best']:.3f}"
    note = f" ({now['note']})" if now["note"] else ""
    return (
        f"{now['epochs_done']}/{now['epochs']} epochs, round {now['round']}/{now['rounds']}: "
        f"{now['architecture_epochs']}/{now['architecture_epochs_planned']} {now['unit']}, "
        f"{now['candidates_left']}/{now['candidates']} candidates{scores}{left}{note}"
    )


def retraining_line(now: Mapping[str, Any]) -> str:
    """Format a snapshot of a retraining as one line."""
    seeds = f"seed {now['seed']} ({now['training']}/{now['seeds']}), " if now["seeds"] > 1 else ""
    text = f"{seeds}{now['epochs_done']}/{now['epochs']} epochs"
    if now["loss"] is not None:
        text += f", loss {now['loss']:.4f}"
    if now["val"] is not None:
        text += f", val {now['val']:.4f}"
    if now["examples_per_s"] is not None:
        text += f", {now['examples_per_s']:,.0f} examples/s"
    if now["seconds_left"] is not None:
        text += f", {duration(now['seconds_left'])} left"
    return text + (f" ({now['note']})" if now["note"] else "")


def duration(seconds: float) -> str:
    """Format seconds.

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
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    if now["phase"] not in LINES:
        table.add_row("starting", now.get("note") or "")
        return Panel(table, title=Text(title))
    if now["phase"] == "retraining":
        _retraining_rows(table, now)
        return _framed(title, table, now, now["of"], now["done"])
    total, done = now["architecture_epochs_planned"], now["architecture_epochs"]
    left = "..." if now["seconds_left"] is None else duration(now["seconds_left"])
    table.add_row("round", f"{now['round']}/{now['rounds']}", "epoch", f"{now['epoch']}/{now['epochs']}")
    table.add_row("architectures", f"{now['done']}/{now['of']} of this epoch", "total", f"{done}/{total}")
    if now["best"] is not None:
        table.add_row("best score (val)", f"{now['best']:.3f}", "mean", f"{now['mean']:.3f}")
    table.add_row("candidates left", f"{now['candidates_left']}/{now['candidates']}", "workers", str(now["workers"]))
    table.add_row("elapsed", duration(now["seconds"]), "left", left)
    return _framed(title, table, now, total, done)


def _retraining_rows(table: Any, now: Mapping[str, Any]) -> None:
    def shown(value: float | None, form: str = ".4f") -> str:
        return "..." if value is None else format(value, form)

    table.add_row("network", now["network"], "seed", f"{now['seed']} ({now['training']}/{now['seeds']})")
    table.add_row(
        "epoch", f"{now['epoch']}/{now['epochs']}", "step", f"{now['step']}/{now['steps']}" if now["step"] else "..."
    )
    table.add_row("loss (train)", shown(now["loss"]), "learning rate", shown(now["lr"], ".3g"))
    if now["val"] is not None:
        table.add_row("score (val)", shown(now["val"]), "best", shown(now["best_val"]))
    table.add_row("examples/s", shown(now["examples_per_s"], ",.0f"), "workers", str(now["workers"]))
    left = "..." if now["seconds_left"] is None else duration(now["seconds_left"])
    table.add_row("elapsed", duration(now["seconds"]), "left", left)


def _framed(title: str, table: Any, now: Mapping[str, Any], total: float, done: float) -> Any:
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    if now["note"]:
        table.add_row("note", now["note"])
    if now.get("warning"):
        table.add_row("warning", now["warning"])
    outer = Table.grid()
    outer.add_row(ProgressBar(total=total, completed=done, width=60))
    outer.add_row(table)
    return Panel(outer, title=Text(title))


LINES: dict[str, Callable[[Mapping[str, Any]], str]] = {"searching": line, "retraining": retraining_line}
FINISHED: dict[str, Callable[[Mapping[str, Any]], int]] = {  # what a new line is printed for
    "searching": lambda now: int(now["architecture_epochs"] - now["done"]),
    "retraining": lambda now: int((now["training"] - 1) * now["epochs"] + now["epochs_done"]),
}


@contextmanager
def counting(
    what: str, total: int, lines: TextIO, *, done: int = 0, every_s: float = 10.0, live: bool | None = None
) -> Iterator[Callable[[int], None]]:
    """Report progress of long work: a bar on a terminal (stderr), otherwise occasional plain lines.

    Args:
        what: Plural of the items.
        total: Number of items.
        lines: Stream of the plain lines.
        done: Items already done.
        every_s: Minimum seconds between two plain lines; quick work prints none.
        live: Whether to draw the bar; None: if stderr is a terminal.

    Yields:
        A function to call with the number of items just done.
    """
    from rich.console import Console
    from rich.progress import Progress as Bar

    live = sys.stderr.isatty() if live is None else live
    start = time.monotonic()
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
