"""A data error's hint applies to the data set, and names the key that caused the error."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.data import cifar10, huggingface
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import load_data, load_test
from ddpnas_ray.data.values import Augment
from tests.data.making import write_folder, write_parquet


def test_own_data_of_the_hub_need_no_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []

    def load(path: str, key: str) -> dict[str, object]:
        asked.append(f"{key}={path}")
        raise DataError("not reached")

    monkeypatch.setattr(huggingface, "load_splits", load)
    for key in ("val_path", "test_path"):
        with pytest.raises(DataError, match="not reached"):
            load_data(DataConfig(name="huggingface", path="owner/name", **{key: "owner/other"}), seed=0)  # type: ignore[arg-type]
    assert asked == ["data.path=owner/name"] * 2


@pytest.mark.parametrize("key", ["val_path", "test_path"])
def test_own_folders_of_a_hugging_face_data_set_must_exist(tmp_path: Path, key: str) -> None:
    root = write_folder(tmp_path / "photos", {"cat": 2, "dog": 2})
    config = DataConfig(name="huggingface", path=str(root), **{key: str(tmp_path / "nowhere")})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=rf"nowhere: no such folder; set data.{key}$"):
        load_data(config, seed=0)


def test_images_smaller_than_the_default_crop_say_that_it_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path / "train.parquet", list(range(10)) * 2)
    assert load_data(DataConfig(name="cifar10", path=str(tmp_path), image_size=4), seed=0).augment.crop == 0
    monkeypatch.setattr(cifar10, "AUGMENT", Augment(crop=4, flip=True), raising=False)  # as a reader may have
    with pytest.raises(
        ConfigError, match=r"data.crop=4 \(the default\) could blank .* of 4 pixels; set data.crop below 4"
    ):
        load_data(DataConfig(name="cifar10", path=str(tmp_path), image_size=4), seed=0)
    with pytest.raises(ConfigError, match=r"data.crop=5 could blank whole images of 4 pixels; set data.crop below 4"):
        load_data(DataConfig(name="cifar10", path=str(tmp_path), image_size=4, crop=5), seed=0)


def test_a_data_set_without_test_path_is_not_told_to_set_it(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", list(range(10)) * 2)
    with pytest.raises(DataError, match=r"no test data; put a test split beside the training data$"):
        load_test(DataConfig(name="cifar10", path=str(tmp_path)))
