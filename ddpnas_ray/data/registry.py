"""Find the reader of a data set by name: a file of this folder, or your own ``module:function``.

The file defines ``read(config: DataConfig, wanted: Sequence[SplitName]) -> dict[SplitName, RawSplit]``, which returns
the wanted splits that exist. Optional: ``KEYS``, the ``SOME_KEYS`` that it supports (default: only ``path``), and
``AUGMENT``, its default augmentation (default: a crop of an eighth of the side, and flips).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.core.plugins import Kind
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.raw import RawSplit, SplitName
from ddpnas_ray.data.values import Augment

DATA_SETS = Kind("data set", "ddpnas_ray.data", function="read", returns="splits by name")
SOME_KEYS = ("path", "val_path", "test_path", "image_column", "label_column")  # of data, for some data sets only


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reader of a data set.

    Args:
        name: A built-in, or ``module:function``.
        splits: Its ``read`` function.
        keys: The ``SOME_KEYS`` that it supports.
        augment: Its default augmentation; None: scaled to the image size.
    """

    name: str
    splits: Callable[[DataConfig, Sequence[SplitName]], dict[SplitName, RawSplit]]
    keys: tuple[str, ...]
    augment: Augment | None

    def read(self, config: DataConfig, wanted: Sequence[SplitName]) -> dict[SplitName, RawSplit]:
        """Read the wanted splits that exist; the training split is required.

        Raises:
            ConfigError: A key is missing.
            DataError: The data are missing or unreadable.
        """
        splits = self.splits(config, wanted)
        if "train" not in splits:
            raise DataError(f"data.name={self.name}: no split 'train'; splits: {', '.join(splits) or 'none'}")
        return splits

    def default_augment(self, image_size: int) -> Augment:
        """Augmentation where the configuration sets none."""
        return Augment(crop=image_size // 8, flip=True) if self.augment is None else self.augment


def find_reader(name: str, key: str = "data.name") -> Reader:
    """Find the reader of a data set.

    Args:
        name: A built-in, or ``module:function``.
        key: The key that holds the name, for messages.

    Raises:
        ConfigError: The name cannot be imported, or its ``KEYS`` has an unknown key.
    """
    splits = DATA_SETS.find(name, key)
    module = sys.modules[splits.__module__]
    keys, augment = tuple(getattr(module, "KEYS", ("path",))), getattr(module, "AUGMENT", None)
    if unknown := sorted(set(keys) - set(SOME_KEYS)):
        raise ConfigError(f"{key}: {name!r}: KEYS has {unknown[0]!r}; allowed: {', '.join(SOME_KEYS)}")
    return Reader(name=name, splits=splits, keys=keys, augment=augment)


def supporting(key: str) -> str:
    """List the built-in data sets that support a key, for messages."""
    return ", ".join(name for name in DATA_SETS.names() if key in find_reader(name).keys)
