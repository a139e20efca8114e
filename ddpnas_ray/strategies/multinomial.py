"""Multinomial distribution learning (MdeNAS; Zheng et al., 2019), with DDPNAS's pruning as a plug-in.

Axes: N architectures, E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt

from ddpnas_ray.core.requests import EvalResult, Plan
from ddpnas_ray.core.space import FloatArray, IntArray, SearchSpace
from ddpnas_ray.core.state import Evaluation, SearchState
from ddpnas_ray.core.update import masked_softmax
from ddpnas_ray.core.utility import record
from ddpnas_ray.strategies.base import Context, Strategy
from ddpnas_ray.strategies.rounds import Rounds

VARIANTS = {"multinomial": {"prune": False}, "multinomial+prune": {"prune": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class MultinomialConfig:
    """Section ``multinomial``."""

    step: Annotated[float, Gt(0.0)] = 0.1
    """Change of log theta for one won or lost comparison of two operations"""
    prune: bool = False
    """Prune as DDPNAS does, by section pruning: after every round the least probable operation of each edge"""


def make(context: Context, section: MultinomialConfig) -> Strategy:
    """Create multinomial distribution learning from its section."""
    return Multinomial(rounds=Rounds.of(context, prune=section.prune), step=section.step, lr=context.lr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Multinomial:
    """Sample from theta; compare operations by how often they were trained and how they scored.

    Args:
        rounds: When to prune, and when to stop.
        step: Step of log theta for one comparison.
        lr: Initial learning rate, annealed to zero by a cosine.
    """

    rounds: Rounds
    step: float = 0.1
    lr: float = 0.025
    by_rounds: ClassVar[bool] = True

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """See ``Strategy``."""
        return self.rounds.ask(state, space, self.lr)

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """Update theta after every architecture, and prune at a round's end if enabled."""
        state = record(state, plan, results, space)
        compared_EK = self.step * comparisons(state.evaluations, len(plan.requests), space)
        logits_EK = np.log(np.maximum(state.theta_EK, np.finfo(np.float64).tiny)) + compared_EK
        theta_EK = masked_softmax(logits_EK, space.exists_EK)
        return self.rounds.end(replace(state, theta_EK=theta_EK), space)

    def answer(self, state: SearchState, space: SearchSpace) -> IntArray | None:
        """See ``Strategy``."""
        return None

    def epochs(self, space: SearchSpace) -> tuple[int, ...]:
        """See ``Strategy``."""
        return self.rounds.epochs(space)


def comparisons(evaluations: Sequence[Evaluation], new: int, space: SearchSpace) -> FloatArray:
    """Return comparisons won minus those lost, summed over the last ``new`` evaluations, shape (E, K).

    After every evaluation all pairs of an edge's operations are compared: one that was trained less often and has the
    higher last score wins; one that was trained more often and has the lower loses (Eq. 6 of MdeNAS).
    """
    trained_EK, last_EK, net_EK = np.zeros(space.shape), np.zeros(space.shape), np.zeros(space.shape)
    for i, row in enumerate(evaluations, start=1 - (len(evaluations) - new)):
        edges = np.flatnonzero(space.active(np.array(row.alpha_E)))
        chosen = np.array(row.alpha_E)[edges]
        trained_EK[edges, chosen] += 1
        last_EK[edges, chosen] = row.score
        if i > 0:
            rarer_EKK = trained_EK[:, :, None] < trained_EK[:, None, :]
            better_EKK = last_EK[:, :, None] > last_EK[:, None, :]
            both_EKK = space.exists_EK[:, :, None] & space.exists_EK[:, None, :]
            wins_EKK = (rarer_EKK & better_EKK & both_EKK).astype(np.float64)
            net_EK += wins_EKK.sum(axis=2) - wins_EKK.sum(axis=1)
    return net_EK
