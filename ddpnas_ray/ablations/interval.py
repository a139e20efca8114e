"""The pruning interval T against quality and cost (Fig. 6)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from ddpnas_ray.ablations.outcomes import Row, measure_label
from ddpnas_ray.ablations.study import TABLE, Searches
from ddpnas_ray.ablations.variants import PRUNING, Arguments, Study, Variant, each_value, varied
from ddpnas_ray.console.options import positive
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.reporting.ablation_plots import Point, swept

PAPER_T = 3.0  # Sec. 4
DESCRIPTION = f"""\
Vary the pruning interval T of Algorithm 1 (Fig. 6): final score and evaluations, mean and standard deviation over
seeds. A search uses the evaluations its T needs; with --budget, those left after pruning verify the most probable
networks. Tabular: 300 seeds of 6 values take less than a minute. With a supernet: seeds x values full searches.

examples:
  python -m ddpnas_ray.ablate interval {TABLE} --seeds 300
  python -m ddpnas_ray.ablate interval --values 2..4 --set pruning.keep_per_group=1 --seeds 10..13 --out runs/T
"""


def ablation() -> Searches:
    """Define the ablation."""
    return Searches(
        help="T against quality and cost (Fig. 6)",
        description=DESCRIPTION,
        title="Pruning interval T (Fig. 6)",
        variants=variants,
        figures=figures,
        add_options=add_options,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--values`` and ``--budget``."""
    parser.add_argument("--values", metavar="T,..", default="1..6", help="values of T (1..6)")
    parser.add_argument(
        "--budget", metavar="N", type=positive, help="evaluations of every search; default: as many as its T needs"
    )


def variants(config: SearchConfig, arguments: Arguments) -> list[Variant]:
    """Return one variant per T; each uses the evaluations that Algorithm 1 needs, or ``budget``."""
    base = varied(config, PRUNING | {"evaluation.budget": arguments["budget"]}, "interval")
    return each_value(base, "T", "pruning.epochs_per_round", arguments["values"])


def figures(study: Study, rows: Sequence[Row], title: str) -> Mapping[str, bytes]:
    """Plot quality and evaluations against T."""
    return swept(
        title,
        "T: epochs between two prunings",
        measure_label(rows[0]),
        [Point(float(row.variant.value), row.quality.mean, row.quality.deviation) for row in rows],
        evaluations=[row.evaluations for row in rows],
        random=[row.random_search[1] for row in rows if row.random_search],
        chosen=(PAPER_T, PAPER_T),
        chosen_label="the paper's choice, T = 3",
    )
