"""Augmentation that only retraining uses, from torchvision: RandAugment, random crops, colours, MixUp, CutMix.

The transforms draw from torch's CPU generator, so each image, and each mixed batch, has a seed of its own. The GPUs'
generators, from which the main thread draws meanwhile, are left alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torchvision.transforms import v2

from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.decoding import ByteArray
from ddpnas_ray.data.values import ImageData
from ddpnas_ray.tasks.base import Batch
from ddpnas_ray.tasks.recipe import RetrainingConfig

CHANGE_KEY = 0x4348414E
MIX_KEY = 0x4D495855


def image_changes(
    recipe: RetrainingConfig, data: ImageData, seed: int, epoch: int
) -> Callable[[ByteArray, IntArray], ByteArray] | None:
    """Return the recipe's changes of single images in one epoch; None if it has none.

    Args:
        recipe: Names the changes.
        data: Their training images.
        seed: Keys the draws.
        epoch: Keys the draws.

    Returns:
        (pixels (N, C, H, W) uint8, numbers of the images (N,)) -> pixels of the same shape.
    """
    steps: list[v2.Transform] = []
    if recipe.resized_crop is not None:
        steps.append(v2.RandomResizedCrop(data.image_size, scale=(recipe.resized_crop, 1.0), antialias=True))
    if recipe.randaugment:
        steps.append(v2.RandAugment(magnitude=recipe.randaugment))
    if recipe.color_jitter:
        strength = recipe.color_jitter
        steps.append(v2.ColorJitter(strength, strength, strength if data.channels == 3 else 0.0))
    if not steps:
        return None
    transform = v2.Compose(steps)
    seeds_N = rng_for(seed, CHANGE_KEY, epoch).integers(2**62, size=len(data.train))

    def change(pixels_NCHW: ByteArray, indices: IntArray) -> ByteArray:
        changed = np.empty_like(pixels_NCHW)
        with torch.random.fork_rng(devices=[]):
            for i, index in enumerate(indices):
                torch.default_generator.manual_seed(int(seeds_N[index]))
                changed[i] = transform(torch.from_numpy(np.ascontiguousarray(pixels_NCHW[i]))).numpy()
        return changed

    return change


def mixing(
    recipe: RetrainingConfig, classes: int, seed: int, epoch: int, rank: int
) -> Callable[[Batch, int], Batch] | None:
    """Return MixUp, CutMix, or one of both at random, of one worker's share of the batches; None if it has neither.

    Targets become probabilities, shape (N, classes).
    """
    ways: list[v2.Transform] = []
    if recipe.mixup:
        ways.append(v2.MixUp(alpha=recipe.mixup, num_classes=classes))
    if recipe.cutmix:
        ways.append(v2.CutMix(alpha=recipe.cutmix, num_classes=classes))
    if not ways:
        return None

    def mix(batch: Batch, step: int) -> Batch:
        rng = rng_for(seed, MIX_KEY, epoch, step, rank)
        way = ways[int(rng.integers(len(ways)))]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng.integers(2**62)))
            return Batch(*way(batch.inputs, batch.targets))

    return mix
