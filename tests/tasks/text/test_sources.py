"""Where texts are: GLUE in every published form, and own data as files, folders and data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from ddpnas_ray.core.errors import BadInput, ConfigError, DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.tasks.text.reading import class_numbers, numbers
from ddpnas_ray.tasks.text.sources import GLUE, Source, find_sources
from tests.tasks.text.making import pairs, reviews, write


def glue(path: Path | None, *names: str, dev: Any = "val") -> list[Source]:
    return find_sources(DataConfig(path=None if path is None else str(path)), names, (), False, dev)


def own(data: DataConfig, *columns: str, regression: bool = False) -> Source:
    (found,) = find_sources(data, (), columns or ("sentence",), regression, "val")
    return found


def in_glue_s_files(name: str, table: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The columns of GLUE's own TSV files."""
    texts, labels = [table[column] for column in table if column != "label"], table["label"]
    n = len(labels)
    if name == "cola":
        return {"0": ["gj04"] * n, "1": labels, "2": [""] * n, "3": texts[0]}
    *columns, label = GLUE[name].tsv
    classes = GLUE[name].classes
    numbered = not classes or label in ("Quality", "is_duplicate") or name == "sst2"
    named = labels if numbered else [classes[i] for i in labels]
    return {"index": list(range(n)), **dict(zip(columns, texts, strict=True)), label: named}


@pytest.mark.parametrize("name", GLUE)
def test_every_task_is_read_alike_from_glue_s_own_files_and_from_those_of_the_hub(name: str, tmp_path: Path) -> None:
    task = GLUE[name]
    table = dict(zip((*task.texts, "label"), (reviews(9) if len(task.texts) == 1 else pairs(9)).values(), strict=True))
    for part in task.parts:
        write(tmp_path / "own" / task.folder / "train.tsv", in_glue_s_files(name, table))
        write(tmp_path / "own" / task.folder / f"dev{part}.tsv", in_glue_s_files(name, table))
        write(tmp_path / "hub" / name / "train-00000-of-00001.parquet", table)
        write(tmp_path / "hub" / name / f"validation{part}-00000-of-00001.parquet", table)
    for folder in ("own", "hub", f"hub/{name}", f"own/{task.folder}"):
        (source,) = glue(tmp_path / folder, name)
        (train,) = source.read("train").values()
        vals = source.read("val")
        assert list(vals) == [name + part for part in task.parts] and source.read("test") == {}
        for rows in (train, *vals.values()):
            assert rows.texts == tuple(table[column] for column in task.texts)
            found = class_numbers(rows, task.classes, declared=True) if task.classes else numbers(rows)
            assert found.tolist() == table["label"]


def test_quotation_marks_and_rows_cut_short_do_not_break_glue_s_files(tmp_path: Path) -> None:
    (tmp_path / "QQP").mkdir()
    head = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    (tmp_path / "QQP" / "train.tsv").write_text(head + '1\t1\t2\tWhat is "it?\t\t0\n2\t3\n3\t1\t2\tA\tB"\t1\n')
    (rows,) = glue(tmp_path, "qqp")[0].read("train").values()
    assert rows.texts == (['What is "it?', "A"], ["", 'B"']) and rows.labels == ["0", "1"] and not rows.problems


def test_the_development_set_can_be_kept_for_the_test(tmp_path: Path) -> None:
    for split, n in (("train", 9), ("validation", 4)):
        write(tmp_path / "sst2" / f"{split}.parquet", reviews(n))
    (source,) = glue(tmp_path, "sst2", dev="test")
    assert source.read("val") == {} and len(source.read("test")["sst2"]) == 4


def test_test_files_need_no_labels(tmp_path: Path) -> None:
    write(tmp_path / "CoLA" / "test.tsv", {"index": [0, 1], "sentence": ["one", "two"]})
    (rows,) = glue(tmp_path, "cola")[0].read("test").values()
    assert rows.texts[0] == ["one", "two"] and rows.labels is None
    with pytest.raises(DataError, match="its examples have no labels, so nothing can be scored on them"):
        class_numbers(rows, GLUE["cola"].classes, declared=True)


@pytest.mark.parametrize("form", ["folder.parquet", "folder.tsv", "files.csv", "saved"])
def test_own_data_are_a_file_a_folder_or_a_saved_data_set(form: str, tmp_path: Path) -> None:
    tables = {"train": reviews(9), "val": reviews(4, 1), "test": reviews(5, 2)}
    kind, _, suffix = form.partition(".")
    data = DataConfig(path=str(tmp_path / "all"))
    if kind == "saved":
        splits = {name: datasets.Dataset.from_dict(table) for name, table in tables.items()}
        datasets.DatasetDict(splits).save_to_disk(tmp_path / "all")
    elif kind == "folder":
        for name, table in tables.items():
            write(tmp_path / "all" / f"{name}.{suffix}", table)
    else:
        paths = {name: str(write(tmp_path / f"{name}x.{suffix}", table)) for name, table in tables.items()}
        data = DataConfig(path=paths["train"], val_path=paths["val"], test_path=paths["test"])
    for name, table in tables.items():
        (rows,) = own(data).read(name).values()  # type: ignore[arg-type]
        assert rows.texts[0] == table["sentence"]
        assert [str(label) for label in rows.labels or []] == [str(label) for label in table["label"]]


def test_a_file_alone_has_no_other_splits(tmp_path: Path) -> None:
    source = own(DataConfig(path=str(write(tmp_path / "a.tsv", reviews(3)))))
    assert source.name == "a" and source.read("val") == source.read("test") == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda root: find_sources(DataConfig(), (), (), False, "val"),
            "set task.glue .* or task.columns .* neither is set",
        ),
        (lambda root: find_sources(DataConfig(), ("sst2",), ("a",), False, "val"), "both are set"),
        (lambda root: glue(root, "sst3"), r"^task\.glue: 'sst3' is not a task of GLUE; did you mean sst2\?"),
        (lambda root: glue(root, "wnli"), "wnli is left out, as in the paper"),
        (lambda root: glue(root, "rte", "rte"), "task.glue has 'rte' twice"),
        (lambda root: own(DataConfig(path="x"), "a", "a"), "task.columns has 'a' twice"),
        (lambda root: own(DataConfig(path="x"), "a", "b", "c"), "task.columns has 3 names"),
        (lambda root: own(DataConfig(path="x"), "label"), "task.columns has 'label', which is the label"),
        (lambda root: own(DataConfig(), "a"), r"task\.columns needs data\.path"),
        (lambda root: own(DataConfig(path="x", crop=4)), r"data\.crop is 4, which is for images"),
        (lambda root: own(DataConfig(path="x", name="cifar10")), r"data\.name is 'cifar10', which is for images"),
        (
            lambda root: find_sources(DataConfig(label_column="x"), ("rte",), (), False, "val"),
            r"data\.label_column is for data",
        ),
        (
            lambda root: find_sources(DataConfig(), ("rte",), (), True, "val"),
            r"task\.regression is for data of your own",
        ),
        (lambda root: find_sources(DataConfig(path="x"), (), ("a",), False, "test"), r"task\.dev is for task\.glue"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused_in_one_line(call: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        call(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda root: glue(root / "no", "rte")[0].read("train"), "no: no such folder; set data.path"),
        (lambda root: glue(root, "rte")[0].read("train"), "no folder rte or RTE; its folders: empty"),
        (lambda root: glue(root / "empty", "rte")[0].read("train"), "no folder rte or RTE; its folders: none"),
        (lambda root: own(DataConfig(path=str(root / "empty"))).read("train"), r"empty: no train\* file"),
        (lambda root: own(DataConfig(path=str(root / "no.tsv"))).read("train"), r"no\.tsv: no such f"),
        (
            lambda root: own(DataConfig(path=str(root / "a.docx"))).read("train"),
            r"a\.docx: not one of \.parquet, \.tsv, \.csv",
        ),
    ],
)
def test_data_that_are_not_there_are_refused_in_one_line(call: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.docx").touch()
    with pytest.raises(BadInput, match=message) as raised:
        call(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_task_whose_validation_files_are_incomplete_is_refused(tmp_path: Path) -> None:
    table = dict(zip(("premise", "hypothesis", "label"), pairs(5).values(), strict=True))
    write(tmp_path / "mnli" / "train.parquet", table)
    write(tmp_path / "mnli" / "validation_matched.parquet", table)
    with pytest.raises(DataError, match=r"no file val_mismatched\* of GLUE's mnli"):
        glue(tmp_path, "mnli")[0].read("val")


def test_a_validation_path_is_a_file_or_a_folder(tmp_path: Path) -> None:
    train, val = write(tmp_path / "a.tsv", reviews(3)), write(tmp_path / "v" / "any.tsv", reviews(4))
    for path in (val, val.parent):
        data = replace(DataConfig(path=str(train)), val_path=str(path))
        assert len(own(data).read("val")["a"]) == 4
