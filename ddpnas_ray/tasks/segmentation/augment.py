"""Augmentation of an image together with its labels, by torchvision's transforms: colours, flip, scale and crop.

The transforms draw from torch's CPU generator, so each image of an epoch has a seed of its own. The GPUs' generators,
from which the main thread draws meanwhile, are left alone.

Axes: N images, B images of a batch, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.decoding import ByteArray
from ddpnas_ray.tasks.segmentation.masks import VOID
from ddpnas_ray.tasks.segmentation.pairs import Size

CHANGE_KEY = 0x5343414C


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Augmentation of training images.

    Args:
        crop: Height and width of what a network trains on; None: that of the image.
        scale: Least and largest factor of the image's size.
        flip: Mirror left to right with probability 0.5.
        color: Strength of random brightness, contrast, saturation and hue (a tenth of it, at most 0.5).
    """

    crop: Size | None
    scale: tuple[float, float]
    flip: bool
    color: float


Change = Callable[[ByteArray, ByteArray, IntArray], tuple[ByteArray, ByteArray]]


class ScaledCrop(v2.Transform):
    """Cut a window at random and resize it to a size: a random scale and a random crop in one.

    Where the window is larger than the image, the image lies in it at random, and the rest is padding. The image is
    interpolated, labels are those of the nearest pixels.

    Args:
        size: Height and width of the result.
        scale: Least and largest factor of the image's size, drawn uniformly.
        fill: Red, green and blue of the padding, whose label is ``VOID``.
    """

    def __init__(self, size: Size, scale: tuple[float, float], fill: Sequence[int]) -> None:
        super().__init__()
        self.size, self.scale, self.fill = size, scale, list(fill)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the window: its sides, and where it begins in the padded image."""
        height, width = functional.get_size(flat_inputs[0])
        low, high = self.scale
        factor = low + (high - low) * float(torch.rand(()))
        sides = [max(1, round(side / factor)) for side in self.size]
        pad = [max(0, side - there) for side, there in zip(sides, (height, width), strict=True)]
        first = [
            int(torch.randint(abs(there - side) + 1, ())) for side, there in zip(sides, (height, width), strict=True)
        ]
        before = [at if missing else 0 for at, missing in zip(first, pad, strict=True)]
        after = [missing - at for missing, at in zip(pad, before, strict=True)]
        top, left = (0 if missing else at for at, missing in zip(first, pad, strict=True))
        return {
            "padding": [before[1], before[0], after[1], after[0]],
            "window": {"top": top, "left": left, "height": sides[0], "width": sides[1]},
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut the window out of an image, or out of its labels."""
        mask = isinstance(inpt, tv_tensors.Mask)
        if any(params["padding"]):
            inpt = functional.pad(inpt, params["padding"], fill=VOID if mask else self.fill)
        return functional.resized_crop(inpt, **params["window"], size=list(self.size), antialias=True)


def changes_of(changes: Changes, size: Size, mean: Sequence[float], images: int, seed: int, epoch: int) -> Change:
    """Return the augmentation of an epoch.

    Args:
        changes: Its kinds.
        size: Height and width of the images.
        mean: Fractions of red, green and blue, of padding.
        images: N, the number of training images.
        seed: Keys the draws.
        epoch: Keys the draws.

    Returns:
        (pixels (B, 3, H, W), labels (B, H, W), numbers of the images (B,)) -> both, of the size of the crop.
    """
    steps: list[v2.Transform] = []
    if changes.color:
        strength = changes.color
        steps.append(v2.ColorJitter(strength, strength, strength, min(0.5, strength / 10)))
    if changes.flip:
        steps.append(v2.RandomHorizontalFlip(0.5))
    out = changes.crop or size
    if out != size or changes.scale != (1.0, 1.0):
        steps.append(ScaledCrop(out, changes.scale, [round(255 * value) for value in mean]))
    seeds_N = rng_for(seed, CHANGE_KEY, epoch).integers(2**62, size=images)

    def change(pixels_B3HW: ByteArray, labels_BHW: ByteArray, rows_B: IntArray) -> tuple[ByteArray, ByteArray]:
        if not steps:
            return pixels_B3HW, labels_BHW
        transform = v2.Compose(steps)
        changed = np.empty((len(rows_B), 3, *out), np.uint8), np.empty((len(rows_B), *out), np.uint8)
        with torch.random.fork_rng(devices=[]):
            for i, row in enumerate(rows_B):
                torch.default_generator.manual_seed(int(seeds_N[row]))
                pair = (
                    tv_tensors.Image(torch.from_numpy(pixels_B3HW[i])),
                    tv_tensors.Mask(torch.from_numpy(labels_BHW[i])),
                )
                for whole, one in zip(changed, transform(*pair), strict=True):
                    whole[i] = one.numpy()
        return changed

    return change
