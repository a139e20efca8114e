"""Choose the networks of the finals: the most probable ones of a search, within a budget if one is given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ddpnas_ray.core.errors import BudgetError, ConfigError
from ddpnas_ray.core.generation.budgets import Budget
from ddpnas_ray.core.generation.problem import evaluate
from ddpnas_ray.core.generation.solve import solve
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.core.state import Evaluation, initial_state
from ddpnas_ray.experiment.config import make_strategy
from ddpnas_ray.experiment.finished import FinishedRun, infeasible_text
from ddpnas_ray.runs.directory import parsed, read_result
from ddpnas_ray.runs.files import read_evaluations
from ddpnas_ray.strategies.base import may_be_generated
from ddpnas_ray.tasks.recipe import FinalsConfig

Alpha = tuple[int, ...]
MOST = 4096  # of the most probable networks among which distant ones are chosen


def candidates(run: FinishedRun, budget: Budget, config: FinalsConfig) -> list[Alpha]:
    """Return the networks, best first: of the best predictions where they give the search's result, else of the largest
    E[alpha] (exact), or, without theta, of the best scores.

    Args:
        run: A finished search.
        budget: Bounds that all of them meet.
        config: Number and distance; fewer are returned if there are no more.

    Raises:
        BudgetError: Nothing meets the budget.
        ConfigError: There are fewer than two.
    """
    rows = parsed(run.folder, "evaluations.parquet", read_evaluations)
    ranked_NE = _ranked(run, rows)
    if ranked_NE is None and run.has_theta:
        found = _most_probable(run, budget, config)
    else:
        by_score = [row.alpha_E for row in sorted(rows, key=lambda row: -row.score)]
        best = by_score if ranked_NE is None else map(tuple, ranked_NE.tolist())
        found = distant(_fitting(run, budget, best), config.networks, config.distance)
    if len(found) < 2:
        within = f" within {run.text_of(budget)}" if budget else ""
        raise ConfigError(
            f"{run.folder.uri}: finals need two networks or more{within}, and there is {len(found)} with "
            f"finals.distance={config.distance}; lower that, or widen the budget"
        )
    return found


def distant(alphas: Iterable[Alpha], count: int, distance: int) -> list[Alpha]:
    """Take the first architectures that differ from all taken before in at least ``distance`` edges.

    Example:
        >>> distant([(0, 0), (0, 1), (1, 1)], 2, distance=2)
        [(0, 0), (1, 1)]
    """
    taken: list[Alpha] = []
    for alpha in alphas:
        if all(sum(a != b for a, b in zip(alpha, other, strict=True)) >= distance for other in taken):
            taken.append(alpha)
        if len(taken) == count:
            break
    return taken


def _most_probable(run: FinishedRun, budget: Budget, config: FinalsConfig) -> list[Alpha]:
    """Ask for ever more of the exact k best, until enough of them are distant."""
    k = config.networks
    while True:
        solutions = solve(run.problem, budget, k=k)
        if not solutions:
            raise BudgetError(infeasible_text(run, budget))
        found = distant((solution.alpha_E for solution in solutions), config.networks, config.distance)
        if len(found) == config.networks or len(solutions) < k or k >= MOST:
            return found
        k = min(4 * k, MOST)


def _ranked(run: FinishedRun, rows: tuple[Evaluation, ...]) -> IntArray | None:
    """Return the candidates by prediction, shape (N, E); None if the search's result is not one."""
    space = run.spec.space  # as searched: the file of a run has no embedding
    strategy = make_strategy(run.config, space)
    if not hasattr(strategy, "ranked"):
        return None
    result = read_result(run.folder)
    state = replace(
        initial_state(space, result["seed"]),
        round=result["rounds"],
        epoch=result["epochs"],
        theta_EK=run.problem.theta_EK,
        evaluations=rows,
    )
    ranked_NE: IntArray | None = strategy.ranked(state, space)
    return ranked_NE


def _fitting(run: FinishedRun, budget: Budget, alphas: Iterable[Alpha]) -> Iterator[Alpha]:
    """Yield those that can be generated within the budget, each network once."""
    seen = set()
    for alpha in dict.fromkeys(alphas):
        costs = evaluate(run.problem, alpha)[1] if budget else {}
        if may_be_generated(alpha, run.problem.space) and all(b.allows(costs[name]) for name, b in budget.items()):
            network = json.dumps(run.spec.decode(np.array(alpha)), sort_keys=True)  # two alphas may be one network
            if network not in seen:
                seen.add(network)
                yield alpha


def search_scores(run: FinishedRun, alphas: Sequence[Alpha]) -> list[float | None]:
    """Return the last validation score of each architecture in the search; None if it was never scored."""
    last = {row.alpha_E: row.score for row in parsed(run.folder, "evaluations.parquet", read_evaluations)}
    return [last.get(alpha) for alpha in alphas]
