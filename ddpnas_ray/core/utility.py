"""The performance matrix: record scores (Eq. 2) and average them into the utility (Eq. 3).

Axes: N architectures, E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ddpnas_ray.core.errors import DivergedError
from ddpnas_ray.core.requests import EvalResult, Plan
from ddpnas_ray.core.space import FloatArray, IntArray, SearchSpace
from ddpnas_ray.core.state import Evaluation, SearchState


def record(state: SearchState, plan: Plan, results: Sequence[EvalResult], space: SearchSpace) -> SearchState:
    """Credit each architecture's score to the operations it used (Eq. 2) and count the epoch.

    P in R^{E x K x T} is kept as its sum over the round and the number of visits, all that Eq. 3 needs.
    An inactive edge records no visit, and the record has the canonical alpha: one for each network.

    Args:
        state: The state before the epoch.
        plan: The epoch's plan.
        results: Its results, in request order.
        space: Defines the active edges.

    Returns:
        The state with one more epoch.

    Raises:
        ValueError: A score outside [-1, 1]. Percentages are the usual cause; they would saturate Eq. 4.
        DivergedError: No architecture of the epoch has a finite score.
    """
    score_sum_EK, visits_EK = state.score_sum_EK.copy(), state.visits_EK.copy()
    evaluations = list(state.evaluations)
    for request, result, score in zip(plan.requests, results, scores_to_record(results), strict=True):
        alpha_E = space.canonical(request.alpha_E)
        edges = np.flatnonzero(space.active(alpha_E))
        score_sum_EK[edges, alpha_E[edges]] += score
        visits_EK[edges, alpha_E[edges]] += 1
        evaluations.append(
            Evaluation(
                round=request.round,
                epoch=request.epoch,
                architecture=request.architecture,
                alpha_E=tuple(int(k) for k in alpha_E),
                split="val",
                score=score,
                loss=result.loss,
                trained=request.train,
                ok=result.ok,
                seconds=result.seconds,
                worker=result.worker,
                node=result.node,
                start_s=result.start_s,
                train_s=result.train_s,
                validate_s=result.validate_s,
                device=result.device,
            )
        )
    return replace(
        state, epoch=state.epoch + 1, score_sum_EK=score_sum_EK, visits_EK=visits_EK, evaluations=tuple(evaluations)
    )


def scores_to_record(results: Sequence[EvalResult]) -> list[float]:
    """Return the epoch's scores, replacing those that diverged by the worst finite one.

    Raises:
        ValueError: A score outside [-1, 1].
        DivergedError: No score is finite.

    Example:
        >>> scores_to_record([EvalResult(0.5, 1.0), EvalResult(float("nan"), float("nan"), ok=False)])
        [0.5, 0.5]
    """
    finite = [result.score for result in results if result.ok]
    if not finite:
        raise DivergedError(
            f"all {len(results)} architectures of an epoch ended with a non-finite loss: nothing to compare; "
            "lower training.lr, or set training.grad_clip"
        )
    for score in finite:
        if not -1.0 <= score <= 1.0:
            raise ValueError(f"a score is {score:g}, outside [-1, 1]: scores are fractions, not percentages")
    return [result.score if result.ok else min(finite) for result in results]


def utility(score_sum_EK: FloatArray, visits_EK: IntArray) -> FloatArray:
    """Average the recorded validation scores of every operation (Eq. 3).

    Disjoint sampling trains the live operations of an edge equally often, so a plain mean over the round compares like
    with like.

    Args:
        score_sum_EK: Sum over the round of the scores of the architectures that used the operation, shape (E, K).
        visits_EK: Number of those architectures, shape (E, K); zero where pruned, absent or on an inactive edge.

    Returns:
        The utility, P-bar in the paper, shape (E, K); NaN where there was no visit.

    Raises:
        ValueError: A mean lies outside [-1, 1]. Percentages are the usual cause; they would saturate Eq. 4.

    Example:
        >>> utility(np.array([[1.2, 0.6]]), np.array([[2, 2]]))
        array([[0.6, 0.3]])
    """
    utility_EK = np.full(score_sum_EK.shape, np.nan)
    np.divide(score_sum_EK, visits_EK, out=utility_EK, where=visits_EK > 0)
    if (np.abs(utility_EK[visits_EK > 0]) > 1.0 + 1e-12).any():
        raise ValueError("a mean score lies outside [-1, 1]: scores are fractions, not percentages")
    return utility_EK
