"""The ``Strategy`` protocol, and helpers that strategies share: ``ask`` proposes architectures, ``tell`` takes results.

Axes: N architectures, E edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from ddpnas_ray.core.generation.limits import Limits
from ddpnas_ray.core.requests import EvalRequest, EvalResult, Plan
from ddpnas_ray.core.space import IntArray, SearchSpace
from ddpnas_ray.core.state import SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The search that a strategy is created for.

    Args:
        space: The search space.
        evaluations: The budget; Algorithm 1's where ``evaluation.budget`` is null.
        batch: Architectures per epoch of strategies without rounds.
        lr: Initial learning rate.
        epochs_per_round: T of section ``pruning``, for strategies with rounds.
        keep_per_group: Operations of each group that pruning keeps, for strategies that prune.
        limits: Budgets of ``target.budgets``; a strategy keeps them as its attribute ``limits``. None: none.
    """

    space: SearchSpace
    evaluations: int
    batch: int
    lr: float
    epochs_per_round: int
    keep_per_group: int
    limits: Limits | None = None


class Strategy(Protocol):
    """A pure proposer: all it knows is in the state, so a resumed search equals an uninterrupted one.

    Attributes:
        by_rounds: Whether it learns theta, in rounds of ``pruning.epochs_per_round`` epochs; ``generate`` needs theta.
    """

    by_rounds: ClassVar[bool]

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """Return the next epoch's architectures; None when the search is done."""
        ...

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """Return the state after an epoch.

        Args:
            state: The state passed to ``ask``.
            space: The space passed to ``ask``.
            plan: The plan from ``ask``.
            results: One result per request, in request order.

        Raises:
            DivergedError: No result is finite.
        """
        ...

    def answer(self, state: SearchState, space: SearchSpace) -> IntArray | None:
        """Return the result architecture, shape (E,); None: the one with the largest E[alpha] (Eq. 10)."""
        ...

    def epochs(self, space: SearchSpace) -> tuple[int, ...]:
        """Return the planned number of architectures of every epoch."""
        ...


def epoch_plan(state: SearchState, alphas_NE: IntArray, lr: float, *, train: bool = True) -> Plan:
    """Turn architectures into the requests of the next epoch."""
    return Plan(
        tuple(EvalRequest(state.round, state.epoch, n, alpha_E, lr, train) for n, alpha_E in enumerate(alphas_NE))
    )


def equal_epochs(evaluations: int, batch: int) -> tuple[int, ...]:
    """Split evaluations into epochs of equal size, the last one shorter.

    Example:
        >>> equal_epochs(10, 4)
        (4, 4, 2)
    """
    return tuple(min(batch, evaluations - done) for done in range(0, evaluations, batch))


def evaluations_left(state: SearchState, evaluations: int) -> int:
    """Return the unspent part of a budget of evaluations."""
    return max(0, evaluations - len(state.evaluations))


def best_seen(state: SearchState, space: SearchSpace) -> IntArray | None:
    """Return the first architecture with the best recorded score among those that could be generated.

    None if there is none, as in the cell space, where sampled architectures use all edges.
    """
    rows = [row for row in state.evaluations if may_be_generated(row.alpha_E, space)]
    return np.array(max(rows, key=lambda row: row.score).alpha_E, dtype=np.int64) if rows else None


def may_be_generated(alpha_E: Sequence[int] | IntArray, space: SearchSpace) -> bool:
    """Return whether every block uses as many edges as in a generated network: ``space.inputs``, or all."""
    left_out = [not space.op(e, k).generable for e, k in enumerate(alpha_E)]
    return all(
        sum(left_out[e] for e in block) == (0 if space.inputs is None else len(block) - space.inputs)
        for block in space.blocks
    )


def cosine(lr: float, epoch: int, epochs: int) -> float:
    """Return an epoch's rate: ``lr`` at the first, towards 0 at ``epochs`` (Sec. 4, "annealed down to zero")."""
    return 0.5 * lr * (1.0 + math.cos(math.pi * min(epoch, epochs - 1) / epochs))
