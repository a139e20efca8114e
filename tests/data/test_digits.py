from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.digits import read
from ddpnas_ray.data.images import load_data, load_test

from .making import pixels, same


def test_digits_are_grey_8x8_and_use_the_whole_range_of_bytes() -> None:
    data = load_data(DataConfig(), seed=0)
    train = pixels(data.train)
    assert (data.channels, data.image_size, data.classes) == (1, 8, tuple("0123456789"))
    assert train.shape[1:] == (1, 8, 8)
    assert (train.min(), train.max()) == (0, 255)
    assert len(np.unique(train)) == 17
    assert (data.augment.crop, data.augment.flip, data.augment.cutout) == (0, False, 0)


def test_test_digits_are_a_fixed_fifth_that_no_search_sees() -> None:
    test = load_test(DataConfig())
    raw = read(DataConfig(), ("train", "val", "test"))
    assert "val" not in raw
    assert len(raw["train"]) + len(raw["test"]) == 1797
    assert np.allclose(np.bincount(test.labels_N) / np.bincount(raw["train"].labels), 0.25, atol=0.02)
    held_out = {image.tobytes() for image in pixels(test)}
    for seed in (0, 1):
        data = load_data(DataConfig(), seed=seed)
        seen = np.concatenate([pixels(data.train), pixels(data.val)])
        assert len(seen) == len(raw["train"])
        assert not held_out & {image.tobytes() for image in seen}


def test_the_seed_decides_the_split() -> None:
    first, again, other = (load_data(DataConfig(), seed=seed) for seed in (3, 3, 4))
    assert same(first, again)
    assert first.digest != other.digest
    assert abs(len(first.train) - len(first.val)) <= 10


@pytest.mark.parametrize("key", ["path", "val_path", "test_path", "image_column", "label_column"])
def test_a_key_that_digits_cannot_have_is_an_error(key: str) -> None:
    keys: dict[str, Any] = {key: "x"}
    with pytest.raises(ConfigError, match=f"data.{key} is for .* only, not for digits; remove it"):
        load_data(DataConfig(**keys), seed=0)


def test_digits_can_be_enlarged_and_coloured() -> None:
    data = load_data(DataConfig(channels=3, image_size=16, train_limit=20, val_limit=10), seed=0)
    assert pixels(data.train).shape == (20, 3, 16, 16)
