"""The ``data`` section of a configuration file.

Plain values and their ranges. ``ddpnas_ray.experiment.config`` checks the ranges; :mod:`ddpnas_ray.data.images` checks
them against the data. The string under each field is its help text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

Fraction = Annotated[float, Ge(0.0), Le(1.0)]
PositiveFraction = Annotated[float, Gt(0.0), Le(1.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Images to search on, their split, and the augmentation of training images.

    Example:
        >>> DataConfig(name="folder", path="photos", image_size=64).val_fraction
        0.5
    """

    name: str = "digits"
    """digits (ships with scikit-learn) or cifar10; for your own data folder, parquet, huggingface, or module:function
    of your own reader. Of images with masks: cityscapes, camvid, folder or parquet."""

    path: str | None = None
    """Location of the data: a folder, a Parquet file, or a Hugging Face name. cifar10 looks here before downloading."""

    image_column: str | None = None
    """Image column (parquet, huggingface); null: the only one that holds images."""

    label_column: str | None = None
    """Label column (parquet, huggingface), or column of masks; null: the only one that can be it."""

    image_size: Annotated[int, Ge(1)] | None = None
    """Side in pixels: the shorter side is resized to it, then the centre is cropped. null: keep the size of the images,
    which must then be square and all equal."""

    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for RGB. null: keep the channels of the images, which must then agree."""

    val_fraction: Annotated[float, Gt(0.0), Lt(1.0)] = 0.5
    """Fraction of the training images held out, per class, to score architectures. Ignored if there is a validation
    split."""

    val_path: str | None = None
    """Validation data, in the same format as path."""

    test_path: str | None = None
    """Test data, in the same format as path. A search never reads it."""

    cache: str | None = None
    """Folder for decoded images, on a fast local disk: each image is decoded once, for all searches and all workers of
    a machine. null: decode at the start what fits in memory, else at every access."""

    train_limit: Annotated[int, Ge(1)] | None = None
    """Train on at most this many images, a stratified draw by seed."""

    val_limit: Annotated[int, Ge(1)] | None = None
    """Score on at most this many validation images, a stratified draw by seed."""

    mean: Annotated[tuple[Fraction, ...], MinLen(1)] | None = None
    """Subtracted from pixel values, which are fractions in [0, 1]; one number, or one per channel. null: 0.5."""

    std: Annotated[tuple[PositiveFraction, ...], MinLen(1)] | None = None
    """Divides pixel values after mean is subtracted; one number, or one per channel. null: 0.5."""

    crop: Annotated[int, Ge(0)] | None = None
    """Pixels of zero padding on each side before a random crop back to size. null: digits 0, others an eighth of
    image_size."""

    flip: bool | None = None
    """Mirror training images left to right with probability 0.5. null: false for digits, else true."""

    cutout: Annotated[int, Ge(0)] | None = None
    """Side in pixels of the square erased from each training image; null or 0: none."""
