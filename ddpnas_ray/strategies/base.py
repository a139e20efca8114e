"""What every strategy offers: ask for the next architectures, be told how they did, and say what the search found.

Axes: N architectures, E edges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from ddpnas_ray.core.requests import EvalRequest, EvalResult, Plan
from ddpnas_ray.core.space import IntArray, SearchSpace
from ddpnas_ray.core.state import SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The search that a strategy is made for.

    Args:
        space: What can be chosen.
        evaluations: The budget; what Algorithm 1 needs where ``evaluation.budget`` is null.
        batch: Architectures per epoch of strategies without rounds.
        lr: Initial learning rate.
        epochs_per_round: T of section ``pruning``, for strategies with rounds.
        keep_per_group: Operations of each group that pruning keeps, for strategies that prune.
    """

    space: SearchSpace
    evaluations: int
    batch: int
    lr: float
    epochs_per_round: int
    keep_per_group: int


class Strategy(Protocol):
    """A pure proposer: all it knows is in the state, so a resumed search goes on as if never stopped.

    Attributes:
        by_rounds: Whether it learns theta, in rounds of ``pruning.epochs_per_round`` epochs; ``generate`` needs theta.
    """

    by_rounds: ClassVar[bool]

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """The next epoch's architectures; None when nothing is left to do."""
        ...

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """The state after an epoch.

        Args:
            state: The state that ``ask`` was given.
            space: The space that ``ask`` was given.
            plan: What ``ask`` returned.
            results: One result a request, in request order.

        Raises:
            DivergedError: No result is finite.
        """
        ...

    def answer(self, state: SearchState, space: SearchSpace) -> IntArray | None:
        """What a finished search found, shape (E,); None: the architecture with the largest E[alpha] (Eq. 10)."""
        ...

    def epochs(self, space: SearchSpace) -> tuple[int, ...]:
        """How many architectures every epoch will have, as planned before the search."""
        ...


def epoch_plan(state: SearchState, alphas_NE: IntArray, lr: float, *, train: bool = True) -> Plan:
    """Architectures as the requests of the next epoch."""
    return Plan(
        tuple(EvalRequest(state.round, state.epoch, n, alpha_E, lr, train) for n, alpha_E in enumerate(alphas_NE))
    )


def equal_epochs(evaluations: int, batch: int) -> tuple[int, ...]:
    """So many evaluations in epochs of one size, the last one shorter.

    Example:
        >>> equal_epochs(10, 4)
        (4, 4, 2)
    """
    return tuple(min(batch, evaluations - done) for done in range(0, evaluations, batch))


def evaluations_left(state: SearchState, evaluations: int) -> int:
    """How many of a budget of evaluations are not spent."""
    return max(0, evaluations - len(state.evaluations))


def best_seen(state: SearchState, space: SearchSpace) -> IntArray | None:
    """The architecture with the best recorded score among those that could be generated, the first of equals.

    None where there is none, as in the cell space, where sampled architectures use all edges.
    """
    rows = [row for row in state.evaluations if may_be_generated(row.alpha_E, space)]
    return np.array(max(rows, key=lambda row: row.score).alpha_E, dtype=np.int64) if rows else None


def may_be_generated(alpha_E: Sequence[int] | IntArray, space: SearchSpace) -> bool:
    """Whether every block of an architecture has as many inputs as a generated network's (none left out otherwise)."""
    left_out = [not space.op(e, k).generable for e, k in enumerate(alpha_E)]
    return all(
        sum(left_out[e] for e in block) == (0 if space.inputs is None else len(block) - space.inputs)
        for block in space.blocks
    )


def cosine(lr: float, epoch: int, epochs: int) -> float:
    """The rate of an epoch: ``lr`` at the first, towards 0 at ``epochs`` (Sec. 4, "annealed down to zero")."""
    return 0.5 * lr * (1.0 + math.cos(math.pi * min(epoch, epochs - 1) / epochs))
