"""Exact generation against random search and regularised evolution, on the same theta: regret and time.

    python benchmarks/generation.py            about two minutes on one core
    python benchmarks/generation.py bert       the conditional instance alone, seconds

Instances: 20 edges x 7 operations with random integer costs, and the mobile space at 224 pixels, both un-pruned, theta
drawn from a Dirichlet distribution with concentration 1 (edges undecided) and 0.1 (edges decided, as after a search).
The conditional one has the choices and the exact sizes of BERT base: its depth, and each layer's heads and width.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # one core

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.generation.budgets import Bound, Budget
from ddpnas_ray.core.generation.problem import Problem, evaluate
from ddpnas_ray.core.generation.solve import Solution, most_likely, nearest, solve, solve_many
from ddpnas_ray.core.space import CostTable, Edge, Gate, IntArray, Op, SearchSpace, each_edge_alone
from ddpnas_ray.spaces.cell import space as cell
from ddpnas_ray.spaces.mobile import space as mobile
from ddpnas_ray.spaces.target import Target

EVALUATIONS = 10_000
SEEDS = 3
REPEATS = 5


def random_instance(concentration: float) -> Problem:
    """Make a problem of 20 edges x 7 operations; later operations cost more."""
    rng = np.random.default_rng(0)
    ops = tuple(Op(f"op{k}", "parameter") for k in range(7))
    edges = tuple(Edge(f"e{e}", ops) for e in range(20))
    space = SearchSpace("random", edges, each_edge_alone(edges))
    macs_EK = np.sort(rng.integers(1_000_000, 30_000_000, size=(20, 7)), axis=1)
    params_EK = (macs_EK * rng.uniform(0.005, 0.015, size=macs_EK.shape)).astype(np.int64)
    costs = {"macs": CostTable(5_000_000, macs_EK), "params": CostTable(100_000, params_EK)}
    return Problem(space, rng.dirichlet(np.full(7, concentration), size=20), space.exists_EK, costs)


def mobile_instance(concentration: float) -> Problem:
    """Make a problem of the mobile space at 224 pixels."""
    spec, rng = mobile.make(), np.random.default_rng(0)
    theta_EK = np.zeros(spec.space.shape)
    for e, edge in enumerate(spec.space.edges):
        theta_EK[e, : len(edge.candidates)] = rng.dirichlet(np.full(len(edge.candidates), concentration))
    target = Target(image_size=224, classes=1000)
    costs = {name: cost(target) for name, cost in spec.costs.items()}
    return Problem(spec.space, theta_EK, spec.space.generable_EK, costs)


def cell_instance(concentration: float) -> Problem:
    """Make a problem of the un-pruned cell space of DARTS."""
    spec, rng = cell.make(), np.random.default_rng(0)
    theta_EK = rng.dirichlet(np.full(8, concentration), size=28)
    target = Target(cells=20, channels=36, image_size=32, classes=10, stem="cifar")
    costs = {name: cost(target) for name, cost in spec.costs.items()}
    return Problem(spec.space, theta_EK, spec.space.generable_EK, costs)


DEPTHS, WIDTHS, HEADS, LAYERS, HIDDEN, TOKENS = (6, 8, 10, 12), (512, 768, 1024, 3072), (4, 8, 12), 12, 768, 128


def bert_instance(concentration: float) -> Problem:
    """Make a problem of BERT base: depth, and width and heads of 12 layers, of which the dropped ones are inactive."""
    names = ["depth", *(f"width{i}" for i in range(LAYERS)), *(f"heads{i}" for i in range(LAYERS))]
    values = [DEPTHS, *[WIDTHS] * LAYERS, *[HEADS] * LAYERS]
    edges = tuple(Edge(n, tuple(Op(str(v), "parameter") for v in vs)) for n, vs in zip(names, values, strict=True))
    dropped = [sorted(set(range(LAYERS)) - set(np.rint(np.linspace(0, LAYERS - 1, d)).astype(int))) for d in DEPTHS]
    gate = Gate(
        0, tuple(tuple(1 + layer for layer in of) + tuple(1 + LAYERS + layer for layer in of) for of in dropped)
    )
    space = SearchSpace("bert", edges, each_edge_alone(edges), gate)
    params_EK, macs_EK = np.zeros(space.shape, dtype=np.int64), np.zeros(space.shape, dtype=np.int64)
    params_EK[0] = [d * 6 * HIDDEN for d in DEPTHS]  # of each layer: two norms, biases of the two outputs
    for layer in range(1, 1 + LAYERS):
        params_EK[layer] = [2 * HIDDEN * k + k for k in WIDTHS]
        macs_EK[layer] = [TOKENS * 2 * HIDDEN * k for k in WIDTHS]
        rows = [64 * h for h in HEADS]
        params_EK[layer + LAYERS, :3] = [4 * HIDDEN * a + 3 * a for a in rows]
        macs_EK[layer + LAYERS, :3] = [TOKENS * 4 * HIDDEN * a + 2 * TOKENS**2 * a for a in rows]
    embeddings, pooler = 23_837_184, 590_592
    costs = {"params": CostTable(embeddings + pooler, params_EK, gate), "macs": CostTable(HIDDEN**2, macs_EK, gate)}
    theta_EK, rng = np.zeros(space.shape), np.random.default_rng(0)
    for e, edge in enumerate(edges):
        theta_EK[e, : len(edge.candidates)] = rng.dirichlet(np.full(len(edge.candidates), concentration))
    return Problem(space, theta_EK, space.exists_EK, costs)


def conditional() -> None:
    """Print the seconds of budgets in a conditional space, after a check of its sizes."""
    problem = bert_instance(1.0)
    for depth, heads, width, params in (
        (3, 2, 3, 109_482_240),
        (0, 2, 3, 66_955_008),
        (3, 2, 1, 66_987_264),
        (3, 2, 0, 62_265_600),
        (2, 2, 1, 59_894_016),
        (0, 0, 0, 33_900_288),
    ):
        alpha_E = np.array([depth, *[width] * LAYERS, *[heads] * LAYERS])
        assert problem.costs["params"](alpha_E) == params, params
    print("\n### BERT base, 12 layers, conditional: seconds\n")
    print("| theta | budgets | programme | mip | equal |\n| --- | --- | --- | --- | --- |")
    for concentration in (1.0, 0.1):
        problem = bert_instance(concentration)
        above: list[Budget] = [{"params": Bound(None, int(limit * 1e6))} for limit in np.linspace(40, 100, 10)]
        windows: list[Budget] = [{"params": Bound(low * 10**6, (low + 8) * 10**6)} for low in range(34, 94, 6)]
        two: list[Budget] = [{**budget, "macs": Bound(None, 5 * 10**9)} for budget in above]
        paper: list[Budget] = [{"params": Bound(59 * 10**6, 67 * 10**6)}]
        for title, budgets, k in (
            ("10 at most", above, 1),
            ("10 at most, k 10", above, 10),
            ("10 windows of 8M", windows, 1),
            ("10 at most, and macs", two, 1),
            ("59M..67M, k 10", paper, 10),
        ):
            seconds, found = timed(partial(solve_many, problem, budgets, k=k, method="programme"))
            start = time.perf_counter()
            by_mip = solve_many(problem, budgets, k=k, method="mip")
            of_mip = time.perf_counter() - start
            values = [[[round(s.expectation, 12) for s in each] for each in both] for both in (found, by_mip)]
            equal = "yes" if values[0] == values[1] else "NO"
            print(f"| {concentration} | {title} | {seconds:.4f} | {of_mip:.2f} | {equal} |")
        seconds, values = timed(partial(nearest, problem, {"params": Bound(None, 30 * 10**6)}))
        print(f"| {concentration} | nearest to 30M: {values['params'][1]:,} | {seconds:.4f} | | |")


def random_search(problem: Problem, name: str, limits: Sequence[int], rng: np.random.Generator) -> list[float]:
    """Return the best of ``EVALUATIONS`` random architectures for each limit, from one sample for all limits."""
    found = [evaluate_fast(problem, name, random_alpha_fast(problem, rng)) for _ in range(EVALUATIONS)]
    return [max((value for value, cost in found if cost <= limit), default=float("-inf")) for limit in limits]


def evolution(problem: Problem, name: str, limit: int, rng: np.random.Generator) -> float:
    """Run regularised evolution (Real et al., 2019): population 50, tournaments of 10, one edge mutated; infeasible
    architectures rank below all feasible ones, by their excess over the limit."""

    def fitness(alpha_E: IntArray) -> float:
        value, cost = evaluate_fast(problem, name, alpha_E)
        return value if cost <= limit else -cost / limit

    population = [(fitness(a), a) for a in (random_alpha_fast(problem, rng) for _ in range(50))]
    best = max(score for score, _ in population)
    for _ in range(EVALUATIONS - 50):
        parent = max((population[i] for i in rng.integers(50, size=10)), key=lambda pair: pair[0])[1]
        child = parent.copy()
        edge = rng.integers(len(child))
        child[edge] = rng.choice(np.flatnonzero(problem.choosable_EK[edge]))
        score = fitness(child)
        best = max(best, score)
        population = [*population[1:], (score, child)]
    return best if best >= 0 else float("-inf")


def random_alpha_fast(problem: Problem, rng: np.random.Generator) -> IntArray:
    """Draw uniformly over the operations of every edge, for spaces with independent edges."""
    counts_E = problem.choosable_EK.sum(axis=1)
    return (rng.random(len(counts_E)) * counts_E).astype(np.int64)


def evaluate_fast(problem: Problem, name: str, alpha_E: IntArray) -> tuple[float, int]:
    """Return E[alpha] and one cost."""
    edges = np.arange(len(alpha_E))
    table: Any = problem.costs[name]
    return float(problem.theta_EK[edges, alpha_E].mean()), table.base + int(table.entries_EK[edges, alpha_E].sum())


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the median seconds of ``REPEATS`` calls after a warm-up, and the last result."""
    result = function()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def against_baselines(title: str, problem: Problem) -> None:
    """Print the table of one instance: one macs budget, and 100 of them."""
    best = evaluate(problem, [int(k) for k in most_likely(problem.space, problem.theta_EK, problem.choosable_EK)])
    macs = best[1]["macs"]
    limits = [int(macs * share) for share in np.linspace(0.5, 1.0, 100)]
    one: Budget = {"macs": Bound(None, int(0.7 * macs))}
    many: list[Budget] = [{"macs": Bound(None, limit)} for limit in limits]
    print(f"\n### {title}: best without a budget E {best[0]:.4f}, {macs:,} macs\n")
    print("| method | budgets | seconds | regret, median | regret, worst |\n| --- | --- | --- | --- | --- |")
    seconds, exact = timed(lambda: solve(problem, one, method="programme"))
    print(f"| programme | 1 | {seconds:.4f} | 0 | 0 |")
    seconds, mip = timed(lambda: solve(problem, one, method="mip"))
    print(f"| mip | 1 | {seconds:.4f} | {exact[0].expectation - mip[0].expectation:.1e} | |")
    seconds, exact_many = timed(lambda: solve_many(problem, many))
    print(f"| programme | 100 | {seconds:.4f} | 0 | 0 |")
    start = time.perf_counter()
    mip_many = [solve(problem, budget, method="mip")[0] for budget in many]
    seconds = time.perf_counter() - start
    gaps = [a[0].expectation - b.expectation for a, b in zip(exact_many, mip_many, strict=True)]
    print(f"| mip | 100 | {seconds:.2f} | {statistics.median(gaps):.1e} | {max(gaps):.1e} |")
    values = [found[0].expectation for found in exact_many]
    baseline(f"random search, {EVALUATIONS:,} shared by all", problem, limits, values, random_search)
    some = list(range(9, 100, 30))

    def evolve(problem: Problem, name: str, limits: Sequence[int], rng: np.random.Generator) -> list[float]:
        return [evolution(problem, name, limit, rng) for limit in limits]

    chosen = [limits[i] for i in some]
    baseline(f"evolution, {EVALUATIONS:,} each", problem, chosen, [values[i] for i in some], evolve)


def baseline(
    title: str, problem: Problem, limits: Sequence[int], exact: Sequence[float], search: Callable[..., list[float]]
) -> None:
    """Print one row: regret over budgets and seeds."""
    start = time.perf_counter()
    regrets = []
    for seed in range(SEEDS):
        found = search(problem, "macs", limits, np.random.default_rng(seed))
        regrets += [a - b for a, b in zip(exact, found, strict=True)]
    seconds = (time.perf_counter() - start) / SEEDS
    print(f"| {title} | {len(limits)} | {seconds:.2f} | {statistics.median(regrets):.4f} | {max(regrets):.4f} |")


def combinations(title: str, problem: Problem, budgets: dict[str, Budget], k: int = 1) -> None:
    """Print the seconds of each method for budgets of several kinds."""
    for name, budget in budgets.items():
        cells = []
        answers: list[list[Solution]] = []
        for method in ("programme", "mip"):
            try:
                seconds, found = timed(partial(solve, problem, budget, k=k, method=method))  # type: ignore[arg-type]
                answers.append(found)
                cells.append(f"{seconds:.4f}")
            except TooLargeError:
                cells.append("too many states")
        values = [[round(s.expectation, 12) for s in found] for found in answers]
        equal = "yes" if all(v == values[0] for v in values) else "NO"
        print(f"| {title}: {name} | {k} | {cells[0]} | {cells[1]} | {len(answers[0])} | {equal} |")


def main() -> None:
    """Print all tables."""
    for concentration in (1.0, 0.1):
        against_baselines(f"20 edges x 7, concentration {concentration}", random_instance(concentration))
        against_baselines(f"mobile, 224 px, concentration {concentration}", mobile_instance(concentration))
    print("\n### Other budgets, one at a time, seconds\n")
    print("| budget | k | programme | mip | found | equal |\n| --- | --- | --- | --- | --- | --- |")
    problem = mobile_instance(1.0)
    macs = evaluate(problem, [int(k) for k in most_likely(problem.space, problem.theta_EK, problem.choosable_EK)])[1]
    both: Budget = {name: Bound(None, int(0.7 * macs[name])) for name in ("macs", "params")}
    between: Budget = {"macs": Bound(int(0.60 * macs["macs"]), int(0.61 * macs["macs"]))}
    combinations("mobile", problem, {"macs and params": both, "macs between 60 and 61 %": between})
    combinations("mobile", problem, {"macs": {"macs": both["macs"]}}, k=5)
    shape: Budget = {
        f"{cost}.{kind}": Bound(v, v) for cost, v in (("nonparametric", 4), ("height", 3)) for kind in cell.KINDS
    }
    problem = cell_instance(1.0)
    combinations("cell, un-pruned", problem, {"N = 4, H = 3": shape})
    combinations(
        "cell, un-pruned", problem, {"N = 4, H = 3, params at most 3M": {"params": Bound(None, 3 * 10**6), **shape}}
    )
    combinations(
        "cell, un-pruned",
        problem,
        {"N = 4, H = 3, params at most 3M": {"params": Bound(None, 3 * 10**6), **shape}},
        k=5,
    )


if __name__ == "__main__":
    if sys.argv[1:] != ["bert"]:
        main()
    conditional()
