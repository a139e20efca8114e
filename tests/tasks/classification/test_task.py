"""Image classification as a task: the contract, and batches that stand for data that are sorted by class."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.data.batches import epoch_order, normalise
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.pixels import DecodedImages
from ddpnas_ray.data.values import Split
from ddpnas_ray.spaces.target import Inputs
from ddpnas_ray.tasks.classification.task import ClassificationTask, make
from ddpnas_ray.testing import TaskContract, contract_trainer

DIGITS = DataConfig(name="digits", train_limit=64, val_limit=64)


class TestDigits(TaskContract):
    make = staticmethod(lambda: make(DIGITS, 0))


class TestBalancedDigits(TaskContract):
    make = staticmethod(lambda: make(DIGITS, 0, metric="balanced_accuracy"))


class TestAugmentedDigits(TaskContract):
    make = staticmethod(lambda: make(replace(DIGITS, crop=1, flip=True, cutout=2), 0))


@pytest.fixture
def task() -> ClassificationTask:
    found: Any = contract_trainer().task
    return found


def in_order(task: ClassificationTask, key: Any) -> ClassificationTask:
    """The same with its training images in another order."""
    train = task.data.train
    order = np.argsort(key, kind="stable")
    ordered = Split(DecodedImages(train.images.gather(order)), train.labels_N[order])
    return replace(task, data=replace(task.data, train=ordered))


def labels(batches: Any) -> list[np.ndarray]:
    return [batch.targets.numpy() for batch in batches]


def test_networks_are_built_for_its_images_and_classes(task: ClassificationTask) -> None:
    assert task.inputs == Inputs(shape=(1, 8, 8), outputs=10)


def test_an_unknown_metric_is_refused_before_data_are_read() -> None:
    with pytest.raises(ConfigError, match=r"task.metric: 'f2' is not a built-in metric"):
        make(DataConfig(name="folder", path="nowhere"), 0, metric="f2")


def test_calibration_sees_every_class_of_data_that_are_sorted_by_class(task: ClassificationTask) -> None:
    """As folders are, and Parquet files made of folders."""
    train = task.data.train
    batches = labels(in_order(task, train.labels_N).calibration_batches(20, 0, 10))
    share = 10 * np.bincount(train.labels_N) / len(train)
    assert [len(batch) for batch in batches] == [10, 10]
    for batch in batches:
        assert (np.abs(np.bincount(batch, minlength=10) - share) < 1).all()


def test_an_excerpt_has_images_of_all_classes_though_the_data_are_sorted_by_class(task: ClassificationTask) -> None:
    few = in_order(task, task.data.train.labels_N).excerpt(30, 0)
    assert set(few.data.train.labels_N) == set(range(10))
    assert few.train_examples == 30


def test_training_batches_follow_the_order_of_the_epoch(task: ClassificationTask) -> None:
    data = task.data
    for epoch in range(2):
        order = epoch_order(64, 32, 0, epoch)
        for batch, indices in zip(task.training_batches(epoch, 0, 32), order, strict=True):
            np.testing.assert_array_equal(batch.targets.numpy(), data.train.labels_N[indices])
            expected = normalise(data.train.images.gather(indices), data.mean, data.std)
            np.testing.assert_array_equal(batch.inputs.numpy(), expected)


def test_validation_goes_through_the_images_in_order(task: ClassificationTask) -> None:
    np.testing.assert_array_equal(np.concatenate(labels(task.validation_batches(24))), task.data.val.labels_N)


@pytest.mark.parametrize(
    ("metric", "chance"), [("accuracy", 0.9), ("balanced_accuracy", 0.5), ("likelihood", 0.9**0.9 * 0.1**0.1)]
)
def test_chance_is_the_score_of_the_classes_frequencies(task: ClassificationTask, metric: str, chance: float) -> None:
    labels_N = np.array([0] * 18 + [1] * 2)
    val = Split(DecodedImages(np.zeros((20, 1, 8, 8), dtype=np.uint8)), labels_N)
    two = make(DIGITS, 0, metric=metric)
    assert replace(two, data=replace(two.data, val=val)).chance() == pytest.approx(chance)
