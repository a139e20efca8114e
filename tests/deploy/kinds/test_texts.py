"""Networks of texts in every form: tokens and outputs of training, of any batch and length, without this package."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ddpnas_ray.core.errors import ConfigError, ExportError, ModelError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.deploy.folder import read_model, write_model
from ddpnas_ray.deploy.forms import huggingface
from ddpnas_ray.deploy.forms import torch as plain
from ddpnas_ray.deploy.interface import from_metadata, interface_of
from ddpnas_ray.deploy.kinds.texts import SAMPLES, TextInterface
from ddpnas_ray.deploy.loaded import load_model
from ddpnas_ray.deploy.registry import form_names
from ddpnas_ray.deploy.trained import TrainedNetwork
from ddpnas_ray.deploy.verify import TOLERANCE, logits_of
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.spaces.target import Target, TargetConfig
from ddpnas_ray.tasks.text.task import TextTask, make
from tests.conftest import ROOT
from tests.deploy.making import elsewhere
from tests.deploy.text_making import network_of, task_of, written

KINDS = ("reviews", "pairs", "scores", "several")
TEXTS = ["a lovely story", "dull", "the plot is very flat and the actors are cold"]


def own_logits(task: TextTask, network: TrainedNetwork) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Validation examples, and what the deploy network as trained says of them."""
    inputs = task.prepared(30)
    named = zip(("input_ids", "attention_mask", "token_type_ids"), map(torch.from_numpy, inputs), strict=True)
    with torch.no_grad():
        return inputs, network.module()(dict(named)).numpy()


def interface(kind: str = "reviews") -> TextInterface:
    found = interface_of(task_of(kind).preprocessing(), "task")
    assert isinstance(found, TextInterface)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_files_compute_what_the_trained_network_does(kind: str) -> None:
    task = task_of(kind)
    network = network_of(task)
    inputs, expected = own_logits(task, network)
    for form in ("torch", "pt2"):
        model = load_model(written(kind), form)
        assert model.preprocessing == network.preprocessing
        np.testing.assert_allclose(model.logits(*inputs), expected, atol=1e-5)
        for count, width in ((1, 2), (3, 24)):
            ids = np.random.default_rng(0).integers(task.tokenizer.vocabulary, size=(count, width))
            found = model.logits(ids, np.ones_like(ids), np.zeros_like(ids))
            called = network.preprocessing.positional(network.module())
            np.testing.assert_allclose(found, logits_of(called, ids, np.ones_like(ids), np.zeros_like(ids)), atol=1e-5)


def test_outputs_are_named_by_class_and_task() -> None:
    assert interface("reviews").classes == ("0", "1")
    assert interface("pairs").classes == ("other", "same")
    assert interface("scores").classes == ("scores",)
    assert interface("several").classes == (
        "cola: unacceptable", "cola: acceptable", "mrpc: not_equivalent", "mrpc: equivalent", "stsb",
    )  # fmt: skip
    assert [task.first for task in interface("several").tasks] == [0, 2, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_the_source_prepares_texts_as_training_does(kind: str, tmp_path: Path) -> None:
    task = task_of(kind)
    scope: dict[str, Any] = {"__name__": "network", "__file__": str(written(kind) / "network.py")}
    exec(compile((written(kind) / "network.py").read_text(), "network.py", "exec"), scope)
    columns = [list(SAMPLES), list(SAMPLES[::-1])][: 2 if kind in ("pairs", "several") else 1]
    ids, types, ends = task.tokenizer.encode(columns, task.max_length)
    found = scope["preprocess"](*columns)
    assert found[0][found[1] == 1].tolist() == ids.tolist()
    assert found[2][found[1] == 1].tolist() == types.tolist()
    assert found[1].sum(dim=1).cumsum(0).tolist() == ends.tolist()
    assert (found[0][found[1] == 0] == task.tokenizer.pad_id).all()
    assert max(map(len, (written(kind) / "network.py").read_text().splitlines())) <= 120


def test_a_network_that_skips_every_layer_is_exported(tmp_path: Path) -> None:
    task = task_of("reviews")
    network = network_of(task, (2, 2))
    plain.write(network, tmp_path)
    network.preprocessing.write(tmp_path)
    inputs, expected = own_logits(task, network)
    np.testing.assert_allclose(plain.load(str(tmp_path))(*inputs), expected, atol=1e-5)


def test_files_name_outputs_and_problem_for_transformers(tmp_path: Path) -> None:
    problems = {"reviews": "single_label_classification", "scores": "regression", "several": None}
    for kind, problem in problems.items():
        folder = tmp_path / kind
        folder.mkdir()
        huggingface.write(network_of(task_of(kind)), folder)
        config = json.loads((folder / "config.json").read_text())
        assert tuple(config["id2label"].values()) == interface(kind).classes
        assert config.get("problem_type") == problem
        assert config["auto_map"]["AutoModelForSequenceClassification"] == "network.FoundForSequenceClassification"
        tokens = json.loads((folder / "tokenizer_config.json").read_text())
        assert (tokens["pad_token"], tokens["cls_token"], tokens["model_max_length"]) == ("[PAD]", "[CLS]", 24)


def test_the_card_tells_of_texts() -> None:
    card = (written("several") / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["pipeline_tag"], front["library_name"]) == ("text-classification", "pytorch")
    assert "- mrpc: outputs 2 to 3, from sentence1 and sentence2" in card
    assert "- stsb: outputs 4 to 4, from sentence1 and sentence2" in card
    assert "run on 30 texts" in card and "for one text" in card
    assert "image" not in card.lower()


def test_the_lines_of_the_document_are_those_of_the_card() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "text.md").read_text(encoding="utf-8"), re.DOTALL)
    usage = interface("reviews").usage
    assert [block.strip() for block in blocks] == [usage[form] for form in ("torch", "huggingface", "onnx")]


# --- metadata and the tokenizer beside them ---


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_and_tokenizer_carry_the_interface(kind: str, tmp_path: Path) -> None:
    data = interface(kind)
    data.write(tmp_path)
    assert from_metadata({**data.to_metadata(), "format": "pt"}, str(tmp_path / "model.onnx")) == data


@pytest.mark.parametrize(
    "damage",
    [
        {"tasks": "[]"},
        {"tasks": "no JSON"},
        {"tasks": '[{"name": "x"}]'},
        {"tasks": None},
        {"max_length": '"long"'},
        {"pad_id": "-1"},
        {"vocabulary": "true"},
    ],
    ids=str,
)
def test_damaged_metadata_are_one_line(damage: dict[str, str | None], tmp_path: Path) -> None:
    data = interface()
    data.write(tmp_path)
    kept = {key: value for key, value in {**data.to_metadata(), **damage}.items() if value is not None}
    with pytest.raises(ModelError, match=r"model\.onnx: no metadata of texts \(tasks, max_length,") as error:
        from_metadata(kept, str(tmp_path / "model.onnx"))
    assert "\n" not in str(error.value)


def test_an_unknown_kind_of_example_is_one_line() -> None:
    for kind in ('"audio"', "7", "{"):
        with pytest.raises(
            ModelError, match=r"m\.onnx: its metadata have examples of kind .* knows images, masks, texts$"
        ):
            from_metadata({"kind": kind}, "m.onnx")


def test_a_file_needs_its_own_tokenizer_beside_it(tmp_path: Path) -> None:
    shutil.copy(written("reviews") / "model.pt2", tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer\.json: cannot be read: No such file .* model\.pt2 needs it: copy"):
        load_model(tmp_path / "model.pt2")
    shutil.copy(written("several") / "tokenizer.json", tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer\.json: not the tokenizer that model\.pt2 was trained with"):
        load_model(tmp_path / "model.pt2")
    shutil.copy(written("reviews") / "tokenizer.json", tmp_path)
    assert load_model(tmp_path / "model.pt2").classes == ("0", "1")


# --- what is refused ---


@pytest.mark.parametrize(
    ("key", "value", "needed"), [("classes", 3, 2), ("vocabulary", 99, None), ("sequence_length", 8, 24)]
)
def test_a_target_for_other_texts_is_refused(key: str, value: int, needed: int | None) -> None:
    network = network_of(task_of("reviews"))
    target = dataclasses.replace(network.target, **{key: value})
    with pytest.raises(ConfigError, match=rf"the deploy network is for {value} {key}, its data have {needed or ''}"):
        dataclasses.replace(network, target=target)
    longer = dataclasses.replace(network.target, sequence_length=99)
    dataclasses.replace(network, target=longer)


def test_inputs_of_another_shape_are_refused() -> None:
    model, (ids, mask, types) = load_model(written("reviews")), task_of("reviews").prepared(4)
    wide = np.zeros((4, 25), np.int64)
    for inputs in ((ids,), (ids, mask, types[:, :1]), (ids[0], mask[0], types[0]), (wide, wide, wide)):
        with pytest.raises(ValueError, match=r"input_ids, attention_mask, token_type_ids of shapes .* \(N, up to 24\)"):
            model.logits(*inputs)
    with pytest.raises(ConfigError, match=r"texts of shape \(0, [0-9]+\) to verify with; the network takes \(N, 24\)"):
        write_model(network_of(task_of("reviews")), "never", examples=(ids[:0], mask[:0], types[:0]))


def test_a_file_with_other_tokens_is_not_written(tmp_path: Path) -> None:
    task = task_of("reviews")
    network = network_of(task)
    data = network.preprocessing
    assert isinstance(data, TextInterface)
    shorter = dataclasses.replace(data, tokenizer_json=task.tokenizer.to_json(12))  # network.py would cut there
    other = dataclasses.replace(network, preprocessing=shorter)
    with pytest.raises(ExportError, match=r"network\.py does not turn texts into the tokens of training \(input_ids"):
        write_model(other, tmp_path / "model", examples=task.prepared(5), forms=["torch"])
    assert not any(tmp_path.iterdir())


# --- slow: every form, on real texts, from another folder ---

TRANSFORMERS = """
import json, sys
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
folder, texts = sys.argv[1], %r
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)  # needs no code of ours
model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True).eval()
batch = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
classify = pipeline("text-classification", model=folder, trust_remote_code=True)
print(json.dumps({
    "logits": model(**batch).logits.tolist(),
    "names": model.config.id2label,
    "answers": classify(texts, truncation=True, top_k=1),
    "ids": sorted(batch),
}))
"""


def real(name: str, data: Path, **options: Any) -> tuple[TextTask, TrainedNetwork]:
    config = DataConfig(path=str(data / "glue"), train_limit=300, val_limit=120)
    task = make(config, 0, glue=tuple(name.split("+")), vocabulary=1000, max_length=64, **options)
    return task, network_of(task)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sst2", "cola+mrpc"])
def test_all_forms_agree_on_real_texts_and_load_elsewhere(name: str, tmp_path: Path, test_data: Path) -> None:
    task, network = real(name, test_data)
    examples = task.prepared(200)
    assert len(set(examples[1].sum(axis=1))) > 10, "texts of many lengths"
    done = write_model(network, tmp_path / "my.model v1-0", examples=examples)
    assert done.notes == () and read_model(done.folder).forms == form_names("texts")
    for row in done.rows:
        if row.form == "onnx_int8":
            assert row.labels_agree >= 0.97 * row.examples and row.largest_difference > 0
            continue
        assert row.largest_difference <= TOLERANCE * row.largest_logit and row.examples == len(examples[0])
    data = network.preprocessing
    assert isinstance(data, TextInterface)
    long = [*TEXTS, "a very long text " * 100]
    told = json.loads(elsewhere(TRANSFORMERS % long, done.folder, tmp_path / "elsewhere").splitlines()[-1])
    expected = logits_of(data.positional(network.module()), *data.prepare([long]))
    np.testing.assert_allclose(told["logits"], expected, atol=1e-4)
    assert tuple(told["names"].values()) == data.classes
    assert told["ids"] == ["attention_mask", "input_ids", "token_type_ids"]
    assert [answer[0]["label"] for answer in told["answers"]] == [data.classes[k] for k in expected.argmax(axis=1)]
    for form, lines in data.usage.items():
        elsewhere(f"import os; os.chdir({str(done.folder)!r}); sys.path.insert(0, '.')\n{lines}", done.folder, tmp_path)
        assert form in form_names("texts")


@pytest.mark.slow
def test_a_network_of_numbers_is_a_regression_to_transformers(tmp_path: Path) -> None:
    task = task_of("scores")
    network = network_of(task)
    done = write_model(network, tmp_path / "model", examples=task.prepared(12))
    data = network.preprocessing
    assert isinstance(data, TextInterface)
    told = json.loads(elsewhere(TRANSFORMERS % TEXTS, done.folder, tmp_path / "elsewhere").splitlines()[-1])
    expected = logits_of(data.positional(network.module()), *data.prepare([TEXTS]))
    np.testing.assert_allclose([answer[0]["score"] for answer in told["answers"]], expected[:, 0], atol=1e-4)


BERT: dict[str, Any] = {
    "hidden": 24, "layers": 3, "heads": 4, "ffn": 48, "positions": 32,
    "depths": (2, 3), "head_counts": (2, 4), "ffn_widths": (16, 48),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("stock", [False, True], ids=["layers of several sizes", "stock"])
def test_a_bert_is_one_of_transformers_where_its_layers_are_equal(stock: bool, tmp_path: Path) -> None:
    task, spec = task_of("pairs"), find_space("bert")(**BERT)
    target = Target.resolve(TargetConfig(), task.inputs, spec.target)
    every = product(*(range(len(edge.candidates)) for edge in spec.space.edges))
    alpha_E = next(a for a in every if (spec.stock(np.array(a), target) is not None) == stock)
    network = network_of(task, alpha_E, spec=spec)
    done = write_model(network, tmp_path / "model", examples=task.prepared(12))
    assert done.notes == () and read_model(done.folder).forms == form_names("texts")
    card = (done.folder / "README.md").read_text()
    assert ("trust_remote_code" not in card and "custom_code" not in card) == stock
    script = TRANSFORMERS % TEXTS
    if stock:
        script = script.replace(", trust_remote_code=True", "").replace(", trust_remote_code=False", "")
    told = json.loads(elsewhere(script, done.folder, tmp_path / "elsewhere").splitlines()[-1])
    data = network.preprocessing
    assert isinstance(data, TextInterface)
    expected = logits_of(data.positional(network.module()), *data.prepare([TEXTS]))
    np.testing.assert_allclose(told["logits"], expected, atol=1e-4)
    assert list(told["names"].values()) == ["other", "same"]
