"""Random search: the baseline to beat at equal evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import ClassVar

import numpy as np

from ddpnas_ray.core.generation.limits import Limits
from ddpnas_ray.core.generation.problem import Problem, random_alphas
from ddpnas_ray.core.requests import EvalResult, Plan
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import IntArray, SearchSpace
from ddpnas_ray.core.state import SearchState
from ddpnas_ray.core.utility import record
from ddpnas_ray.strategies.base import Context, Strategy, best_seen, cosine, epoch_plan, equal_epochs, evaluations_left


def make(context: Context) -> Strategy:
    """Create random search with the search's budget."""
    return Random(evaluations=context.evaluations, batch=context.batch, lr=context.lr, limits=context.limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Draw networks that could be generated, uniformly per block and without duplicates; the best score wins.

    With budgets, only networks that fit one are drawn: uniform ones where they are frequent enough.

    Args:
        evaluations: Total number.
        batch: Architectures per epoch.
        lr: Initial learning rate, annealed to zero by a cosine.
        limits: Budgets.
    """

    evaluations: int
    batch: int = 1
    lr: float = 0.025
    limits: Limits | None = None
    by_rounds: ClassVar[bool] = False

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """See ``Strategy``."""
        if not (n := min(self.batch, evaluations_left(state, self.evaluations))):
            return None
        alphas_NE = new_alphas(state, space, n, rng_for(state.seed, state.round, state.epoch), self.limits)
        return epoch_plan(state, alphas_NE, cosine(self.lr, state.epoch, len(self.epochs(space))))

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """See ``Strategy``."""
        return record(state, plan, results, space)

    def answer(self, state: SearchState, space: SearchSpace) -> IntArray | None:
        """See ``Strategy``."""
        return best_seen(state, space)

    def epochs(self, space: SearchSpace) -> tuple[int, ...]:
        """See ``Strategy``."""
        return equal_epochs(self.evaluations, self.batch)


def new_alphas(
    state: SearchState, space: SearchSpace, n: int, rng: np.random.Generator, limits: Limits | None = None
) -> IntArray:
    """Draw random networks that were not evaluated before, shape (n, E).

    If ``20 n`` draws from a small space contain too few new ones, some are repeated.
    """
    if limits is not None:
        drawn = limits.draw(n, rng)
    else:
        drawn = random_alphas(Problem(space, state.theta_EK, space.generable_EK), 20 * n, rng)
    seen = {row.alpha_E for row in state.evaluations}
    fresh = [alpha for alpha in dict.fromkeys(drawn) if alpha not in seen]
    return np.array(list(islice(cycle([*fresh, *drawn]), n)), dtype=np.int64)
