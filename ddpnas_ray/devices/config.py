"""How and where networks are timed; apart from ``timing.py`` so that reading it does not import torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ddpnas_ray.core.errors import ConfigError

DEVICE = "ddpnas-device"  # the label's key where only a name is given
_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingOptions:
    """What is timed, and how often.

    Args:
        threads: CPU threads.
        batch: Images of a batch.
        dtype: Of weights and images.
        device: ``cuda`` is the node's first GPU.
        passes: How often everything is timed, each time in another order.
        timings: Timings of one part or network in one pass; fewer, but three at least, where they would take more
            than ``seconds``.
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
    """The label of the Ray nodes that are a device, ``key=value``.

    Args:
        text: ``key=value``, or a value of the key ``ddpnas-device``.

    Raises:
        ConfigError: Ray would not take it.

    Example:
        >>> device_label("jetson"), device_label("board=rev-b")
        ('ddpnas-device=jetson', 'board=rev-b')
    """
    key, value = text.split("=", 1) if "=" in text else (DEVICE, text)
    if not re.fullmatch(rf"([a-z0-9.-]+/)?{_NAME}", key) or not re.fullmatch(_NAME, value):
        raise ConfigError(
            f"device label {text!r}: a name such as jetson is needed, or key=value, each at most 63 letters, digits, "
            "'-', '_' and '.', with a letter or digit at both ends"
        )
    return f"{key}={value}"
