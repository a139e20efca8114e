"""One error lists all problems of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pytest

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import load_data, load_test
from ddpnas_ray.data.problems import MOST, Problems
from tests.data.making import encoded, image, write_folder, write_parquet

DAMAGED = encoded(image(0))[:-40]


def refused(path: Path, limit: int = 10**9, **keys: object) -> str:
    with pytest.raises(DataError) as error:
        load_data(DataConfig(**{"name": "folder", "path": str(path)} | keys), seed=0, decoded_limit_bytes=limit)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_nothing_wrong_is_no_error() -> None:
    Problems().refuse()
    with (problems := Problems()).collecting():
        pass
    assert len(problems) == 0


@pytest.mark.parametrize("count", [1, 2, MOST, MOST + 1, 500])
def test_the_first_problems_are_listed_and_the_others_counted(count: int) -> None:
    with pytest.raises(DataError) as error:
        Problems(f"image {i} is damaged" for i in range(count)).refuse()
    said = str(error.value)
    listed = min(count, MOST)
    assert said.count("is damaged") == listed
    assert said.startswith("image 0 is damaged" if count == 1 else f"{count} problems: (1) image 0 is damaged (2) ")
    assert (f"({MOST}) image 9 is damaged and {count - MOST} more" in said) == (count > MOST)


@pytest.mark.parametrize("limit", [0, 10**9])
def test_every_damaged_image_of_both_splits_is_named(tmp_path: Path, limit: int) -> None:
    write_folder(tmp_path / "train", {"cat": 3, "dog": 3})
    write_folder(tmp_path / "val", {"cat": 2, "dog": 2}, seed=1)
    for name in ("train/cat/000.png", "train/dog/002.png", "val/dog/001.png"):
        (tmp_path / name).write_text("no image")
    said = refused(tmp_path, limit)
    assert said.startswith("3 problems: (1) ")
    for name in ("train/cat/000.png", "train/dog/002.png", "val/dog/001.png"):
        assert f"{tmp_path / name}: not an image that Pillow can read" in said


def test_many_damaged_images_are_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 300, "dog": 30})
    for path in (tmp_path / "cat").iterdir():
        path.write_bytes(b"")
    said = refused(tmp_path)
    assert said.startswith("300 problems: (1) ") and said.endswith(" and 290 more")
    assert "cat/000.png" in said, "in file order, whichever thread finishes first"


def test_damaged_images_do_not_hide_classes_sizes_or_colours(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 3, "dog": 3, "emu": 0, "fox": 0})
    write_folder(tmp_path / "train", {"gnu": 2}, size=(12, 9))
    write_folder(tmp_path / "train", {"hen": 2}, mode="L")
    (tmp_path / "train" / "cat" / "001.png").write_bytes(DAMAGED)
    said = refused(tmp_path)
    assert said.startswith("5 problems: ")
    for fragment in (
        "emu: no images in this class folder",
        "fox: no images in this class folder",
        "training images mix 2 grey and 7 colour images",
        "training images have several sizes: 8x8 (7 images), 12x9 (2 images)",
        "cat/001.png: damaged image",
    ):
        assert fragment in said


def test_every_class_that_is_too_small_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 1, "dog": 4, "emu": 1})
    (tmp_path / "dog" / "000.png").write_bytes(b"")
    said = refused(tmp_path)
    assert said.startswith("2 problems: ")
    assert "class 'cat' has 1 example" in said and "class 'emu' has 1 example" in said and "dog/000.png" in said


def test_validation_data_that_do_not_fit_are_named_beside_damaged_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 2, "dog": 2})
    write_folder(tmp_path / "val", {"cat": 1, "cow": 1}, size=(9, 9))
    (tmp_path / "train" / "dog" / "000.png").write_bytes(b"")
    said = refused(tmp_path)
    assert said.startswith("3 problems: ")
    assert "class 'cow', which the training data lacks" in said
    assert "validation images are 9x9, not all 8x8" in said and "dog/000.png" in said


def test_a_set_in_which_no_image_can_be_read_names_them(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 2, "dog": 2})
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    said = refused(tmp_path)
    assert said.startswith("4 problems: ") and said.count("not an image") == 4


def test_the_shape_is_that_of_the_first_image_that_can_be_read(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "cat" / "000.png").write_bytes(b"")
    assert refused(tmp_path) == f"{tmp_path / 'cat' / '000.png'}: not an image that Pillow can read (0 bytes)"


def test_a_set_too_large_to_keep_is_not_read_when_its_classes_are_wrong(tmp_path: Path) -> None:
    write_folder(tmp_path, {"cat": 3, "dog": 0})
    (tmp_path / "cat" / "001.png").write_bytes(b"")
    assert "cat/001.png" not in refused(tmp_path, 0)


IMAGES: Sequence[bytes | None] = [encoded(image(0)), None, DAMAGED, *(encoded(image(i)) for i in range(3, 8))]
LABELS = [0, 1, 1, None, 0, None, 1, 0]
ROWS = ("row 1: no image", "row 3: no label", "row 5: no label", "row 2: damaged image")


def test_rows_without_label_or_image_are_named_beside_damaged_ones(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", LABELS, images=IMAGES)
    said = refused(path, name="parquet")
    assert said.startswith("4 problems: ")
    for fragment in ROWS:
        assert f"a.parquet, {fragment}" in said


def test_hugging_face_rows_too(tmp_path: Path) -> None:
    column = [None if data is None else {"bytes": data, "path": None} for data in IMAGES]
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    datasets.Dataset.from_dict({"image": column, "label": LABELS}, features=features).save_to_disk(str(tmp_path / "hf"))
    said = refused(tmp_path / "hf", name="huggingface")
    assert said.startswith("4 problems: ")
    for fragment in ROWS:
        assert fragment in said


def test_labels_without_a_class_are_counted(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0, 1, 2, 0, 1, 2], names=["a", "b"])
    assert "row 2 has label 2 (and 1 more image), but there are 2 class names" in refused(path, name="parquet")


def test_test_images_are_checked_alike(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 2, "dog": 2})
    write_folder(tmp_path / "test", {"cat": 2, "dog": 2})
    for path in (tmp_path / "test").rglob("000.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"^2 problems: .*cat/000.png.*dog/000.png"):
        load_test(DataConfig(name="folder", path=str(tmp_path)))


def test_rows_that_are_refused_in_training_are_refused_when_testing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, None, 0])
    write_parquet(tmp_path / "test.parquet", np.array([0, 1]))
    with pytest.raises(DataError, match="row 2: no label"):
        load_test(DataConfig(name="parquet", path=str(tmp_path)))
