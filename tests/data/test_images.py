from __future__ import annotations

import logging
import pickle
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.data import scan
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import DecodedImages, ImageData, Split, load_data

from .making import pixels, same


def load(seed: int = 0, **keys: Any) -> ImageData:
    return load_data(DataConfig(**keys), seed=seed)


def test_a_data_set_survives_a_pickle() -> None:
    for limit in (0, 10**9):
        data = load_data(DataConfig(train_limit=50, val_limit=50), seed=0, decoded_limit_bytes=limit)
        back = pickle.loads(pickle.dumps(data))
        assert same(data, back)
        assert (back.mean, back.std, back.augment) == (data.mean, data.std, data.augment)


def test_limits_draw_stratified_subsets_of_each_split_by_seed() -> None:
    whole, some = load(), load(train_limit=100, val_limit=40)
    assert (len(some.train), len(some.val)) == (100, 40)
    assert np.bincount(some.train.labels_N).tolist() == [10] * 10
    assert np.bincount(some.val.labels_N).tolist() == [4] * 10
    for part, of in ((some.train, whole.train), (some.val, whole.val)):
        assert {one.tobytes() for one in pixels(part)} <= {one.tobytes() for one in pixels(of)}
    assert same(some, load(train_limit=100, val_limit=40))
    assert load(1, train_limit=100).digest != load(0, train_limit=100).digest
    with pytest.raises(DataError, match=r"data.train_limit=9 is less than one example per class \(10 classes\)"):
        load(train_limit=9)


def test_mean_and_std_are_given_once_or_for_each_channel() -> None:
    assert (load().mean, load().std) == ((0.5,), (0.5,))
    data = load(channels=3, mean=(0.4,), std=(0.1, 0.2, 0.3))
    assert (data.mean, data.std) == ((0.4, 0.4, 0.4), (0.1, 0.2, 0.3))
    with pytest.raises(ConfigError, match=r"data.mean has 2 numbers, but images have 1 channel\(s\); give 1 or 1"):
        load(mean=(0.1, 0.2))
    with pytest.raises(ConfigError, match=r"data.std has 2 numbers, but images have 3 channel\(s\); give 1 or 3"):
        load(channels=3, std=(0.1, 0.2))


def test_augmentation_follows_the_configuration_over_the_defaults() -> None:
    augment = load(crop=2, flip=True, cutout=4).augment
    assert (augment.crop, augment.flip, augment.cutout) == (2, True, 4)
    for key in ("crop", "cutout"):
        with pytest.raises(ConfigError, match=f"data.{key}=8 could blank whole images of 8 pixels"):
            load(**{key: 8})


def test_the_digest_is_of_content_and_split() -> None:
    assert load().digest == load(mean=(0.1,), crop=1).digest
    assert len({load().digest, load(1).digest, load(val_fraction=0.4).digest, load(image_size=9).digest}) == 4
    assert len(load().digest) == 64


def test_split_refuses_labels_of_another_number() -> None:
    with pytest.raises(ValueError, match=r"2 images, but labels of shape \(3,\)"):
        Split(DecodedImages(np.zeros((2, 1, 8, 8), np.uint8)), np.zeros(3, np.int64))


def test_long_loads_report_progress(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "PROGRESS_S", 0.0)
    caplog.set_level(logging.INFO)
    load()
    assert "training images: 256 of 719 read in" in caplog.text
    assert "digits: 719 training and 719 validation images of 10 classes, 1x8x8" in caplog.text
