"""Timing options and device labels; separate from ``timing.py``, so reading them does not import torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ddpnas_ray.core.errors import ConfigError

DEVICE = "ddpnas-device"  # the label's key if only a name is given
_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingOptions:
    """How to time networks and their parts.

    Args:
        threads: CPU threads.
        batch: Examples per batch.
        dtype: Data type of weights and of inputs that are not integers.
        device: ``cuda`` is the node's first GPU.
        passes: Passes over everything, each in another order.
        timings: Timings per part or network and pass; fewer, but at least three, if they would exceed ``seconds``.
        seconds: See ``timings``.
    """

    threads: int = 1
    batch: int = 1
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"
    passes: int = 5
    timings: int = 20
    seconds: float = 0.3


def device_label(text: str) -> str:
    """Return the label of a device's Ray nodes, ``key=value``.

    Args:
        text: ``key=value``, or a value of the key ``ddpnas-device``.

    Raises:
        ConfigError: Not a valid Ray label.

    Example:
        >>> device_label("jetson"), device_label("board=rev-b")
        ('ddpnas-device=jetson', 'board=rev-b')
    """
    key, value = text.split("=", 1) if "=" in text else (DEVICE, text)
    if not re.fullmatch(rf"([a-z0-9.-]+/)?{_NAME}", key) or not re.fullmatch(_NAME, value):
        raise ConfigError(
            f"device label {text!r}: needs a name such as jetson, or key=value, each of at most 63 letters, digits, "
            "'-', '_' and '.', starting and ending with a letter or digit"
        )
    return f"{key}={value}"
