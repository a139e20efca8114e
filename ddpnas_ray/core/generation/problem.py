"""A generation problem: the space, theta, what may be chosen, and the costs that can be bounded (Eq. 9-10).

Axes: E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ddpnas_ray.core.generation.blocks import block_choices
from ddpnas_ray.core.space import BoolArray, CostFunction, FloatArray, SearchSpace, expectation


@dataclass(frozen=True)
class Problem:
    """The space, theta and costs that generation optimises over.

    Args:
        space: Edges and blocks.
        theta_EK: The distribution, shape (E, K).
        choosable_EK: Operations that may be chosen: live and selectable, shape (E, K).
        costs: Every cost that can be bounded, by name.
    """

    space: SearchSpace
    theta_EK: FloatArray
    choosable_EK: BoolArray
    costs: Mapping[str, CostFunction] = field(default_factory=dict)


def evaluate(problem: Problem, alpha_E: Sequence[int]) -> tuple[float, dict[str, int]]:
    """Compute E[alpha] and all costs of one architecture from the definitions, to check every solution."""
    alpha = np.asarray(alpha_E)
    costs = {name: cost(alpha) for name, cost in problem.costs.items()}
    return expectation(alpha, problem.theta_EK, problem.space), costs


def random_alphas(problem: Problem, count: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Draw architectures with uniform choices per block, at any cost."""
    alphas_NE = np.zeros((count, len(problem.space.edges)), dtype=np.int64)
    for block in problem.space.blocks:
        alphas_CB = block_choices(problem.space, problem.choosable_EK, block)
        alphas_NE[:, list(block)] = alphas_CB[rng.integers(len(alphas_CB), size=count)]
    return [tuple(alpha) for alpha in alphas_NE.tolist()]
