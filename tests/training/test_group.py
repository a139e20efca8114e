"""Processes that train one architecture together: sums, gathered outputs, and results that do not depend on them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.tasks.base import Batch
from ddpnas_ray.testing import contract_trainer
from ddpnas_ray.training.group import ALONE, Shards, gathered, tree_sum
from tests.training.test_trainer import REQUEST, slice_of


@dataclass
class Together:
    """Group of threads."""

    rank: int
    world: int
    barrier: Barrier
    board: dict[int, Any] = field(default_factory=dict)

    def objects(self, mine: Any) -> list[Any]:
        self.board[self.rank] = mine
        self.barrier.wait(timeout=60)
        found = [self.board[rank] for rank in range(self.world)]
        self.barrier.wait(timeout=60)
        return found

    def tensors(self, mine: Tensor) -> list[Tensor]:
        return [tensor.clone() for tensor in self.objects(mine)]


def together(world: int, work: Any) -> list[Any]:
    """Run ``work(group)`` in as many threads; returns what each returns or raises."""
    barrier, board = Barrier(world), {}  # type: ignore[var-annotated]
    found: dict[int, Any] = {}

    def run(rank: int) -> None:
        try:
            found[rank] = work(Together(rank, world, barrier, board))
        except DataError as error:
            found[rank] = error

    threads = [Thread(target=run, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(world)]


values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=8, max_size=8)


@given(values, st.sampled_from([1, 2, 4, 8]))
def test_a_sum_has_the_same_bits_for_any_number_of_processes(terms: list[float], world: int) -> None:
    tensors = [torch.tensor([value], dtype=torch.float32) for value in terms]
    whole = tree_sum(lambda i: tensors[i].clone(), 0, 8)
    each_has = 8 // world
    branches = [tree_sum(lambda i: tensors[i].clone(), rank * each_has, each_has) for rank in range(world)]
    assert tree_sum(branches.__getitem__, 0, world).numpy().tobytes() == whole.numpy().tobytes()


def test_the_sum_of_a_tree_by_hand() -> None:
    tiny = 2.0**-24  # half of a unit in the last place of 1: lost beside 1, kept beside each other
    terms = [torch.tensor([value]) for value in (1.0, tiny, tiny, tiny)]
    assert tree_sum(lambda i: terms[i].clone(), 0, 4).item() == 1 + 2 * tiny


def test_the_gradient_is_that_of_the_whole_batch_without_batch_norm() -> None:
    torch.manual_seed(0)
    inputs, targets, model = torch.randn(10, 3), torch.randn(10, 1), torch.nn.Parameter(torch.randn(3))
    model.grad = torch.zeros(3)

    def backward(batch: Batch) -> Tensor:
        model.grad.zero_()  # type: ignore[union-attr]
        loss = torch.nn.functional.mse_loss(batch.inputs @ model, batch.targets[:, 0])
        loss.backward()
        return loss.detach()

    loss = backward(Batch(inputs, targets))
    expected = model.grad.clone()
    shards = Shards(4, 10, ALONE, lambda step, shard: shard)
    parts = tuple(Batch(inputs[v::4], targets[v::4]) for v in shards.mine)  # of 3, 3, 2 and 2 examples
    found = shards.backward(model, 0, parts, backward)
    torch.testing.assert_close(model.grad, expected)
    torch.testing.assert_close(found, loss)


def test_every_shard_draws_its_own_random_numbers_whoever_computes_it() -> None:
    model = torch.nn.Parameter(torch.zeros(1))
    model.grad = torch.zeros(1)

    def draws(group: Any) -> list[float]:
        drawn: list[float] = []

        def backward(batch: Batch) -> Tensor:
            drawn.append(torch.rand(()).item())
            return torch.zeros(())

        shards = Shards(4, 8, group, lambda step, shard: 10 * step + shard)
        for step in range(2):
            shards.backward(model, step, tuple(Batch(torch.zeros(2), torch.zeros(2)) for _ in shards.mine), backward)
        return drawn

    @dataclass
    class Second:
        rank: int = 1
        world: int = 2

        def tensors(self, mine: Tensor) -> list[Tensor]:
            return [mine.clone(), mine]

        def objects(self, mine: Any) -> list[Any]:
            return [mine, mine]

    alone = draws(ALONE)
    assert len(set(alone)) == 8
    assert draws(Second()) == [alone[i] for i in (2, 3, 6, 7)]


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_outputs_come_in_the_order_of_the_batches(count: int) -> None:
    def outputs(rank: int) -> Iterator[tuple[Tensor, Tensor]]:
        return ((torch.tensor([i]), torch.tensor([-i])) for i in range(rank, count, 3))

    for found in together(3, lambda group: list(gathered(outputs(group.rank), count, group))):
        assert [(int(out), int(target)) for out, target in found] == [(i, -i) for i in range(count)]


def test_an_example_that_one_process_cannot_read_ends_all() -> None:
    def outputs(rank: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.tensor([rank]), torch.tensor([rank])
        if rank == 1:
            raise DataError("photo.jpg: cannot be read")
        yield torch.tensor([rank]), torch.tensor([rank])

    for error in together(2, lambda group: list(gathered(outputs(group.rank), 4, group))):
        assert isinstance(error, DataError)


PROCESS = """
import sys
import torch.distributed as dist
from dataclasses import replace
from ddpnas_ray.testing import contract_trainer
from ddpnas_ray.training.group import ProcessGroup
from tests.training.test_trainer import REQUEST, slice_of
rank, world, port = map(int, sys.argv[1:])
store = dist.TCPStore("127.0.0.1", port, is_master=False)
dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
trainer = contract_trainer()
trainer = replace(trainer, config=replace(trainer.config, shards=4))
result, learned = trainer.train_and_score(REQUEST, *slice_of(trainer), ProcessGroup())
print(result.score.hex(), result.loss.hex(), learned.tobytes().hex())
"""


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_group_of_processes_trains_the_same_bits_as_one(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist

    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    trainer = contract_trainer()
    trainer = replace(trainer, config=replace(trainer.config, shards=4))
    result, learned = trainer.train_and_score(REQUEST, *slice_of(trainer))
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(world), str(store.port)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for rank in range(world)
    ]
    expected = [result.score.hex(), result.loss.hex(), learned.tobytes().hex()]
    assert [process.communicate(timeout=120)[0].split() for process in processes] == [expected] * world


def test_shards_change_the_result() -> None:
    losses = set()
    for shards in (1, 2, 4):
        trainer = contract_trainer()
        trainer = replace(trainer, config=replace(trainer.config, shards=shards))
        losses.add(trainer.train_and_score(REQUEST, *slice_of(trainer))[0].loss)
    assert len(losses) == 3
