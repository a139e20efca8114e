"""Tasks: data, loss and metric. ``Trainer``, executors and commands know nothing else about data.

A new task is one module with a function that returns a ``Task``, named ``module:function`` in the configuration:
``task: {name: "my_lab.ages:make", oldest: 100}``. The built-in tasks are the folders of ``ddpnas_ray/tasks``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from ddpnas_ray.core.plugins import Kind
from ddpnas_ray.spaces.target import Inputs

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from torch import Tensor

    from ddpnas_ray.tasks.recipe import RetrainingConfig

PNG = b"\x89PNG\r\n\x1a\n"  # the first bytes of a picture
TASKS = Kind("task", "ddpnas_ray.tasks", function="make", returns="a Task", file="task")
METRICS = Kind("metric", "ddpnas_ray.metrics", function="score", returns="a score")


class Batch(NamedTuple):
    """Inputs and targets of one batch of examples.

    Both are tensors whose first axis is the example, or dictionaries, tuples or lists of such tensors.
    """

    inputs: Any
    targets: Any


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of a network's outputs: higher is better, in [-1, 1], finite (Eq. 2).

    Args:
        name: Name in reports.
        score: (outputs, targets) of every batch -> the score over all examples.
    """

    name: str
    score: Callable[[Iterable[tuple[Tensor, Any]]], float]


class Illustrations(NamedTuple):
    """What a report shows of a trained network beside its scores.

    Args:
        pictures: PNG files by caption.
        confusion: For every true class (row) how often each class was predicted; None: not counted.
        classes: The classes' names; empty without ``confusion``.
    """

    pictures: Mapping[str, bytes]
    confusion: Sequence[Sequence[int]] | None = None
    classes: Sequence[str] = ()


class Task(Protocol):
    """Data, loss and metric of a search. Pickled to every worker with its data; large arrays should be NumPy arrays.

    Batches are on the CPU and are pure functions of the arguments: every architecture of an epoch trains on the same
    examples in the same order, in any process. Data may be sorted, so subsets must be drawn at random.
    """

    @property
    def name(self) -> str:
        """Short name of the data."""
        ...

    @property
    def inputs(self) -> Inputs:
        """Input shape and number of outputs of the networks."""
        ...

    @property
    def metric(self) -> Metric:
        """Validation metric."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of data and split, in hexadecimal."""
        ...

    @property
    def train_examples(self) -> int:
        """Number of training examples."""
        ...

    @property
    def val_examples(self) -> int:
        """Number of validation examples."""
        ...

    def training_batches(
        self, epoch: int, seed: int, batch_size: int, rank: int = 0, world: int = 1
    ) -> Iterable[Batch]:
        """Yield an epoch's augmented training examples in its order; batches are full, unless there is only one.

        Worker ``rank`` of ``world`` gets the examples ``[rank::world]`` of every batch, so that a batch is the same for
        any number of workers.
        """
        ...

    def calibration_batches(self, examples: int, seed: int, batch_size: int) -> Iterable[Batch]:
        """Yield at most ``examples`` representative training examples, not augmented, in one or more equal batches."""
        ...

    def validation_batches(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterable[Batch]:
        """Yield every validation example once, not augmented; worker ``rank`` gets batches rank, rank + world, ..."""
        ...

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the batch's loss, a scalar to minimise."""
        ...

    def chance(self) -> float | None:
        """Return the score of the best constant output; None if that is meaningless."""
        ...

    def excerpt(self, examples: int, seed: int) -> Task:
        """Return the same task on at most ``examples`` representative training and as many validation examples."""
        ...

    def for_retraining(self, recipe: RetrainingConfig) -> Task:
        """Return the same task with the examples and the augmentation of a recipe; ``train_on: all`` leaves no
        validation examples."""
        ...

    def on_test(self) -> Task:
        """Return the same task with the test examples, read now, as its validation examples.

        Raises:
            DataError: There are no test data, or they cannot be used.
        """
        ...


class DeviceBatches(Protocol):
    """A task's batches on the training device, with the memory format that training asked for."""

    def training_batches(self, epoch: int, seed: int, batch_size: int) -> Iterable[Batch]:
        """See ``Task``; batches that are not to be changed."""
        ...

    def calibration_batches(self, examples: int, seed: int, batch_size: int) -> Iterable[Batch]:
        """See ``Task``; batches that are not to be changed."""
        ...

    def validation_batches(self, batch_size: int) -> Iterable[Batch]:
        """See ``Task``; batches that are not to be changed."""
        ...


@runtime_checkable
class PreparesOnDevice(Protocol):
    """A task that can keep its data in a GPU's memory and prepare batches there: optional, tested with ``isinstance``.

    Batches are bit-equal to those of the task.
    """

    def on_device(
        self, device: torch.device, limit_bytes: int, channels_last: bool, latest: DeviceBatches | None
    ) -> DeviceBatches | None:
        """Copy the data to a device.

        Args:
            device: A GPU.
            limit_bytes: The most memory that data and prepared batches may take there.
            channels_last: Whether images are NHWC in memory.
            latest: Batches that an earlier task returned in this process: returned again if they are this one's too, as
                tasks are sent to workers anew with every architecture.

        Returns:
            The batches; None if the data cannot be held there, or would take more memory.
        """
        ...


@runtime_checkable
class ScoresTasks(Protocol):
    """A task that is several tasks, or one of a published table: optional, tested with ``isinstance``."""

    def scores_by_task(self, outputs: Sequence[tuple[Tensor, Any]]) -> dict[str, float]:
        """Return the score of each task that has examples, from outputs and targets of every batch."""
        ...


@runtime_checkable
class Distils(Protocol):
    """A task with a distillation loss of its own: optional, tested with ``isinstance``.

    For other tasks it is the Kullback-Leibler divergence over all outputs (``training.fit``).
    """

    def distillation_loss(self, outputs: Tensor, taught: Tensor, batch: Batch, temperature: float) -> Tensor:
        """Return the batch's loss to the teacher's outputs, a scalar to minimise.

        Args:
            outputs: The network's outputs, shape (B, C).
            taught: The teacher's, without gradient.
            batch: The batch.
            temperature: Of both distributions; their divergence is multiplied by its square.
        """
        ...


@runtime_checkable
class Predicts(Protocol):
    """A task that evaluates networks in its own way, such as window by window: optional, tested with ``isinstance``.

    For other tasks the outputs are ``network(inputs)``.
    """

    def predict(self, network: Callable[[Any], Tensor], inputs: Any) -> Tensor:
        """Return the outputs of a network, in evaluation mode, for the inputs of a validation batch."""
        ...


@runtime_checkable
class Compacts(Protocol):
    """A task whose outputs are too large to keep or to send: optional, tested with ``isinstance``.

    The metric, and ``scores_by_task``, get what ``compact`` makes of a validation batch instead of outputs and targets.
    """

    def compact(self, outputs: Tensor, targets: Any) -> tuple[Tensor, Any]:
        """Return what scores need of a batch, on the CPU, such as counts of its classes."""
        ...


@runtime_checkable
class Illustrates(Protocol):
    """A task that shows what a trained network does: optional, tested with ``isinstance``."""

    def illustrate(self, network: Callable[[Any], Tensor], outputs: Sequence[tuple[Tensor, Any]]) -> Illustrations:
        """Show the results of a trained network on the task's validation examples (of ``on_test()``: the test ones).

        Args:
            network: The network in evaluation mode, on the CPU.
            outputs: Outputs and targets of every batch of those examples, or what ``Compacts`` made of them.
        """
        ...


@runtime_checkable
class Deploys(Protocol):
    """A task whose networks can be exported: optional, tested with ``isinstance``."""

    def preprocessing(self) -> Mapping[str, Any]:
        """Return how an example is prepared and what the outputs mean, as plain JSON.

        ``kind`` is a file of ``ddpnas_ray/deploy/kinds``, ``images``, ``masks`` or ``texts``; the other values
        are those of the class in it.
        """
        ...

    def prepared(self, examples: int) -> tuple[npt.NDArray[Any], ...]:
        """Return a representative draw of at most ``examples`` validation examples, as the network's inputs.

        Of images one array, of texts token ids, mask and token types.
        """
        ...


def find_task(name: str, key: str = "task.name") -> Callable[..., Task]:
    """Find the function that makes a task: a built-in's name, or your own ``module:function``.

    Raises:
        ConfigError: The name cannot be imported.
    """
    return TASKS.find(name, key)


def find_metric(name: str, key: str = "task.metric") -> Metric:
    """Find a metric: a file of ``ddpnas_ray/metrics`` by name, or your own ``module:function``.

    Raises:
        ConfigError: The name cannot be imported.
    """
    return Metric(name.partition(":")[0].rpartition(".")[2], METRICS.find(name, key))


def own_data_sets(name: str) -> tuple[str, ...]:
    """Return the values of ``data.name`` that only a task itself can read: ``DATA_SETS`` of the module of its ``make``.

    Others are those of the readers in ``ddpnas_ray/data``.

    Raises:
        ConfigError: See ``find_task``.
    """
    return tuple(getattr(sys.modules[find_task(name).__module__], "DATA_SETS", ()))
