"""Where images and masks are found, and which keys are for which data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import BadInput, ConfigError, DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.tasks.segmentation.sources import CAMVID, CITYSCAPES, Source, find_source
from ddpnas_ray.tasks.segmentation.task import make
from tests.tasks.segmentation.making import own, write_cityscapes, write_pairs, write_parquet


def city(root: Path, **options: Any) -> Source:
    return find_source(Source(data=DataConfig(name="cityscapes", path=str(root)), **options))


@pytest.mark.parametrize("end", ["labelIds", "labelTrainIds"])
def test_cityscapes_is_found_by_its_real_names(tmp_path: Path, end: str) -> None:
    task = make(DataConfig(name="cityscapes", path=str(write_cityscapes(tmp_path, end=end))), 0)
    assert task.classes == tuple(CITYSCAPES) and len(task.classes) == 19
    assert (task.train_examples, task.val_examples) == (6, 2)
    assert task.inputs.shape == (3, 12, 16) and task.data.palette[0] == (128, 64, 128)
    (batch,) = task.validation_batches(2)
    assert set(batch.targets.unique().tolist()) == {0, 1, 2, 10, 11, 13, 18, 255}, "ids 0 and 4 are void"


def test_both_forms_of_cityscapes_masks_mean_the_same(tmp_path: Path) -> None:
    found = []
    for end in ("labelIds", "labelTrainIds"):
        path = write_cityscapes(tmp_path / end, end=end)
        (batch,) = make(DataConfig(name="cityscapes", path=str(path)), 0).validation_batches(2)
        found.append(batch.targets.numpy())
    np.testing.assert_array_equal(*found)


def test_the_withheld_labels_of_cityscapes_test_images_are_refused(tmp_path: Path) -> None:
    task = make(DataConfig(name="cityscapes", path=str(write_cityscapes(tmp_path))), 0)
    with pytest.raises(DataError, match=r"test: no mask has a pixel of any class, so there is no score; masks may be"):
        task.on_test()


def test_a_missing_mask_of_cityscapes_is_named(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    next((tmp_path / "gtFine" / "train" / "ulm").glob("*labelIds.png")).unlink()
    with pytest.raises(DataError, match=r"_leftImg8bit.png: no mask .*_gtFine_labelIds.png; unpack gtFine again"):
        make(DataConfig(name="cityscapes", path=str(tmp_path)), 0)
    shutil.rmtree(tmp_path / "gtFine" / "train")
    with pytest.raises(DataError, match=r"train: no masks .*; unpack gtFine into data.path"):
        city(tmp_path).read("train")
    with pytest.raises(DataError, match=r"leftImg8bit/train: no such folder; set data.path"):
        city(tmp_path / "nowhere").read("train")


def test_camvid_has_eleven_classes_and_void(test_data: Path) -> None:
    task = make(DataConfig(name="camvid", path=str(test_data / "camvid"), train_limit=4), 0, size=(24, 32))
    assert task.classes == tuple(CAMVID) and len(CAMVID) == 11
    assert (task.train_examples, task.val_examples) == (4, 101)
    tested = task.on_test()
    assert (tested.train_examples, tested.val_examples) == (4, 233)
    shares_C = tested.data.val.counts_NC.sum(axis=0) / (233 * 360 * 480)
    assert shares_C[CAMVID_ROAD] == pytest.approx(0.2581, abs=1e-4)
    assert shares_C.sum() == pytest.approx(1 - 0.0383, abs=1e-4), "the rest is void"


CAMVID_ROAD = 3


def test_parquet_files_have_a_column_of_masks(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", columns=("photo", "mask"))
    write_parquet(tmp_path / "test.parquet", 2, columns=("photo", "mask"))
    data = DataConfig(name="parquet", path=str(tmp_path), image_column="photo")
    task = make(data, 0)
    assert task.classes == ("class-0", "class-1", "class-2")
    assert (task.train_examples, task.val_examples, task.on_test().val_examples) == (3, 3, 2)
    with pytest.raises(DataError, match=r"2 columns \(photo, mask\) could hold images"):
        make(DataConfig(name="parquet", path=str(tmp_path)), 0)
    with pytest.raises(DataError, match=r"no column 'maks' \(data.label_column\); did you mean mask"):
        make(DataConfig(name="parquet", path=str(tmp_path), image_column="photo", label_column="maks"), 0)


def test_a_table_of_images_with_labels_has_no_masks(tmp_path: Path) -> None:
    from tests.data.making import write_parquet as write_labelled

    write_labelled(tmp_path / "a.parquet", [0, 1])
    data = DataConfig(name="parquet", path=str(tmp_path / "a.parquet"))
    with pytest.raises(DataError, match=r"no column beside the images could hold masks .*; set data.label_column"):
        make(data, 0)
    with pytest.raises(DataError, match=r"data.label_column=label cannot hold masks \(bytes\)"):
        make(DataConfig(name="parquet", path=data.path, label_column="label"), 0)


def test_rows_without_an_image_or_a_mask_are_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(write_parquet(tmp_path / "a.parquet"))
    masks = table.column("label").to_pylist()
    masks[2] = None
    pq.write_table(
        table.set_column(1, "label", pa.array(masks, table.schema.field("label").type)), tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match=r"a.parquet, row 2: no mask \(column 'label' is null\); drop such rows"):
        make(DataConfig(name="parquet", path=str(tmp_path / "a.parquet")), 0)


def test_names_in_two_folders_are_matched_whatever_their_suffix(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    for file in (tmp_path / "images").rglob("*.png"):
        file.rename(file.with_suffix(".jpg"))
    assert own(tmp_path).train_examples == 4
    (tmp_path / "masks" / "0" / "00.png").unlink()
    with pytest.raises(
        DataError, match=r"^\S+images/0/00.jpg: no mask \S+masks/0/00\.\*; add it, or remove the image$"
    ):
        own(tmp_path)
    (tmp_path / "images" / "0" / "00.jpg").unlink()
    (tmp_path / "images" / "1" / "01.jpg").unlink()
    with pytest.raises(
        DataError, match=r"^\S+masks/1/01.png: no image \S+images/1/01\.\*; add it, or remove the mask$"
    ):
        own(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    shutil.copy(tmp_path / "images" / "0" / "00.png", tmp_path / "images" / "0" / "00.bmp")
    with pytest.raises(DataError, match=r"00.png: has the name of \S+00.bmp but for the suffix; remove one"):
        own(tmp_path)


def test_folders_of_their_own_validate_and_test(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    val = write_pairs(tmp_path, 3, prefix="val_", seed=50)
    test = write_pairs(tmp_path, 2, prefix="test_", seed=60)
    task = own(
        tmp_path,
        data={"val_path": val["path"], "test_path": test["path"]},
        val_masks=val["masks"],
        test_masks=test["masks"],
    )
    assert (task.train_examples, task.val_examples, task.on_test().val_examples) == (8, 3, 2)
    with pytest.raises(DataError, match=r"images: no test images; set data.test_path"):
        own(tmp_path).on_test()


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".a.png").touch()
    with pytest.raises(DataError, match=r"empty: the folder is empty; set task.masks"):
        own(tmp_path, masks=str(tmp_path / "empty"))
    with pytest.raises(DataError, match=r"nowhere: no such folder; set data.path"):
        own(tmp_path, data={"path": str(tmp_path / "nowhere")})
    with pytest.raises(DataError, match=r"hidden: no images; add some"):
        own(tmp_path, data={"path": str(tmp_path / "hidden")}, masks=str(tmp_path / "hidden"))


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        ({}, {}, "data.name=digits has no masks; task.name=segmentation reads cityscapes, camvid, parquet, folder"),
        ({"name": "folder"}, {}, "data.name=folder needs data.path, a folder of images, and task.masks"),
        ({"name": "folder", "path": "a"}, {}, "data.path is set but task.masks is not; set both"),
        ({"name": "folder"}, {"masks": "b"}, "task.masks is set but data.path is not; set both"),
        (
            {"name": "folder", "path": "a", "val_path": "c"},
            {"masks": "b"},
            "data.val_path is set but task.val_masks is not",
        ),
        ({"name": "camvid", "path": "a"}, {"masks": "b"}, "task.masks is not for data.name=camvid; remove it"),
        ({"name": "camvid", "path": "a"}, {"void": 3}, "task.void is not for data.name=camvid; remove it"),
        ({"name": "cityscapes", "path": "a"}, {"classes": ("a", "b")}, "task.classes is not for data.name=cityscapes"),
        ({"name": "cityscapes", "path": "a", "val_path": "b"}, {}, "data.val_path is not for data.name=cityscapes"),
        ({"name": "camvid", "path": "a", "image_size": 64}, {}, "data.image_size is 64, .*: set task.size instead"),
        ({"name": "camvid", "path": "a", "crop": 4}, {}, "data.crop is 4, .*: set task.crop instead"),
        ({"name": "camvid", "path": "a", "cache": "c"}, {}, "data.cache is 'c', which images with masks do not use"),
        ({"name": "camvid", "path": "a", "channels": 1}, {}, "data.channels is 1, .*: remove it"),
        ({"name": "parquet", "path": "a"}, {"classes": ("a",)}, r"task.classes has only one class \('a'\)"),
        ({"name": "parquet", "path": "a"}, {"classes": ("a", "b", "a")}, "task.classes has 'a' twice; rename one"),
        (
            {"name": "parquet", "path": "a"},
            {"classes": ("a", "b"), "void": 1},
            "task.void is 1, which is the id of class 'b'; set it to an id from 2 on, or to -1 for none",
        ),
    ],
)
def test_keys_that_do_not_apply_are_refused_in_one_line(data: Any, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{says}") as error:
        make(DataConfig(**data), 0, **options)
    assert "\n" not in str(error.value) and isinstance(error.value, BadInput)
