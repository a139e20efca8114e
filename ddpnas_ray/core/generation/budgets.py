"""Budgets: bounds on the costs of a generated network, and their text form.

``macs=600M`` at most, ``height=2..3`` between, ``nonparametric=4..4`` exactly; several separated by commas.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ddpnas_ray.core.errors import BudgetError, did_you_mean
from ddpnas_ray.core.space import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class Bound:
    """Allowed range of a cost, both ends included; None where it is open."""

    lower: int | None = None
    upper: int | None = None

    def allows(self, value: int) -> bool:
        """Return whether a value lies within."""
        return (self.lower is None or value >= self.lower) and (self.upper is None or value <= self.upper)

    def allows_each(self, values_N: IntArray) -> BoolArray:
        """Return which values lie within, shape (N,)."""
        within_N = np.ones(len(values_N), dtype=bool)
        if self.lower is not None:
            within_N &= values_N >= self.lower
        if self.upper is not None:
            within_N &= values_N <= self.upper
        return within_N


Budget = Mapping[str, Bound]

COUNTS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
TIMES = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}


def parse_budgets(text: str, costs: Mapping[str, int]) -> list[Budget]:
    """Parse ``macs=600M,height=3..3`` into one budget, ``macs=200M..600M:20`` into 20 evenly spaced upper bounds.

    Args:
        text: ``key=V`` at most, ``key=L..U`` between, ``key=L..U:n`` a sweep; suffixes k, M, G, and % of the cost of
            the unconstrained best architecture; latencies need a unit (ns, us, ms, s). A key stands for every cost of
            its family: ``height`` for ``height.normal`` and ``height.reduce``.
        costs: Every cost, with its value for the unconstrained best architecture.

    Raises:
        BudgetError: A key, number or form that cannot be parsed.
    """
    parts: list[tuple[list[str], list[Bound]]] = []
    for item in text.split(","):
        key, _, values = (word.strip() for word in item.partition("="))
        if not key or not values:
            raise BudgetError(f"budget {text!r}: {item.strip()!r} is not key=value, such as macs=600M or height=2..3")
        names = [key] if key in costs else [name for name in costs if name.partition(".")[0] == key]
        if not names:
            keys = {*costs, *(name.partition(".")[0] for name in costs)}
            raise BudgetError(f"budget {text!r}: {key} is not a cost of this space{did_you_mean(key, keys)}")
        if set(names) & {name for others, _ in parts for name in others}:
            raise BudgetError(f"budget {text!r}: {key} is bounded twice; write key=L..U for two bounds")
        if ":" in values and len(names) > 1:
            raise BudgetError(f"budget {text!r}: {key} is several costs ({', '.join(names)}); sweep one of them")
        parts.append((names, _bounds(values, names, costs, text)))
    swept = [names[0] for names, bounds in parts if len(bounds) > len(names)]
    if len(swept) > 1:
        raise BudgetError(f"budget {text!r}: only one cost can be swept at a time, not {' and '.join(swept)}")
    count = max([len(bounds) for names, bounds in parts if names[0] in swept], default=1)
    budgets: list[Budget] = []
    for i in range(count):
        budget: dict[str, Bound] = {}
        for names, bounds in parts:
            of_budget = [bounds[i]] if names[0] in swept else bounds
            budget |= dict(zip(names, of_budget, strict=True))
        budgets.append(budget)
    return budgets


def budget_text(budget: Budget, costs: Iterable[str] = ()) -> str:
    """Format a budget exactly, as users write it and its folder is named: ``macs=600M,height=3..3``.

    Args:
        budget: The budget.
        costs: All costs: a family whose members have equal bounds is written as one.
    """
    costs, texts = list(costs), {}
    for name, bound in budget.items():
        family = name.partition(".")[0]
        members = [other for other in costs if other.partition(".")[0] == family]
        alike = bool(members) and family not in costs and all(budget.get(other) == bound for other in members)
        key = family if alike else name
        texts[key] = f"{key}={_range_text(name, bound)}"
    return ",".join(texts.values()) or "unbounded"


def quantity(name: str, value: int) -> str:
    """Format a cost for display: with thousands separators, latencies in milliseconds."""
    return f"{value / 1e6:.3f} ms" if is_time(name) else f"{value:,}"


def is_time(name: str) -> bool:
    """Return whether a cost is a time, in integer nanoseconds."""
    return name.partition(".")[0] == "latency"


def _bounds(values: str, names: Sequence[str], costs: Mapping[str, int], text: str) -> list[Bound]:
    """Parse one bound per name; for a sweep, one per step."""
    span, colon, steps = values.partition(":")
    low, dots, high = span.partition("..")
    if colon:
        return _sweep(low, high, steps, names[0], costs, text)
    if not low and not high:
        raise BudgetError(f"budget {text!r}: {values} bounds nothing; write V, L..U, L.. or ..U")
    found = []
    for name in names:
        lower = math.ceil(_number(low, name, costs, text)) if dots and low else None
        upper = math.floor(_number(high if dots else low, name, costs, text)) if high or not dots else None
        if lower is not None and upper is not None and lower > upper:
            raise BudgetError(f"budget {text!r}: no value of {name} lies in {span}; write the smaller end first")
        found.append(Bound(lower, upper))
    return found


def _sweep(low: str, high: str, steps: str, name: str, costs: Mapping[str, int], text: str) -> list[Bound]:
    """Parse a sweep into evenly spaced upper bounds, both ends included."""
    if not low or not high or not re.fullmatch(r"[1-9][0-9]{0,5}", steps) or steps == "1":
        raise BudgetError(f"budget {text!r}: a sweep is key=L..U:n with n at least 2, such as macs=200M..600M:20")
    first, last = (math.floor(_number(end, name, costs, text)) for end in (low, high))
    if last - first < int(steps) - 1:
        raise BudgetError(
            f"budget {text!r}: from {low} to {high} there are fewer than {steps} values of {name}; "
            "write the smaller end first, or a smaller n"
        )
    step = Fraction(last - first, int(steps) - 1)
    return [Bound(None, first + math.floor(i * step)) for i in range(int(steps))]


def _number(value: str, name: str, costs: Mapping[str, int], text: str) -> Fraction:
    units = (TIMES if is_time(name) else COUNTS) | {"%": 0}
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(%|[A-Za-z]*)", value.strip())
    if not match or match[2] not in units:
        allowed = ", ".join(unit for unit in units if unit)
        raise BudgetError(f"budget {text!r}: {value!r} is not a value of {name}; allowed units: {allowed}")
    number = Fraction(match[1])
    return number * costs[name] / 100 if match[2] == "%" else number * units[match[2]]


def _range_text(name: str, bound: Bound) -> str:
    if bound.lower is None and bound.upper is not None:
        return _short(name, bound.upper)
    return "..".join("" if value is None else _short(name, value) for value in (bound.lower, bound.upper))


def _short(name: str, value: int) -> str:
    """Format a number exactly, as short as possible."""
    units = TIMES if is_time(name) else COUNTS
    unit, factor = max(
        ((unit, factor) for unit, factor in units.items() if value % factor == 0 and (value or factor == 1)),
        key=lambda pair: pair[1],
    )
    return f"{value // factor}{unit}"
