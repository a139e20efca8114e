"""Open the data set of a configuration: read it, number its classes, split it by seed, and decode what fits in memory.

Axes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.pixels import DecodedImages, EncodedImages, Images, Picked
from ddpnas_ray.data.raw import RawSplit, SplitName, class_names, class_numbers
from ddpnas_ray.data.registry import SOME_KEYS, Reader, find_reader, understanding
from ddpnas_ray.data.scan import Shape, scan, shape_of
from ddpnas_ray.data.split import stratified_split, stratified_subset
from ddpnas_ray.data.values import Augment, ImageData, Split

__all__ = ["Augment", "DecodedImages", "EncodedImages", "ImageData", "Images", "Split", "load_data", "load_test"]

logger = logging.getLogger(__name__)

DECODED_LIMIT_BYTES = 4 * 2**30
WHAT: dict[SplitName, str] = {"train": "training", "val": "validation", "test": "test"}


def load_data(config: DataConfig, seed: int, *, decoded_limit_bytes: int = DECODED_LIMIT_BYTES) -> ImageData:
    """Open the training and the validation images of a data set; test images are not read.

    Args:
        config: Names the data set.
        seed: Keys the split (reading 8 of the design) and the limits.
        decoded_limit_bytes: Sets with more pixels than that are decoded whenever they are gathered. Of those only the
            headers are checked here, so that a damaged image is found when its turn comes.

    Raises:
        ConfigError: A key that the data set cannot have, or that does not fit its images.
        DataError: The data is absent, unreadable, or not what the configuration says.

    Example:
        >>> data = load_data(DataConfig(name="digits"), seed=0)
        >>> data.train.images.gather([0, 1]).shape, len(data.train) + len(data.val)
        ((2, 1, 8, 8), 1438)
    """
    reader = _reader(config)
    raw = reader.read(config, ("train", "val"))
    train, own_val = raw["train"], raw.get("val")
    classes = class_names(train)
    if len(classes) < 2:
        raise DataError(f"{train.origin}: only one class ({classes[0]!r}); a search needs at least 2")
    train_labels_N = class_numbers(train, train)
    if own_val is None:
        train_N, val_N = stratified_split(
            train_labels_N, classes, val_fraction=config.val_fraction, seed=seed, origin=train.origin
        )
        val, val_labels_N = train, train_labels_N
    else:
        if not len(own_val):
            raise DataError(f"{own_val.origin}: no validation images; add some, or remove it to use data.val_fraction")
        _check_every_class(train, train_labels_N, classes)
        val, val_labels_N = own_val, class_numbers(own_val, train)
        train_N, val_N = np.arange(len(train)), np.arange(len(val))
    train_N = train_N[stratified_subset(train_labels_N[train_N], config.train_limit, seed=seed, key="data.train_limit")]
    val_N = val_N[stratified_subset(val_labels_N[val_N], config.val_limit, seed=seed, key="data.val_limit")]

    shape = shape_of(train.sources[0], train.name(0), channels=config.channels, image_size=config.image_size)
    mean, std = _per_channel(config.mean, shape, "mean"), _per_channel(config.std, shape, "std")
    augment = _augment(config, reader, shape.image_size)
    decode = _decoded_bytes(len(train_N) + len(val_N), shape) <= decoded_limit_bytes
    train_images, train_digests = _open(train, train_N, shape, decode, "train")
    val_images, val_digests = _open(val, val_N, shape, decode, "val")
    splits = ((train_N, train_labels_N[train_N], train_digests), (val_N, val_labels_N[val_N], val_digests))
    logger.info(
        "%s: %d training and %d validation images of %d classes, %dx%dx%d%s",
        config.name, len(train_N), len(val_N), len(classes), shape.channels, shape.image_size, shape.image_size,
        "" if decode else ", decoded as they are used",
    )  # fmt: skip
    return ImageData(
        name=config.name,
        classes=classes,
        channels=shape.channels,
        image_size=shape.image_size,
        train=Split(train_images, train_labels_N[train_N]),
        val=Split(val_images, val_labels_N[val_N]),
        mean=mean,
        std=std,
        augment=augment,
        digest=_digest(classes, shape, splits),
    )


def load_test(config: DataConfig, *, decoded_limit_bytes: int = DECODED_LIMIT_BYTES) -> Split:
    """Open the test images, for the one look at the end of retraining; classes and shape are the training images'.

    Raises:
        ConfigError: A key that the data set cannot have.
        DataError: There is no test data, or it does not fit the training data.

    Example:
        >>> len(load_test(DataConfig(name="digits")))
        359
    """
    raw = _reader(config).read(config, ("train", "test"))
    train, test = raw["train"], raw.get("test")
    if test is None or not len(test):
        raise DataError(
            f"{train.origin}: no test data; set data.test_path, or put a test split beside the training data"
        )
    labels_N = class_numbers(test, train)
    shape = shape_of(train.sources[0], train.name(0), channels=config.channels, image_size=config.image_size)
    decode = _decoded_bytes(len(test), shape) <= decoded_limit_bytes
    images, _ = _open(test, np.arange(len(test)), shape, decode, "test")
    return Split(images, labels_N)


def _reader(config: DataConfig) -> Reader:
    """The data set's reader, once it understands every key that is set."""
    reader = find_reader(config.name)
    for key in SOME_KEYS:
        value = getattr(config, key)
        if value is None:
            continue
        if key not in reader.keys:
            having = understanding(key)
            raise ConfigError(f"data.{key} has no meaning for data.name={config.name}, only for {having}; remove it")
        if key in ("val_path", "test_path") and not Path(value).expanduser().exists():
            raise DataError(f"{value}: no such file or folder; correct or remove data.{key}")
    return reader


def _check_every_class(train: RawSplit, labels_N: IntArray, classes: tuple[str, ...]) -> None:
    absent = np.flatnonzero(np.bincount(labels_N, minlength=len(classes)) == 0)
    if len(absent):
        raise DataError(
            f"{train.origin}: class {classes[absent[0]]!r} has no training image; add some or drop the class"
        )


def _open(raw: RawSplit, chosen_N: IntArray, shape: Shape, decode: bool, split: SplitName) -> tuple[Images, bytes]:
    names = None if raw.names is None else Picked(raw.names, chosen_N)
    return scan(Picked(raw.sources, chosen_N), names, shape=shape, decode=decode, what=WHAT[split])


def _per_channel(values: tuple[float, ...] | None, shape: Shape, key: str) -> tuple[float, ...]:
    values = (0.5,) if values is None else values
    if len(values) not in (1, shape.channels):
        raise ConfigError(
            f"data.{key} has {len(values)} numbers, but images have {shape.channels} channel(s); "
            f"give 1 or {shape.channels}"
        )
    return tuple(values) * (shape.channels if len(values) == 1 else 1)


def _augment(config: DataConfig, reader: Reader, image_size: int) -> Augment:
    given = {key: getattr(config, key) for key in ("crop", "flip", "cutout")}
    set_keys = {key: value for key, value in given.items() if value is not None}
    augment = dataclasses.replace(reader.default_augment(image_size), **set_keys)
    for key in ("crop", "cutout"):
        if getattr(augment, key) >= image_size:
            raise ConfigError(f"data.{key}={getattr(augment, key)} could blank whole images of {image_size} pixels")
    return augment


def _decoded_bytes(count: int, shape: Shape) -> int:
    return count * shape.channels * shape.image_size**2


def _digest(classes: tuple[str, ...], shape: Shape, splits: Sequence[tuple[IntArray, IntArray, bytes]]) -> str:
    sha = hashlib.sha256(repr((classes, shape.channels, shape.image_size)).encode())
    for indices_N, labels_N, digests in splits:
        sha.update(len(indices_N).to_bytes(8, "little"))
        sha.update(indices_N.astype("<i8").tobytes())
        sha.update(labels_N.astype("<i8").tobytes())
        sha.update(digests)
    return sha.hexdigest()
