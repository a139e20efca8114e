"""The 8x8 handwritten digits that ship with scikit-learn: the quick start, without a download."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddpnas_ray.core.sampling import rng_for
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.raw import RawSplit, SplitName
from ddpnas_ray.data.values import Augment

KEYS = ()
AUGMENT = Augment(crop=0, flip=False)
TEST_KEY = 0x54455354
TEST_FRACTION = 0.2
GREYS = 16  # scikit-learn's pixels are 0.0 to 16.0


def read(config: DataConfig, wanted: Sequence[SplitName]) -> dict[SplitName, RawSplit]:
    """Read the wanted splits; there is no validation split.

    The data set has no official test split, so a fixed 20 % of every class is held out, independent of the seed: a
    search never sees it.

    Example:
        >>> {name: len(split) for name, split in read(DataConfig(), ["train", "test"]).items()}
        {'train': 1438, 'test': 359}
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels_NHW = np.rint(digits.images * (255 / GREYS)).astype(np.uint8)
    labels_N = digits.target.astype(np.int64)
    test_N = np.zeros(len(labels_N), dtype=bool)
    for number in range(10):
        members = rng_for(TEST_KEY, number).permutation(np.flatnonzero(labels_N == number))
        test_N[members[: round(TEST_FRACTION * len(members))]] = True
    masks: dict[SplitName, np.ndarray] = {"train": ~test_N, "test": test_N}
    return {
        name: RawSplit(
            sources=pixels_NHW[masks[name]],
            labels=labels_N[masks[name]],
            classes=tuple(str(number) for number in range(10)),
            origin="digits",
        )
        for name in wanted
        if name in masks
    }
