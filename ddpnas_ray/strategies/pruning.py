"""Dynamic distribution pruning: Algorithm 1 of the paper.

Axes: N architectures, E edges, K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import Ge, Lt

from ddpnas_ray.core.bounds import planned_epochs
from ddpnas_ray.core.performance import record, utility
from ddpnas_ray.core.pruning import prunable, prune
from ddpnas_ray.core.sampling import disjoint_sample, rng_for
from ddpnas_ray.core.types import (
    BoolArray,
    EvalRequest,
    EvalResult,
    FloatArray,
    Plan,
    RoundRecord,
    SearchSpace,
    SearchState,
)
from ddpnas_ray.core.update import update


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningConfig:
    """Section ``pruning``."""

    epochs_per_round: Annotated[int, Ge(1)] = 3
    """T: epochs between two prunings; each trains every live operation once (paper: 3; 2-4 are stable, Fig. 6)"""
    gamma: Annotated[float, Ge(0.0), Lt(1.0)] = 0.9
    """Momentum of Eq. 4; the paper finds no difference within 0.7-0.9"""
    keep_per_group: Annotated[int, Ge(1)] = 1
    """Operations of each group (parameter, non-parameter) that stay on every edge to the end"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """Algorithm 1.

    Args:
        epochs_per_round: T.
        gamma: Momentum of Eq. 4.
        keep_per_group: Reserved generable operations of each group.
        lr: Initial learning rate, annealed to zero by a cosine over the planned epochs; all architectures of an epoch
            train at the same rate.
    """

    epochs_per_round: int = 3
    gamma: float = 0.9
    keep_per_group: int = 1
    lr: float = 0.025

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """One epoch's disjointly sampled architectures; None when nothing is prunable (Alg. 1, lines 1 and 3)."""
        if not prunable(state.theta_EK, state.live_EK, space, self.keep_per_group).any() or stalled(state):  # line 1
            return None
        rng = rng_for(state.seed, state.round, state.epoch)
        alphas_NE = disjoint_sample(state.theta_EK, state.live_EK, rng)  # line 3
        lr = cosine(self.lr, state.epoch, planned_epochs(space, self.keep_per_group, self.epochs_per_round))
        return Plan(tuple(EvalRequest(state.round, state.epoch, n, alpha_E, lr) for n, alpha_E in enumerate(alphas_NE)))

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """Record an epoch; at a round's end update theta and prune (Alg. 1, lines 9-15)."""
        state = record(state, plan, results, space)  # Eq. 2
        if not state.round_is_full(self.epochs_per_round):  # lines 2-8
            return state
        utility_EK = utility(state.score_sum_EK, state.visits_EK)  # Eq. 3
        momentum_EK, theta_EK = update(state, utility_EK, space, self.gamma)  # Eq. 4-5
        live_EK = prune(theta_EK, state.live_EK, state.visits_EK > 0, space, self.keep_per_group)  # lines 11-14
        return next_round(state, utility_EK, momentum_EK, theta_EK, live_EK)


def stalled(state: SearchState) -> bool:
    """Whether the last round pruned nothing: what is left lies on edges that no architecture uses any more.

    Only spaces with conditional edges come to that: when the choices that activate an edge are pruned, its operations
    are never visited, hence never pruned.
    """
    return bool(state.history) and not (state.history[-1].pruned_at_EK == state.history[-1].round).any()


def cosine(lr: float, epoch: int, epochs: int) -> float:
    """The rate of an epoch: ``lr`` at the first, towards 0 at ``epochs`` (Sec. 4, "annealed down to zero")."""
    return 0.5 * lr * (1.0 + math.cos(math.pi * min(epoch, epochs - 1) / epochs))


def next_round(
    state: SearchState, utility_EK: FloatArray, momentum_EK: FloatArray, theta_EK: FloatArray, live_EK: BoolArray
) -> SearchState:
    """Start round l + 1 with empty records, and keep what round l decided."""
    pruned_at_EK = state.pruned_at_EK.copy()
    pruned_at_EK[state.live_EK & ~live_EK] = state.round
    decided = RoundRecord(state.round, theta_EK, utility_EK, momentum_EK, live_EK, pruned_at_EK)
    return replace(
        state,
        round=state.round + 1,
        theta_EK=theta_EK,
        momentum_EK=momentum_EK,
        live_EK=live_EK,
        pruned_at_EK=pruned_at_EK,
        score_sum_EK=np.zeros_like(state.score_sum_EK),
        visits_EK=np.zeros_like(state.visits_EK),
        history=(*state.history, decided),
    )
