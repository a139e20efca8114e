"""Arguments of the Python API in the form that the package takes."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ddpnas_ray.console.options import seconds
from ddpnas_ray.console.progress import Display
from ddpnas_ray.core.errors import ConfigError, RunDirError
from ddpnas_ray.experiment.config import SearchConfig, load, overridden, to_dict
from ddpnas_ray.launch.search import NO_RUN

Config: TypeAlias = str | Path | Mapping[str, Any] | SearchConfig
Overrides: TypeAlias = Mapping[str, Any] | Sequence[str]


def config_of(config: Config | None, overrides: Sequence[str]) -> SearchConfig:
    """Read and check a configuration: a file, a packaged name, nested dictionaries, or None for the quick start.

    Raises:
        ConfigError: It cannot be read, or a key or value is not allowed.
    """
    if isinstance(config, SearchConfig):
        return overridden(to_dict(config), "config", overrides)
    if isinstance(config, Mapping):
        return overridden(_plain(config), "config", overrides)
    return load(None if config is None else os.fspath(config), overrides)


def texts_of(overrides: Overrides) -> list[str]:
    """Return overrides as ``section.key=value``.

    Example:
        >>> texts_of({"pruning.gamma": 0.8, "data.path": Path("photos")})
        ['pruning.gamma=0.8', 'data.path="photos"']
    """
    if isinstance(overrides, str):
        return [overrides]
    if not isinstance(overrides, Mapping):
        return [str(text) for text in overrides]
    return [f"{key}={json.dumps(_plain(value))}" for key, value in overrides.items()]


def place_of(path: str | Path) -> str:
    """Return a folder's path or URI.

    Raises:
        RunDirError: It is the ``none`` of the command, which keeps nothing that a ``Run`` could read.
    """
    place = os.fspath(path)
    if place == NO_RUN:
        raise RunDirError("out='none' keeps nothing to return; give a folder, such as a temporary one")
    return place


def seconds_of(limit: float | str) -> float:
    """Parse a duration: seconds, or a text such as ``"30m"``.

    Raises:
        ConfigError: It is not a duration.
    """
    try:
        return seconds(f"{limit:f}" if isinstance(limit, float) else str(limit))
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"time_limit: {error}") from None


def display_of(title: str, progress: bool) -> Display:
    """Create a display, on a terminal or as plain lines on stdout; without ``progress`` it shows nothing."""
    return Display(title, sys.stdout) if progress else Display(title, io.StringIO(), live=False)


def _plain(value: Any) -> Any:
    """Return nested values as YAML has them: paths as text, sequences as lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
