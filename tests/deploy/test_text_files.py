"""Text files that are to be predicted: tables and plain texts, in order, with a line for every bad row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.deploy.questions import Outputs
from ddpnas_ray.deploy.text_files import TextQuestions, read_rows
from ddpnas_ray.tasks.text.examples import Examples
from tests.deploy.text_making import task_of
from tests.tasks.text.making import write


def test_rows_of_all_formats_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("b.tsv"), {"id": [7, 8], "sentence": ['z "q"', "y"]})
    write(Path("a.csv"), {"sentence": ["x, and\nmore"], "label": [""]})
    write(Path("c.parquet"), {"sentence": ["w"]})
    Path("d.txt").write_text("\ufeffv\r\nu\n", encoding="utf-8")
    rows = read_rows(["b.tsv", "*.csv", "c.parquet", "./b.tsv", "d.txt"], ["sentence"], None)
    assert rows.texts == [['z "q"', "y", "x, and\nmore", "w", "v", "u"]]
    assert rows.names[:2] == ["b.tsv, line 2", "b.tsv, line 3"] and rows.names[-1] == "d.txt, line 2"
    assert rows.unread == ()


def test_labels_are_class_names_or_numbers(tmp_path: Path) -> None:
    file = str(write(tmp_path / "a.tsv", {"s": ["x", "y"], "label": [1, 0]}))
    assert read_rows([file], ["s"], "label").expected(("no", "yes"), declared=True) == ["yes", "no"]
    assert read_rows([file], ["s"], "label").expected((), declared=False) == [1.0, 0.0]
    with pytest.raises(DataError, match=r"a\.tsv, line 2: label '1' is not one of the training data .*: no, yes"):
        read_rows([file], ["s"], "label").expected(("no", "yes"), declared=False)


def test_every_bad_row_is_a_line(tmp_path: Path) -> None:
    many = write(tmp_path / "a.tsv", {"s": ["x", *[" "] * 15, "y"]})
    rows = read_rows([str(many)], ["s"], None)
    assert rows.texts == [["x", "y"]] and len(rows.unread) == 15
    assert rows.unread[0].path == f"{many}, line 3"
    assert rows.unread[14].reason == f"{many}, line 17: column 's' is empty; drop such rows"
    (tmp_path / "b.txt").write_text("x\n\ny\n")
    (bad,) = read_rows([str(tmp_path / "b.txt")], ["s"], None).unread
    assert bad.reason == f"{tmp_path}/b.txt, line 2: it is empty"


@pytest.mark.parametrize(
    ("file", "content", "columns", "label", "wanted"),
    [
        ("none.tsv", None, ("s",), None, "no such file, and no pattern that matches one; correct EXAMPLES"),
        ("a.png", "", ("s",), None, r"the model takes texts, in files of \.parquet, \.tsv, \.csv, \.txt; convert it"),
        ("a.tsv", "sentense\nx\n", ("sentence",), None, r"no column 'sentence' \(a text of the model\); did you mean"),
        ("a.tsv", "s\nx\n", ("s",), "label", r"no column 'label' \(its label, which --labelled needs\)"),
        ("a.txt", "x\n", ("s",), "label", "a plain file has one text per line, no labels; give"),
        ("a.txt", "x\n", ("s", "t"), None, r"a plain file has one text per line, no pairs \(s and t\); give"),
        ("a.tsv", "s\n", ("s",), None, "no texts; add some, or give another file"),
        ("a.tsv", "", ("s",), None, "it is empty"),
        ("a.parquet", "x", ("s",), None, "cannot be read as Parquet"),
        ("a.txt", b"\xff\xfe", ("s",), None, "cannot be read as texts in UTF-8"),
    ],
)  # fmt: skip
def test_bad_files_are_one_line(
    file: str, content: str | bytes | None, columns: tuple[str, ...], label: str | None, wanted: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=wanted) as error:
        read_rows([str(tmp_path / file)], columns, label)
    assert "\n" not in str(error.value)


def test_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder; give its text files, such as '.*/\*\.tsv'"):
        read_rows([str(tmp_path)], ["s"], None)


def test_questions_name_rows_and_texts(tmp_path: Path) -> None:
    task = task_of("reviews")
    texts = ["dull", "a very long story " * 10]
    ids, types, ends_N = task.tokenizer.encode([texts], 24)
    none_N = np.zeros(2, dtype=np.int64)
    asked = TextQuestions(
        names=["a, line 2", "a, line 3"], texts={"label": texts}, examples=Examples(ids, types, ends_N, none_N, none_N),
        outputs=Outputs(classes=("no", "yes")), pad_id=task.tokenizer.pad_id,
    )  # fmt: skip
    assert asked.fields(0) == {"row": "a, line 2", "label_": "dull"}, "a column of the predictions has that name"
    assert (asked.name(0), len(asked.name(1))) == ("dull", 63)
    inputs, unreadable = asked.read(0, 9)
    assert inputs is not None and [array.shape for array in inputs] == [(2, 24)] * 3 and not unreadable
    first, _ = asked.read(0, 1)
    assert first is not None and first[0].shape == (1, ends_N[0]), "as wide as its longest text"
