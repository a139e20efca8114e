"""The momentum gamma against quality (Sec. 4.3)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from ddpnas_ray.ablations.outcomes import Row, measure_label
from ddpnas_ray.ablations.study import TABLE, Searches
from ddpnas_ray.ablations.variants import PRUNING, Arguments, Study, Variant, each_value, varied
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.reporting.ablation_plots import Point, swept

PAPER_GAMMA = (0.7, 0.9)  # Sec. 4.3
GAMMAS = "0.0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,0.99"
DESCRIPTION = f"""\
Vary the momentum gamma of Eq. 4 and compare the final score; the paper sees no difference within 0.7-0.9 (Sec. 4.3).
All values use the same number of evaluations: evaluation.budget if set. Tabular: 300 seeds of 11 values take about a
minute.

examples:
  python -m ddpnas_ray.ablate gamma {TABLE} --seeds 300
  python -m ddpnas_ray.ablate gamma {TABLE} --values 0.7,0.8,0.9
"""


def ablation() -> Searches:
    """Define the ablation."""
    return Searches(
        help="momentum gamma against quality (Sec. 4.3)",
        description=DESCRIPTION,
        title="Momentum gamma (Sec. 4.3)",
        variants=variants,
        figures=figures,
        add_options=add_options,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--values``."""
    parser.add_argument("--values", metavar="G,..", default=GAMMAS, help="values of gamma (0.0 to 0.9, and 0.99)")


def variants(config: SearchConfig, arguments: Arguments) -> list[Variant]:
    """Return one variant per gamma."""
    return each_value(varied(config, PRUNING, "gamma"), "gamma", "pruning.gamma", arguments["values"])


def figures(study: Study, rows: Sequence[Row], title: str) -> Mapping[str, bytes]:
    """Plot quality against gamma."""
    return swept(
        title,
        "gamma: momentum of the utility (Eq. 4)",
        measure_label(rows[0]),
        [Point(float(row.variant.value), row.quality.mean, row.quality.deviation) for row in rows],
        chosen=PAPER_GAMMA,
        chosen_label="0.7-0.9: no difference in the paper",
    )
