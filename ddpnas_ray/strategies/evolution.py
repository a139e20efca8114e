"""Regularised evolution (Real et al., 2019): tournament selection in a population that drops its oldest member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge

from ddpnas_ray.core.generation.blocks import block_choices
from ddpnas_ray.core.generation.limits import Limits
from ddpnas_ray.core.requests import EvalResult, Plan
from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import IntArray, SearchSpace
from ddpnas_ray.core.state import SearchState
from ddpnas_ray.core.utility import record
from ddpnas_ray.strategies.base import Context, Strategy, best_seen, cosine, epoch_plan, equal_epochs, evaluations_left
from ddpnas_ray.strategies.random import new_alphas

TRIES = 100  # of a child that fits a budget, and of one that is another network


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolutionConfig:
    """Section ``evolution``."""

    population: Annotated[int, Ge(2)] = 20
    """Number of most recent architectures that can become parents"""
    tournament: Annotated[int, Ge(1)] = 10
    """Members drawn per tournament; the best becomes the parent"""


def make(context: Context, section: EvolutionConfig) -> Strategy:
    """Create regularised evolution from its section."""
    return Evolution(
        **asdict(section),
        evaluations=context.evaluations,
        batch=context.batch,
        lr=context.lr,
        limits=context.limits,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evolution:
    """Random architectures first, then children of tournament winners; the best score of all wins.

    Args:
        evaluations: Total number.
        batch: Children per epoch; 1 is the algorithm as published.
        population: Number of most recent architectures that can become parents.
        tournament: Members drawn per tournament.
        lr: Initial learning rate, annealed to zero by a cosine.
        limits: Budgets; children that fit none are drawn again.
    """

    evaluations: int
    batch: int = 1
    population: int = 20
    tournament: int = 10
    lr: float = 0.025
    limits: Limits | None = None
    by_rounds: ClassVar[bool] = False

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """See ``Strategy``."""
        if not (n := min(self.batch, evaluations_left(state, self.evaluations))):
            return None
        rng = rng_for(state.seed, state.round, state.epoch)
        if (missing := self.population - len(state.evaluations)) > 0:
            alphas_NE = new_alphas(state, space, min(n, missing), rng, self.limits)
        else:
            alphas_NE = np.stack([self._child(state, space, rng) for _ in range(n)])
        return epoch_plan(state, alphas_NE, cosine(self.lr, state.epoch, len(self.epochs(space))))

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """See ``Strategy``."""
        return record(state, plan, results, space)

    def answer(self, state: SearchState, space: SearchSpace) -> IntArray | None:
        """See ``Strategy``."""
        return best_seen(state, space)

    def epochs(self, space: SearchSpace) -> tuple[int, ...]:
        """See ``Strategy``."""
        first = min(self.population, self.evaluations)
        return equal_epochs(first, self.batch) + equal_epochs(self.evaluations - first, self.batch)

    def _child(self, state: SearchState, space: SearchSpace, rng: np.random.Generator) -> IntArray:
        for _ in range(TRIES):
            child_E = mutated(self._parent(state, rng), space, rng)
            if self.limits is None or self.limits.fits(child_E[None]).any():
                return child_E
        (drawn_E,) = new_alphas(state, space, 1, rng, self.limits)
        return np.asarray(drawn_E)

    def _parent(self, state: SearchState, rng: np.random.Generator) -> IntArray:
        alive = state.evaluations[-self.population :]
        drawn = rng.choice(len(alive), size=min(self.tournament, len(alive)), replace=False)
        return np.array(alive[max(drawn, key=lambda i: alive[i].score)].alpha_E, dtype=np.int64)


def mutated(alpha_E: IntArray, space: SearchSpace, rng: np.random.Generator) -> IntArray:
    """Return a child, another network: one block, drawn uniformly among those with an alternative, chooses again."""
    choices = network_choices(space)
    for _ in range(TRIES):
        child_E = _chosen_again(alpha_E, space, choices, rng)
        if not np.array_equal(child_E, alpha_E):  # else it changed inactive edges alone
            break
    return child_E


def _chosen_again(
    alpha_E: IntArray, space: SearchSpace, choices: Sequence[IntArray], rng: np.random.Generator
) -> IntArray:
    b = int(rng.choice([b for b, alphas_CB in enumerate(choices) if len(alphas_CB) > 1]))
    edges = list(space.blocks[b])
    others_CB = choices[b][(choices[b] != alpha_E[edges]).any(axis=1)]
    child_E: IntArray = alpha_E.copy()
    child_E[edges] = others_CB[rng.integers(len(others_CB))]
    return space.canonical(child_E)


@lru_cache(maxsize=4)
def network_choices(space: SearchSpace) -> tuple[IntArray, ...]:
    """Return the choices of every block in generated networks, each of shape (C, B); cached for children."""
    return tuple(block_choices(space, space.generable_EK, block) for block in space.blocks)
