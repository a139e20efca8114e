"""The ``data`` section of a configuration file.

Plain values and their ranges; ``ddpnas_ray.experiment.config`` checks the ranges, :mod:`ddpnas_ray.data.images` what
only the data can answer. The string under each field is its help text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

Fraction = Annotated[float, Ge(0.0), Le(1.0)]
PositiveFraction = Annotated[float, Gt(0.0), Le(1.0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which images to search on, how they are split, and how training images are augmented.

    Example:
        >>> DataConfig(name="folder", path="photos", image_size=64).val_fraction
        0.5
    """

    name: str = "digits"
    """digits ships with scikit-learn; cifar10; your own: folder, parquet, huggingface, or module:function of your own
    reader."""

    path: str | None = None
    """Where the data is: a folder, a Parquet file, or a Hugging Face name. cifar10 looks here before it downloads."""

    image_column: str | None = None
    """Column of the images (parquet, huggingface); null: the only one that holds images."""

    label_column: str | None = None
    """Column of the labels (parquet, huggingface); null: the only one that can be a label."""

    image_size: Annotated[int, Ge(1)] | None = None
    """Side in pixels: the shorter side is resized to it, then the centre is cropped. null: as the images are, which
    must then be square and all of one size."""

    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for RGB. null: as the images are, which must then agree."""

    val_fraction: Annotated[float, Gt(0.0), Lt(1.0)] = 0.5
    """Share of the training images held out, class by class, to score architectures. Own validation data wins over
    it."""

    val_path: str | None = None
    """Own validation data, of the same kind as path."""

    test_path: str | None = None
    """Own test data, of the same kind as path. A search never reads it."""

    train_limit: Annotated[int, Ge(1)] | None = None
    """Train on so many images only, drawn by seed with the classes in proportion."""

    val_limit: Annotated[int, Ge(1)] | None = None
    """Score on so many validation images only, drawn by seed with the classes in proportion."""

    mean: Annotated[tuple[Fraction, ...], MinLen(1)] | None = None
    """Subtracted from pixel values, which are fractions in [0, 1]; one number, or one a channel. null: 0.5."""

    std: Annotated[tuple[PositiveFraction, ...], MinLen(1)] | None = None
    """Divides pixel values after mean was subtracted; one number, or one a channel. null: 0.5."""

    crop: Annotated[int, Ge(0)] | None = None
    """Pixels of zero padding on each side before a random crop back to size. null: digits 0, cifar10 4, own data an
    eighth of image_size."""

    flip: bool | None = None
    """Flip half of the training images left to right. null: false for digits, else true."""

    cutout: Annotated[int, Ge(0)] | None = None
    """Side in pixels of the square erased from each training image; null or 0: none."""
