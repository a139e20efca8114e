"""Report on the searches of a grid: ``results.parquet``, ``results.md`` and ``plot.png``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ddpnas_ray.ablations.grid import Grid, points
from ddpnas_ray.ablations.outcomes import Outcome, Row, measure_label, result_scores, summarise, sweep_table
from ddpnas_ray.ablations.variants import Planned, Study
from ddpnas_ray.reporting.ablation_plots import Panel, gridded
from ddpnas_ray.reporting.analysis import value_text
from ddpnas_ray.reporting.figures import heading
from ddpnas_ray.storage.parquet import parquet_bytes

NOTE = "mean ± standard deviation over seeds; one dot per seed"
MARGINAL = "mean ± standard deviation over seeds and all values of the other keys; one dot per search"


@dataclass(frozen=True, slots=True)
class Ended:
    """Outcome of one search.

    Args:
        planned: The search.
        run: Its run directory, relative to the sweep's.
        result: The content of its ``result.json``; None if it did not finish.
        best: Its best score so far, if any.
        evaluations: Number of evaluations.
        error: Why it failed.
    """

    planned: Planned
    run: str
    result: Mapping[str, Any] | None
    best: float | None = None
    evaluations: int = 0
    error: str | None = None

    @property
    def status(self) -> str:
        """``finished``, ``failed``, or ``stopped`` by a scheduler."""
        return "finished" if self.result is not None else "failed" if self.error is not None else "stopped"


def report(study: Study, grid: Grid, ended: Sequence[Ended], source: str) -> tuple[str, dict[str, bytes]]:
    """Summarise the searches of a grid.

    Args:
        study: The searches.
        grid: Varied keys and values.
        ended: Outcome of each search, in order.
        source: Name of the configuration.

    Returns:
        The table, and all files; without a figure if no search finished.
    """
    outcomes = [Outcome.of(one.planned, one.result) for one in ended if one.result is not None]
    rows = summarise(study, outcomes)
    table = sweep_table(rows) if rows else "no search finished\n"
    for status in ("stopped", "failed"):
        if names := [one.run.rpartition("/")[2] for one in ended if one.status == status]:
            table += f"\n{len(names)} {status}: {', '.join(names)}\n"
    files = {"results.parquet": _table(grid, ended), "results.md": table.encode()}
    if rows:
        seeds = f"{len(study.seeds)} seed{'s' * (len(study.seeds) > 1)}"
        title = heading(_title(grid), study.base.space.name, seeds, source)
        files |= gridded(
            title, _measure(rows), _panels(grid, rows), f"{list(grid)[1]}: {NOTE}" if len(grid) == 2 else None
        )
    return table, files


def _table(grid: Grid, ended: Sequence[Ended]) -> bytes:
    """Write ``results.parquet``: one row per search."""
    plain = {key for key, values in grid.items() if len({type(value) for value in values} - {int, float}) == 0}
    plain |= {key for key, values in grid.items() if {type(value) for value in values} in ({str}, {bool})}
    rows = []
    for one in ended:
        point, result = points(grid)[int(one.planned.variant.value)], one.result
        row = {key: value if key in plain else value_text(value) for key, value in point.items()}
        row |= {"seed": one.planned.seed, "status": one.status, "best": one.best, "evaluations": one.evaluations}
        if result is not None:
            row |= result_scores(result) | {f"costs.{name}": cost for name, cost in result["costs"].items()}
        found = {key: result[key] if result is not None else None for key in ("fingerprint", "seconds")}
        rows.append(row | found | {"run": one.run, "error": one.error})
    names = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    return parquet_bytes(pa.table({name: [row.get(name) for row in rows] for name in names}))


def _panels(grid: Grid, rows: Sequence[Row]) -> list[Panel]:
    """Return one line for one key; for two, one line per value of the second; for more, one marginal panel per key."""
    keys = list(grid)
    found = [
        ({k: value_text(v) for k, v in points(grid)[int(row.variant.value)].items()}, row.values()) for row in rows
    ]

    def scores(wanted: Mapping[str, str]) -> list[float]:
        return [score for point, values in found if wanted.items() <= point.items() for score in values]

    def panel(key: str, lines: Mapping[str, Mapping[str, str]], random: Sequence[float] = ()) -> Panel:
        texts = [value_text(value) for value in grid[key]]
        by_line = {name: [scores({key: text, **fixed}) for text in texts] for name, fixed in lines.items()}
        return Panel(key, grid[key], texts, by_line, random)

    if len(keys) == 1:
        random = [row.random_search[1] for row in rows if row.random_search is not None]
        return [panel(keys[0], {NOTE: {}}, random if len(random) == len(grid[keys[0]]) else ())]
    if len(keys) == 2:
        second = [value_text(value) for value in grid[keys[1]]]
        return [panel(keys[0], {text: {keys[1]: text} for text in second})]
    return [panel(key, {MARGINAL: {}}) for key in keys]


def _title(grid: Grid) -> str:
    *first, last = grid
    return f"Quality against {', '.join(first)}{' and ' if first else ''}{last}"


def _measure(rows: Sequence[Row]) -> str:
    """Return the axis label of the score; rows have different scores if the grid varies ``evaluation``."""
    labels = dict.fromkeys(measure_label(row) for row in rows)
    return next(iter(labels)) if len(labels) == 1 else "result architecture, final score of each setting"
