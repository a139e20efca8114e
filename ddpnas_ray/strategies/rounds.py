"""Rounds of T epochs that end with a pruning, for Algorithm 1 and as a plug-in for other strategies with a theta.

The paper claims that pruning accelerates other methods too (Sec. 1); ``multinomial`` and ``reinforce`` can use it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ddpnas_ray.core.pruning import prunable, prune
from ddpnas_ray.core.requests import Plan
from ddpnas_ray.core.sampling import independent_sample, rng_for
from ddpnas_ray.core.schedule import architectures_by_round
from ddpnas_ray.core.space import BoolArray, FloatArray, SearchSpace
from ddpnas_ray.core.state import RoundRecord, SearchState
from ddpnas_ray.core.utility import utility
from ddpnas_ray.strategies.base import Context, cosine, epoch_plan, equal_epochs, evaluations_left


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """Epochs of as many architectures as the widest edge has live operations, until a budget is spent.

    Args:
        evaluations: The budget.
        prune: Whether every round ends with a pruning, as long as something is prunable.
        epochs_per_round: T.
        keep_per_group: Operations of each group to keep.
    """

    evaluations: int
    prune: bool = False
    epochs_per_round: int = 3
    keep_per_group: int = 1

    @classmethod
    def of(cls, context: Context, *, prune: bool) -> Rounds:
        """Create the rounds of a search."""
        return cls(
            evaluations=context.evaluations,
            prune=prune,
            epochs_per_round=context.epochs_per_round,
            keep_per_group=context.keep_per_group,
        )

    def ask(self, state: SearchState, space: SearchSpace, lr: float) -> Plan | None:
        """Draw an epoch's architectures from theta; None if the budget is spent.

        Args:
            state: The search state.
            space: The search space.
            lr: Initial learning rate, annealed to zero by a cosine.
        """
        if not (n := min(int(state.live_EK.sum(axis=1).max()), evaluations_left(state, self.evaluations))):
            return None
        rng = rng_for(state.seed, state.round, state.epoch)
        alphas_NE = independent_sample(state.theta_EK, state.live_EK, n, rng)
        return epoch_plan(state, alphas_NE, cosine(lr, state.epoch, len(self.epochs(space))))

    def end(self, state: SearchState, space: SearchSpace) -> SearchState:
        """Finish an epoch after theta is updated: if its round is full, prune and start the next."""
        if not state.round_is_full(self.epochs_per_round):
            return state
        live_EK = state.live_EK
        if self.prune:  # a rare operation may not have been drawn: that its edge was active is enough
            seen_EK = live_EK & state.visits_EK.any(axis=1, keepdims=True)
            live_EK = prune(state.theta_EK, live_EK, seen_EK, space, self.keep_per_group)
        utility_EK = utility(state.score_sum_EK, state.visits_EK)
        return next_round(state, utility_EK, state.momentum_EK, state.theta_EK, live_EK)

    def epochs(self, space: SearchSpace) -> tuple[int, ...]:
        """Return the number of architectures of every epoch if each round prunes one operation per edge."""
        if not self.prune:
            return equal_epochs(self.evaluations, space.shape[1])
        left, epochs = self.evaluations, list[int]()
        for n in architectures_by_round(space, self.keep_per_group):
            for size in equal_epochs(min(left, n * self.epochs_per_round), n):
                epochs.append(size)
                left -= size
        widest = int(kept(space, self.keep_per_group).sum(axis=1).max())
        return (*epochs, *equal_epochs(left, widest))


def kept(space: SearchSpace, keep_per_group: int) -> BoolArray:
    """Return a mask with as many operations per edge and group as pruning keeps; theta decides which ones."""
    uniform_EK = space.exists_EK.astype(np.float64)
    return space.exists_EK & ~prunable(uniform_EK, space.exists_EK, space, keep_per_group)


def more_to_prune(state: SearchState, space: SearchSpace, keep_per_group: int) -> bool:
    """Return whether pruning continues: something is prunable, and planned rounds are left.

    An operation without a score in its round stays, as when the choices that activate its edge were not sampled, or are
    pruned for good. So more than ``keep_per_group`` may be left after the planned rounds; E[alpha] decides among them.
    """
    planned = len(architectures_by_round(space, keep_per_group))
    return len(state.history) < planned and bool(prunable(state.theta_EK, state.live_EK, space, keep_per_group).any())


def next_round(
    state: SearchState, utility_EK: FloatArray, momentum_EK: FloatArray, theta_EK: FloatArray, live_EK: BoolArray
) -> SearchState:
    """Start round l + 1 with empty records, and add round l to the history."""
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
