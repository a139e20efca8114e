"""Finals on NAS-Bench-201's own accuracies: how many of a given total of epochs for the search, how many for them?

A search's evaluation is a training of 12 epochs (CIFAR-10, val); finals train M candidates for 200 epochs and take the
best by val. The score is the winner's test accuracy after 200 epochs, in percent:

    python benchmarks/finals.py TABLE.parquet --seeds 1000..1299
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # each process one core

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
from common import facts, say, spread

from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import solve
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.core.state import SearchState, initial_state
from ddpnas_ray.experiment.loop import run_search
from ddpnas_ray.finals.candidates import distant
from ddpnas_ray.spaces.nasbench201 import space as nasbench201
from ddpnas_ray.strategies.base import Strategy
from ddpnas_ray.strategies.evolution import Evolution
from ddpnas_ray.strategies.pruning import Pruning
from ddpnas_ray.strategies.random import Random
from ddpnas_ray.strategies.surrogate import Surrogate
from ddpnas_ray.tabular.executor import TableExecutor
from ddpnas_ray.tabular.table import ScoreTable

SPEC = nasbench201.make()
SEARCH, FINALS, TEST = "cifar10valid_valid_e12", "cifar10valid_valid_e200", "cifar10_test_e200"
SHORT, LONG = 12, 200
TOTALS = (1200, 2400)
FINALISTS = (0, 2, 4, 8, 16)
STRATEGIES: dict[str, Callable[[int], Strategy]] = {
    "random": lambda n: Random(evaluations=n),
    "evolution": lambda n: Evolution(evaluations=n),
    "surrogate": lambda n: Surrogate(evaluations=n),
    "pruning, the rest verified": lambda n: Pruning(evaluations=n),
}
_table: ScoreTable


def load(path: str) -> None:
    """Read the table in a worker process."""
    global _table
    _table = ScoreTable.read(path, SPEC.space, SPEC.encode)


def trial(name: str, splits: Sequence[tuple[int, int]], seed: int) -> list[float]:
    """Return the test accuracies of the winners of one seed, in percent.

    Args:
        name: The strategy.
        splits: Evaluations of the search, and networks of the finals. Searches whose proposals do not depend on their
            budget run once, and are cut.
        seed: Of the search.
    """
    space, longest = SPEC.space, max(evaluations for evaluations, _ in splits)
    states = dict[int, SearchState]()
    scores = []
    for evaluations, finalists in splits:
        budget = evaluations if name.startswith("pruning") else longest
        strategy = STRATEGIES[name](budget)
        if budget not in states:
            start, table = initial_state(space, seed), TableExecutor(_table, SEARCH)
            states[budget] = run_search(strategy, table, space, start, save=lambda state, tensors: None)
        state = replace(states[budget], evaluations=states[budget].evaluations[:evaluations])
        scores.append(100.0 * _table.score(TEST, winner(strategy, state, finalists)))
    return scores


def winner(strategy: Strategy, state: SearchState, finalists: int) -> IntArray:
    """Return the network that a search ends with, after finals of so many networks."""
    space = SPEC.space
    if not finalists:
        alpha_E = strategy.answer(state, space)
        return SPEC.argmax(state.theta_EK, state.live_EK) if alpha_E is None else alpha_E
    if strategy.by_rounds:
        found = solve(Problem(space, state.theta_EK, state.live_EK & space.generable_EK), {}, k=finalists)
        alphas = [solution.alpha_E for solution in found]
    else:
        rows = sorted(state.evaluations, key=lambda row: -row.score)
        alphas = distant(dict.fromkeys(row.alpha_E for row in rows), finalists, 1)
    return np.array(max(alphas, key=lambda alpha: _table.score(FINALS, np.array(alpha))))


def main() -> None:
    """Run the benchmark; see the module docstring."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table", help="Parquet file with all 15,625 architectures")
    p.add_argument("--seeds", default="1000..1299", help="A..B")
    args = p.parse_args()
    first, last = map(int, args.seeds.split(".."))
    print(facts() + "\n")
    print("| total epochs | strategy | " + " | ".join(f"{m} finalists" if m else "no finals" for m in FINALISTS) + " |")
    print("| --- | --- |" + " --- |" * len(FINALISTS))
    with ProcessPoolExecutor(2, initializer=load, initargs=(args.table,)) as pool:
        for total in TOTALS:
            for name in STRATEGIES:
                least = 36 if name.startswith("pruning") else 2
                splits = {m: ((total - LONG * m) // SHORT, m) for m in FINALISTS}
                possible = {m: split for m, split in splits.items() if split[0] >= max(least, m)}
                jobs = [pool.submit(trial, name, list(possible.values()), s) for s in range(first, last + 1)]
                columns = dict(zip(possible, zip(*(job.result() for job in jobs), strict=True), strict=True))
                cells = [spread(columns[m]) if m in columns else "-" for m in FINALISTS]
                say(f"{total}, {name}: {', '.join(cells)}")
                print(f"| {total} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
