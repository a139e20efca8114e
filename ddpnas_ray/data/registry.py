"""Find the reader of a data set by name: one file of this folder, or ``module:function`` of your own.

The file defines ``read(config: DataConfig, wanted: Sequence[SplitName]) -> dict[SplitName, RawSplit]``, which returns
those of the wanted splits that exist. Beside it may stand ``KEYS``, those of ``SOME_KEYS`` that it understands (only
``path`` if left out), and ``AUGMENT``, its default augmentation (a crop of an eighth of the side, and flips).
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
SOME_KEYS = ("path", "val_path", "test_path", "image_column", "label_column")  # under data, for some data sets only


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A data set.

    Args:
        name: A built-in, or ``module:function``.
        splits: Its function.
        keys: Which of ``SOME_KEYS`` it understands.
        augment: Its default augmentation; None: in proportion to the size of the images.
    """

    name: str
    splits: Callable[[DataConfig, Sequence[SplitName]], dict[SplitName, RawSplit]]
    keys: tuple[str, ...]
    augment: Augment | None

    def read(self, config: DataConfig, wanted: Sequence[SplitName]) -> dict[SplitName, RawSplit]:
        """The wanted splits, as far as they exist; the training split always does.

        Raises:
            ConfigError: A key is missing.
            DataError: The data are absent or unreadable.
        """
        splits = self.splits(config, wanted)
        if "train" not in splits:
            raise DataError(f"data.name={self.name}: there is no split 'train', only {', '.join(splits) or 'none'}")
        return splits

    def default_augment(self, image_size: int) -> Augment:
        """What is done to training images where the configuration is silent."""
        return Augment(crop=image_size // 8, flip=True) if self.augment is None else self.augment


def find_reader(name: str, key: str = "data.name") -> Reader:
    """The reader of a data set.

    Args:
        name: A built-in, or ``module:function``.
        key: Where the name was given, for messages.

    Raises:
        ConfigError: Nothing of that name can be imported, or it has an unknown key.
    """
    splits = DATA_SETS.find(name, key)
    module = sys.modules[splits.__module__]
    keys, augment = tuple(getattr(module, "KEYS", ("path",))), getattr(module, "AUGMENT", None)
    if unknown := sorted(set(keys) - set(SOME_KEYS)):
        raise ConfigError(f"{key}: {name!r}: KEYS has {unknown[0]!r}; allowed: {', '.join(SOME_KEYS)}")
    return Reader(name=name, splits=splits, keys=keys, augment=augment)


def understanding(key: str) -> str:
    """The built-in data sets that understand a key, for messages."""
    return ", ".join(name for name in DATA_SETS.names() if key in find_reader(name).keys)
