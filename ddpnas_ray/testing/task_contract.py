"""Contract of tasks: batches that depend on their arguments alone, a loss that trains, a score in [-1, 1]."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.deploy.interface import interface_of
from ddpnas_ray.tasks.base import Batch, Compacts, Deploys, Task
from ddpnas_ray.tasks.recipe import RetrainingConfig


class TaskContract:
    """Tests of a task. A subclass names the function that creates it, and a batch size that gives two full batches::

    class TestMyTask(TaskContract):
        make = staticmethod(lambda: my_task(DataConfig(), seed=0))
        batch_size = 16
    """

    make: ClassVar[Callable[[], Task]]
    batch_size: ClassVar[int] = 16

    @pytest.fixture
    def task(self) -> Task:
        """The task."""
        return type(self).make()

    def outputs(self, task: Task, batch: Batch) -> Tensor:
        """Return random outputs, shape (examples, ``task.inputs.outputs``); override for tasks with other shapes.

        If networks have a head there are as many for every pixel, as there are targets.
        """
        generator = torch.Generator().manual_seed(0)
        count, *pixels = next(tensors(batch.targets)).shape
        shape = (count, task.inputs.outputs, *(pixels if task.inputs.head is not None else ()))
        return torch.randn(shape, generator=generator, requires_grad=True)

    def test_it_describes_itself(self, task: Task) -> None:
        """Name, digest and sizes."""
        assert task.name and task.metric.name
        assert len(task.digest) == 64 and int(task.digest, 16) >= 0
        assert task.inputs.outputs >= 1 and all(side >= 1 for side in task.inputs.shape)
        assert task.train_examples >= 2 * self.batch_size, "choose a smaller batch_size for the contract"
        assert task.val_examples >= 1

    def test_made_again_or_pickled_it_is_the_same(self, task: Task) -> None:
        """The digest depends on content alone, and workers get a pickled copy."""
        for other in (type(self).make(), pickle.loads(pickle.dumps(task))):
            assert other.digest == task.digest
            assert same(other.training_batches(1, 2, self.batch_size), task.training_batches(1, 2, self.batch_size))

    def test_batches_are_pure_functions_of_their_arguments(self, task: Task) -> None:
        """Global random generators have no effect and stay untouched."""
        ways: list[Callable[[], Iterable[Batch]]] = [
            lambda: task.training_batches(3, 5, self.batch_size),
            lambda: task.calibration_batches(2 * self.batch_size, 5, self.batch_size),
            lambda: task.validation_batches(self.batch_size),
        ]
        for way in ways:
            first = list(way())
            np.random.seed(1)  # the legacy global generator is the point
            torch.manual_seed(1)
            before = torch.random.get_rng_state()
            assert same(way(), first)
            assert torch.equal(torch.random.get_rng_state(), before)

    def test_epochs_and_seeds_give_other_orders(self, task: Task) -> None:
        """All architectures of one epoch see the same order: see above."""
        first = list(task.training_batches(0, 0, self.batch_size))
        assert not same(task.training_batches(1, 0, self.batch_size), first)
        assert not same(task.training_batches(0, 1, self.batch_size), first)

    def test_training_batches_are_full(self, task: Task) -> None:
        """All steps weigh the same; fewer examples than a batch form one batch."""
        sizes = [size(batch) for batch in task.training_batches(0, 0, self.batch_size)]
        assert set(sizes) == {self.batch_size}
        assert task.train_examples - self.batch_size < sum(sizes) <= task.train_examples
        assert [size(b) for b in task.training_batches(0, 0, 2 * task.train_examples)] == [task.train_examples]

    def test_calibration_batches_are_of_equal_size(self, task: Task) -> None:
        """Statistics are averaged over batches; requests beyond the data use all full batches."""
        for examples in (self.batch_size // 2, 2 * self.batch_size, 10 * task.train_examples):
            sizes = [size(b) for b in task.calibration_batches(examples, 0, self.batch_size)]
            assert len(set(sizes)) == 1 and sum(sizes) <= min(examples, task.train_examples)

    def test_validation_sees_every_example_once(self, task: Task) -> None:
        """Whatever the batch size."""
        for batch_size in (1, 7, self.batch_size, 2 * task.val_examples):
            assert sum(size(batch) for batch in task.validation_batches(batch_size)) == task.val_examples

    def test_the_loss_is_a_finite_scalar_with_a_gradient(self, task: Task) -> None:
        """It trains."""
        batch = next(iter(task.training_batches(0, 0, self.batch_size)))
        outputs = self.outputs(task, batch)
        loss = task.loss(outputs, batch)
        assert loss.shape == () and torch.isfinite(loss)
        loss.backward()
        assert outputs.grad is not None and outputs.grad.abs().sum() > 0

    @pytest.mark.parametrize("batch_size", [1, 5, 1000])
    def test_the_score_is_of_all_examples_however_they_are_batched(self, task: Task, batch_size: int) -> None:
        """A fraction in [-1, 1]."""
        whole = list(task.validation_batches(10 * task.val_examples))
        outputs = self.outputs(task, whole[0]).detach()
        rows = outputs.split(batch_size)
        targets = [batch.targets for batch in task.validation_batches(batch_size)]
        compact = task.compact if isinstance(task, Compacts) else lambda outputs, targets: (outputs, targets)
        score = task.metric.score(compact(*pair) for pair in zip(rows, targets, strict=True))
        assert isinstance(score, float) and math.isfinite(score) and -1 <= score <= 1
        assert score == pytest.approx(task.metric.score([compact(outputs, whole[0].targets)]), abs=1e-5)

    def test_chance_is_a_score_or_nothing(self, task: Task) -> None:
        """Used for the warning that nothing was learned."""
        chance = task.chance()
        assert chance is None or -1 <= chance <= 1

    def test_an_excerpt_is_the_same_task_on_fewer_examples(self, task: Task) -> None:
        """Used by ``check``."""
        few = task.excerpt(self.batch_size, 0)
        assert few.inputs == task.inputs
        assert 1 <= few.train_examples <= self.batch_size and 1 <= few.val_examples <= self.batch_size
        assert [size(b) for b in few.training_batches(0, 0, 2 * self.batch_size)] == [few.train_examples]

    @pytest.mark.parametrize("world", [2, 3])
    def test_workers_share_each_batch(self, task: Task, world: int) -> None:
        """A retraining's batch is the same for any number of workers: worker r gets examples ``[r::world]``."""
        whole = list(task.training_batches(1, 2, self.batch_size))
        shares = [list(task.training_batches(1, 2, self.batch_size, rank, world)) for rank in range(world)]
        for batch, *parts in zip(whole, *shares, strict=True):
            for rank, part in enumerate(parts):
                assert all(torch.equal(a[rank::world], b) for a, b in zip(tensors(batch), tensors(part), strict=True))

    @pytest.mark.parametrize("world", [2, 3])
    def test_workers_share_the_validation_batches(self, task: Task, world: int) -> None:
        """Worker r scores batches r, r + world, ..."""
        whole = list(task.validation_batches(self.batch_size))
        for rank in range(world):
            assert same(task.validation_batches(self.batch_size, rank, world), whole[rank::world])

    def test_retraining_on_all_examples_leaves_none_to_validate_on(self, task: Task) -> None:
        """``retraining.train_on``."""
        some = task.for_retraining(RetrainingConfig(train_on="train"))
        assert (some.train_examples, some.val_examples) == (task.train_examples, task.val_examples)
        every = task.for_retraining(RetrainingConfig(train_on="all"))
        assert (every.train_examples, every.val_examples) == (task.train_examples + task.val_examples, 0)
        assert list(every.validation_batches(self.batch_size)) == []
        assert sum(size(batch) for batch in every.training_batches(0, 0, every.train_examples)) == every.train_examples

    def test_its_examples_can_be_prepared_for_an_export(self, task: Task) -> None:
        """Optional: ``Deploys``."""
        if not isinstance(task, Deploys):
            return
        interface, inputs = interface_of(json.loads(json.dumps(task.preprocessing())), "task"), task.prepared(7)
        interface.check(inputs)
        assert 1 <= len(inputs[0]) <= 7
        assert len(interface.classes) == task.inputs.outputs
        assert all(np.array_equal(*pair) for pair in zip(inputs, task.prepared(7), strict=True))

    def test_test_examples_are_read_on_request_or_refused(self, task: Task) -> None:
        """They stand where validation examples stood."""
        try:
            tested = task.on_test()
        except DataError:
            return
        assert tested.val_examples >= 1 and tested.train_examples == task.train_examples
        assert sum(size(batch) for batch in tested.validation_batches(7)) == tested.val_examples


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield every tensor of a batch, in order."""
    if isinstance(value, Tensor):
        yield value
    else:
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors(part)


def size(batch: Batch) -> int:
    """Return the number of examples of a batch, equal in all its tensors."""
    (count,) = {len(tensor) for tensor in tensors(batch)}
    return count


def same(batches: Iterable[Batch], others: Iterable[Batch]) -> bool:
    """Return whether batches are bit-equal."""
    pairs = zip(tensors(list(batches)), tensors(list(others)), strict=True)
    return all(one.shape == other.shape and torch.equal(one, other) for one, other in pairs)
