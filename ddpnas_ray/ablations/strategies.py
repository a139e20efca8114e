"""All strategies at equal evaluations."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from ddpnas_ray.ablations.outcomes import Row, measure_label
from ddpnas_ray.ablations.study import TABLE, Searches
from ddpnas_ray.ablations.variants import Arguments, Study, Variant, numbers, refuse_duplicates, varied
from ddpnas_ray.core.errors import ConfigError, did_you_mean
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.reporting.ablation_plots import Point, by_budget
from ddpnas_ray.strategies import registry

DESCRIPTION = f"""\
Compare all strategies at equal evaluations: pruning and noprune, random, evolution, surrogate, and multinomial and
reinforce without and with pruning as a plug-in. Tabular: a search takes milliseconds (surrogate: a second or two), and
100 seeds of three budgets a few minutes. With a supernet: seeds x budgets x strategies full searches.

examples:
  python -m ddpnas_ray.ablate strategies {TABLE} --seeds 100
  python -m ddpnas_ray.ablate strategies {TABLE} --only pruning,random,evolution --budgets 42,100 --seeds 1000
"""


def ablation() -> Searches:
    """Define the ablation."""
    return Searches(
        help="all strategies at equal evaluations",
        description=DESCRIPTION,
        title="Strategies at equal evaluations",
        variants=variants,
        figures=figures,
        add_options=add_options,
        value_column="budget",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--budgets`` and ``--only``."""
    parser.add_argument("--budgets", metavar="N,..", default="42,58,100", help="evaluations (42,58,100)")
    parser.add_argument(
        "--only",
        metavar="NAME,..",
        help="strategies to compare, built-in or your own module:function; default: all built-in ones",
    )


def variants(config: SearchConfig, arguments: Arguments) -> list[Variant]:
    """Return one variant per strategy and budget."""
    known = registry.variants()
    names = [name.strip() for name in arguments["only"].split(",")] if arguments["only"] else list(known)
    for name in names:
        if ":" in name:  # user-defined
            known[name] = {"strategy": name}
        if name not in known:
            raise ConfigError(f"--only: {name!r} is not a strategy{did_you_mean(name, known)}")
    refuse_duplicates("--only", names)
    budgets = numbers("--budgets", arguments["budgets"])
    return [
        Variant(name, budget, varied(config, {**known[name], "evaluation.budget": budget}, f"--budgets {budget}"))
        for name in names
        for budget in budgets
    ]


def figures(study: Study, rows: Sequence[Row], title: str) -> Mapping[str, bytes]:
    """Plot one line per strategy over budgets, and the expectation of random search."""
    lines: dict[str, list[Point]] = {}
    for row in rows:
        point = Point(float(row.variant.value), row.quality.mean, row.quality.error)
        lines.setdefault(row.variant.label, []).append(point)
    random = {row.evaluations: row.random_search[1] for row in rows if row.random_search is not None}
    return by_budget(title, measure_label(rows[0]), lines, sorted(random.items()))
