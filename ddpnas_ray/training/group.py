"""Processes that train one architecture together, and sums that do not depend on how many they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.tasks.base import Batch
from ddpnas_ray.training.batches import each, size


class Group(Protocol):
    """Processes that exchange values; every one of them makes the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This process, from 0."""
        ...

    @property
    def world(self) -> int:
        """Number of processes."""
        ...

    def tensors(self, mine: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, in order of rank; shapes are equal."""
        ...

    def objects(self, mine: Any) -> list[Any]:
        """Return the objects of all processes, in order of rank; they are pickled."""
        ...


@dataclass(frozen=True, slots=True)
class Alone:
    """The group of a process that trains alone."""

    rank: int = 0
    world: int = 1

    def tensors(self, mine: Tensor) -> list[Tensor]:
        """See ``Group``."""
        return [mine]

    def objects(self, mine: Any) -> list[Any]:
        """See ``Group``."""
        return [mine]


ALONE = Alone()


class GroupBrokenError(RuntimeError):
    """Another process of the group is gone, or does not answer."""


class ProcessGroup:
    """The processes of torch's default process group; exchanges raise ``GroupBrokenError`` if one of them is gone."""

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()

    def tensors(self, mine: Tensor) -> list[Tensor]:
        """See ``Group``."""
        found = [torch.empty_like(mine) for _ in range(self.world)]
        with _broken():
            dist.all_gather(found, mine)
        return found

    def objects(self, mine: Any) -> list[Any]:
        """See ``Group``."""
        found: list[Any] = [None] * self.world
        with _broken():
            dist.all_gather_object(found, mine)
        return found


@contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise GroupBrokenError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Shards:
    """The virtual shards of every training batch: examples ``[v::count]``, each with its own BatchNorm statistics.

    Gradients are summed in a binary tree over all shards. A process has a whole branch of it, so the sum has the same
    bits for any number of processes.

    Args:
        count: Shards of a batch, a power of two.
        examples: Examples of a whole batch.
        group: Its processes; their number divides ``count``.
        seed_of: (step, shard) -> seed of the network's random draws.
    """

    count: int
    examples: int
    group: Group
    seed_of: Callable[[int, int], int]

    @property
    def mine(self) -> range:
        """The shards of this process."""
        each_has = self.count // self.group.world
        return range(self.group.rank * each_has, (self.group.rank + 1) * each_has)

    def backward(
        self, whole: torch.nn.Parameter, step: int, parts: tuple[Batch, ...], backward: Callable[[Batch], Tensor]
    ) -> Tensor:
        """Leave the whole batch's gradient in ``whole.grad``, and return its loss, in every process.

        Args:
            whole: The weights, shape (n,).
            step: Number of the batch, from 0.
            parts: The batch's shards of this process.
            backward: Leaves a shard's gradient in ``whole.grad`` and returns its loss, a scalar.
        """

        def term(i: int) -> Tensor:
            torch.manual_seed(self.seed_of(step, self.mine[i]))
            loss = backward(parts[i])
            return torch.cat([whole.grad, loss[None]]) * (size(parts[i]) / self.examples)  # type: ignore[list-item]

        branches = self.group.tensors(tree_sum(term, 0, len(parts)))
        total = tree_sum(branches.__getitem__, 0, len(branches))
        whole.grad.copy_(total[:-1])  # type: ignore[union-attr]
        return total[-1]


def tree_sum(term: Callable[[int], Tensor], first: int, count: int) -> Tensor:
    """Sum ``count`` tensors from ``first`` on in a binary tree: ((0 + 1) + (2 + 3)) + ...; in place.

    Holds as many of them at once as the tree is deep.
    """
    if count == 1:
        return term(first)
    left = tree_sum(term, first, count // 2)
    return left.add_(tree_sum(term, first + count // 2, count - count // 2))


def gathered(mine: Iterator[tuple[Tensor, Any]], count: int, group: Group) -> Iterator[tuple[Tensor, Any]]:
    """Yield the outputs of all processes in the order of the batches; each computes every ``world``-th.

    Args:
        mine: Outputs and targets of this process's batches.
        count: Batches of all processes.
        group: The processes.

    Raises:
        DataError: A process cannot read an example; raised in all of them, so that none waits for it.
    """
    if group.world == 1:
        yield from mine
        return
    for _ in range(-(-count // group.world)):
        found: Any
        try:
            pair = next(mine, None)
            found = None if pair is None else each(pair, Tensor.cpu)
        except DataError as error:
            found = error
        everyone = group.objects(found)
        if errors := [found for found in everyone if isinstance(found, DataError)]:
            raise errors[0]
        yield from (found for found in everyone if found is not None)
