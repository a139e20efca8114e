"""Report on the searches of an ablation: summary, table and figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ddpnas_ray.ablations.folder import Report
from ddpnas_ray.ablations.outcomes import Outcome, differences, summarise, sweep_table, trials_table
from ddpnas_ray.ablations.study import Searches
from ddpnas_ray.ablations.variants import Study
from ddpnas_ray.reporting.figures import heading
from ddpnas_ray.runs.files import without_nan


def report(ablation: Searches, study: Study, outcomes: Sequence[Outcome], source: str) -> Report:
    """Summarise the searches of an ablation.

    Args:
        ablation: The ablation.
        study: Its searches.
        outcomes: Outcome of each search, in order.
        source: Name of the configuration.
    """
    rows = summarise(study, outcomes)
    seeds = f"{len(study.seeds)} seed{'s' * (len(study.seeds) > 1)}"
    each = [f"{rows[0].evaluations:g} evaluations each"] if ablation.paired else []
    title = heading(ablation.title, study.base.space.name, seeds, *each, source)
    summary = [row.json() for row in rows]
    table = sweep_table(rows, value_column=ablation.value_column, paired=ablation.paired)
    if ablation.paired:
        for row, (name, spread) in zip(summary[1:], differences(rows), strict=True):
            row["paired_difference"] = {"of": name, **dataclasses.asdict(spread), "standard_error": spread.error}
    if ablation.details is not None:
        above, more = ablation.details(rows)
        table = f"{above}\n\n{table}"
        summary = [row | keys for row, keys in zip(summary, more, strict=True)]
    return Report(without_nan(summary), table, trials_table(outcomes), ablation.figures(study, rows, title))
