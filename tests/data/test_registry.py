"""Data sets are found by name: a file of the folder, or ``module:function``, with its keys and its augmentation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddpnas_ray import data, search
from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import load_data
from ddpnas_ray.data.registry import DATA_SETS, find_reader
from ddpnas_ray.data.values import Augment
from tests.commands import LOCAL, options, run

SHADES = '''
"""Two classes: dark and bright squares."""

import numpy as np

from ddpnas_ray.data.raw import RawSplit


def read(config, wanted):
    labels = np.arange(256) % 2
    pixels = np.random.default_rng(0).integers(0, 100, (256, 8, 8)) + 100 * labels[:, None, None]
    whole = RawSplit(sources=pixels.astype(np.uint8), labels=labels, classes=("dark", "bright"), origin="shades")
    return {name: whole for name in wanted if name == "train"}


def nothing(config, wanted):
    return {}
'''


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder on PYTHONPATH."""
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "shades.py").write_text(SHADES)
    (folder / "odd.py").write_text(SHADES + "\nKEYS = ('paht',)\n")
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in ("shades", "odd", "ddpnas_ray.data.shades"):
        sys.modules.pop(name, None)


def test_the_built_in_data_sets_are_the_files_that_define_read() -> None:
    assert DATA_SETS.names() == ("cifar10", "digits", "folder", "huggingface", "parquet")


@pytest.mark.parametrize(
    ("name", "augment"),
    [
        ("digits", Augment(crop=0, flip=False)),
        ("cifar10", Augment(crop=5, flip=True)),
        ("folder", Augment(crop=5, flip=True)),
        ("shades:read", Augment(crop=5, flip=True)),
    ],
)
def test_each_has_its_default_augmentation(name: str, augment: Augment) -> None:
    assert find_reader(name).default_augment(image_size=40) == augment


def test_a_new_file_is_a_new_data_set_and_nothing_else_changes(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "__path__", [*data.__path__, str(lab)])
    assert (
        "allowed: cifar10, digits, folder, huggingface, odd, parquet, shades"
        in run(search.main, *options("data.name=nothing")).err
    )
    said = run(search.main, *LOCAL, *options("data.name=shades"), "--out", tmp_path / "run")
    assert said.code == 0, said.err
    assert load_data(DataConfig(name="shades"), seed=0).classes == ("dark", "bright")


def test_keys_that_a_reader_does_not_understand_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.image_column is for huggingface, parquet only, not for shades:read"):
        load_data(DataConfig(name="shades:read", image_column="pixels"), seed=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("images", "'images' is not a built-in data set or module:function"),
        ("parqet", "did you mean parquet?"),
        ("shades:raed", "has no attribute 'raed'"),
        ("odd:read", "'odd:read': KEYS has 'paht'; allowed: path, val_path"),
    ],
)
def test_what_is_no_data_set_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        find_reader(name)
    assert message in str(error.value)


def test_a_reader_has_to_return_training_data() -> None:
    with pytest.raises(DataError, match=r"data.name=shades:nothing: no split 'train'; splits: none"):
        load_data(DataConfig(name="shades:nothing"), seed=0)
