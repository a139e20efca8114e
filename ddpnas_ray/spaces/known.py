"""Published networks by name: one JSON file each in ``ddpnas_ray/networks``."""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpnas_ray.core.errors import GenotypeError, did_you_mean
from ddpnas_ray.spaces.base import Genotype
from ddpnas_ray.spaces.target import TargetConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNetwork:
    """A published network.

    Args:
        name: Its name, that of its file.
        source: The publication.
        space: Name of its space.
        options: Options of the space, as in section ``space`` of a configuration.
        target: The deploy network as published: image size, classes, and cells and channels where its space has them.
        genotype: The architecture.
    """

    name: str
    source: str
    space: str
    options: dict[str, Any]
    target: TargetConfig
    genotype: Genotype


def known_networks() -> list[str]:
    """Return the names of the known networks, sorted.

    Example:
        >>> {"darts_v1", "darts_v2"} <= set(known_networks())
        True
    """
    return sorted(file.stem for file in _folder().glob("*.json"))


def known_network(name: str) -> KnownNetwork:
    """Return a known network.

    Raises:
        GenotypeError: There is none of that name.
    """
    if name not in known_networks():
        raise GenotypeError(f"{name!r} is not a known network{did_you_mean(name, known_networks())}")
    values = json.loads((_folder() / f"{name}.json").read_text(encoding="utf-8"))
    space = values["space"].pop("name")
    return KnownNetwork(
        name=name,
        source=values["source"],
        space=space,
        options={key: tuple(value) if isinstance(value, list) else value for key, value in values["space"].items()},
        target=TargetConfig(**values["target"]),
        genotype=values["genotype"],
    )


def _folder() -> Path:
    return Path(str(importlib.resources.files("ddpnas_ray"))) / "networks"
