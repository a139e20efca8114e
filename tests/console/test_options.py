"""Values of shared options."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from ddpnas_ray.console.options import count, positive, seconds


@pytest.mark.parametrize(("text", "expected"), [("90", 90.0), ("45s", 45.0), (" 30 m ", 1800.0), (".5h", 1800.0)])
def test_durations_take_a_unit(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("kind", "text"),
    [(seconds, "0"), (seconds, "-1s"), (seconds, "1d"), (positive, "0"), (positive, "1.5"), (count, "-1"), (count, "")],
)
def test_other_values_are_refused_by_name(kind: Callable[[str], float], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"^'{text}' is not "):
        kind(text)


def test_zero_is_a_count() -> None:
    assert (count("0"), positive("1")) == (0, 1)
