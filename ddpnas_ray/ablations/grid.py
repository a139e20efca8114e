"""Grid over configuration keys: its searches and their names."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ddpnas_ray.ablations.variants import Planned, Study, Variant, parse_seeds, refuse_duplicates, varied
from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.experiment.config import SearchConfig, to_dict
from ddpnas_ray.experiment.experiment import Experiment
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.reporting.analysis import value_text

Grid = Mapping[str, Sequence[Any]]
VALUE_LENGTH, NAME_LENGTH = 40, 200  # limits for one value, and for all, in the name of a folder


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Parse ``KEY=V1,V2,...``, with values as YAML.

    Raises:
        ConfigError: A key or value is missing or duplicate.

    Example:
        >>> parse_grid(["pruning.gamma=0.7,0.8", "data.val_limit=null,64"])
        {'pruning.gamma': [0.7, 0.8], 'data.val_limit': [None, 64]}
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        key, source = key.strip(), f"--grid {text}"
        if not equals or not all(key.split(".")):
            raise ConfigError(f"{source}: expected KEY=V1,V2,..., such as --grid pruning.gamma=0.7,0.8,0.9")
        if key == "seed":
            raise ConfigError(f"{source}: set seeds with --seeds, such as --seeds 4 or --seeds 10..13")
        if key in grid:
            raise ConfigError(f"{source}: duplicate key {key}; give all its values in one --grid")
        grid[key] = parse(f"values: [{values}]", source)["values"]
        if not grid[key]:
            raise ConfigError(f"{source}: no value; write --grid {key}=V1,V2,...")
        refuse_duplicates(source, grid[key])
    if not grid:
        raise ConfigError("--grid is missing; give a key and its values, such as --grid pruning.gamma=0.7,0.8,0.9")
    return grid


def points(grid: Grid) -> list[dict[str, Any]]:
    """Return the cross product of all values; the last key varies fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def plan(config: SearchConfig, grid: Grid, seeds: str) -> Study:
    """Plan the searches of a grid, with every combination checked as a configuration.

    Args:
        config: Base configuration.
        grid: Keys and their values.
        seeds: See ``parse_seeds``.

    Returns:
        One variant per combination; its ``value`` is its index in ``points(grid)``.

    Raises:
        ConfigError: A key or a value is not allowed.
    """
    variants = []
    for number, point in enumerate(points(grid)):
        source = "--grid " + " ".join(f"{key}={value_text(value)}" for key, value in point.items())
        variants.append(Variant(label(point), number, varied(config, point, source)))
    if len({variant.label for variant in variants}) < len(variants):  # some values differ only in dropped characters
        variants = [dataclasses.replace(variant, label=f"{variant.label}-{variant.value}") for variant in variants]
    return Study("sweep", variants[0].config, tuple(variants), parse_seeds(seeds))


def prepare(study: Study, grid: Grid) -> dict[str, Experiment]:
    """Load the data of all variants, and check their strategies.

    Returns:
        One experiment per ``family``.

    Raises:
        BadInput: Data, table or space of a variant do not match its configuration, or a key has no effect.
    """
    experiments: dict[str, Experiment] = {}
    strategies = []
    for variant in study.variants:
        name = family(variant.config)
        if name not in experiments:
            experiments[name] = Experiment.prepare(variant.config)
        strategies.append(dataclasses.replace(experiments[name], config=variant.config).strategy())
    tabular = all(not variant.config.trains for variant in study.variants)
    for key, values in grid.items():
        section = key.partition(".")[0]
        if tabular and section in ("data", "training"):
            raise ConfigError(f"--grid {key}: has no effect on tabular searches; vary another key")
        if section not in study.base.strategies or len(values) == 1:
            continue
        by_rest: dict[str, set[Any]] = {}
        for point, strategy in zip(points(grid), strategies, strict=True):
            by_rest.setdefault(value_text({k: v for k, v in point.items() if k != key}), set()).add(strategy)
        if all(len(alike) == 1 for alike in by_rest.values()):
            given = study.base.strategy
            raise ConfigError(
                f"--grid {key}: has no effect with strategy {given}; vary a key that {given} reads, or choose another "
                "strategy with --set strategy=NAME"
            )
    return experiments


def family(config: SearchConfig) -> str:
    """Return the cache key: configurations with equal keys can share one loaded ``Experiment``."""
    values = to_dict(config)
    return value_text({key: values[key] for key in ("space", "data", "evaluation", "target")})


def label(point: Mapping[str, Any]) -> str:
    """Return the folder name of a combination.

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
    """Return the name of a search's run directory."""
    return f"{planned.variant.label},seed={planned.seed}"
