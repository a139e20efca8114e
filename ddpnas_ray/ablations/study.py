"""Definition of an ablation: one file of this folder that defines ``ablation()``, or your own ``module:function``.

Most are ``Searches``: variants of a configuration, each searched with several seeds. A ``Look`` analyses a finished run
or a table. ``python -m ddpnas_ray.ablate NAME`` runs either.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ddpnas_ray.ablations.folder import Report
from ddpnas_ray.ablations.outcomes import Row
from ddpnas_ray.ablations.variants import Arguments, Study, Variant, parse_seeds
from ddpnas_ray.core.plugins import Kind
from ddpnas_ray.experiment.config import SearchConfig, make_strategy
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.spaces.base import find_space

ABLATIONS = Kind("ablation", "ddpnas_ray.ablations", function="ablation", returns="Searches or a Look")
TABLE = "--config configs/nasbench201_table.yaml --set evaluation.table=FILE"  # for examples in descriptions

Options = Callable[[argparse.ArgumentParser], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Searches:
    """An ablation that searches.

    Args:
        help: One line.
        description: Text of ``--help`` above the options.
        title: Title of its figure.
        variants: (configuration, options) -> variants to compare; the first one prepares the data of all.
        figures: (study, one row per variant, title) -> ``plot.png`` and ``plot.svg``.
        add_options: Adds its own options to ``--config``, ``--set`` and ``--seeds``.
        value_column: Name of the column of the variants' values; None if their labels contain them.
        paired: Whether to compare each variant with the first one seed by seed, at equal evaluations.
        details: Rows -> a table to print first, and more keys for the JSON of each row.
    """

    help: str
    description: str
    title: str
    variants: Callable[[SearchConfig, Arguments], list[Variant]]
    figures: Callable[[Study, Sequence[Row], str], Mapping[str, bytes]]
    add_options: Options = lambda parser: None
    value_column: str | None = None
    paired: bool = False
    details: Callable[[Sequence[Row]], tuple[str, list[dict[str, Any]]]] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of a ``Look``.

    Args:
        config: Configuration of the analysed run or table.
        arguments: Its arguments, as saved in ``ablation.json``.
        digest: SHA-256 of the data.
        report: The results.
    """

    config: SearchConfig
    arguments: Mapping[str, Any]
    digest: str
    report: Report


class Desk(Protocol):
    """Services of the command to a ``Look``."""

    def begin(self, config: SearchConfig) -> None:
        """Fail early: on an existing ``--out``, or an address where no cluster answers."""
        ...

    def inherited(self, run: FinishedRun, experiment: Experiment, alphas: Sequence[Sequence[int]]) -> list[float]:
        """Score architectures with inherited weights (val): on Ray if ``--address`` is given, else in this process."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """An ablation that analyses a finished run or a table.

    Args:
        help: One line.
        description: Text of ``--help`` above the options.
        add_options: Adds its options.
        look: (options, desk) -> finding; calls ``desk.begin`` once its options are checked.
        scores: Whether it may score networks, and so takes ``--address``.
    """

    help: str
    description: str
    add_options: Options
    look: Callable[[argparse.Namespace, Desk], Finding]
    scores: bool = True


def find(name: str) -> Searches | Look:
    """Find an ablation by name.

    Raises:
        ConfigError: There is no ablation of that name.
    """
    made: Searches | Look = ABLATIONS.find(name, "ablate")()
    return made


def plan(what: str, config: SearchConfig, arguments: Arguments) -> Study:
    """Plan and check the searches of an ablation.

    Args:
        what: Name of the ablation.
        config: Base configuration.
        arguments: Its options: ``seeds`` as text, and its own.

    Raises:
        ConfigError: A value is not allowed.
    """
    ablation = find(what)
    assert isinstance(ablation, Searches)
    variants = ablation.variants(config, arguments)
    space = find_space(config.space.name)(**config.space.options).space
    for variant in variants:
        make_strategy(variant.config, space)
    return Study(what, variants[0].config, tuple(variants), parse_seeds(arguments["seeds"]))
