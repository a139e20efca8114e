"""The loop of a search. It knows neither configuration nor Ray nor files: those are passed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import SearchState
from ddpnas_ray.execution.base import Executor, OnResult
from ddpnas_ray.strategies.base import Strategy

Save = Callable[[SearchState, Mapping[str, npt.NDArray[np.float32]]], None]


def run_search(
    strategy: Strategy,
    executor: Executor,
    space: SearchSpace,
    state: SearchState,
    *,
    save: Save,
    on_result: OnResult | None = None,
    should_stop: Callable[[SearchState], bool] = lambda state: False,
) -> SearchState:
    """Search until the strategy has nothing left to ask, or until told to stop between two epochs.

    Args:
        strategy: Proposes architectures and learns from their scores.
        executor: Trains and scores them; holds the weights that belong to ``state``.
        space: What can be chosen.
        state: Where to start or go on.
        save: Called after every epoch with all that a resume needs.
        on_result: Told each result as it comes.
        should_stop: Asked before every epoch.

    Returns:
        The last state.
    """
    while (plan := strategy.ask(state, space)) is not None:  # one epoch's architectures; None: nothing left to do
        if should_stop(state):
            break
        results = executor.evaluate(plan.requests, on_result)  # Alg. 1, 4-6; results in request order
        state = strategy.tell(state, space, plan, results)  # Eq. 2; at a round's end Eq. 3-5 and lines 11-15
        save(state, executor.weights())
    return state
