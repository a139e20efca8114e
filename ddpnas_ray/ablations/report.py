"""From the searches of an ablation to its report: summary, table and picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ddpnas_ray.ablations.folder import Report
from ddpnas_ray.ablations.outcomes import (
    TAU,
    Outcome,
    Row,
    Spread,
    differences,
    markdown,
    spread_json,
    summarise,
    sweep_table,
    trials_table,
)
from ddpnas_ray.ablations.sweeps import Sweep
from ddpnas_ray.reporting.ablation_plots import Point, by_budget, compared, swept, taus
from ddpnas_ray.reporting.figures import heading

PAPER_T = 3.0  # Sec. 4
PAPER_GAMMA = (0.7, 0.9)  # Sec. 4.3
PAPER_TAU = 0.5722  # Fig. 7


def report(sweep: Sweep, outcomes: Sequence[Outcome], source: str) -> Report:
    """What all searches of a sub-command come to.

    Args:
        sweep: The searches.
        outcomes: One of each, in order.
        source: What the configuration is called.
    """
    rows = summarise(sweep, outcomes)
    seeds = f"{len(sweep.seeds)} seed{'s' * (len(sweep.seeds) > 1)}"
    each = [f"{rows[0].evaluations:g} evaluations each"] if sweep.what == "noprune" else []
    title = heading(_TITLES[sweep.what], sweep.base.space.name, seeds, *each, source)
    summary, table = [row.json() for row in rows], sweep_table(rows, sweep.what)
    if sweep.what == "noprune":
        for row, (name, spread) in zip(summary[1:], differences(rows), strict=True):
            row["paired_difference"] = {"of": name, **spread_json(spread), "standard_error": _known(spread.error)}
    if sweep.what == "correlation":
        by_epoch = {row.variant.label: _by_epoch(row) for row in rows}
        for row in summary:
            row["tau_by_epoch"] = [spread_json(spread) for spread in by_epoch[row["label"]]]
        table = f"{_tau_table(by_epoch)}\n\n{table}"
    return Report(summary, table, trials_table(outcomes), _FIGURES[sweep.what](sweep, rows, title))


def _interval(sweep: Sweep, rows: Sequence[Row], title: str) -> dict[str, bytes]:
    return swept(
        title,
        "T: epochs between two prunings",
        measure_label(rows[0]),
        _points(rows),
        evaluations=[row.evaluations for row in rows],
        random=[row.random_search[1] for row in rows if row.random_search],
        chosen=(PAPER_T, PAPER_T),
        chosen_label="the paper's choice, T = 3",
    )


def _gamma(sweep: Sweep, rows: Sequence[Row], title: str) -> dict[str, bytes]:
    label = "0.7-0.9: no difference, says the paper"
    x_label = "gamma: momentum of the utility (Eq. 4)"
    return swept(title, x_label, measure_label(rows[0]), _points(rows), chosen=PAPER_GAMMA, chosen_label=label)


def _noprune(sweep: Sweep, rows: Sequence[Row], title: str) -> dict[str, bytes]:
    groups = [(row.variant.label, row.values()) for row in rows]
    return compared(title, measure_label(rows[0]), groups, "a dot a seed; above them mean ± standard deviation")


def _strategies(sweep: Sweep, rows: Sequence[Row], title: str) -> dict[str, bytes]:
    lines: dict[str, list[Point]] = {}
    for row in rows:
        point = Point(float(row.variant.value), row.quality.mean, row.quality.error)
        lines.setdefault(row.variant.label, []).append(point)
    random = {row.evaluations: row.random_search[1] for row in rows if row.random_search is not None}
    return by_budget(title, measure_label(rows[0]), lines, sorted(random.items()))


def _correlation(sweep: Sweep, rows: Sequence[Row], title: str) -> dict[str, bytes]:
    lines = {
        row.variant.label: [
            Point(epoch, spread.mean, spread.deviation)
            for epoch, spread in enumerate(_by_epoch(row), start=1)
            if spread.n
        ]
        for row in rows
    }
    networks = sweep.base.evaluation.probe or 0
    every = sweep.base.pruning.epochs_per_round
    return taus(title, lines, paper=PAPER_TAU, epochs_per_round=every, networks=networks)


_TITLES = {
    "interval": "Pruning interval T (Fig. 6)",
    "gamma": "Momentum gamma (Sec. 4.3)",
    "noprune": "Pruning on and off at equal evaluations",
    "strategies": "Strategies at equal evaluations",
    "correlation": "Do shared weights rank as the benchmark does? (Fig. 7)",
}
_FIGURES: dict[str, Callable[[Sweep, Sequence[Row], str], dict[str, bytes]]] = {
    "interval": _interval,
    "gamma": _gamma,
    "noprune": _noprune,
    "strategies": _strategies,
    "correlation": _correlation,
}


def _points(rows: Sequence[Row]) -> list[Point]:
    return [Point(float(row.variant.value), row.quality.mean, row.quality.deviation) for row in rows]


def measure_label(row: Row) -> str:
    """The score that decides, for an axis."""
    split, _, what = row.measure.partition(": ")
    what, _, column = what.partition(", ")
    return f"{split} accuracy of {what}" + (f"\n{column}" if column else "")


def _by_epoch(row: Row) -> list[Spread]:
    length = max((len(outcome.tau_by_epoch) for outcome in row.outcomes), default=0)
    return [Spread.of(outcome.tau_by_epoch[i] for outcome in row.outcomes) for i in range(length)]


def _tau_table(by_epoch: dict[str, list[Spread]]) -> str:
    epochs = max(len(spreads) for spreads in by_epoch.values())
    rows = []
    for i in range(epochs):
        cells = [spreads[i].text(digits=3) if i < len(spreads) else "" for spreads in by_epoch.values()]
        rows.append([str(i + 1), *cells])
    means = [np.array([spread.mean for spread in spreads if spread.n]) for spreads in by_epoch.values()]
    rows.append(["mean", *(f"{values.mean():.3f}" if len(values) else "not defined" for values in means)])
    header = ["epoch", *(f"{TAU}, merge {name}" for name in by_epoch)]
    return markdown(header, rows) + f"\n\nThe paper: about {PAPER_TAU:g} in every epoch (Fig. 7)."


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
