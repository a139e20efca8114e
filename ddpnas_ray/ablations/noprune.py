"""Pruning on and off at equal evaluations (NoPrune of Tables 2 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ddpnas_ray.ablations.outcomes import Row, measure_label
from ddpnas_ray.ablations.study import TABLE, Searches
from ddpnas_ray.ablations.variants import PRUNING, Arguments, Study, Variant, varied
from ddpnas_ray.core.schedule import planned_architecture_epochs
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.reporting.ablation_plots import compared
from ddpnas_ray.spaces.base import find_space

DESCRIPTION = f"""\
Compare Algorithm 1 with and without pruning (NoPrune of Tables 2 and 5), at the evaluations that pruning needs. The
difference is also given seed by seed. Tabular: 300 seeds take seconds.

examples:
  python -m ddpnas_ray.ablate noprune {TABLE} --seeds 300
"""


def ablation() -> Searches:
    """Define the ablation."""
    return Searches(
        help="pruning on and off at equal evaluations (NoPrune of Table 2)",
        description=DESCRIPTION,
        title="Pruning on and off at equal evaluations",
        variants=variants,
        figures=figures,
        paired=True,
    )


def variants(config: SearchConfig, arguments: Arguments) -> list[Variant]:
    """Return both variants, with the evaluations that pruning needs."""
    space = find_space(config.space.name)(**config.space.options).space
    needed = planned_architecture_epochs(space, config.pruning.keep_per_group, config.pruning.epochs_per_round)
    base = varied(config, PRUNING | {"evaluation.budget": needed}, "noprune")
    without = varied(base, {"pruning.prune": False}, "noprune")
    return [Variant("pruning", "true", base), Variant("no pruning", "false", without)]


def figures(study: Study, rows: Sequence[Row], title: str) -> Mapping[str, bytes]:
    """Plot the score of every seed."""
    groups = [(row.variant.label, row.values()) for row in rows]
    return compared(title, measure_label(rows[0]), groups, "one dot per seed; above: mean ± standard deviation")
