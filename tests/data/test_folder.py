from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import load_data, load_test

from .making import encoded, image, pixels, same, write_folder

COUNTS = {"cat": 4, "dog": 6}


def config(path: Path, **keys: Any) -> DataConfig:
    return DataConfig(name="folder", path=str(path), **keys)


def test_one_folder_a_class_is_split_by_seed(tmp_path: Path) -> None:
    data = load_data(config(write_folder(tmp_path, COUNTS)), seed=0)
    assert data.classes == ("cat", "dog")
    assert np.bincount(data.train.labels_N).tolist() == [2, 3]
    assert np.bincount(data.val.labels_N).tolist() == [2, 3]
    assert (data.channels, data.image_size) == (3, 8)
    assert (data.augment.crop, data.augment.flip, data.augment.cutout) == (1, True, 0)
    expected = {image(number * 1000 + i).tobytes() for number, n in enumerate(COUNTS.values()) for i in range(n)}
    seen = np.concatenate([pixels(data.train), pixels(data.val)]).transpose(0, 2, 3, 1)
    assert {one.tobytes() for one in seen} == expected


@pytest.mark.parametrize("val_name", ["val", "valid", "validation"])
def test_a_validation_folder_beside_train_wins_over_val_fraction(tmp_path: Path, val_name: str) -> None:
    write_folder(tmp_path / "train", COUNTS)
    write_folder(tmp_path / val_name, {"dog": 3}, seed=1)
    write_folder(tmp_path / "test", {"cat": 2, "dog": 1}, seed=2)
    data = load_data(config(tmp_path), seed=0)
    assert np.bincount(data.train.labels_N).tolist() == [4, 6]
    assert data.val.labels_N.tolist() == [1, 1, 1]
    assert load_test(config(tmp_path)).labels_N.tolist() == [0, 0, 1]


def test_val_path_and_test_path_name_folders_elsewhere(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "mine", COUNTS)
    keys = {
        "val_path": str(write_folder(tmp_path / "v", {"cat": 1, "dog": 1}, seed=1)),
        "test_path": str(write_folder(tmp_path / "t", {"cat": 2, "dog": 3}, seed=2)),
    }
    assert len(load_data(config(root, **keys), seed=0).val) == 2
    assert len(load_test(config(root, **keys))) == 5


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load_data(config(write_folder(tmp_path, {"car": 2, "train": 2})), seed=0).classes == ("car", "train")


def test_other_files_and_hidden_ones_are_passed_over(tmp_path: Path) -> None:
    write_folder(tmp_path, COUNTS)
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "cat" / "Thumbs.db").write_text("hello")
    (tmp_path / "cat" / "._000.png").write_text("hello")
    (tmp_path / ".git").mkdir()
    (tmp_path / "cat" / "more").mkdir()
    image(9).save(tmp_path / "cat" / "more" / "LAST.PNG")
    data = load_data(config(tmp_path), seed=0)
    assert np.bincount(np.concatenate([data.train.labels_N, data.val.labels_N])).tolist() == [5, 6]


def test_the_same_images_at_another_path_have_the_same_digest(tmp_path: Path) -> None:
    first = load_data(config(write_folder(tmp_path / "a", COUNTS)), seed=0)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert same(first, load_data(config(tmp_path / "b"), seed=0))
    (tmp_path / "b" / "cat" / "000.png").write_bytes(encoded(image(99)))
    assert load_data(config(tmp_path / "b"), seed=0).digest != first.digest
    os.rename(tmp_path / "a" / "cat", tmp_path / "a" / "bird")
    assert load_data(config(tmp_path / "a"), seed=0).digest != first.digest


def test_jpegs_of_many_sizes_get_the_asked_size(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 2}, size=(20, 30), suffix=".jpg")
    write_folder(tmp_path, {"b": 2}, size=(64, 16), suffix=".jpeg")
    data = load_data(config(tmp_path, image_size=16), seed=0)
    assert pixels(data.train).shape == (2, 3, 16, 16)
    assert data.augment.crop == 2


def test_mixed_sizes_need_an_image_size(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 4}, size=(32, 32))
    write_folder(tmp_path, {"b": 2}, size=(48, 40))
    with pytest.raises(DataError, match=r"several sizes: 32x32 \(2 images\), 48x40 \(1 images\).*data.image_size=32"):
        load_data(config(tmp_path), seed=0)
    with pytest.raises(DataError, match="several sizes"):
        load_data(config(tmp_path), seed=0, decoded_limit_bytes=0)


def test_images_that_are_not_square_need_an_image_size(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"training images are 48x36, not square; set data.image_size=36"):
        load_data(config(write_folder(tmp_path, COUNTS, size=(48, 36))), seed=0)


def test_mixed_grey_and_colour_need_channels(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 4})
    write_folder(tmp_path, {"b": 4}, mode="L")
    with pytest.raises(DataError, match=r"training images mix 2 grey and 2 colour images; set data.channels=1 or"):
        load_data(config(tmp_path), seed=0)
    for channels in (1, 3):
        assert pixels(load_data(config(tmp_path, channels=channels), seed=0).val).shape == (4, channels, 8, 8)


def test_validation_images_of_other_channels_or_size_are_an_error(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "train", COUNTS).parent
    write_folder(tmp_path / "val", COUNTS, mode="L")
    with pytest.raises(DataError, match=r"validation images have 1 channel\(s\), training images 3; set data.channels"):
        load_data(config(root), seed=0)
    shutil.rmtree(tmp_path / "val")
    write_folder(tmp_path / "val", COUNTS, size=(9, 9))
    with pytest.raises(DataError, match=r"validation images are 9x9, not all 8x8; set data.image_size"):
        load_data(config(root), seed=0)


def test_a_validation_class_that_training_lacks_is_an_error(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", COUNTS)
    write_folder(tmp_path / "val", {"cat": 1, "cow": 1})
    with pytest.raises(
        DataError, match=r"cow.000.png has class 'cow', which the training data lacks; known classes: cat, dog"
    ):
        load_data(config(tmp_path), seed=0)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    bad = write_folder(tmp_path, COUNTS) / "dog" / "003.png"
    bad.write_bytes(bad.read_bytes()[:90])
    with pytest.raises(DataError, match=r"003.png: damaged image"):
        load_data(config(tmp_path), seed=0)
    bad.write_text("not an image")
    for limit in (0, 10**9):
        with pytest.raises(DataError, match=r"003.png: not an image that Pillow can read"):
            load_data(config(tmp_path), seed=0, decoded_limit_bytes=limit)


def test_large_sets_stream_from_their_files(tmp_path: Path) -> None:
    root = write_folder(tmp_path, {"cat": 40, "dog": 30})
    kept, streamed = (load_data(config(root), seed=1, decoded_limit_bytes=limit) for limit in (70 * 192, 70 * 192 - 1))
    assert type(kept.train.images).__name__ == "DecodedImages"
    assert type(streamed.train.images).__name__ == "EncodedImages"
    assert same(kept, streamed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "absent", "absent: no such folder; set data.path"),
        (lambda root: root, r"no class folders \(0 images directly in it\); expected images at .*CLASS"),
        (lambda root: write_folder(root, {"cat": 3}), r"only one class \('cat'\); a search needs at least 2"),
        (lambda root: write_folder(root, {"cat": 3, "dog": 0}), "dog: no images in this class folder"),
        (lambda root: write_folder(root, {"cat": 3, "dog": 1}), "class 'dog' has 1 example; .* at least 2"),
        (lambda root: write_folder(root / "val", {"cat": 1}).parent, "has val but no folder 'train'"),
        (lambda root: write_folder(root, {"train": 3}), r"train: no class folders \(3 images directly"),
        (lambda root: write_folder(root, {"cat": 1}) / "cat" / "000.png", "000.png: not a folder; set data.path"),
    ],
)
def test_unusable_folders_say_what_is_expected(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        load_data(config(make(tmp_path)), seed=0)
    assert "\n" not in str(raised.value)


def test_own_validation_data_still_needs_every_class_to_train_on(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 1, "dog": 1})
    write_folder(tmp_path / "val", {"cat": 1, "dog": 1}, seed=1)
    assert len(load_data(config(tmp_path), seed=0).train) == 2  # one is enough: nothing is held out
    shutil.rmtree(tmp_path / "val")
    (tmp_path / "val" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"val: no validation images; add some, or remove it to use data.val_fraction"):
        load_data(config(tmp_path), seed=0)


@pytest.mark.parametrize("key", ["val_path", "test_path"])
def test_own_paths_must_exist_even_where_a_search_does_not_read_them(tmp_path: Path, key: str) -> None:
    root = write_folder(tmp_path, COUNTS)
    with pytest.raises(DataError, match=f"nowhere: no such file or folder; correct or remove data.{key}"):
        load_data(config(root, **{key: str(tmp_path / "nowhere")}), seed=0)


def test_without_test_data_load_test_says_how_to_give_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no test data; set data.test_path"):
        load_test(config(write_folder(tmp_path, COUNTS)))


def test_path_is_needed() -> None:
    for name in ("folder", "parquet", "huggingface"):
        with pytest.raises(ConfigError, match=f"data.name={name} needs data.path"):
            load_data(DataConfig(name=name), seed=0)


def test_a_class_whose_name_is_not_text_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 1})
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(DataError, match=r"the name of class folder 'caf.udce9' is not UTF-8; rename it"):
        load_data(config(tmp_path), seed=0)


@pytest.mark.parametrize("path", ["~nobody-of-that-name/photos", "x" * 300])
def test_a_folder_that_cannot_be_is_one_line(path: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder; set data\.path"):
        load_data(config(Path(path)), seed=0)
    write_folder(tmp_path, COUNTS)
    with pytest.raises(DataError, match=r"no such file or folder; correct or remove data\.val_path"):
        load_data(config(tmp_path, val_path=path), seed=0)
