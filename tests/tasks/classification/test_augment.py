"""Augmentation of retraining: keyed by seed, epoch and image, whatever batch or worker an image is in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.tasks.classification.augment import image_changes, mixing
from ddpnas_ray.tasks.classification.task import ClassificationTask, make
from ddpnas_ray.tasks.recipe import RetrainingConfig
from ddpnas_ray.testing import TaskContract

DIGITS = DataConfig(name="digits", train_limit=64, val_limit=64)
CHANGES = {
    "randaugment": RetrainingConfig(randaugment=9),
    "resized_crop": RetrainingConfig(resized_crop=0.3),
    "color_jitter": RetrainingConfig(color_jitter=0.5),
    "all": RetrainingConfig(randaugment=9, resized_crop=0.3, color_jitter=0.5),
}


def digits() -> ClassificationTask:
    return make(DIGITS, 0)


class TestRecipe(TaskContract):
    """A recipe's task is a task: pure batches, shared by workers."""

    make = staticmethod(lambda: digits().for_retraining(replace(CHANGES["all"], train_on="train", label_smoothing=0.1)))


@pytest.mark.parametrize("name", CHANGES)
def test_an_image_is_changed_alike_wherever_it_is(name: str) -> None:
    data = digits().data
    change = image_changes(CHANGES[name], data, 1, 2)
    assert change is not None
    rows = np.arange(16)
    pixels = data.train.images.gather(rows)
    whole = change(pixels, rows)
    assert whole.dtype == np.uint8 and whole.shape == pixels.shape
    assert not np.array_equal(whole, pixels)
    np.testing.assert_array_equal(change(pixels[5:9], rows[5:9]), whole[5:9])
    other = image_changes(CHANGES[name], data, 1, 3)
    assert other is not None and not np.array_equal(other(pixels, rows), whole), "another epoch"


def test_colours_of_rgb_images() -> None:
    data = replace(digits().data, channels=3)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8)).astype(np.uint8)
    change = image_changes(CHANGES["color_jitter"], data, 0, 0)
    assert change is not None and not np.array_equal(change(pixels, np.arange(4)), pixels)


def test_none_of_it_is_the_default() -> None:
    plain = RetrainingConfig()
    assert image_changes(plain, digits().data, 0, 0) is None and mixing(plain, 10, 0, 0, 0) is None
    search = digits()
    same = search.for_retraining(RetrainingConfig(train_on="train"))
    for one, other in zip(search.training_batches(0, 0, 16), same.training_batches(0, 0, 16), strict=True):
        assert torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)


@pytest.mark.parametrize("recipe", [RetrainingConfig(mixup=0.4), RetrainingConfig(cutmix=1.0)], ids=["mixup", "cutmix"])
def test_mixed_targets_are_the_shares_of_the_mixed_images(recipe: RetrainingConfig) -> None:
    mix = mixing(recipe, 10, 0, 0, 0)
    assert mix is not None
    batch = next(iter(digits().training_batches(0, 0, 16)))
    mixed = mix(batch, 0)
    assert mixed.targets.shape == (16, 10)
    torch.testing.assert_close(mixed.targets.sum(dim=1), torch.ones(16))
    hot = torch.nn.functional.one_hot(batch.targets, 10).float()
    share = float(mixed.targets[0, batch.targets[0]])
    if recipe.mixup and 0 < share < 1:
        torch.testing.assert_close(mixed.inputs, share * batch.inputs + (1 - share) * batch.inputs.roll(1, 0))
        torch.testing.assert_close(mixed.targets, share * hot + (1 - share) * hot.roll(1, 0))
    assert torch.equal(mix(batch, 0).inputs, mixed.inputs) and not torch.equal(mix(batch, 1).inputs, mixed.inputs)


def test_both_mixtures_take_turns_at_random() -> None:
    mix = mixing(RetrainingConfig(mixup=0.4, cutmix=1.0), 10, 0, 0, 0)
    assert mix is not None
    batch = next(iter(digits().training_batches(0, 0, 16)))
    known = set(np.unique(batch.inputs.numpy()))
    copied = [set(np.unique(mix(batch, step).inputs.numpy())) <= known for step in range(20)]
    assert 2 < sum(copied) < 18, "CutMix copies pixels, MixUp blends them"


def test_the_hole_of_cutout_is_the_recipes() -> None:
    task = digits().for_retraining(RetrainingConfig(cutout=4, train_on="train"))
    assert task.data.augment.cutout == 4
    assert digits().for_retraining(RetrainingConfig(resized_crop=0.5)).data.augment.crop == 0
