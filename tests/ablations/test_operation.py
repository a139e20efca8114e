"""Networks with an operation: the draw, and the tests for normality; the command is in test_ablate.py."""

from __future__ import annotations

import numpy as np
import pytest

from ddpnas_ray.ablations.operation import fit, networks_with
from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.spaces.cell.space import make as make_cell
from ddpnas_ray.testing.strategy_contract import SPACES


def test_the_tests_know_a_normal_distribution_and_another() -> None:
    rng = np.random.default_rng(0)
    assert fit(rng.normal(0.9, 0.01, 100))["shapiro_p"] > 0.05
    assert fit(0.9 - rng.exponential(0.01, 100))["dagostino_p"] < 0.001
    equal = fit(np.full(30, 0.5))
    assert (equal["mean"], equal["deviation"], np.isnan(equal["shapiro_w"])) == (0.5, 0.0, True)
    assert fit(np.array([0.1, np.nan, 0.3]))["networks"] == 2


def test_more_networks_than_there_are_are_refused() -> None:
    space = make_cell(nodes=1).space
    with pytest.raises(ConfigError, match=r"--networks 5000: found only [0-9]+ distinct networks with "):
        networks_with(space, 0, 4, 5000, seed=0)


def test_networks_with_an_operation_on_a_conditional_edge_have_that_edge() -> None:
    space = SPACES["conditional"]  # where the layer is inactive, its operation is that of index 0, too
    assert networks_with(space, 1, 0, 1, seed=0) == [(0, 0)]
    with pytest.raises(ConfigError):
        networks_with(space, 1, 0, 2, seed=0)
