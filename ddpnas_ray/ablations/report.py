"""From the searches of an ablation to its report: summary, table and figure."""

from __future__ import annotations

from collections.abc import Sequence

from ddpnas_ray.ablations.folder import Report
from ddpnas_ray.ablations.outcomes import Outcome, differences, spread_json, summarise, sweep_table, trials_table
from ddpnas_ray.ablations.study import Searches
from ddpnas_ray.ablations.sweeps import Sweep
from ddpnas_ray.reporting.figures import heading
from ddpnas_ray.runs.files import plain


def report(ablation: Searches, sweep: Sweep, outcomes: Sequence[Outcome], source: str) -> Report:
    """What all searches of an ablation come to.

    Args:
        ablation: Which.
        sweep: The searches.
        outcomes: One of each, in order.
        source: What the configuration is called.
    """
    rows = summarise(sweep, outcomes)
    seeds = f"{len(sweep.seeds)} seed{'s' * (len(sweep.seeds) > 1)}"
    each = [f"{rows[0].evaluations:g} evaluations each"] if ablation.paired else []
    title = heading(ablation.title, sweep.base.space.name, seeds, *each, source)
    summary = [row.json() for row in rows]
    table = sweep_table(rows, value_column=ablation.value_column, paired=ablation.paired)
    if ablation.paired:
        for row, (name, spread) in zip(summary[1:], differences(rows), strict=True):
            row["paired_difference"] = {"of": name, **spread_json(spread), "standard_error": plain(spread.error)}
    if ablation.details is not None:
        above, more = ablation.details(rows)
        table = f"{above}\n\n{table}"
        summary = [row | keys for row, keys in zip(summary, more, strict=True)]
    return Report(summary, table, trials_table(outcomes), ablation.figures(sweep, rows, title))
