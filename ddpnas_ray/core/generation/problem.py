"""A generation problem: the space, theta, what may be chosen, and the costs that can be bounded (Eq. 9-10).

Axes: E edges, K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ddpnas_ray.core.generation.blocks import block_choices
from ddpnas_ray.core.space import BoolArray, CostFunction, FloatArray, IntArray, SearchSpace, expectation


@dataclass(frozen=True)
class Problem:
    """The space, theta and costs that generation optimises over.

    Args:
        space: Edges and blocks.
        theta_EK: The distribution, shape (E, K).
        choosable_EK: Operations that may be chosen: live and selectable, shape (E, K).
        costs: Every cost that can be bounded, by name.

    Raises:
        ValueError: A cost has another gate than the space.
    """

    space: SearchSpace
    theta_EK: FloatArray
    choosable_EK: BoolArray
    costs: Mapping[str, CostFunction] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, cost in self.costs.items():
            if cost.gate != self.space.gate:
                raise ValueError(f"cost {name!r} has gate {cost.gate}, space {self.space.name!r} {self.space.gate}")


@dataclass(frozen=True, slots=True)
class Objective:
    """The sum that is maximised, in integers.

    Args:
        value_EK: What each choice on an active edge adds, shape (E, K).
        inactive_E: What an inactive edge adds, shape (E,).
    """

    value_EK: IntArray
    inactive_E: IntArray

    def __call__(self, alpha_E: Sequence[int], space: SearchSpace) -> int:
        """Return the sum of one architecture."""
        alpha = np.asarray(alpha_E)
        chosen_E = self.value_EK[np.arange(len(alpha)), alpha]
        return int(np.where(space.active(alpha), chosen_E, self.inactive_E).sum())


def modes(problem: Problem, objective: Objective) -> Iterator[tuple[Problem, IntArray]]:
    """Yield, for each choice on the gate's edge, the problem of its networks and their value_EK, without a gate.

    Only that choice is left there, and on inactive edges that of the canonical alpha, which costs nothing: so each
    network is in one mode, once. A problem without conditional edges is its only mode.
    """
    space, gate = problem.space, problem.space.gate
    if gate is None:
        yield problem, objective.value_EK
        return
    without_gate = replace(space, gate=None)
    alpha_E, operations = space.generable_EK.argmax(axis=1), np.arange(space.shape[1])
    for mode in np.flatnonzero(problem.choosable_EK[gate.edge]):
        alpha_E[gate.edge] = mode
        active_E = gate.active(alpha_E)
        fixed_E = ~active_E
        fixed_E[gate.edge] = True
        choosable_EK = np.where(fixed_E[:, None], operations == alpha_E[:, None], problem.choosable_EK)
        costs = {name: cost.in_mode(active_E) for name, cost in problem.costs.items()}
        value_EK = np.where(active_E[:, None], objective.value_EK, objective.inactive_E[:, None])
        yield replace(problem, space=without_gate, choosable_EK=choosable_EK, costs=costs), value_EK


def count_networks(problem: Problem) -> int:
    """Return the number of networks that can be generated, at any cost."""
    nothing_EK = np.zeros(problem.space.shape, dtype=np.int64)
    return sum(
        math.prod(len(block_choices(mode.space, mode.choosable_EK, block)) for block in mode.space.blocks)
        for mode, _ in modes(problem, Objective(nothing_EK, nothing_EK[:, 0]))
    )


def evaluate(problem: Problem, alpha_E: Sequence[int]) -> tuple[float, dict[str, int]]:
    """Compute E[alpha] and all costs of one architecture from the definitions, to check every solution."""
    alpha = np.asarray(alpha_E)
    costs = {name: cost(alpha) for name, cost in problem.costs.items()}
    return expectation(alpha, problem.theta_EK, problem.space, problem.choosable_EK), costs


def random_alphas(problem: Problem, count: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """Draw architectures with uniform choices per block, at any cost; canonical ones."""
    alphas_NE = np.zeros((count, len(problem.space.edges)), dtype=np.int64)
    for block in problem.space.blocks:
        alphas_CB = block_choices(problem.space, problem.choosable_EK, block)
        alphas_NE[:, list(block)] = alphas_CB[rng.integers(len(alphas_CB), size=count)]
    return [tuple(alpha) for alpha in problem.space.canonical(alphas_NE).tolist()]
