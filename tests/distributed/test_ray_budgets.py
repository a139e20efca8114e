"""Budgets as Ray tasks give the solutions of one process."""

from __future__ import annotations

import numpy as np
import pytest

from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.generation.budgets import Bound, Budget
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import solve_many
from ddpnas_ray.distributed.ray_budgets import solve_budgets
from ddpnas_ray.spaces.cell.space import make
from ddpnas_ray.spaces.target import Target

pytestmark = pytest.mark.ray
TARGET = Target(cells=3, channels=4, image_size=8, classes=10, stem="cifar")


@pytest.fixture(scope="module")
def problem() -> Problem:
    spec = make(nodes=3)
    theta_EK = np.random.default_rng(0).dirichlet(np.ones(8), size=18)
    costs = {name: cost(TARGET) for name, cost in spec.costs.items()}
    return Problem(spec.space, theta_EK, spec.space.generable_EK, costs)


def test_solutions_are_those_of_one_process_and_in_order(ray_cluster: None, problem: Problem) -> None:
    budgets: list[Budget] = [{"macs": Bound(None, n)} for n in range(30_000, 80_000, 1_000)]
    budgets += [
        {"height.normal": Bound(h, h), "params": Bound(None, n)} for n in range(3_000, 9_000, 500) for h in (1, 2, 3, 4)
    ]
    done: list[int] = []
    found = solve_budgets(problem, budgets, k=2, method="auto", on_done=done.append)
    assert found == solve_many(problem, budgets, k=2)
    assert found[-1] == []
    assert sum(done) == len(budgets)
    assert len(done) > 4, "several tasks"


def test_what_a_task_cannot_do_is_said(ray_cluster: None, problem: Problem) -> None:
    with pytest.raises(TooLargeError, match="at most 4,000,000 are enumerated"):
        solve_budgets(problem, [{"macs": Bound(None, 50_000)}], k=1, method="enumeration", on_done=lambda n: None)
