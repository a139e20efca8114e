"""Open the configured data set: read it, number its classes, split it by seed, and decode what fits in memory.

Axes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.cached import Forecast, Origin, Part, forecast_of, open_cached
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.pixels import DecodedImages, EncodedImages, Images, Picked
from ddpnas_ray.data.problems import Problems
from ddpnas_ray.data.raw import RawSplit, SplitName, class_names, class_numbers
from ddpnas_ray.data.registry import SOME_KEYS, Reader, find_reader, supporting
from ddpnas_ray.data.scan import Shape, scan, shape_of
from ddpnas_ray.data.split import stratified_split, stratified_subset
from ddpnas_ray.data.values import Augment, ImageData, Split

__all__ = ["Augment", "DecodedImages", "EncodedImages", "ImageData", "Images", "Split", "load_data", "load_test"]

logger = logging.getLogger(__name__)

DECODED_LIMIT_BYTES = 4 * 2**30
WHAT: dict[SplitName, str] = {"train": "training", "val": "validation", "test": "test"}
BOTH: tuple[SplitName, SplitName] = ("train", "val")


def load_data(config: DataConfig, seed: int, *, decoded_limit_bytes: int = DECODED_LIMIT_BYTES) -> ImageData:
    """Open the training and validation images of a data set; test images are not read.

    Args:
        config: Names the data set.
        seed: Keys the split (docs/deviations.md, row 9) and the limits.
        decoded_limit_bytes: Larger sets are decoded on access. Only their headers are checked here, so a damaged image
            may surface later.

    Raises:
        ConfigError: A key does not apply to the data set, or does not fit its images.
        DataError: The data is missing, unreadable, or not what the configuration says. One error lists all problems; in
            a set too large to keep decoded, images are read only if labels and classes are valid.

    Example:
        >>> data = load_data(DataConfig(name="digits"), seed=0)
        >>> data.train.images.gather([0, 1]).shape, len(data.train) + len(data.val)
        ((2, 1, 8, 8), 1438)
    """
    reader = _reader(config)
    listed = _list(config, reader, seed)
    classes, rows, labels, shape, problems = listed.classes, listed.rows, listed.labels, listed.shape, listed.problems
    mean, std = _per_channel(config.mean, shape, "mean"), _per_channel(config.std, shape, "std")
    augment = _augment(config, reader, shape.image_size)
    decode = config.cache is None and _decoded_bytes(len(rows[0]) + len(rows[1]), shape) <= decoded_limit_bytes
    if not decode:
        problems.refuse()
    opened: Sequence[tuple[Images, bytes]]
    if config.cache is None:
        opened = [
            _open(raw, chosen_N, shape, decode, split, problems)
            for split, raw, chosen_N in zip(BOTH, listed.raws, rows, strict=True)
        ]
    else:
        opened = open_cached(listed.parts(config), problems)
    problems.refuse()
    (train_images, train_digests), (val_images, val_digests) = opened
    splits = ((rows[0], labels[0], train_digests), (rows[1], labels[1], val_digests))
    logger.info(
        "%s: %d training and %d validation images of %d classes, %dx%dx%d%s",
        config.name, len(rows[0]), len(rows[1]), len(classes), shape.channels, shape.image_size, shape.image_size,
        "" if decode else ", decoded on access" if config.cache is None else f", in {config.cache}",
    )  # fmt: skip
    return ImageData(
        name=config.name,
        classes=classes,
        channels=shape.channels,
        image_size=shape.image_size,
        train=Split(train_images, labels[0]),
        val=Split(val_images, labels[1]),
        mean=mean,
        std=std,
        augment=augment,
        digest=_digest(classes, shape, splits),
    )


def forecast(config: DataConfig, seed: int) -> Forecast:
    """Say what the cache of a data set takes, from a few images; nothing is written.

    Args:
        config: Names the data set, and the cache or none: then what it would take if it were new.
        seed: As of ``load_data``.

    Raises:
        ConfigError: See ``load_data``.
        DataError: The data are missing or unreadable.
    """
    listed = _list(config, _reader(config), seed)
    listed.problems.refuse()
    return forecast_of(listed.parts(config))


def load_test(config: DataConfig, *, decoded_limit_bytes: int = DECODED_LIMIT_BYTES) -> Split:
    """Open the test images, read once, after retraining; classes and shape come from the training images.

    They are never cached.

    Raises:
        ConfigError: A key does not apply to the data set.
        DataError: There is no test data, or it does not match the training data.

    Example:
        >>> len(load_test(DataConfig(name="digits")))
        359
    """
    reader = _reader(config)
    raw = reader.read(config, ("train", "test"))
    train, test = raw["train"], raw.get("test")
    if test is None or not len(test):
        own = "set data.test_path, or " if "test_path" in reader.keys else ""
        raise DataError(f"{train.origin}: no test data; {own}put a test split beside the training data")
    problems = _problems(raw)
    labels_N = np.zeros(len(test), dtype=np.int64)
    with problems.collecting():
        labels_N = class_numbers(test, train)
    shape = _shape(train, config, problems)
    decode = _decoded_bytes(len(test), shape) <= decoded_limit_bytes
    images, _ = _open(test, np.arange(len(test)), shape, decode, "test", problems)
    problems.refuse()
    return Split(images, labels_N)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Listed:
    """A data set before its images are read; pairs are of training and validation images.

    Args:
        raws: The splits that hold them; both the training split if validation images are held out.
        held_out: Whether they are.
        classes: Class names.
        rows: Rows of the images in their splits.
        labels: Their class numbers.
        shape: Shape of the decoded images.
        problems: What is wrong so far. If anything is, labels are invalid.
    """

    raws: tuple[RawSplit, RawSplit]
    held_out: bool
    classes: tuple[str, ...]
    rows: tuple[IntArray, IntArray]
    labels: tuple[IntArray, IntArray]
    shape: Shape
    problems: Problems

    def parts(self, config: DataConfig) -> list[Part]:
        """Return what is to be in the cache."""
        splits: tuple[SplitName, SplitName] = ("train", "train" if self.held_out else "val")
        return [
            Part(origin=Origin.of(config, split, self.shape), raw=raw, rows_M=rows_N, what=what)
            for split, raw, rows_N, what in zip(
                splits, self.raws, self.rows, [WHAT[name] for name in BOTH], strict=True
            )
        ]


def _list(config: DataConfig, reader: Reader, seed: int) -> _Listed:
    """List the images, and choose those to train and to score on."""
    raw = reader.read(config, BOTH)
    train, own_val = raw["train"], raw.get("val")
    problems = _problems(raw)
    classes = class_names(train)
    rows = np.arange(len(train)), np.arange(0 if own_val is None else len(own_val))
    labels = rows  # placeholder: after a problem every image is still checked
    if not problems:  # dropped rows would cause follow-up errors in the classes
        with problems.collecting():
            rows, labels = _choose(train, own_val, classes, config, seed)
    return _Listed(
        raws=(train, train if own_val is None else own_val),
        held_out=own_val is None,
        classes=classes,
        rows=rows,
        labels=labels,
        shape=_shape(train, config, problems),
        problems=problems,
    )


def _reader(config: DataConfig) -> Reader:
    """Find the data set's reader and refuse keys that do not apply to it."""
    reader = find_reader(config.name)
    if config.cache is not None and "://" in config.cache:
        raise ConfigError(f"data.cache={config.cache}: its files are mapped into memory; set a folder of this machine")
    for key in SOME_KEYS:
        value = getattr(config, key)
        if value is None:
            continue
        if key not in reader.keys:
            raise ConfigError(f"data.{key} is for {supporting(key)} only, not for {config.name}; remove it")
        by_name = config.name == "huggingface"  # has its own check: the path may be a name on the hub
        if key in ("val_path", "test_path") and not by_name and not os.path.exists(os.path.expanduser(value)):
            raise DataError(f"{value}: no such file or folder; correct or remove data.{key}")
    return reader


def _problems(raw: Mapping[SplitName, RawSplit]) -> Problems:
    """Problems found while reading the splits."""
    problems = Problems()
    for split in raw.values():
        problems.extend(split.problems)
    if not len(raw["train"]):
        problems.refuse()
    return problems


def _choose(
    train: RawSplit, own_val: RawSplit | None, classes: tuple[str, ...], config: DataConfig, seed: int
) -> tuple[tuple[IntArray, IntArray], tuple[IntArray, IntArray]]:
    """Choose the images to train and to score on, with their class numbers.

    Raises:
        DataError: Too few classes, a class too small, or a class that the training images lack.
    """
    if len(classes) < 2:
        raise DataError(f"{train.origin}: only one class ({classes[0]!r}); a search needs at least 2")
    train_labels_N = class_numbers(train, train)
    if own_val is None:
        train_N, val_N = stratified_split(
            train_labels_N, classes, val_fraction=config.val_fraction, seed=seed, origin=train.origin
        )
        val_labels_N = train_labels_N
    else:
        if not len(own_val):
            raise DataError(f"{own_val.origin}: no validation images; add some, or remove it to use data.val_fraction")
        _check_every_class(train, train_labels_N, classes)
        val_labels_N = class_numbers(own_val, train)
        train_N, val_N = np.arange(len(train)), np.arange(len(own_val))
    train_N = train_N[stratified_subset(train_labels_N[train_N], config.train_limit, seed=seed, key="data.train_limit")]
    val_N = val_N[stratified_subset(val_labels_N[val_N], config.val_limit, seed=seed, key="data.val_limit")]
    return (train_N, val_N), (train_labels_N[train_N], val_labels_N[val_N])


def _check_every_class(train: RawSplit, labels_N: IntArray, classes: tuple[str, ...]) -> None:
    absent = np.flatnonzero(np.bincount(labels_N, minlength=len(classes)) == 0)
    if len(absent):
        more = f" (nor do {len(absent) - 1} other classes)" if len(absent) > 1 else ""
        raise DataError(
            f"{train.origin}: class {classes[absent[0]]!r} has no training images{more}; add some or drop the class"
        )


def _shape(train: RawSplit, config: DataConfig, problems: Problems) -> Shape:
    """Return the configured shape, else that of the first readable training image."""
    damaged = Problems()
    for i, source in enumerate(train.sources):
        with damaged.collecting():
            return shape_of(source, train.name(i), channels=config.channels, image_size=config.image_size)
    problems.extend(damaged)
    problems.refuse()
    raise DataError(f"{train.origin}: no images")


def _open(
    raw: RawSplit, chosen_N: IntArray, shape: Shape, decode: bool, split: SplitName, problems: Problems
) -> tuple[Images, bytes]:
    names = None if raw.names is None else Picked(raw.names, chosen_N)
    sources = Picked(raw.sources, chosen_N)
    return scan(sources, names, shape=shape, decode=decode, what=WHAT[split], problems=problems)


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
            default = " (the default)" if getattr(config, key) is None else ""
            raise ConfigError(
                f"data.{key}={getattr(augment, key)}{default} could blank whole images of {image_size} pixels; "
                f"set data.{key} below {image_size}"
            )
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
