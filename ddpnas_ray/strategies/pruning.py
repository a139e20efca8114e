"""Dynamic distribution pruning: Algorithm 1 of the paper.

Axes: N architectures, E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.core.generation.problem import Problem, count_networks
from ddpnas_ray.core.generation.solve import solve
from ddpnas_ray.core.pruning import prune
from ddpnas_ray.core.requests import EvalResult, Plan
from ddpnas_ray.core.sampling import disjoint_sample, rng_for
from ddpnas_ray.core.schedule import architectures_by_round, planned_architecture_epochs
from ddpnas_ray.core.space import FloatArray, IntArray, SearchSpace
from ddpnas_ray.core.state import SearchState
from ddpnas_ray.core.update import update
from ddpnas_ray.core.utility import record, utility
from ddpnas_ray.strategies.base import Context, Strategy, cosine, epoch_plan, equal_epochs, evaluations_left
from ddpnas_ray.strategies.rounds import kept, more_to_prune, next_round
from ddpnas_ray.strategies.surrogate import Surrogate

VARIANTS = {"pruning": {"prune": True}, "noprune": {"prune": False}}


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningConfig:
    """Section ``pruning``."""

    epochs_per_round: Annotated[int, Ge(1)] = 3
    """T: epochs between two prunings; each trains every live operation once (paper: 3; 2-4 are stable, Fig. 6)"""
    gamma: Annotated[float, Ge(0.0), Lt(1.0)] = 0.9
    """Momentum of Eq. 4; the paper finds no difference within 0.7-0.9"""
    keep_per_group: Annotated[int, Ge(1)] = 1
    """Operations of each group (parameter, non-parameter) that stay on every edge to the end"""
    prune: bool = True
    """false: NoPrune of the paper's Table 2; the search then ends when evaluation.budget is spent"""
    result: Literal["probable", "predicted"] = "probable"
    """The result. probable: of the largest E[alpha], as in the paper; predicted: of the best prediction from all
    scores; needs a table or training.merge=none, as those of a supernet rise from epoch to epoch"""
    noise: Annotated[float, Gt(0.0)] = 3.0
    """Of pruning.result=predicted, as surrogate.noise"""


def make(context: Context, section: PruningConfig) -> Strategy:
    """Create Algorithm 1 from its section.

    Raises:
        ConfigError: The budget is too small for pruning, or the space has no predictions.
    """
    budget, T = context.evaluations, section.epochs_per_round
    if section.result == "predicted" and context.space.inputs is not None:
        raise ConfigError(
            f"pruning.result=predicted: space {context.space.name!r} trains all inputs of a node and generates "
            f"{context.space.inputs}, so its scores predict no generated network; leave it at probable, or set "
            "strategy=surrogate with surrogate.result=predicted, which trains networks as generated"
        )
    needed = planned_architecture_epochs(context.space, section.keep_per_group, T)
    if section.prune and budget < needed:
        raise ConfigError(
            f"evaluation.budget is {budget}: pruning needs {needed} evaluations in space {context.space.name!r} with "
            f"pruning.epochs_per_round={T}; raise the former or lower the latter"
        )
    return Pruning(**asdict(section), evaluations=budget, lr=context.lr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """Algorithm 1.

    Args:
        epochs_per_round: T.
        gamma: Momentum of Eq. 4.
        keep_per_group: Reserved selectable operations of each group.
        prune: False never prunes.
        result: ``probable``: the result has the largest E[alpha] (Eq. 10); ``predicted``: the best prediction of a
            Gaussian process over all records (``Surrogate``), also among pruned operations.
        noise: Noise variance of a score, of the prediction.
        evaluations: The budget. What Algorithm 1 leaves of it goes to verification: the architectures with the largest
            E[alpha] are scored without training, up to all that the kept operations allow, and the best is the result.
            None: no verification.
            Without pruning, the search ends when the budget is spent, even within a round.
        lr: Initial learning rate, annealed to zero by a cosine over the planned epochs; all architectures of an epoch
            train at the same rate.
    """

    epochs_per_round: int = 3
    gamma: float = 0.9
    keep_per_group: int = 1
    prune: bool = True
    result: str = "probable"
    noise: float = 3.0
    evaluations: int | None = None
    lr: float = 0.025
    by_rounds: ClassVar[bool] = True

    def ask(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """Return an epoch's disjointly sampled architectures; None when nothing is prunable (Alg. 1, lines 1 and 3)."""
        if not self._continues(state, space):  # line 1
            return self._verification(state, space)
        epochs = self._trained_epochs(space)
        alphas_NE = self.sample(state, epochs[state.epoch])  # line 3
        return epoch_plan(state, alphas_NE, cosine(self.lr, state.epoch, len(epochs)))

    def tell(self, state: SearchState, space: SearchSpace, plan: Plan, results: Sequence[EvalResult]) -> SearchState:
        """Record an epoch; at a round's end update theta and prune (Alg. 1, lines 9-15)."""
        state = record(state, plan, results, space)  # Eq. 2
        over = not self.prune and not self._continues(state, space)  # NoPrune's budget may end within a round
        if not (over or state.round_is_full(self.epochs_per_round)) or not plan.requests[0].train:  # lines 2-8
            return state
        utility_EK = self.estimate(state, space)  # Eq. 3
        momentum_EK, theta_EK = update(state, utility_EK, space, self.gamma)  # Eq. 4-5
        live_EK = state.live_EK
        if self.prune:
            live_EK = prune(theta_EK, live_EK, state.visits_EK > 0, space, self.keep_per_group)  # lines 11-14
        return next_round(state, utility_EK, momentum_EK, theta_EK, live_EK)

    def answer(self, state: SearchState, space: SearchSpace) -> IntArray | None:
        """Return the best prediction if that is the result, else the best verified architecture, the most probable of
        equals; None if none was verified: the result has the largest E[alpha] (Eq. 10).
        """
        if (ranked_NE := self.ranked(state, space)) is not None:
            return np.asarray(ranked_NE[0])
        verified = [row for row in state.evaluations if not row.trained]
        return np.array(max(verified, key=lambda row: row.score).alpha_E) if verified else None

    def ranked(self, state: SearchState, space: SearchSpace) -> IntArray | None:
        """Return candidates by prediction, best first, shape (N, E); None where E[alpha] decides."""
        if self.result == "probable":
            return None
        return Surrogate(evaluations=0, noise=self.noise, result="predicted").ranked(state, space)

    def epochs(self, space: SearchSpace) -> tuple[int, ...]:
        """See ``Strategy``."""
        trained = self._trained_epochs(space)
        left = 0 if self.evaluations is None else self.evaluations - sum(trained)
        if left <= 0:
            return trained
        kept_EK = kept(space, self.keep_per_group) & space.generable_EK
        return (*trained, min(left, count_networks(Problem(space, np.zeros(space.shape), kept_EK))))

    def sample(self, state: SearchState, n: int) -> IntArray:
        """Draw an epoch's architectures, shape (n, E)."""
        return disjoint_sample(state.theta_EK, state.live_EK, rng_for(state.seed, state.round, state.epoch), n=n)

    def estimate(self, state: SearchState, space: SearchSpace) -> FloatArray:
        """Estimate each operation's utility from a full round, shape (E, K); NaN without a visit."""
        return utility(state.score_sum_EK, state.visits_EK)

    def _continues(self, state: SearchState, space: SearchSpace) -> bool:
        if self.prune:
            return more_to_prune(state, space, self.keep_per_group)
        return self.evaluations is not None and evaluations_left(state, self.evaluations) > 0

    def _verification(self, state: SearchState, space: SearchSpace) -> Plan | None:
        """Plan one final epoch that scores the most probable live architectures without training (Eq. 10)."""
        left = 0 if self.evaluations is None else evaluations_left(state, self.evaluations)
        if not left or not all(row.trained for row in state.evaluations[-1:]):
            return None
        best = solve(Problem(space, state.theta_EK, state.live_EK & space.generable_EK), {}, k=left)
        return epoch_plan(state, np.array([solution.alpha_E for solution in best]), lr=0.0, train=False)

    def _trained_epochs(self, space: SearchSpace) -> tuple[int, ...]:
        if not self.prune:
            return equal_epochs(self.evaluations or 0, space.shape[1])
        rounds = architectures_by_round(space, self.keep_per_group)
        return tuple(n for n in rounds for _ in range(self.epochs_per_round))
