"""Configurations from text."""

from __future__ import annotations

import pytest

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.experiment.config import SearchConfig, check
from ddpnas_ray.experiment.yaml_text import parse


def read(text: str) -> SearchConfig:
    """Check the configuration of a file ``a.yaml`` with this text."""
    return check(parse(text, "a.yaml"), "a.yaml")


def refused(text: str) -> str:
    """Return why a configuration is refused."""
    with pytest.raises(ConfigError) as error:
        read(text)
    return str(error.value)
