"""Searches of an ablation: variants of a configuration, and seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.experiment.config import SearchConfig, check, put, to_dict

Value = int | float | str
Arguments = Mapping[str, Any]

PRUNING = {"strategy": "pruning", "pruning.prune": True}


@dataclass(frozen=True, slots=True)
class Variant:
    """One setting of an ablation.

    Args:
        label: Name in results.
        value: The varied value: T, gamma, a budget, ...
        config: Its configuration, except for the seed.
    """

    label: str
    value: Value
    config: SearchConfig


@dataclass(frozen=True, slots=True)
class Planned:
    """One search of an ablation."""

    variant: Variant
    seed: int

    @property
    def config(self) -> SearchConfig:
        """Its configuration."""
        return varied(self.variant.config, {"seed": self.seed}, "--seeds")

    @property
    def key(self) -> tuple[str, Value, int]:
        """Unique key within the study."""
        return (self.variant.label, self.variant.value, self.seed)


@dataclass(frozen=True)
class Study:
    """The searches of an ablation.

    Args:
        what: Name of the ablation.
        base: Configuration that prepares the data of all.
        variants: The settings.
        seeds: Seeds of every setting.
    """

    what: str
    base: SearchConfig
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]

    @property
    def trials(self) -> list[Planned]:
        """All searches, ordered by seed, then by variant."""
        return [Planned(variant, seed) for seed in self.seeds for variant in self.variants]


def varied(config: SearchConfig, changes: Mapping[str, Any], source: str) -> SearchConfig:
    """Return a checked copy of a configuration with some dotted keys changed."""
    values = to_dict(config)
    for key, value in changes.items():
        put(values, key, value, source)
    return check(values, source)


def each_value(base: SearchConfig, symbol: str, key: str, text: str) -> list[Variant]:
    """Return one variant per value of ``--values``."""
    variants = []
    for value in numbers("--values", text):
        config = varied(base, {key: value}, f"--values {text}")
        variants.append(Variant(f"{symbol}={value:g}", value, config))
    return variants


def numbers(option: str, text: str) -> list[int | float]:
    """Parse ``1,2,3``, ``1..6`` or ``0.7,0.9`` into distinct numbers.

    Raises:
        ConfigError: An item is not a number, or a duplicate.

    Example:
        >>> numbers("--values", "1..3,6,0.5")
        [1, 2, 3, 6, 0.5]
    """
    found: list[int | float] = []
    for item in text.split(","):
        item = item.strip()
        if match := re.fullmatch(r"([0-9]{1,6})\.\.([0-9]{1,6})", item):
            first, last = int(match[1]), int(match[2])
            if last < first:
                raise ConfigError(f"{option} {text}: {item} is decreasing; write {last}..{first}")
            found += range(first, last + 1)
        elif re.fullmatch(r"[0-9]{1,6}", item):
            found.append(int(item))
        elif re.fullmatch(r"[0-9]{0,6}\.[0-9]{1,6}", item):
            found.append(float(item))
        else:
            raise ConfigError(f"{option} {text}: {item!r} is not a number; write 1,2,3 or 1..6")
    refuse_duplicates(option, found)
    return found


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse seeds: ``N`` seeds from 0, or ``A..B``.

    Raises:
        ConfigError: The text is neither.

    Example:
        >>> parse_seeds("3"), parse_seeds("10..12")
        ((0, 1, 2), (10, 11, 12))
    """
    match = re.fullmatch(r"([0-9]{1,9})(\.\.([0-9]{1,9}))?", text.strip())
    if match is None:
        raise ConfigError(f"--seeds: {text!r} is neither a number of seeds such as 4, nor a range such as 10..13")
    first, last = (int(match[1]), int(match[3])) if match[2] else (0, int(match[1]) - 1)
    if last < first:
        raise ConfigError(f"--seeds: {text} contains no seed; give a number of at least 1, or the smaller end first")
    if last - first >= 100_000:
        raise ConfigError(f"--seeds: {text} are {last - first + 1:,} seeds; at most 100,000 are allowed")
    return tuple(range(first, last + 1))


def refuse_duplicates(option: str, values: Sequence[Any]) -> None:
    """Raise if a value is given more than once."""
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(f"{option}: duplicate value {value}; give it once")
