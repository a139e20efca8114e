"""Search within budgets on NAS-Bench-201's own accuracies: regret by budget, method and number of evaluations.

Budgets are macs, or params, at the deciles of the space, those that are equal once. Searches read the validation
accuracy after 12 epochs (CIFAR-10); regret is in test accuracy after 200 epochs, percentage points below the best
network that fits:

    python benchmarks/budgets.py TABLE.parquet --seeds 0..299
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # each process one core

import argparse
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
from common import facts, say

from ddpnas_ray.core.generation.budgets import Bound
from ddpnas_ray.core.generation.enumeration import costs_of
from ddpnas_ray.core.generation.limits import Limits
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import solve
from ddpnas_ray.core.space import FloatArray, IntArray
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.spaces.nasbench201 import space as nasbench201
from ddpnas_ray.spaces.target import Target
from ddpnas_ray.strategies.base import Strategy
from ddpnas_ray.strategies.evolution import Evolution
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.strategies.random import Random
from ddpnas_ray.strategies.surrogate import Surrogate
from ddpnas_ray.tabular.executor import TableExecutor
from ddpnas_ray.tabular.table import ScoreTable

SPEC = nasbench201.make()
TARGET = Target(image_size=32, classes=10, cells=5, channels=16)
SCORE, FINAL = "cifar10valid_valid_e12", "cifar10_test_e200"
EVALUATIONS = (10, 50, 100)
DECILES = 10


class Largest(Surrogate):
    """Surrogate by the largest expected improvement within a budget, instead of the sum over budgets."""

    together = np.maximum


PER_BUDGET: dict[str, Callable[[Limits, int], Strategy]] = {
    "random, a search a budget": lambda limits, n: Random(evaluations=n, limits=limits),
    "evolution, a search a budget": lambda limits, n: Evolution(evaluations=n, limits=limits),
    "surrogate, a search a budget": lambda limits, n: Surrogate(evaluations=n, limits=limits),
}
TOGETHER: dict[str, Callable[[Limits, int], Strategy]] = {
    "surrogate without budgets, the best that fits": lambda limits, n: Surrogate(evaluations=n),
    "random without budgets, the best that fits": lambda limits, n: Random(evaluations=n),
    "surrogate, all budgets at once": lambda limits, n: Surrogate(evaluations=n, limits=limits),
    "... by the largest gain of one budget": lambda limits, n: Largest(evaluations=n, limits=limits),
}
GENERATED = "pruning (36 evaluations), then generate"
_table: ScoreTable
_limits: Limits
_best_B: FloatArray


def load(path: str, cost: str) -> None:
    """Read the table and make the budgets, in a worker process."""
    global _table, _limits, _best_B
    _table = ScoreTable.read(path, SPEC.space, SPEC.encode)
    costs = {name: count(TARGET) for name, count in SPEC.costs.items()}
    problem = Problem(SPEC.space, np.zeros(SPEC.space.shape), SPEC.space.generable_EK, costs)
    every_NE = np.array(np.meshgrid(*[np.arange(5)] * 6, indexing="ij")).reshape(6, -1).T
    cost_N = np.sort(costs_of(costs[cost], every_NE))
    deciles = dict.fromkeys(int(cost_N[(i + 1) * len(cost_N) // DECILES - 1]) for i in range(DECILES))
    _limits = Limits(problem, tuple({cost: Bound(None, limit)} for limit in deciles))
    final_N = np.array([_table.score(FINAL, alpha_E) for alpha_E in every_NE])
    _best_B = np.array([final_N[fits_N].max() for fits_N in _limits.fits(every_NE)])


def searched(strategy: Strategy, seed: int) -> SearchState:
    """Run a search on the table."""
    executor, start = TableExecutor(_table, SCORE), initial_state(SPEC.space, seed)
    return run_search(strategy, executor, SPEC.space, start, save=lambda state, tensors: None)


def regret(state: SearchState, n: int, budget: int) -> float:
    """Return the regret of a search's first n evaluations within a budget; of nothing found: of the worst network."""
    rows = state.evaluations[:n]
    fits_N = _limits.fits(np.array([row.alpha_E for row in rows]))[budget]
    if not fits_N.any():
        return 100.0 * float(_best_B[budget] - 0.1)
    best = max((row for row, fits in zip(rows, fits_N, strict=True) if fits), key=lambda row: row.score)
    return of(np.array(best.alpha_E), budget)


def of(alpha_E: IntArray, budget: int) -> float:
    """Return the regret of an architecture within a budget."""
    return 100.0 * float(_best_B[budget] - _table.score(FINAL, alpha_E))


def trial(name: str, seed: int) -> list[list[float]]:
    """Return the regret of one seed by number of evaluations and budget."""
    most = max(EVALUATIONS)
    if name == GENERATED:
        state = searched(Pruning(), seed)
        problem = replace(_limits.problem, theta_EK=state.theta_EK)
        found = [solve(problem, budget)[0].alpha_E for budget in _limits.budgets]
        return [[of(np.array(alpha_E), b) for b, alpha_E in enumerate(found)]] * len(EVALUATIONS)
    if name in TOGETHER:
        state = searched(TOGETHER[name](_limits, most), seed)
        return [[regret(state, n, b) for b in range(len(_best_B))] for n in EVALUATIONS]
    own = [Limits(_limits.problem, (budget,)) for budget in _limits.budgets]
    states = [searched(PER_BUDGET[name](limits, most), seed) for limits in own]
    return [[regret(state, n, b) for b, state in enumerate(states)] for n in EVALUATIONS]


def main() -> None:
    """Run the benchmark; see the module docstring."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table", help="Parquet file with all 15,625 architectures")
    p.add_argument("--seeds", default="0..299", help="A..B")
    p.add_argument("--cost", choices=("macs", "params"), default="macs")
    p.add_argument("--only", default="", help="methods whose name contains this")
    p.add_argument("--processes", type=int, default=2)
    args = p.parse_args()
    first, last = args.seeds.split("..")
    seeds = range(int(first), int(last) + 1)
    print(facts())
    load(args.table, args.cost)
    limits = " | ".join(f"{budget[args.cost].upper / 1e6:.2f}M" for budget in _limits.budgets)
    print(f"| method | evaluations | {limits} | mean |\n| --- | --- |" + " --- |" * (len(_best_B) + 1))
    with ProcessPoolExecutor(args.processes, initializer=load, initargs=(args.table, args.cost)) as pool:
        for name in (n for n in (GENERATED, *TOGETHER, *PER_BUDGET) if args.only in n):
            found = list(pool.map(trial, [name] * len(seeds), seeds))
            for i, n in enumerate(EVALUATIONS):
                by_budget = [statistics.fmean(one[i][b] for one in found) for b in range(len(_best_B))]
                means = [statistics.fmean(one[i]) for one in found]
                error = statistics.stdev(means) / len(means) ** 0.5
                spent = "36" if name == GENERATED else f"{n}" if name in TOGETHER else f"{len(_best_B)} x {n}"
                if (name == GENERATED and i) or (name in TOGETHER and not i):
                    continue  # the same again; too few
                cells = " | ".join(f"{value:.2f}" for value in by_budget)
                print(f"| {name} | {spent} | {cells} | {statistics.fmean(means):.3f} +- {error:.3f} |", flush=True)
            say(name)


if __name__ == "__main__":
    main()
