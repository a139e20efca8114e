"""Policy gradient on theta (REINFORCE; Williams, 1992), with DDPNAS's pruning as a plug-in.

Axes: N architectures, E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Lt

from ddpnas_ray.core.requests import EvalResult, Plan
from ddpnas_ray.core.space import IntArray, SearchSpace
from ddpnas_ray.core.state import SearchState
from ddpnas_ray.core.update import masked_softmax
from ddpnas_ray.core.utility import record
from ddpnas_ray.strategies.base import Context, Strategy, best_seen
from ddpnas_ray.strategies.rounds import Rounds

VARIANTS = {"reinforce": {"prune": False}, "reinforce+prune": {"prune": True}}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinforceConfig:
    """Section ``reinforce``."""

    step: Annotated[float, Gt(0.0)] = 0.5
    """Learning rate of log theta, for an advantage of one standard deviation"""
    baseline: Annotated[float, Ge(0.0), Lt(1.0)] = 0.9
    """Decay of the moving mean and variance of the scores"""
    prune: bool = False
    """Prune as DDPNAS does, by section pruning: after every round the least probable operation of each edge"""


def make(context: Context, section: ReinforceConfig) -> Strategy:
    """Create policy gradient from its section."""
    return Reinforce(
        rounds=Rounds.of(context, prune=section.prune), step=section.step, baseline=section.baseline, lr=context.lr
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reinforce:
    """Sample from theta; scores above the moving mean make operations more probable; the best score wins.

    Args:
        rounds: When to prune, and when to stop.
        step: Learning rate of log theta.
        baseline: Decay of the moving mean and variance of the scores.
        lr: Initial learning rate, annealed to zero by a cosine.
    """

    rounds: Rounds
    step: float = 0.5
    baseline: float = 0.9
    lr: float = 0.025
    by_rounds: ClassVar[bool] = True

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """See ``Strategy``."""
        return self.rounds.ask(state, space, self.lr)

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """Take a step of gradient ascent on an architecture's expected score, then prune if enabled."""
        state = record(state, plan, results, space)
        logits_EK = np.log(np.maximum(state.theta_EK, np.finfo(np.float64).tiny))
        sampled_EK = masked_softmax(logits_EK, state.live_EK)
        advantages_N = self._advantages([row.score for row in state.evaluations])[-len(plan.requests) :]
        for request, advantage in zip(plan.requests, advantages_N, strict=True):
            edges = np.flatnonzero(space.active(request.alpha_E))
            gradient_EK = np.zeros(space.shape)  # of log p(alpha | theta)
            gradient_EK[edges] = -sampled_EK[edges]
            gradient_EK[edges, request.alpha_E[edges]] += 1.0
            logits_EK += self.step * advantage / len(plan.requests) * gradient_EK
        return self.rounds.end(replace(state, theta_EK=masked_softmax(logits_EK, space.exists_EK)), space)

    def answer(self, state: SearchState, space: SearchSpace) -> IntArray | None:
        """See ``Strategy``."""
        return best_seen(state, space)

    def epochs(self, space: SearchSpace) -> tuple[int, ...]:
        """See ``Strategy``."""
        return self.rounds.epochs(space)

    def _advantages(self, scores: Sequence[float]) -> list[float]:
        """Return each score minus the moving mean before it, in moving standard deviations; 0 for the first."""
        mean, variance, advantages = scores[0], 0.0, []
        for score in scores:
            off = score - mean
            deviation = (variance or off * off) ** 0.5
            advantages.append(off / deviation if deviation else 0.0)
            variance = self.baseline * variance + (1.0 - self.baseline) * off * off
            mean += (1.0 - self.baseline) * off
        return advantages
