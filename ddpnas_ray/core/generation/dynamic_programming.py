"""Generation by dynamic programming: extend partial architectures block by block, dropping dominated ones.

Axes: E edges, K candidates, B edges of a block, C its choices, S states, A additive costs, V nodes of path costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpnas_ray.core.errors import TooLargeError
from ddpnas_ray.core.generation.blocks import block_choices
from ddpnas_ray.core.generation.budgets import Bound, Budget
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.space import BoolArray, CostTable, IntArray, LongestPath, SearchSpace

MAX_EXPANDED = 4_000_000  # states before dominated ones are dropped
MAX_COMPARED = 50_000_000  # pairs of states with several bounded directions
UNREACHED = -1


@dataclass(slots=True)
class _States:
    """Partial architectures over the blocks so far, in lexicographic order of their alphas.

    Args:
        value_S: Sum of the objective.
        total_SA: Bounded additive costs, base included.
        height_SV: Longest paths to the nodes of all bounded path costs; ``UNREACHED`` where there is none.
        parent_S: Index of the state before the last block that each one extends.
        choice_S: Index of the last block's choice.
    """

    value_S: IntArray
    total_SA: IntArray
    height_SV: IntArray
    parent_S: IntArray
    choice_S: IntArray

    def keep(self, mask_S: BoolArray) -> _States:
        """Return the states in the mask."""
        return _States(*(getattr(self, name)[mask_S] for name in self.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class _Block:
    """A block's choices, and their contributions to the objective and the additive costs."""

    edges: tuple[int, ...]
    alphas_CB: IntArray
    value_C: IntArray
    cost_CA: IntArray


@dataclass(frozen=True, slots=True)
class _Path:
    """A bounded path cost; its nodes are columns of the states' heights, its arcs sorted by block."""

    bound: Bound
    columns: slice
    counts_EK: BoolArray
    arcs_by_block: tuple[tuple[tuple[int, int, int], ...], ...]
    last_block: int
    decides_ties: bool


def run_dynamic_programming(
    problem: Problem, value_EK: IntArray, budgets: Sequence[Budget], k: int
) -> tuple[list[list[tuple[int, ...]]], int]:
    """Return the k best alphas within each budget, and the size of the largest front.

    A partial architecture is kept if fewer than k others dominate it. One dominates another if it is better (larger
    objective, then smaller first cost, then smaller alpha), has the same heights, and is at least as good in every
    bounded direction: whatever completes the other also completes this one, better and within the budget.

    Args:
        problem: The generation problem.
        value_EK: Objective of each choice, shape (E, K).
        budgets: One, or several for which ``shares_a_pass``; states within none of them are dropped.
        k: Number of alphas per budget.

    Raises:
        TooLargeError: There are too many states, or a path cost's arcs do not follow the order of the blocks.
    """
    space, budget = problem.space, budgets[0]
    tightest = {name: bound.upper for name, bound in budget.items()}
    if len(budgets) > 1:
        tightest = {name: min(_upper(other, name) for other in budgets) for name in budget}
        budget = {name: Bound(None, max(_upper(other, name) for other in budgets)) for name in budget}
    names = [name for name in budget if isinstance(problem.costs[name], CostTable)]
    tables = [cost for name in names if isinstance(cost := problem.costs[name], CostTable)]
    blocks = [_block(problem, value_EK, tables, edges) for edges in space.blocks]
    if not all(len(block.alphas_CB) for block in blocks):
        return [[] for _ in budgets], 0
    least_BA, most_BA = _still_to_come(blocks, np.min), _still_to_come(blocks, np.max)
    paths, height_V = _paths(space, problem, budget)
    first = names.index(next(iter(budget))) if budget and next(iter(budget)) in names else None

    nothing = np.zeros(1, dtype=np.int64)
    bases = np.array([[table.base for table in tables]], dtype=np.int64)
    states = _States(nothing, bases, height_V[None, :], nothing, nothing)
    history = []
    for b, block in enumerate(blocks):
        states = _expand(states, block)
        within_S = np.ones(len(states.value_S), dtype=bool)
        for a, name in enumerate(names):
            if (upper := budget[name].upper) is not None:
                within_S &= states.total_SA[:, a] + least_BA[b, a] <= upper
            if (lower := budget[name].lower) is not None:
                within_S &= states.total_SA[:, a] + most_BA[b, a] >= lower
        states = states.keep(within_S)
        states = states.keep(_visit(paths, b, block, states))
        columns = []
        for a, name in enumerate(names):
            total_S = states.total_SA[:, a]
            if (upper := tightest[name]) is not None:  # where every completion is affordable, less is no better
                columns.append(np.maximum(total_S, upper - most_BA[b, a]))
            if (lower := budget[name].lower) is not None:  # where every completion is enough, more is no better
                columns.append(-np.minimum(total_S, lower - least_BA[b, a]))
        states = states.keep(_front(states, first, columns, k))
        history.append(states)

    first_S = _first_cost(states, first, paths)
    best = []
    for each in budgets:
        within_S = np.ones(len(states.value_S), dtype=bool)
        for a, name in enumerate(names):
            if (upper := each[name].upper) is not None:
                within_S &= states.total_SA[:, a] <= upper
        candidates = np.flatnonzero(within_S)
        candidates = candidates[np.lexsort((first_S[candidates], -states.value_S[candidates]))][:k]
        best.append([_alpha(space, blocks, history, int(state)) for state in candidates])
    return best, max(len(states.value_S) for states in history)


def shares_a_pass(problem: Problem, budgets: Sequence[Budget]) -> bool:
    """Return whether all budgets bound the same additive costs, and from above only."""
    names = list(budgets[0])
    return all(
        list(budget) == names
        and all(
            bound.lower is None and bound.upper is not None and isinstance(problem.costs[name], CostTable)
            for name, bound in budget.items()
        )
        for budget in budgets
    )


def _upper(budget: Budget, name: str) -> int:
    upper = budget[name].upper
    assert upper is not None
    return upper


def _block(problem: Problem, value_EK: IntArray, tables: Sequence[CostTable], edges: tuple[int, ...]) -> _Block:
    alphas_CB = block_choices(problem.space, problem.choosable_EK, edges)
    of_edges = np.array(edges)[None, :]
    cost_CA = np.zeros((len(alphas_CB), len(tables)), dtype=np.int64)
    for a, table in enumerate(tables):
        cost_CA[:, a] = table.entries_EK[of_edges, alphas_CB].sum(axis=1)
    return _Block(edges, alphas_CB, value_EK[of_edges, alphas_CB].sum(axis=1), cost_CA)


def _still_to_come(blocks: Sequence[_Block], extreme: Any) -> IntArray:
    """Return the least or most that the blocks after each one add to the additive costs, shape (blocks, A)."""
    of_block = np.array(
        [extreme(block.cost_CA, axis=0) for block in blocks[1:]] + [np.zeros_like(blocks[0].cost_CA[0])]
    )
    to_come: IntArray = np.cumsum(of_block[::-1], axis=0)[::-1]
    return to_come


def _paths(space: SearchSpace, problem: Problem, budget: Budget) -> tuple[list[_Path], IntArray]:
    """Return the budget's path costs, and the heights before the first block: 0 at inputs, else unreached."""
    block_of = {e: b for b, block in enumerate(space.blocks) for e in block}
    paths: list[_Path] = []
    height_V: list[int] = []
    for position, (name, bound) in enumerate(budget.items()):
        cost = problem.costs[name]
        if not isinstance(cost, LongestPath):
            continue
        arcs = sorted(cost.arcs, key=lambda arc: block_of[arc[0]])
        try:
            LongestPath(tuple(arcs), cost.counts_EK)
        except ValueError as error:
            raise TooLargeError(f"dynamic programming follows the blocks, {name} does not: {error}") from error
        nodes = sorted({v for _, *ends in arcs for v in ends})
        column = {v: len(height_V) + i for i, v in enumerate(nodes)}
        by_block = tuple(
            tuple((e, column[source], column[node]) for e, source, node in arcs if block_of[e] == b)
            for b in range(len(space.blocks))
        )
        columns = slice(len(height_V), len(height_V) + len(nodes))
        paths.append(_Path(bound, columns, cost.counts_EK, by_block, block_of[arcs[-1][0]], position == 0))
        height_V += [0 if v in cost.sources else UNREACHED for v in nodes]
    return paths, np.array(height_V, dtype=np.int64)


def _expand(states: _States, block: _Block) -> _States:
    """Combine every state with every choice of the block."""
    many, choices = len(states.value_S), len(block.alphas_CB)
    if many * choices > MAX_EXPANDED:
        raise TooLargeError(f"dynamic programming needs {many * choices:,} states; at most {MAX_EXPANDED:,} fit")
    parent_S, choice_S = np.repeat(np.arange(many), choices), np.tile(np.arange(choices), many)
    return _States(
        states.value_S[parent_S] + block.value_C[choice_S],
        states.total_SA[parent_S] + block.cost_CA[choice_S],
        states.height_SV[parent_S],
        parent_S,
        choice_S,
    )


def _visit(paths: Sequence[_Path], b: int, block: _Block, states: _States) -> BoolArray:
    """Extend the paths by a block's choices, in place, and return the mask of states within the path bounds."""
    height_SV = states.height_SV
    within_S = np.ones(len(height_SV), dtype=bool)
    for path in paths:
        for edge, source, node in path.arcs_by_block[b]:
            op_S = block.alphas_CB[states.choice_S, block.edges.index(edge)]
            through_S = path.counts_EK[edge, op_S] & (height_SV[:, source] != UNREACHED)
            longer_S = np.maximum(height_SV[:, node], height_SV[:, source] + 1)
            height_SV[:, node] = np.where(through_S, longer_S, height_SV[:, node])
        highest_S = height_SV[:, path.columns].max(axis=1)
        if path.bound.upper is not None and path.arcs_by_block[b]:
            within_S &= highest_S <= path.bound.upper
        if path.last_block == b:
            if path.bound.lower is not None:
                within_S &= highest_S >= path.bound.lower
            if not path.decides_ties:  # nothing depends on these heights any more
                height_SV[:, path.columns] = 0
    return within_S


def _front(states: _States, first: int | None, columns: Sequence[IntArray], k: int) -> BoolArray:
    """Return the mask of states that fewer than k others dominate (or a few more)."""
    if len(states.value_S) == 0:
        return np.zeros(0, dtype=bool)
    group_S = _groups(states.height_SV)
    first_S = states.total_SA[:, first] if first is not None else np.zeros_like(states.value_S)
    order = np.lexsort((first_S, -states.value_S, group_S))  # stable: the smaller alpha first among equals
    group_S = group_S[order]
    if len(columns) <= 1:
        column_S = columns[0][order] if columns else np.zeros_like(group_S)
        kept_S = _staircase(column_S, group_S, k)
    else:
        column_SD = np.stack(columns, axis=1)[order]
        starts = np.flatnonzero(np.diff(group_S, prepend=-1))
        kept_S = np.concatenate([_skyline(part_SD, k) for part_SD in np.split(column_SD, starts[1:])])
    mask_S = np.zeros(len(order), dtype=bool)
    mask_S[order[kept_S]] = True
    return mask_S


def _groups(height_SV: IntArray) -> IntArray:
    """Number the distinct rows from 0."""
    number_S = np.zeros(len(height_SV), dtype=np.int64)
    for column_S in height_SV.T:
        if (column_S != column_S[0]).any():
            _, number_S = np.unique(number_S * (column_S.max() + 2) + column_S + 1, return_inverse=True)
    return number_S


def _staircase(column_S: IntArray, group_S: IntArray, k: int) -> BoolArray:
    """Mask the first k staircases of rows ordered by group and preference: columns below those of all rows before."""
    _, rank_S = np.unique(column_S, return_inverse=True)
    step_S = rank_S - group_S * (len(column_S) + 1)  # each group lies below the one before
    kept_S = np.zeros(len(column_S), dtype=bool)
    left = np.arange(len(column_S))
    for _ in range(k):
        if len(left) == 0:
            break
        lowest = np.minimum.accumulate(step_S[left])
        on_front = np.ones(len(left), dtype=bool)
        on_front[1:] = step_S[left][1:] < lowest[:-1]
        kept_S[left[on_front]] = True
        left = left[~on_front]
    return kept_S


def _skyline(column_SD: IntArray, k: int, chunk: int = 256) -> BoolArray:
    """Mask rows, in order of preference, for which fewer than k earlier rows are at most as large in all columns."""
    kept_S = np.zeros(len(column_SD), dtype=bool)
    front_SD = column_SD[:0]
    for start in range(0, len(column_SD), chunk):
        part_SD = column_SD[start : start + chunk]
        beaten_by_S = _at_most(front_SD, part_SD).sum(axis=1) + np.tril(_at_most(part_SD, part_SD), -1).sum(axis=1)
        kept_S[start : start + chunk] = beaten_by_S < k
        front_SD = np.concatenate([front_SD, part_SD[beaten_by_S < k]])
        if len(front_SD) * len(column_SD) > MAX_COMPARED:
            raise TooLargeError(f"the front of dynamic programming has more than {len(front_SD):,} states")
    return kept_S


def _at_most(front_SD: IntArray, part_SD: IntArray) -> BoolArray:
    """Return whether a row of the front (axis 1) is at most as large as one of the part (axis 0), in all columns."""
    at_most = np.ones((len(part_SD), len(front_SD)), dtype=bool)
    for d in range(front_SD.shape[1]):
        at_most &= front_SD[None, :, d] <= part_SD[:, None, d]
    return at_most


def _first_cost(states: _States, first: int | None, paths: Sequence[_Path]) -> IntArray:
    """Return the cost of finished states that breaks ties."""
    if first is not None:
        return states.total_SA[:, first]
    deciding = [path for path in paths if path.decides_ties]
    highest_S: IntArray = states.height_SV[:, deciding[0].columns].max(axis=1) if deciding else states.value_S * 0
    return highest_S


def _alpha(space: SearchSpace, blocks: Sequence[_Block], history: Sequence[_States], state: int) -> tuple[int, ...]:
    """Trace a finished state back through the blocks."""
    alpha = [0] * len(space.edges)
    for block, states in zip(reversed(blocks), reversed(history), strict=True):
        for edge, op in zip(block.edges, block.alphas_CB[states.choice_S[state]], strict=True):
            alpha[edge] = int(op)
        state = int(states.parent_S[state])
    return tuple(alpha)
