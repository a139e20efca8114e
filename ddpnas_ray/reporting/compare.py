"""HTML page that compares several runs. Axes: E edges, K candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ddpnas_ray.core.generation.budgets import quantity
from ddpnas_ray.core.state import entropy
from ddpnas_ray.reporting import charts
from ddpnas_ray.reporting.analysis import environment, flat, metadata, moved, score_rows, value_text
from ddpnas_ray.reporting.page import render
from ddpnas_ray.reporting.runfiles import RunFiles
from ddpnas_ray.spaces.target import target_text

Values = tuple[str, list[str | None]]  # a name, and the value of each run


def compare_page(runs: Sequence[RunFiles]) -> bytes:
    """Render the page that compares several runs."""
    names = short_names([run.uri for run in runs])
    differing, alike = differences([run.config for run in runs])
    costs = list(dict.fromkeys(name for run in runs for name in run.result["costs"]))
    sheets = [{(row["what"], row["split"]): row["value"] for row in score_rows(run.result)} for run in runs]
    same_space = all(run.space.edges == runs[0].space.edges for run in runs)
    return render(
        "compare.html.j2",
        {},
        runs=runs,
        title=f"{len(runs)} runs compared",
        names=names,
        metadata=side_by_side([metadata(run) for run in runs]),
        sheet=[(*key, [sheet.get(key) for sheet in sheets]) for key in dict.fromkeys(k for s in sheets for k in s)],
        targets=[target_text(run.result["target"]) for run in runs],
        costs=[
            (name, [quantity(name, run.result["costs"][name]) if name in run.result["costs"] else None for run in runs])
            for name in costs
        ],
        differing=differing,
        alike=alike,
        entropy=_entropy(runs, names),
        agreement=_agreement(runs) if same_space else None,
        environment=differing_only(side_by_side([environment(run.environment) for run in runs])),
    )


def short_names(uris: Sequence[str]) -> list[str]:
    """Return the shortest distinct path suffixes."""
    parts = [uri.rstrip("/").split("/") for uri in uris]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-depth:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{uri} ({i})" for i, uri in enumerate(uris, start=1)]


def side_by_side(columns: Sequence[Sequence[tuple[str, str]]]) -> list[Values]:
    """Return name-value rows as one row per name, with one value per column; None where a column lacks it."""
    found = [dict(column) for column in columns]
    keys = dict.fromkeys(key for column in found for key in column)
    return [(key, [column.get(key) for column in found]) for key in keys]


def differing_only(rows: Sequence[Values]) -> list[Values]:
    """Return the rows whose values differ."""
    return [row for row in rows if len(set(row[1])) > 1]


def differences(configs: Sequence[Mapping[str, Any]]) -> tuple[list[Values], int]:
    """Return the keys of configurations whose values differ, and the number of equal ones."""
    columns = [[(key, value_text(value)) for key, value in sorted(flat(config).items())] for config in configs]
    rows = sorted(side_by_side(columns))
    found = differing_only(rows)
    return found, len(rows) - len(found)


def _entropy(runs: Sequence[RunFiles], names: Sequence[str]) -> dict[str, Any]:
    """Return the entropy by round: of theta among live operations, and over all candidates regardless of pruning."""
    live = [_line(run, name, pruned=False) for run, name in zip(runs, names, strict=True)]
    every = [_line(run, name, pruned=True) for run, name in zip(runs, names, strict=True)]
    rows = [
        (i, [dict(line.points).get(float(i)) for line in live], [dict(line.points).get(float(i)) for line in every])
        for i in range(max(len(run.history) for run in runs) + 1)
    ]
    return {
        "live": _chart("theta among live operations", live),
        "every": _chart("theta over all candidates", every),
        "rows": rows,
    }


def _line(run: RunFiles, name: str, *, pruned: bool) -> charts.Line:
    """Return a run's entropy from the uniform start on; empty for a strategy without theta."""
    if not moved(run):
        return charts.Line(name, ())
    exists_EK = run.space.exists_EK
    values = [entropy(r.theta_EK, exists_EK if pruned else r.live_EK, exists_EK) for r in run.history]
    return charts.Line(name, [(float(i), value) for i, value in enumerate([1.0, *values])])


def _chart(what: str, lines: Sequence[charts.Line]) -> Markup:
    return charts.lines_chart(
        f"entropy by round of {what}, one line per run; the table has the numbers",
        lines,
        x_label="rounds finished",
        y_label="entropy relative to uniform",
    )


def _agreement(runs: Sequence[RunFiles]) -> list[list[int]]:
    """Count the edges on which two result architectures choose the same operation."""
    alphas = [run.result["alpha"] for run in runs]
    return [[sum(x == y for x, y in zip(a, b, strict=True)) for b in alphas] for a in alphas]
