"""An open data set: two splits, and what the training loop needs to use them.

Axes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.pixels import Images


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images and their class numbers.

    Args:
        images: N images.
        labels_N: int64, shape (N,), in ``range(len(classes))``.
    """

    images: Images
    labels_N: IntArray

    def __post_init__(self) -> None:
        if self.labels_N.shape != (len(self.images),):
            raise ValueError(f"{len(self.images)} images, but labels of shape {self.labels_N.shape}")

    def __len__(self) -> int:
        return len(self.labels_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """Augmentation of training images: a shift by up to ``crop`` pixels, a flip, a hole ``cutout`` pixels wide."""

    crop: int = 0
    flip: bool = False
    cutout: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageData:
    """An open data set; picklable, and Ray shares its pixels without a copy.

    Args:
        name: ``data.name``.
        classes: Class names; a label is an index into them.
        channels: C, 1 or 3.
        image_size: H and W.
        train: Images to train on.
        val: Images to score architectures on.
        mean: Subtracted from pixel fractions, one per channel.
        std: Divides them afterwards, one per channel.
        augment: Augmentation of training images.
        digest: SHA-256 of both splits, in hexadecimal: stored bytes of each image, labels, class names, indices. It
            does not depend on the path.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    image_size: int
    train: Split
    val: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment
    digest: str
