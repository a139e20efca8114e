"""Batches that a device prepares are those that NumPy prepares, bit for bit; here the device is the CPU."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from ddpnas_ray.data.decoding import ByteArray
from ddpnas_ray.data.pixels import DecodedImages, EncodedImages
from ddpnas_ray.data.values import Augment, ImageData, Split
from ddpnas_ray.tasks.base import Batch, DeviceBatches, PreparesOnDevice, find_metric
from ddpnas_ray.tasks.classification.task import ClassificationTask
from ddpnas_ray.tasks.recipe import RetrainingConfig
from ddpnas_ray.training.batches import on_device

CPU = torch.device("cpu")
PLENTY = 2**30


def images(n: int, channels: int, size: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    pixels_NCHW: ByteArray = rng.integers(256, size=(n, channels, size, size), dtype=np.uint8)
    return Split(DecodedImages(pixels_NCHW), np.arange(n) % 3)


def task(channels: int = 3, size: int = 9, **augment: Any) -> ClassificationTask:
    """57 training and 31 validation images; mean and deviation are not powers of two."""
    data = ImageData(
        name="noise",
        classes=("a", "b", "c"),
        channels=channels,
        image_size=size,
        train=images(57, channels, size, 0),
        val=images(31, channels, size, 1),
        mean=(0.4914, 0.4822, 0.4465)[:channels],
        std=(0.2471, 0.2435, 0.2616)[:channels],
        augment=Augment(**augment),
        digest="0" * 64,
    )
    return ClassificationTask(data, find_metric("accuracy"))


def placed(
    given: ClassificationTask,
    limit_bytes: int = PLENTY,
    channels_last: bool = True,
    latest: DeviceBatches | None = None,
) -> DeviceBatches:
    found = given.on_device(CPU, limit_bytes, channels_last, latest)
    assert found is not None
    return found


def same(ours: Iterable[Batch], theirs: Iterable[Batch], channels_last: bool = True) -> None:
    pairs = list(zip(ours, on_device(theirs, "cpu", channels_last=channels_last), strict=True))
    assert pairs
    for a, b in pairs:
        assert a.inputs.dtype == b.inputs.dtype and a.inputs.stride() == b.inputs.stride()
        assert torch.equal(a.inputs.view(torch.int32), b.inputs.view(torch.int32)), "bits, signs of zeros included"
        assert torch.equal(a.targets, b.targets)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("limit_bytes", [PLENTY, 57 * 3 * 81 * 2])
@pytest.mark.parametrize(
    "augment", [{}, {"crop": 2}, {"flip": True}, {"cutout": 4}, {"crop": 4, "flip": True, "cutout": 3}], ids=str
)
def test_batches_are_bit_equal_to_numpys(
    augment: dict[str, Any], limit_bytes: int, channels: int, channels_last: bool
) -> None:
    given = task(channels, **augment)
    ours = placed(given, limit_bytes, channels_last)
    for epoch, seed in ((0, 0), (1, 0), (1, 5)):
        for _ in range(2):  # prepared, and kept
            theirs = given.training_batches(epoch, seed, 16)
            same(ours.training_batches(epoch, seed, 16), theirs, channels_last)
    same(ours.training_batches(0, 0, 100), given.training_batches(0, 0, 100), channels_last)
    for _ in range(2):
        same(ours.calibration_batches(20, 3, 8), given.calibration_batches(20, 3, 8), channels_last)
        for batch_size in (7, 40):
            same(ours.validation_batches(batch_size), given.validation_batches(batch_size), channels_last)


def test_every_level_of_every_channel_is_looked_up_as_normalised() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    given = task(size=16)
    data = dataclasses.replace(given.data, val=Split(DecodedImages(levels), np.zeros(1, dtype=np.int64)))
    given = dataclasses.replace(given, data=data)
    same(placed(given).validation_batches(1), given.validation_batches(1))


def test_an_epochs_batches_are_prepared_once_for_all_architectures_and_one_epoch_is_kept() -> None:
    ours: Any = placed(task(crop=2))
    first, again = (list(ours.training_batches(0, 0, 16)) for _ in range(2))
    assert all(a.inputs is b.inputs for a, b in zip(first, again, strict=True))
    other = list(ours.training_batches(1, 0, 16))
    assert other[0].inputs is not first[0].inputs
    assert next(ours.training_batches(0, 0, 16)).inputs is not first[0].inputs, "the earlier epoch is gone"
    assert next(ours.validation_batches(8)).inputs is next(ours.validation_batches(8)).inputs


def test_with_memory_for_the_images_alone_batches_are_prepared_each_time_and_with_less_not_at_all() -> None:
    given = task()
    pixels = (57 + 31) * 3 * 81
    ours = placed(given, 5 * pixels - 1)
    assert next(iter(ours.validation_batches(8))).inputs is not next(iter(ours.validation_batches(8))).inputs
    kept = placed(given, 5 * pixels)
    assert next(iter(kept.validation_batches(8))).inputs is next(iter(kept.validation_batches(8))).inputs
    assert given.on_device(CPU, pixels, True, None) is not None
    assert given.on_device(CPU, pixels - 1, True, None) is None


def test_a_network_that_changes_its_input_in_place_spoils_nothing() -> None:
    given = task()
    ours = placed(given)
    for batch in ours.training_batches(0, 0, 16):
        batch.inputs.relu_()
    for _ in range(2):
        same(ours.training_batches(0, 0, 16), given.training_batches(0, 0, 16))


def test_images_stay_on_the_device_for_tasks_that_share_them_and_for_no_others() -> None:
    given = task(crop=2)
    ours = placed(given)
    shared = dataclasses.replace(given, data=dataclasses.replace(given.data))  # as Ray hands the pixels out again
    assert placed(shared, latest=ours) is ours
    others = [
        given.excerpt(57, 0),
        pickle.loads(pickle.dumps(given)),
        *(dataclasses.replace(given, data=dataclasses.replace(given.data, **change)) for change in (
            {"mean": (0.5, 0.5, 0.5)},
            {"std": (0.5, 0.5, 0.5)},
            {"augment": Augment(crop=1)},
            {"val": images(31, 3, 9, 5)},
            {"train": Split(given.data.train.images, 2 - given.data.train.labels_N)},
        )),
    ]  # fmt: skip
    for other in others:
        found = placed(other, latest=ours)
        assert found is not ours
        same(found.training_batches(0, 0, 16), other.training_batches(0, 0, 16))
        same(found.validation_batches(16), other.validation_batches(16))
    assert placed(given, channels_last=False, latest=ours) is not ours


class OwnBatches(ClassificationTask):
    """A task of one's own with other batches."""


def test_what_a_device_cannot_prepare_is_left_to_the_task() -> None:
    given = task()
    assert isinstance(given, PreparesOnDevice)
    encoded = EncodedImages([np.zeros((9, 9, 3), dtype=np.uint8)] * 57, 3, 9)
    on_disk = dataclasses.replace(given.data, train=Split(encoded, given.data.train.labels_N))
    for other in (
        given.for_retraining(RetrainingConfig(train_on="train")),
        OwnBatches(given.data, given.metric),
        dataclasses.replace(given, data=on_disk),
    ):
        assert other.on_device(CPU, PLENTY, True, None) is None
