"""Confidence in the result of a search, as written to ``result.json`` under ``confidence``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ddpnas_ray.core.confidence import agreement, leads, replay, resample, rounds_of
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import solve
from ddpnas_ray.core.ledger import ledger
from ddpnas_ray.core.space import BoolArray, FloatArray, IntArray, SearchSpace
from ddpnas_ray.core.state import SearchState
from ddpnas_ray.strategies.base import Strategy
from ddpnas_ray.strategies.multinomial import Multinomial
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.strategies.reinforce import Reinforce

RESAMPLES = 200
NEXT = 9  # runner-up networks over which the result's lead is computed
CLOSE = 2.0  # standard errors
WORST = 3  # prunings listed


def confidence(
    strategy: Strategy,
    state: SearchState,
    space: SearchSpace,
    alpha_E: IntArray,
    argmax: Callable[[FloatArray, BoolArray], IntArray],
    *,
    by_expectation: bool,
) -> dict[str, Any]:
    """Summarise what a search's records say about its result, omitting what does not apply (docs/report.md).

    Args:
        strategy: The strategy of the search.
        state: The last state.
        space: The space.
        alpha_E: The result architecture, shape (E,).
        argmax: theta_EK, live_EK -> the architecture with the largest E[alpha].
        by_expectation: Whether alpha_E was chosen by E[alpha], not by its own score.

    Returns:
        Plain JSON: ``edges`` and ``left_out`` always; ``prunings`` where something was pruned; ``lead``, ``resampling``
        and ``stands_out`` for searches by pruning, or ``not_told``, the reason why they are missing.
    """
    left_out = sum(not space.op(e, int(k)).generable for e, k in enumerate(alpha_E))
    found: dict[str, Any] = {"edges": len(space.edges), "left_out": left_out}
    if not isinstance(strategy, Pruning | Multinomial | Reinforce):
        return found
    pruning = strategy if isinstance(strategy, Pruning) else strategy.rounds
    if (state.pruned_at_EK >= 0).any():
        found["prunings"] = _prunings(state, space, pruning.keep_per_group)
    if not isinstance(strategy, Pruning):
        name = type(strategy).__name__.lower()
        return found | {"not_told": f"{name} moves theta by single scores, not by rounds that could be resampled"}
    if strategy.result == "predicted":
        return found | {"not_told": "the result was chosen by prediction from all scores, not by E[alpha]"}
    if not by_expectation:
        return found | {"not_told": "the result was chosen by the scores of verified architectures, not by E[alpha]"}
    rounds = rounds_of(state.history, state.evaluations, space)
    if all(len(scores.score_sum_TEK) == 1 for scores in rounds):
        reason = "rounds of one epoch cannot tell noise from operations; pruning.epochs_per_round=2 or more can"
        return found | {"not_told": reason}
    weights = resample(rounds, state.seed, RESAMPLES)
    held = replay(rounds, weights, space, gamma=strategy.gamma, keep_per_group=None)
    again = held
    if strategy.prune:
        again = replay(rounds, weights, space, gamma=strategy.gamma, keep_per_group=strategy.keep_per_group)
    alphas_BE = np.array([argmax(*ended) for ended in zip(again.theta_BEK, again.live_BEK, strict=True)])
    stays_E, same, distance = agreement(alphas_BE, alpha_E, space)
    found["resampling"] = {
        "resamples": RESAMPLES,
        "same_network": same,
        "median_distance": distance,
        "edges": [_edge(space, alpha_E, e, float(stays_E[e])) for e in range(len(alpha_E))],
    }
    networks = _next(state, space, alpha_E, held.theta_BEK)
    if networks:
        found["lead"] = {"networks": networks, "close": sum(map(_is_close, networks))}
    return found | {"stands_out": same >= 0.5 and not any(map(_is_close, networks))}


def _prunings(state: SearchState, space: SearchSpace, keep_per_group: int) -> dict[str, Any]:
    """Summarise the ledger: the expected number of prunings that removed an edge's best operation (Theorem 2)."""
    pruned = [row for row in ledger(state.history, state.evaluations, space, keep_per_group) if row.pruned is not None]
    known = [row for row in pruned if not math.isnan(row.p_best_pruned)]
    worst = sorted(known, key=lambda row: -row.p_best_pruned)[:WORST]
    return {
        "count": len(pruned),
        "known": len(known),
        "expected_mistakes": math.fsum(row.p_best_pruned for row in known),
        "worst": [
            {"round": row.round, "edge": row.edge, "pruned": row.pruned, "p_best_pruned": row.p_best_pruned}
            for row in worst
        ],
    }


def _next(
    state: SearchState, space: SearchSpace, alpha_E: IntArray, theta_BEK: FloatArray
) -> list[dict[str, float | None]]:
    """Return the lead over each of the networks with the next largest E[alpha], found exactly."""
    problem = Problem(space, state.theta_EK, state.live_EK & space.generable_EK)
    own = tuple(int(k) for k in alpha_E)
    others = [s.alpha_E for s in solve(problem, {}, k=NEXT + 1) if s.alpha_E != own][:NEXT]
    if not others:
        return []
    lead_N, error_N = leads(alpha_E, np.array(others), state.theta_EK, theta_BEK, space, state.live_EK)
    return [
        {"lead": float(lead), "standard_errors": None if math.isnan(error) else float(lead / error)}
        for lead, error in zip(lead_N, error_N, strict=True)
    ]


def _is_close(network: dict[str, float | None]) -> bool:
    """Return whether noise alone may separate a network from the result; without noise, whether they tie."""
    errors = network["standard_errors"]
    return network["lead"] == 0.0 if errors is None else errors < CLOSE


def _edge(space: SearchSpace, alpha_E: IntArray, e: int, stays: float) -> dict[str, Any]:
    op = space.op(e, int(alpha_E[e]))
    used = op.generable and space.active(alpha_E)[e]
    return {"edge": space.edges[e].name, "operation": op.name if used else None, "stays": stays}
