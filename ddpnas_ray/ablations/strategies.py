"""Every strategy at equal evaluations."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from ddpnas_ray.ablations.outcomes import Row, measure_label
from ddpnas_ray.ablations.study import TABLE, Searches
from ddpnas_ray.ablations.variants import Arguments, Study, Variant, numbers, refuse_twice, varied
from ddpnas_ray.core.errors import ConfigError, did_you_mean
from ddpnas_ray.experiment.config import SearchConfig
from ddpnas_ray.reporting.ablation_plots import Point, by_budget
from ddpnas_ray.strategies import registry

DESCRIPTION = f"""\
Every strategy with the same evaluations: pruning and noprune, random, evolution, surrogate, and multinomial and
reinforce without and with pruning as a plug-in. By table all take milliseconds a search but surrogate, which takes a
second or two: 100 seeds of three budgets are some minutes. With a supernet it is seeds x budgets x strategies searches.

examples:
  python -m ddpnas_ray.ablate strategies {TABLE} --seeds 100
  python -m ddpnas_ray.ablate strategies {TABLE} --only pruning,random,evolution --budgets 42,100 --seeds 1000
"""


def ablation() -> Searches:
    """See ``DESCRIPTION``."""
    return Searches(
        help="every strategy at equal evaluations",
        description=DESCRIPTION,
        title="Strategies at equal evaluations",
        variants=variants,
        figures=figures,
        add_options=add_options,
        value_column="budget",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--budgets`` and ``--only``."""
    parser.add_argument("--budgets", metavar="N,..", default="42,58,100", help="evaluations (42,58,100)")
    parser.add_argument(
        "--only",
        metavar="NAME,..",
        help="some of the strategies, or module:function of your own; default: all built in",
    )


def variants(config: SearchConfig, arguments: Arguments) -> list[Variant]:
    """Every strategy with every budget."""
    known = registry.variants()
    names = [name.strip() for name in arguments["only"].split(",")] if arguments["only"] else list(known)
    for name in names:
        if ":" in name:  # of the user's own, as configured
            known[name] = {"strategy": name}
        if name not in known:
            raise ConfigError(f"--only: {name!r} is no strategy{did_you_mean(name, known)}")
    refuse_twice("--only", names)
    budgets = numbers("--budgets", arguments["budgets"])
    return [
        Variant(name, budget, varied(config, {**known[name], "evaluation.budget": budget}, f"--budgets {budget}"))
        for name in names
        for budget in budgets
    ]


def figures(study: Study, rows: Sequence[Row], title: str) -> Mapping[str, bytes]:
    """A line per strategy over budgets, and random search's expectation."""
    lines: dict[str, list[Point]] = {}
    for row in rows:
        point = Point(float(row.variant.value), row.quality.mean, row.quality.error)
        lines.setdefault(row.variant.label, []).append(point)
    random = {row.evaluations: row.random_search[1] for row in rows if row.random_search is not None}
    return by_budget(title, measure_label(rows[0]), lines, sorted(random.items()))
