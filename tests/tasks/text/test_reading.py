"""Files of every format give the same rows; what cannot be used is one line with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.tasks.text.reading import (
    Columns,
    Rows,
    class_names,
    class_numbers,
    numbers,
    read_files,
    read_loaded,
)
from tests.tasks.text.making import reviews, write

SENTENCES = Columns(texts=("sentence",), label="label")
AWKWARD = {"sentence": ['He said "no"', "漢字 ☃ é", "x " * 5000, "a, b; c", "twice", "twice"], "label": list("aabbab")}


@pytest.mark.parametrize("suffix", [".parquet", ".tsv", ".csv"])
def test_awkward_texts_are_read_as_they_are_from_every_format(suffix: str, tmp_path: Path) -> None:
    rows = read_files([write(tmp_path / f"a{suffix}", AWKWARD)], SENTENCES)
    assert rows.texts == (AWKWARD["sentence"],) and rows.labels == AWKWARD["label"]
    assert not rows.problems and len(rows) == 6


def test_quotes_and_line_breaks_in_csv_and_a_byte_order_mark(tmp_path: Path) -> None:
    table = {"sentence": ['say ""', "two\nlines"], "label": [0, 1]}
    path = write(tmp_path / "a.csv", table)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_files([path], SENTENCES).texts[0] == table["sentence"]


def test_several_files_are_one_after_the_other_and_rows_keep_their_names(tmp_path: Path) -> None:
    files = [write(tmp_path / f"train-{i}.parquet", reviews(3, i)) for i in range(2)]
    rows = read_files(files, SENTENCES)
    assert rows.texts[0] == reviews(3, 0)["sentence"] + reviews(3, 1)["sentence"]
    assert rows.names[4] == f"{files[1]}, row 1"


def test_a_hugging_face_data_set_is_read_with_its_class_names() -> None:
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = read_loaded(datasets.Dataset.from_dict(reviews(4), features=features), SENTENCES, "here")
    assert rows.classes == ("no", "yes") and rows.labels == reviews(4)["label"] and list(rows.names)[3] == "here, row 3"


@pytest.mark.parametrize(
    ("name", "table", "columns", "message"),
    [
        (
            "a.parquet",
            reviews(3),
            Columns(texts=("sentense",), label="label"),
            r"a\.parquet: no column 'sentense' \(task\.columns\); did you mean sentence\?",
        ),
        (
            "a.tsv",
            reviews(3),
            Columns(texts=("sentence",), label="labels"),
            r"a\.tsv: no column 'labels' \(data\.label_column\); did you mean label\?",
        ),
        (
            "a.parquet",
            {"sentence": [1, 2], "label": [0, 1]},
            SENTENCES,
            r"column 'sentence' \(task\.columns\) holds int64, not texts",
        ),
        ("a.tsv", {}, SENTENCES, r"a\.tsv: it is empty"),
    ],
)
def test_a_missing_or_wrong_column_is_named(
    name: str, table: Any, columns: Columns, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, table)
    if not table:
        path.write_text("")
    with pytest.raises(DataError, match=message):
        read_files([path], columns)


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".parquet"])
def test_a_damaged_file_is_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b'sentence,label\n"\xff\xfe,1\n')
    with pytest.raises(DataError, match=rf"a\{suffix}: cannot be read as \w+") as raised:
        read_files([path], SENTENCES)
    assert "\n" not in str(raised.value)


def test_empty_texts_missing_labels_and_short_rows_are_listed_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("sentence\tlabel\ngood\t1\n \t0\nno label\t\nshort\nbad\t0\n")
    rows = read_files([path], SENTENCES)
    assert rows.texts[0] == ["good", "bad"] and rows.labels == ["1", "0"]
    with pytest.raises(DataError, match=r"^3 problems: ") as raised:
        rows.problems.refuse()
    for part in (
        "line 5: 1 columns, but there are 2",
        "line 3: column 'sentence' is empty",
        "line 4: column 'label' is empty",
    ):
        assert part in str(raised.value)
    lenient = read_files([path], Columns(texts=("sentence",), label="label", lenient=True))
    assert lenient.texts[0] == ["good", " ", "bad"]


def rows_with(labels: Any, classes: tuple[str, ...] | None = None) -> Rows:
    names = [f"row {i}" for i in range(len(labels))]
    return Rows(texts=([""] * len(labels),), labels=labels, classes=classes, origin="here", names=names)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([10, 2, 10], ("2", "10")),
        (["10", "2"], ("2", "10")),
        (["b", "a", "10"], ("10", "a", "b")),
        ([-1, 1], ("-1", "1")),
    ],
)
def test_classes_are_the_labels_sorted_and_integers_as_numbers(labels: Any, classes: tuple[str, ...]) -> None:
    assert class_names(rows_with(labels)) == classes


def test_labels_are_matched_by_name_or_by_number_where_classes_are_declared() -> None:
    train = rows_with(["yes", "no"])
    assert class_numbers(rows_with(["no", "no", "yes"]), class_names(train), declared=False).tolist() == [0, 0, 1]
    assert class_numbers(rows_with([1, 0]), ("no", "yes"), declared=True).tolist() == [1, 0]
    assert class_numbers(rows_with(["1", "no"]), ("no", "yes"), declared=True).tolist() == [1, 0]
    assert class_numbers(rows_with([7]), ("3", "7"), declared=False).tolist() == [1]
    other_order = rows_with([0, 1], ("yes", "no"))
    assert class_numbers(other_order, ("no", "yes"), declared=True).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: class_numbers(rows_with(["a", "c", "d"]), ("a", "b"), declared=False),
            r"^row 1: label 'c' is not one of the training data \(and 1 more\): a, b; drop such rows",
        ),
        (lambda: class_numbers(rows_with([2, 0]), ("no", "yes"), declared=True), r"^row 0: label '2' is not one"),
        (lambda: class_names(rows_with([1, 1])), r"^here: only one class \('1'\)"),
        (lambda: class_names(rows_with([0.5, 1.0])), r"labels are fractions, such as 0\.5; set task\.regression=true"),
        (
            lambda: class_numbers(rows_with([-1, -1]), ("no", "yes"), declared=True),
            r"^here: its examples have no labels",
        ),
        (lambda: numbers(rows_with(["1.5", "high"])), r"^row 1: label 'high' is not a number"),
        (lambda: numbers(rows_with([1.0, float("nan")])), r"^row 1: label nan is not a number"),
    ],
)
def test_labels_that_do_not_fit_are_refused(call: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()


def test_numbers_are_read_from_every_form() -> None:
    assert np.array_equal(numbers(rows_with(["1.5", 2, 3.25])), [1.5, 2, 3.25])
