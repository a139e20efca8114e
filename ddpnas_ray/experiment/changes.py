"""Differences between configurations: which keys may change when an experiment is resumed, and where data are."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpnas_ray.core.plugins import Place
from ddpnas_ray.experiment.config import DEFAULT, MADE, SearchConfig, to_dict

PLACES = ("data.path", "data.val_path", "data.test_path", "data.cache", "evaluation.table")
FREE = ("execution.", "finals.", "retraining.")  # sections that may change when a search is resumed


def places(config: SearchConfig) -> tuple[str, ...]:
    """Return the keys that locate data: ``PLACES``, and the options of space and task marked with ``Place``."""
    return PLACES + _marked(config)


def differing_keys(old: SearchConfig, new: SearchConfig) -> list[str]:
    """Return the dotted keys whose values differ between two configurations."""
    a, b = dict(_flat(to_dict(old))), dict(_flat(to_dict(new)))
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def changed_keys(old: SearchConfig, new: SearchConfig, free: tuple[str, ...] = ()) -> list[str]:
    """Return the differing keys but those of places and those that start with one of ``free``.

    A place of space or task is changed where only one of both is null: null is not a location, but an option.
    """
    a, b = dict(_flat(to_dict(old))), dict(_flat(to_dict(new)))
    moved = {*PLACES, *(key for key in _marked(new) if a.get(key) is not None and b.get(key) is not None)}
    return [key for key in differing_keys(old, new) if not key.startswith(free) and key not in moved]


def fixed_keys(old: SearchConfig, new: SearchConfig) -> list[str]:
    """Return the differing keys that a resume refuses: all but ``FREE`` and where data are.

    Another kind of device is allowed, with a warning and a record (``execution.mixed_devices``).
    """
    return changed_keys(old, new, FREE)


def source_name(path: str | None, overrides: Sequence[str], config: SearchConfig) -> str:
    """Name a configuration by its file and the overrides that can change a result.

    Args:
        path: Its file; None: the default.
        overrides: ``section.key=value``.
        config: The configuration that they make.
    """
    name = Path(path).name if path else DEFAULT.removeprefix("the packaged ")
    changed = [text for text in overrides if not text.strip().startswith(("execution.", *places(config)))]
    return f"{name} with {', '.join(changed)}" if changed else name


def _marked(config: SearchConfig) -> tuple[str, ...]:
    """Return the options of space and task that are places, as dotted keys."""
    found = []
    for section, made in MADE.items():
        make = made.find(getattr(config, section).name)
        hints = typing.get_type_hints(make, include_extras=True)
        for key in list(inspect.signature(make).parameters)[made.given :]:
            if Place() in getattr(hints.get(key), "__metadata__", ()):
                found.append(f"{section}.{key}")
    return tuple(found)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
