from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import ImageData, load_data, load_test

from .making import encoded, image, pixels, same, write_parquet

LABELS = [0, 1] * 4


def load(path: Path, **keys: Any) -> ImageData:
    return load_data(DataConfig(name="parquet", path=str(path), **keys), seed=0)


@pytest.mark.parametrize("struct", [True, False])
def test_images_are_read_from_structs_and_from_plain_bytes(tmp_path: Path, struct: bool) -> None:
    data = load(write_parquet(tmp_path / "a.parquet", LABELS, struct=struct))
    assert data.classes == ("0", "1")
    assert np.bincount(data.train.labels_N).tolist() == [2, 2]
    expected = np.stack([np.asarray(image(i)) for i in range(8)]).transpose(0, 3, 1, 2)
    seen = np.concatenate([pixels(data.train), pixels(data.val)])
    assert {one.tobytes() for one in seen} == {one.tobytes() for one in expected}


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_every_binary_type_will_do(tmp_path: Path, kind: pa.DataType) -> None:
    stored = pa.array([encoded(image(i)) for i in range(4)], pa.binary()).cast(kind)
    pq.write_table(pa.table({"picture": stored, "y": ["a", "b"] * 2}), tmp_path / "a.parquet")
    assert len(load(tmp_path / "a.parquet").train) == 2


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (pa.array(["dog", "cat"] * 4), ("cat", "dog")),
        (pa.array(["dog", "cat"] * 4).dictionary_encode(), ("cat", "dog")),
        (pa.array([10, 2] * 4, pa.uint8()), ("2", "10")),
        (pa.array([True, False] * 4), ("0", "1")),
    ],
    ids=["strings", "dictionary", "integers", "booleans"],
)
def test_labels_of_every_type_become_class_numbers(tmp_path: Path, labels: pa.Array, classes: tuple[str, ...]) -> None:
    data = load(write_parquet(tmp_path / "a.parquet", labels))
    assert data.classes == classes
    assert np.bincount(data.val.labels_N).tolist() == [2, 2]


def test_class_names_come_from_hugging_face_metadata(tmp_path: Path) -> None:
    assert load(write_parquet(tmp_path / "a.parquet", LABELS, names=["no", "yes"])).classes == ("no", "yes")


def test_a_folder_has_splits_in_several_files(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-00000-of-00002.parquet", [0, 1, 0], names=["a", "b"])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", [1, 1], names=["a", "b"], seed=1)
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", [1, 0], names=["b", "a"], seed=2)
    write_parquet(tmp_path / "test.parquet", ["b"], seed=3)
    data = load(tmp_path)
    assert data.train.labels_N.tolist() == [0, 1, 0, 1, 1]
    assert data.val.labels_N.tolist() == [0, 1]  # matched by name, not by number
    assert load_test(DataConfig(name="parquet", path=str(tmp_path))).labels_N.tolist() == [1]


def test_plain_integers_of_another_split_count_the_declared_classes(tmp_path: Path) -> None:
    root = write_parquet(tmp_path / "train.parquet", LABELS, names=["a", "b"])
    own = write_parquet(tmp_path / "mine.parquet", [1, 1], seed=1)
    assert load(root, val_path=str(own)).val.labels_N.tolist() == [1, 1]


def test_val_path_may_be_a_folder(tmp_path: Path) -> None:
    root = write_parquet(tmp_path / "train.parquet", LABELS)
    write_parquet(tmp_path / "v" / "part.parquet", [1], seed=1)
    assert len(load(root, val_path=str(tmp_path / "v")).val) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no \*.parquet files in it; correct data.val_path"):
        load(root, val_path=str(tmp_path / "empty"))


def test_columns_can_be_named(tmp_path: Path) -> None:
    more = {"other": pa.array([b"x"] * 8, pa.binary()), "split": pa.array([1] * 8)}
    path = write_parquet(tmp_path / "a.parquet", LABELS, **more)
    assert len(load(path, image_column="image", label_column="label").train) == 4
    with pytest.raises(DataError, match=r"2 columns \(image, other\) could hold images .*set data.image_column to one"):
        load(path)
    with pytest.raises(DataError, match=r"2 columns \(label, split\) could hold labels .*set data.label_column to one"):
        load(path, image_column="image")


def test_the_only_class_label_is_taken_among_several_columns(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", LABELS, names=["a", "b"], idx=pa.array(range(8)))
    assert load(path).classes == ("a", "b")


def test_a_misspelt_column_gets_a_suggestion(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", LABELS)
    with pytest.raises(DataError, match=r"no column 'lable' \(data.label_column\); did you mean label"):
        load(path, label_column="lable")
    with pytest.raises(DataError, match=r"no column 'x' \(data.image_column\); allowed: image, label"):
        load(path, image_column="x")


def test_columns_that_cannot_be_what_they_should_are_listed(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0.5] * 8)
    with pytest.raises(
        DataError, match=r"no column holds labels \(integers or strings\); its columns are .*label \(double"
    ):
        load(path)
    with pytest.raises(DataError, match=r"data.label_column=label cannot hold labels \(integers or strings\)"):
        load(path, label_column="label")
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), path)
    with pytest.raises(DataError, match=r"no column holds images \(bytes\); its columns are text \(string\), label"):
        load(path)


def test_missing_labels_and_images_name_their_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0, 1, None, 0, 1])
    with pytest.raises(DataError, match=r"a.parquet, row 2: no label \(column 'label' is null\); drop"):
        load(path)
    stored = [encoded(image(0)), None, encoded(image(1)), encoded(image(2))]
    for struct in (True, False):
        write_parquet(path, [0, 1, 0, 1], images=stored, struct=struct)
        with pytest.raises(DataError, match=r"a.parquet, row 1: no image \(column 'image' is null\); drop"):
            load(path)


def test_rows_may_name_image_files_beside_the_parquet_file(tmp_path: Path) -> None:
    image(7).save(tmp_path / "seven.png")
    stored = [None, *(encoded(image(i)) for i in range(3))]
    struct = [{"bytes": data, "path": None if data else "seven.png"} for data in stored]
    pq.write_table(pa.table({"image": struct, "label": [0, 1, 0, 1]}), tmp_path / "a.parquet")
    data = load(tmp_path / "a.parquet")
    assert np.asarray(image(7)).transpose(2, 0, 1).tobytes() in {
        one.tobytes() for split in (data.train, data.val) for one in pixels(split)
    }


def test_a_label_out_of_range_is_an_error(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0, 1, 2, 0, 1, 2], names=["a", "b"])
    message = r"label out of range: .*a.parquet, row 2 has label 2 \(and 1 more image\), but there are 2 class names"
    with pytest.raises(DataError, match=message):
        load(path)
    write_parquet(path, [0, 1, 0, -1], names=["a", "b"])
    with pytest.raises(DataError, match="row 3 has label -1"):
        load(path)


def test_validation_labels_that_training_lacks_are_an_error(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", LABELS)
    write_parquet(tmp_path / "val.parquet", [0, 7])
    with pytest.raises(DataError, match=r"val.parquet, row 1 has class '7', which the training data lacks"):
        load(tmp_path)


def test_a_damaged_image_names_its_file_and_row(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train-0.parquet", LABELS)
    stored = [encoded(image(0)), encoded(image(1))[:-40], encoded(image(0)), encoded(image(1))]
    write_parquet(tmp_path / "train-1.parquet", [0, 0, 1, 1], images=stored)
    with pytest.raises(DataError, match=r"train-1.parquet, row 1: damaged image"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "absent", "absent: no such file or folder; set data.path"),
        (lambda root: root, r"no train\*.parquet in it; it has no Parquet files; set data.path"),
        (
            lambda root: write_parquet(root / "data" / "train.parquet", LABELS).parents[1],
            r"no train\*.parquet in it; it has data/train.parquet; set data.path to a file",
        ),
        (lambda root: write_parquet(root / "a.parquet", np.empty(0, np.int64)), "a.parquet: no images"),
        (lambda root: write_parquet(root / "a.parquet", [3, 3, 3]), "a.parquet: only one class"),
        (lambda root: write_parquet(root / "a.parquet", [0, 0, 1]), "class '1' has 1 example"),
    ],
)
def test_unusable_files_say_what_is_expected(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        load(make(tmp_path))
    assert "\n" not in str(raised.value)


def test_what_is_not_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "train-1.parquet").write_text("hello, this is text and no Parquet file")
    with pytest.raises(DataError, match=r"train-1.parquet: cannot be read as Parquet \("):
        load(tmp_path)
    write_parquet(tmp_path / "train-0.parquet", LABELS)
    with pytest.raises(DataError, match=r"train-1.parquet: cannot be read as Parquet \("):
        load(tmp_path)
    write_parquet(tmp_path / "train-1.parquet", LABELS, columns=("image", "y"))
    with pytest.raises(DataError, match=r"train-1.parquet: no column 'label', which train-0.parquet has"):
        load(tmp_path)


def test_the_same_data_elsewhere_or_streamed_is_the_same(tmp_path: Path) -> None:
    first = load(write_parquet(tmp_path / "a.parquet", LABELS))
    shutil.copy(tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert same(first, load(tmp_path / "b.parquet"))
    config = DataConfig(name="parquet", path=str(tmp_path / "b.parquet"))
    streamed = load_data(config, seed=0, decoded_limit_bytes=0)
    assert type(streamed.val.images).__name__ == "EncodedImages"
    assert same(first, streamed)


def test_an_image_column_of_labels_is_no_label(test_data: Path) -> None:
    with pytest.raises(DataError, match=r"2 columns \(image, label\) could hold images"):
        load(test_data / "camvid")


def test_text_is_no_image(test_data: Path) -> None:
    with pytest.raises(DataError, match=r"no column holds images .*sentence1 \(string\), sentence2 \(string\)"):
        load(test_data / "glue" / "mrpc")
