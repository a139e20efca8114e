"""Generate architectures as Ray tasks: a sweep's budgets, several per task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ray

from ddpnas_ray.core.generation.budgets import Budget
from ddpnas_ray.core.generation.problem import Problem
from ddpnas_ray.core.generation.solve import Method, Solution, groups_that_share, solve_many
from ddpnas_ray.execution.ray_errors import fetched

TASKS_PER_CPU = 4  # so that slow budgets do not delay the end


def solve_budgets(
    problem: Problem, budgets: Sequence[Budget], *, k: int, method: Method, on_done: Callable[[int], None]
) -> list[list[Solution]]:
    """``core.generation.solve_many`` on the connected cluster: the same solutions, in the same order.

    Args:
        problem: The choices; sent to every node once.
        budgets: The budgets.
        k: Architectures per budget.
        method: How to solve.
        on_done: Called with the number of budgets of each finished task.

    Raises:
        WorkerLostError: A task's process kept dying.
        DdpnasError: A task's own error.
    """
    chunks = _chunks(groups_that_share(problem, budgets), TASKS_PER_CPU * int(ray.cluster_resources().get("CPU", 1)))
    problem_ref = ray.put(problem)
    task: Any = ray.remote(solve_many).options(name="ddpnas-generate", num_cpus=1, max_retries=3)
    refs = [task.remote(problem_ref, chunk, k=k, method=method) for chunk in chunks]
    sizes = dict(zip(refs, map(len, chunks), strict=True))
    left = list(refs)
    while left:
        done, left = ray.wait(left, num_returns=1)
        on_done(sum(sizes[ref] for ref in done))
    lost = "generation: a task's process kept dying; check the nodes (ray status), or drop --address"
    return [solutions for ref in refs for solutions in fetched(ref, lost)]


def _chunks(groups: Sequence[list[Budget]], tasks: int) -> list[list[Budget]]:
    """Cut the budgets into about ``tasks`` lists. Budgets solved in one dynamic-programming pass stay together: a pass
    takes milliseconds, and so certificates do not depend on the cluster."""
    size = -(-sum(map(len, groups)) // max(1, tasks))
    chunks: list[list[Budget]] = [[]]
    for group in groups:
        if len(chunks[-1]) >= size:
            chunks.append([])
        chunks[-1] += group
    return chunks
