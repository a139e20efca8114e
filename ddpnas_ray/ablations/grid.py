"""A grid over any keys of a configuration: which searches it stands for, and what they are called."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ddpnas_ray.ablations.variants import Planned, Study, Variant, parse_seeds, refuse_twice, varied
from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.experiment.config import SearchConfig, to_dict
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.reporting.analysis import value_text

Grid = Mapping[str, Sequence[Any]]
VALUE_LENGTH, NAME_LENGTH = 40, 200  # of one value, and of all, in the name of a folder, at most


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """``KEY=V1,V2,...``, each value as YAML has it.

    Raises:
        ConfigError: There is no key or no value, or one stands there twice.

    Example:
        >>> parse_grid(["pruning.gamma=0.7,0.8", "data.val_limit=null,64"])
        {'pruning.gamma': [0.7, 0.8], 'data.val_limit': [None, 64]}
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        key, source = key.strip(), f"--grid {text}"
        if not equals or not all(key.split(".")):
            raise ConfigError(f"{source}: KEY=V1,V2,... is needed, such as --grid pruning.gamma=0.7,0.8,0.9")
        if key == "seed":
            raise ConfigError(f"{source}: seeds are given with --seeds, such as --seeds 4 or --seeds 10..13")
        if key in grid:
            raise ConfigError(f"{source}: {key} stands there twice; give all its values in one --grid")
        grid[key] = parse(f"values: [{values}]", source)["values"]
        if not grid[key]:
            raise ConfigError(f"{source}: there is no value; write --grid {key}=V1,V2,...")
        refuse_twice(source, grid[key])
    if not grid:
        raise ConfigError("--grid is missing: what is varied? such as --grid pruning.gamma=0.7,0.8,0.9")
    return grid


def points(grid: Grid) -> list[dict[str, Any]]:
    """The cross product: a value for every key, the last key varies fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def plan(config: SearchConfig, grid: Grid, seeds: str) -> Study:
    """The searches of a grid, every combination checked as a configuration.

    Args:
        config: What is varied.
        grid: Keys and their values.
        seeds: See ``parse_seeds``.

    Returns:
        A variant a combination; its ``value`` is its number in ``points(grid)``.

    Raises:
        ConfigError: A key or a value is not allowed.
    """
    variants = []
    for number, point in enumerate(points(grid)):
        source = "--grid " + " ".join(f"{key}={value_text(value)}" for key, value in point.items())
        variants.append(Variant(label(point), number, varied(config, point, source)))
    if len({variant.label for variant in variants}) < len(variants):  # values differ only in what a name cannot hold
        variants = [dataclasses.replace(variant, label=f"{variant.label}-{variant.value}") for variant in variants]
    return Study("sweep", variants[0].config, tuple(variants), parse_seeds(seeds))


def prepare(study: Study, grid: Grid) -> dict[str, Experiment]:
    """Load the data of every variant once, and check its strategy.

    Returns:
        What ``family`` names, with the searches' data.

    Raises:
        BadInput: Data, table or space of a variant are not what its configuration says, or a key changes nothing.
    """
    jobs: dict[str, Experiment] = {}
    strategies = []
    for variant in study.variants:
        name = family(variant.config)
        if name not in jobs:
            jobs[name] = Experiment.prepare(variant.config)
        strategies.append(dataclasses.replace(jobs[name], config=variant.config).strategy())
    by_table = all(not variant.config.trains for variant in study.variants)
    for key, values in grid.items():
        section = key.partition(".")[0]
        if by_table and section in ("data", "training"):
            raise ConfigError(f"--grid {key}: changes nothing where scores are a table's; vary another key")
        if section not in study.base.strategies or len(values) == 1:
            continue
        by_rest: dict[str, set[Any]] = {}
        for point, strategy in zip(points(grid), strategies, strict=True):
            by_rest.setdefault(value_text({k: v for k, v in point.items() if k != key}), set()).add(strategy)
        if all(len(alike) == 1 for alike in by_rest.values()):
            given = study.base.strategy
            raise ConfigError(
                f"--grid {key}: changes nothing with strategy {given}; vary what {given} reads, or take another one "
                "with --set strategy=NAME"
            )
    return jobs


def family(config: SearchConfig) -> str:
    """What tells searches apart whose data, table, space or target differ: only others can share a ``Experiment``."""
    values = to_dict(config)
    return value_text({key: values[key] for key in ("space", "data", "evaluation", "target")})


def label(point: Mapping[str, Any]) -> str:
    """A combination as a name of a folder.

    Example:
        >>> label({"pruning.gamma": 0.7, "pruning.epochs_per_round": 2, "data.path": "my photos/a"})
        'gamma=0.7,epochs_per_round=2,path=my-photos-a'
    """
    short = [key.rpartition(".")[2] for key in point]
    keys = [last if short.count(last) == 1 else key for key, last in zip(point, short, strict=True)]
    values = [_slug(value_text(value)) for value in point.values()]
    return ",".join(f"{key}={value}" for key, value in zip(keys, values, strict=True))[:NAME_LENGTH]


def _slug(text: str) -> str:
    sign = "-" if text.startswith("-") else ""
    return sign + re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-")[:VALUE_LENGTH]


def name(planned: Planned) -> str:
    """What a search's run directory is called."""
    return f"{planned.variant.label},seed={planned.seed}"
