"""Generation in the pruned cell space, under the bounds of Table 4, against all 46,080 networks of each cell.

Axes: E edges, K candidates.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest

from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.generation.budgets import Bound, Budget
from ddpnas_ray.core.generation.problem import Problem, evaluate
from ddpnas_ray.core.generation.solve import Method, nearest, solve
from ddpnas_ray.core.space import BoolArray, FloatArray
from ddpnas_ray.spaces.cell.space import KINDS, OPS, make
from ddpnas_ray.spaces.target import Target

TARGET = Target(cells=20, channels=36, image_size=32, classes=10, stem="cifar")
SPEC = make(nodes=4)
COSTS = {name: cost(TARGET) for name, cost in SPEC.costs.items()}
PER_CELL = 14
TABLE_4 = [{"N": 2}, {"N": 4}, {"N": 6}, {"H": 1, "N": 4}, {"H": 2, "N": 4}, {"H": 3, "N": 4}]
SEEDS = (0, 1, 2, 3)


def pruned(theta_EK: FloatArray) -> BoolArray:
    """The most probable selectable operation of each group on every edge, shape (E, K)."""
    live_EK = np.zeros(theta_EK.shape, dtype=bool)
    for e, theta_K in enumerate(theta_EK):
        for group in ("parameter", "non_parameter"):
            members = [k for k, op in enumerate(OPS) if op.group == group and op.name != "none"]
            live_EK[e, max(members, key=lambda k: theta_K[k])] = True
    return live_EK


def random_problem(seed: int) -> Problem:
    """A random theta, pruned to the end."""
    theta_EK = np.random.default_rng(seed).dirichlet(np.ones(len(OPS)), size=2 * PER_CELL)
    return Problem(SPEC.space, theta_EK, pruned(theta_EK), COSTS)


def networks(problem: Problem, first_edge: int) -> Iterator[tuple[float, int, int]]:
    """Sum of theta, N and H of every network of a cell: two inputs per node, one of two operations on each."""
    edges = itertools.count(first_edge)
    choices_of_node = []
    for node in range(4):
        into = [(source, next(edges)) for source in range(2 + node)]
        used_sets = itertools.combinations(into, 2)
        choices_of_node.append(
            [
                [(source, edge, op), (other_source, other_edge, other_op)]
                for (source, edge), (other_source, other_edge) in used_sets
                for op in np.flatnonzero(problem.choosable_EK[edge])
                for other_op in np.flatnonzero(problem.choosable_EK[other_edge])
            ]
        )
    theta = problem.theta_EK.tolist()
    non_parametric = [op.group == "non_parameter" for op in OPS]
    for choice in itertools.product(*choices_of_node):
        heights = [0, 0]  # of the cell's two inputs, then of the nodes
        for used in choice:
            heights.append(1 + max(heights[source] for source, *_ in used))
        chosen = [(edge, op) for used in choice for _, edge, op in used]
        yield math.fsum(theta[e][k] for e, k in chosen), sum(non_parametric[k] for _, k in chosen), max(heights)


@pytest.fixture(scope="module", params=SEEDS)
def enumerated(request: pytest.FixtureRequest) -> tuple[Problem, list[dict[tuple[int, int], float]]]:
    """A problem, and for each of its cells the largest sum of theta by (N, H)."""
    problem = random_problem(request.param)
    largest = []
    for first_edge in (0, PER_CELL):
        of_cell: defaultdict[tuple[int, int], float] = defaultdict(lambda: -math.inf)
        count = 0
        for value, n, h in networks(problem, first_edge):
            count += 1
            of_cell[n, h] = max(of_cell[n, h], value)
        assert count == 46_080
        largest.append(dict(of_cell))
    return problem, largest


def optimum(largest: dict[tuple[int, int], float], wanted: dict[str, int]) -> float:
    """Return the largest sum of theta in one cell with the given non-parameter operations and height."""
    return max(
        (value for (n, h), value in largest.items() if wanted.get("N", n) == n and wanted.get("H", h) == h),
        default=-math.inf,
    )


def budget_of(wanted: dict[str, int]) -> Budget:
    """The same for both cells."""
    families = {"N": "nonparametric", "H": "height"}
    return {f"{families[key]}.{kind}": Bound(value, value) for key, value in wanted.items() for kind in KINDS}


@pytest.mark.parametrize("wanted", TABLE_4, ids=str)
@pytest.mark.parametrize("method", ["programme", "mip"])
def test_both_cells_are_the_best_of_all_their_networks(
    enumerated: tuple[Problem, list[dict[tuple[int, int], float]]], wanted: dict[str, int], method: Method
) -> None:
    problem, largest = enumerated
    (solution,) = solve(problem, budget_of(wanted), method=method)
    expected = math.fsum(optimum(of_cell, wanted) for of_cell in largest) / (2 * PER_CELL)
    assert solution.expectation == pytest.approx(expected, rel=0, abs=1e-12)
    assert evaluate(problem, solution.alpha_E) == (solution.expectation, solution.costs)
    genotype = SPEC.decode(np.array(solution.alpha_E))
    for kind in KINDS:
        assert {"N": _non_parametric(genotype[kind]), "H": _height(genotype[kind])}.items() >= wanted.items()


@pytest.mark.parametrize("method", ["programme", "mip"])
def test_cells_may_be_bounded_differently(
    enumerated: tuple[Problem, list[dict[tuple[int, int], float]]], method: Method
) -> None:
    problem, largest = enumerated
    wanted = ({"H": 1, "N": 8}, {"H": 4, "N": 0})
    budget = {
        name: bound
        for kind, of in zip(KINDS, wanted, strict=True)
        for name, bound in budget_of(of).items()
        if kind in name
    }
    (solution,) = solve(problem, budget, method=method)
    expected = sum(optimum(of_cell, of) for of_cell, of in zip(largest, wanted, strict=True)) / (2 * PER_CELL)
    assert solution.expectation == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize("method", ["programme", "mip"])
@pytest.mark.parametrize("wanted", [{"N": 9}, {"H": 5}, {"H": 0}, {"H": 5, "N": 4}], ids=str)
def test_what_no_cell_has_is_infeasible(
    enumerated: tuple[Problem, list[dict[tuple[int, int], float]]], wanted: dict[str, int], method: Method
) -> None:
    problem, largest = enumerated
    assert optimum(largest[0], wanted) == -math.inf
    assert solve(problem, budget_of(wanted), method=method) == []


def test_both_cells_together_are_too_many_to_enumerate() -> None:
    problem = random_problem(0)
    with pytest.raises(
        TooLargeError, match=r"^there are 2,123,366,400 architectures; at most 4,000,000 are enumerated"
    ):
        solve(problem, {}, method="enumeration")
    assert 46_080**2 == 2_123_366_400


def test_with_only_convolutions_left_n_must_be_zero() -> None:
    problem = random_problem(0)
    parameter_EK = SPEC.space.group_EK("parameter")
    bare = Problem(problem.space, problem.theta_EK, problem.choosable_EK & parameter_EK, COSTS)
    methods: tuple[Method, ...] = ("programme", "mip")
    for method in methods:
        assert solve(bare, budget_of({"N": 4}), method=method) == []
        assert len(solve(bare, budget_of({"N": 0}), method=method)) == 1
    assert nearest(bare, {"nonparametric.normal": Bound(4, 4)}) == {"nonparametric.normal": (0, None)}


def _non_parametric(pairs: list[tuple[str, int]]) -> int:
    return sum("conv" not in name for name, _ in pairs)


def _height(pairs: list[tuple[str, int]]) -> int:
    heights = [0, 0]
    for (_, first), (_, second) in zip(pairs[::2], pairs[1::2], strict=True):
        heights.append(1 + max(heights[first], heights[second]))
    return max(heights)
