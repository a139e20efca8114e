"""The command on text files: labels and numbers of one task or several, in order; one line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ddpnas_ray.deploy.kinds.texts import TextInterface
from ddpnas_ray.deploy.predicting import probabilities
from ddpnas_ray.deploy.verify import logits_of
from tests.commands import contents
from tests.deploy.text_making import network_of, task_of, written
from tests.tasks.text.making import pairs, reviews, write
from tests.test_predict import lines_of, predict


def outputs_of(kind: str, *columns: list[str]) -> np.ndarray:
    network = network_of(task_of(kind))
    data = network.preprocessing
    assert isinstance(data, TextInterface)
    return logits_of(data.positional(network.module()), *data.prepare(columns))


def test_labels_are_those_of_the_network_in_the_order_of_the_rows(tmp_path: Path) -> None:
    table = reviews(70, seed=5)
    file = write(tmp_path / "some.tsv", {"sentence": table["sentence"]})
    expected_NO = probabilities(outputs_of("reviews", table["sentence"]))
    for form, batch in (("torch", "64"), ("pt2", "3")):
        found = lines_of(written("reviews"), file, "--form", form, "--batch", batch)
        assert [line["sentence"] for line in found] == table["sentence"]
        assert [line["row"] for line in found] == [f"{file}, line {i}" for i in range(2, 72)]
        assert [line["label"] for line in found] == [str(k) for k in expected_NO.argmax(axis=1)]
        np.testing.assert_allclose([line["probability"] for line in found], expected_NO.max(axis=1), atol=1e-5)


def test_predictions_are_written_with_their_texts(tmp_path: Path) -> None:
    table = pairs(9)
    file, out = write(tmp_path / "some.csv", table), tmp_path / "predictions.parquet"
    said = predict(written("pairs"), file, "--out", out)
    assert (said.code, said.out) == (0, f"predictions of 9 texts: {out}\n"), said.err
    stored = pq.read_table(out)
    assert stored.column_names == ["row", "sentence1", "sentence2", "label", "probability", "probabilities"]
    assert stored["sentence2"].to_pylist() == table["sentence2"]
    about = json.loads(stored.schema.metadata[b"ddpnas_predictions"])
    assert about["classes"] == ["other", "same"] and "task" not in about


def test_labels_in_the_file_give_the_accuracy(tmp_path: Path) -> None:
    table = reviews(30, seed=3)
    right = outputs_of("reviews", table["sentence"]).argmax(axis=1)
    file = write(tmp_path / "some.tsv", table)
    said = predict(written("reviews"), file, "--labelled", "--out", tmp_path / "p.parquet")
    hits = int((right == table["label"]).sum())
    assert f"accuracy {hits / 30:.4f} ({hits} of 30 texts)" in said.out
    assert pq.read_table(tmp_path / "p.parquet")["expected"].to_pylist() == list(map(str, table["label"]))


def test_of_several_tasks_one_is_named_and_its_metrics_are_printed(tmp_path: Path) -> None:
    table, model = pairs(20, seed=2), written("several")
    file = write(tmp_path / "some.parquet", table)
    said = predict(model, file, "--task", "mrpc", "--labelled")
    assert said.code == 0 and "accuracy " in said.out and "\nf1 " in said.out, said.err
    found = lines_of(model, file, "--task", "mrpc")
    own_NO = outputs_of("several", table["sentence1"], table["sentence2"])[:, 2:4]
    assert [line["label"] for line in found] == [("not_equivalent", "equivalent")[k] for k in own_NO.argmax(axis=1)]
    out = tmp_path / "p.parquet"
    assert predict(model, file, "--task", "stsb", "--out", out).code == 0
    stored = pq.read_table(out)
    own_N = outputs_of("several", table["sentence1"], table["sentence2"])[:, 4]
    np.testing.assert_allclose(stored["value"].to_numpy(), own_N, atol=1e-5)
    assert json.loads(stored.schema.metadata[b"ddpnas_predictions"])["task"] == "stsb"


def test_numbers_are_compared_by_correlations(tmp_path: Path) -> None:
    table = {**reviews(20), "label": np.linspace(1, 4, 20).tolist()}
    said = predict(written("scores"), write(tmp_path / "some.tsv", table), "--labelled")
    assert said.code == 0, said.err
    head = said.out.splitlines()[0].split()
    assert head == ["text", "expected", "value"]
    assert "pearson " in said.out and "spearman " in said.out and "accuracy" not in said.out


def test_plain_lines_are_texts_and_bad_rows_take_a_line_each(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a lovely story\n\ndull\n")
    said = predict(written("reviews"), tmp_path / "a.txt")
    assert (said.code, len(said.out.splitlines())) == (1, 3)
    assert said.err.splitlines() == [
        f"{tmp_path}/a.txt, line 2: it is empty", "1 of 3 texts cannot be read; the others were predicted",
    ]  # fmt: skip
    assert lines_of(written("reviews"), tmp_path / "a.txt", code=1)[0] == {
        "row": f"{tmp_path}/a.txt, line 2",
        "error": f"{tmp_path}/a.txt, line 2: it is empty",
    }


@pytest.mark.parametrize(
    ("kind", "words", "wanted"),
    [
        ("reviews", ("some.tsv", "--task", "x"), "ConfigError: --task x: the model has no such task; allowed: reviews"),
        ("several", ("some.tsv",), "ConfigError: the model has several tasks; give --task, one of cola, mrpc, stsb"),
        ("several", ("some.tsv", "--task", "mprc"), "--task mprc: the model has no such task; did you mean mrpc?"),
        ("several", ("some.tsv", "--task", "mrpc"), "some.tsv: no column 'sentence1' (a text of the model)"),
        ("reviews", ("bare.tsv", "--labelled"), "bare.tsv: no column 'label' (its label, which --labelled needs)"),
        ("reviews", ("wrong.tsv", "--labelled"), "wrong.tsv, line 2: label 'what' is not one of the training data"),
        ("reviews", ("empty.txt",), "DataError: empty.txt, line 1: it is empty"),
        ("reviews", ("photo.png",), "photo.png: the model takes texts, in files of .parquet, .tsv, .csv, .txt"),
        ("reviews", (".",), ".: is a folder; give its text files, such as './*.tsv'"),
        ("reviews", ("--benchmark", "empty.txt"), "DataError: empty.txt, line 1: it is empty"),
    ],
)
def test_bad_input_takes_one_line_and_writes_nothing(
    kind: str, words: tuple[str, ...], wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("some.tsv"), reviews(3))
    write(Path("bare.tsv"), {"sentence": ["x"]})
    write(Path("wrong.tsv"), {"sentence": ["x"], "label": ["what"]})
    Path("empty.txt").write_text("\n")
    Path("photo.png").write_bytes(b"")
    before = contents(tmp_path)
    said = predict(written(kind), *words)
    assert (said.code, said.out) == (2, ""), said.err
    (line,) = said.err.splitlines()
    assert wanted in line
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_forms_are_timed_on_texts(tmp_path: Path) -> None:
    file = write(tmp_path / "some.tsv", reviews(5))
    for given, shown in (((), "random texts of shape (24,)"), ((file,), "given texts of shape (")):
        said = predict(written("reviews"), "--benchmark", *given, "--batch", "4")
        assert said.code == 0, said.err
        assert "texts/s, batch 4" in said.out and shown in said.out
        assert [line.split()[0] for line in said.out.splitlines()[1:3]] == ["torch", "pt2"]
