"""A task: all that a network is trained for. ``Trainer``, executors and commands know nothing else about data.

A new task is one module with a function that returns a ``Task``, named ``module:function`` in the configuration:
``task: {name: "my_lab.ages:make", oldest: 100}``. The built-in ones are the folders of ``ddpnas_ray/tasks``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ddpnas_ray.core.plugins import Kind
from ddpnas_ray.spaces.target import Inputs

if TYPE_CHECKING:
    from torch import Tensor

TASKS = Kind("task", "ddpnas_ray.tasks", function="make", returns="a Task", file="task")
METRICS = Kind("metric", "ddpnas_ray.metrics", function="score", returns="a score")


class Batch(NamedTuple):
    """Examples that are processed together: what the network takes, and what its outputs are compared with.

    Both are tensors whose first axis is the example, or dictionaries, tuples or lists of such.
    """

    inputs: Any
    targets: Any


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of a network's outputs: higher is better, in [-1, 1], finite (Eq. 2).

    Args:
        name: What reports call it.
        score: (outputs, targets) of every batch -> the score of all examples.
    """

    name: str
    score: Callable[[Iterable[tuple[Tensor, Any]]], float]


class Task(Protocol):
    """What networks are trained for. It is pickled to every worker, with its data; large arrays should be NumPy's.

    Batches are on the CPU and are pure functions of the arguments: every architecture of an epoch trains on the same
    examples in the same order, in whatever process. Data may be sorted, so what stands for all of it is drawn.
    """

    @property
    def name(self) -> str:
        """The data in a word."""
        ...

    @property
    def inputs(self) -> Inputs:
        """What networks are built for."""
        ...

    @property
    def metric(self) -> Metric:
        """What validation measures."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of data and split, in hexadecimal."""
        ...

    @property
    def train_examples(self) -> int:
        """How many examples there are to train on."""
        ...

    @property
    def val_examples(self) -> int:
        """How many examples there are to score on."""
        ...

    def training_batches(self, epoch: int, seed: int, batch_size: int) -> Iterable[Batch]:
        """An epoch's training examples, augmented, in its order; batches are full, unless there is only one."""
        ...

    def calibration_batches(self, examples: int, seed: int, batch_size: int) -> Iterable[Batch]:
        """At most so many training examples that stand for all, not augmented; batches of equal size, at least one."""
        ...

    def validation_batches(self, batch_size: int) -> Iterable[Batch]:
        """Every validation example once, not augmented."""
        ...

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The batch's loss, a scalar to minimise."""
        ...

    def chance(self) -> float | None:
        """The score of the best constant output; None where that means nothing."""
        ...

    def excerpt(self, examples: int, seed: int) -> Task:
        """The same task on at most so many training and so many validation examples that stand for all."""
        ...


def find_task(name: str, key: str = "task.name") -> Callable[..., Task]:
    """The function that makes a task: a built-in's name, or ``module:function`` of one's own.

    Raises:
        ConfigError: Nothing of that name can be imported.
    """
    return TASKS.find(name, key)


def find_metric(name: str, key: str = "task.metric") -> Metric:
    """A metric: a file of ``ddpnas_ray/metrics`` by name, or ``module:function`` of one's own.

    Raises:
        ConfigError: Nothing of that name can be imported.
    """
    return Metric(name.partition(":")[0].rpartition(".")[2], METRICS.find(name, key))
