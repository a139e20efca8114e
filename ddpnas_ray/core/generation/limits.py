"""Budgets of a search: which architectures fit, and draws among those that do.

Axes: N architectures, E edges, K candidates, B budgets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ddpnas_ray.core.errors import BudgetError
from ddpnas_ray.core.generation.budgets import Budget, budget_text, parse_budgets, quantity
from ddpnas_ray.core.generation.enumeration import costs_of
from ddpnas_ray.core.generation.problem import Problem, random_alphas
from ddpnas_ray.core.generation.solve import largest_costs, nearest, solve
from ddpnas_ray.core.space import BoolArray, FloatArray, IntArray

DRAWS = 20  # uniform ones per architecture asked for, before exact generation is used
EACH = 5  # architectures of one random objective


@dataclass(frozen=True)
class Limits:
    """Budgets, of which every architecture that a search proposes fits at least one.

    Args:
        problem: What can be generated, and the costs; its theta has no meaning here.
        budgets: At least one.
    """

    problem: Problem
    budgets: tuple[Budget, ...]

    @classmethod
    def parse(cls, problem: Problem, texts: Sequence[str]) -> Limits:
        """Parse budgets, of which percentages are relative to the largest cost of the space.

        Raises:
            BudgetError: A text that cannot be parsed, or a budget that no architecture fits.
        """
        largest = largest_costs(problem)
        budgets = tuple(budget for text in texts for budget in parse_budgets(text, largest))
        for budget in budgets:
            if not solve(problem, budget):
                near = (
                    " or ".join(quantity(name, value) for value in values if value is not None) + f" {name}"
                    for name, values in nearest(problem, budget).items()
                )
                raise BudgetError(
                    f"no architecture of space {problem.space.name!r} meets {budget_text(budget, problem.costs)}; "
                    f"nearest feasible: {', '.join(near)}"
                )
        return cls(problem, budgets)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The budgets as users write them."""
        return tuple(budget_text(budget, self.problem.costs) for budget in self.budgets)

    def fits(self, alphas_NE: IntArray) -> BoolArray:
        """Return which architectures fit which budget, shape (B, N)."""
        names = {name for budget in self.budgets for name in budget}
        costs = {name: costs_of(self.problem.costs[name], alphas_NE) for name in names}
        fits_BN = np.ones((len(self.budgets), len(alphas_NE)), dtype=bool)
        for fits_N, budget in zip(fits_BN, self.budgets, strict=True):
            for name, bound in budget.items():
                fits_N &= bound.allows_each(costs[name])
        return fits_BN

    def draw(self, n: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
        """Draw distinct architectures that fit: uniform ones, and where these are rare, the best of random objectives.

        Returns:
            At least one, and n unless there are fewer; every budget has some.
        """
        drawn = dict.fromkeys(random_alphas(self.problem, DRAWS * n, rng))
        pool_NE = np.array(list(drawn), dtype=np.int64)
        fits_BN = self.fits(pool_NE)
        found = [tuple(alpha) for alpha in pool_NE[fits_BN.any(axis=0)].tolist()]
        share = -(-n // len(self.budgets))
        for budget, count in zip(self.budgets, fits_BN.sum(axis=1), strict=True):
            for _ in range(0, share - int(count), EACH):
                found += self.best(budget, rng.random(self.problem.space.shape), EACH)
        return list(dict.fromkeys(found))

    def best(self, budget: Budget, value_EK: FloatArray, k: int) -> list[tuple[int, ...]]:
        """Return the k architectures within a budget whose choices have the largest sum of values, exactly.

        Args:
            budget: The budget.
            value_EK: Value of every choice in [0, 1], shape (E, K).
            k: Their number; fewer if fewer fit.
        """
        problem = dataclasses.replace(self.problem, theta_EK=value_EK)
        return [solution.alpha_E for solution in solve(problem, budget, k=k)]
