"""The search loop; independent of configuration, Ray and files."""

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
    """Search until the strategy has nothing left to ask, or ``should_stop`` returns True between two epochs.

    Args:
        strategy: Proposes architectures and learns from their scores.
        executor: Trains and scores them; holds the weights of ``state``.
        space: The search space.
        state: State to start or resume from.
        save: Called after every epoch with everything a resume needs.
        on_result: Called with each result as it arrives.
        should_stop: Called before every epoch.

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
