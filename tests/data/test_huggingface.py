from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.data import huggingface
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import ImageData, load_data, load_test

from .making import image, pixels, write_folder, write_parquet


def load(path: object, **keys: Any) -> ImageData:
    return load_data(DataConfig(name="huggingface", path=str(path), **keys), seed=0)


def dataset(labels: list[int], seed: int = 0, names: tuple[str, ...] = ("cat", "dog")) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    pictures = [image(seed * 1000 + i) for i in range(len(labels))]
    return datasets.Dataset.from_dict({"image": pictures, "label": labels}, features=features)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def test_a_saved_data_set_is_one_training_split(tmp_path: Path) -> None:
    dataset([0, 1] * 4).save_to_disk(str(tmp_path / "saved"))
    data = load(tmp_path / "saved")
    assert data.classes == ("cat", "dog")
    assert np.bincount(data.train.labels_N).tolist() == [2, 2]
    expected = {np.asarray(image(i)).transpose(2, 0, 1).tobytes() for i in range(8)}
    assert {one.tobytes() for split in (data.train, data.val) for one in pixels(split)} == expected


def test_a_selection_of_rows_is_what_is_read(tmp_path: Path) -> None:
    dataset([0, 1] * 4).select([7, 6, 1, 0]).save_to_disk(str(tmp_path / "saved"))
    data = load(tmp_path / "saved")
    assert len(data.train) + len(data.val) == 4


def test_splits_are_found_by_name(tmp_path: Path) -> None:
    splits = {
        "train": dataset([0, 1] * 2),
        "validation": dataset([1, 0, 0], 1, ("dog", "cat")),
        "test": dataset([1], 2),
    }
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    data = load(tmp_path / "saved")
    assert data.train.labels_N.tolist() == [0, 1, 0, 1]
    assert data.val.labels_N.tolist() == [0, 1, 1]
    assert load_test(DataConfig(name="huggingface", path=str(tmp_path / "saved"))).labels_N.tolist() == [1]


def test_own_validation_data_may_be_saved_elsewhere(tmp_path: Path) -> None:
    dataset([0, 1] * 4).save_to_disk(str(tmp_path / "saved"))
    dataset([1, 1], 1).save_to_disk(str(tmp_path / "own"))
    assert load(tmp_path / "saved", val_path=str(tmp_path / "own")).val.labels_N.tolist() == [1, 1]


def test_local_parquet_and_image_folders_are_loaded(tmp_path: Path) -> None:
    write_parquet(tmp_path / "tables" / "train.parquet", [0, 1] * 4, names=["a", "b"])
    assert load(tmp_path / "tables").classes == ("a", "b")
    write_folder(tmp_path / "folder" / "train", {"cat": 3, "dog": 3})
    data = load(tmp_path / "folder")
    assert data.classes == ("cat", "dog")
    assert len(data.train) + len(data.val) == 6


def test_a_data_set_without_train_names_its_splits(tmp_path: Path) -> None:
    datasets.DatasetDict({"test": dataset([0, 1])}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match="has no split train; it has test"):
        load(tmp_path / "saved")
    dataset([0, 1] * 2).save_to_disk(str(tmp_path / "train"))
    datasets.DatasetDict({"a": dataset([0]), "b": dataset([1])}).save_to_disk(str(tmp_path / "own"))
    with pytest.raises(DataError, match="own: has no split validation or valid or val; it has a, b"):
        load(tmp_path / "train", val_path=str(tmp_path / "own"))


def test_a_data_set_without_images_lists_its_columns(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"no column holds images \(bytes\); its columns are text \(string\), label"):
        load(tmp_path / "saved")


def test_a_path_that_is_no_name_on_the_hub_must_exist(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", "./absent", "a/b/c"):
        with pytest.raises(DataError, match=r"absent: no such folder; set data.path|a/b/c: no such folder"):
            load(path)


def test_an_empty_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: cannot be loaded as a Hugging Face data set") as raised:
        load(tmp_path / "empty")
    assert "\n" not in str(raised.value)


def test_a_hub_that_cannot_be_reached_ends_soon_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    started = time.monotonic()
    with pytest.raises(
        DataError, match=r"nobody/nothing: not a local folder.*cannot be reached \(.*save_to_disk"
    ) as raised:
        load("nobody/nothing")
    assert time.monotonic() - started < 10
    assert "\n" not in str(raised.value)
    assert offline == huggingface_hub.constants.HF_HUB_OFFLINE


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the package datasets .*pip install datasets"):
        huggingface.read(DataConfig(name="huggingface", path=str(tmp_path)), ("train",))
