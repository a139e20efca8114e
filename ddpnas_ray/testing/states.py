"""Compare the states of two searches."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from ddpnas_ray.core.state import SearchState

WHO_AND_HOW_LONG = ("seconds", "worker", "node", "device")


def assert_same_state(state: SearchState, other: SearchState) -> None:
    """Assert that two states are bit-equal, NaN included, except for worker, node, device and time of evaluations."""
    _same(state, other, "state")


def _same(one: Any, other: Any, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, where
        np.testing.assert_array_equal(one, other, err_msg=where)
    elif isinstance(one, tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            _same(a, b, f"{where}[{i}]")
    elif hasattr(one, "__dataclass_fields__"):
        for field in fields(one):
            if field.name not in WHO_AND_HOW_LONG:
                _same(getattr(one, field.name), getattr(other, field.name), f"{where}.{field.name}")
    else:
        assert one == other or (one != one and other != other), f"{where}: {one} is not {other}"
