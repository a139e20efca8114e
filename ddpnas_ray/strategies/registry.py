"""Find a strategy by name, with its section of the configuration: a strategy is one file of this folder.

The file defines ``make(context: Context) -> Strategy``, or ``make(context: Context, section: MyConfig) -> Strategy``
with a dataclass of options, the string under each field being its help text. The section is named after the file:
``evolution`` for ``strategies/evolution.py``, ``greedy`` for ``strategy: my_lab.greedy:make``. A file may also define
``VARIANTS``, label -> options, for ``ablate strategies``; the default is one variant, the strategy as configured.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.plugins import Kind
from ddpnas_ray.strategies.base import Context, Strategy

STRATEGIES = Kind("strategy", "ddpnas_ray.strategies", function="make", returns="a Strategy")


def create(name: str, sections: Mapping[str, Any], context: Context) -> Strategy:
    """Create a strategy.

    Args:
        name: A built-in, or ``module:function``.
        sections: The configuration's sections by name.
        context: The search that it is created for.

    Raises:
        ConfigError: There is no such strategy, or its budget is too small.
    """
    factory: Callable[..., Strategy] = STRATEGIES.find(name, "strategy")
    section = section_name(name)
    return factory(context) if _section_class(factory) is None else factory(context, sections[section])


def section_name(name: str) -> str:
    """Return the name of a strategy's section.

    Example:
        >>> section_name("evolution"), section_name("my_lab.greedy:make")
        ('evolution', 'greedy')
    """
    return name.partition(":")[0].rpartition(".")[2]


def sections(name: str | None = None, key: str = "strategy") -> dict[str, type]:
    """Return the dataclass of every section: those of the built-in strategies, and your own.

    Args:
        name: The chosen strategy; None: built-ins only.
        key: Where the name was given, for messages.

    Raises:
        ConfigError: There is no such strategy, or its section has the name of another one.
    """
    found = {}
    for each in STRATEGIES.names():
        if (cls := _section_class(STRATEGIES.find(each, key))) is not None:
            found[each] = cls
    if name is None or (cls := _section_class(STRATEGIES.find(name, key))) is None:
        return found
    section = section_name(name)
    if not dataclasses.is_dataclass(cls):
        raise ConfigError(f"{key}: {name!r} takes its section as {cls!r}; a dataclass is needed")
    if found.setdefault(section, cls) is not cls:
        raise ConfigError(f"{key}: {name!r}: section {section} is a built-in strategy's; rename the module")
    return found


def defaults() -> dict[str, Any]:
    """Return the sections of the built-in strategies with their defaults."""
    return {name: cls() for name, cls in sections().items()}


def variants() -> dict[str, dict[str, Any]]:
    """Return the variants of the built-in strategies: label -> dotted configuration keys; pruning first."""
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(STRATEGIES.names(), key=lambda name: name != "pruning"):
        module = sys.modules[STRATEGIES.find(name, "strategy").__module__]
        for label, options in getattr(module, "VARIANTS", {name: {}}).items():
            found[label] = {"strategy": name, **{f"{name}.{key}": value for key, value in options.items()}}
    return found


@cache
def _section_class(factory: Callable[..., Strategy]) -> type | None:
    return typing.get_type_hints(factory).get("section")
