"""Weights in 8 bits: most labels are the network's, or the form is left out with the figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import ConfigError, ExportError, ResourceError
from ddpnas_ray.deploy import registry
from ddpnas_ray.deploy.folder import read_model, write_model
from ddpnas_ray.deploy.forms.texts import onnx_int8
from ddpnas_ray.deploy.interface import interface_of
from ddpnas_ray.deploy.loaded import load_model
from ddpnas_ray.deploy.registry import choose, find_form, form_names, writable
from ddpnas_ray.spaces.base import find_space
from tests.deploy.text_making import network_of, task_of
from tests.tasks.text import chain

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; pip install -e '.[deploy]' has it")


def test_it_is_a_form_of_texts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(form_names("texts")) - set(form_names("images")) == {"onnx_int8"}
    assert "onnx_int8" in writable(chain.make())[0] and "onnx_int8" not in writable(find_space("cell")())[0]
    with pytest.raises(
        ConfigError, match=r"form onnx_int8 is not one of images; they have huggingface, onnx, pt2, tor"
    ):
        choose(find_space("cell")(), ["onnx_int8"])
    find = registry.importlib.util.find_spec  # type: ignore[attr-defined]
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))  # type: ignore[attr-defined]
    with pytest.raises(ResourceError, match=r"form onnx_int8 needs onnxscript: .* or leave onnx_int8 out"):
        choose(chain.make(), ["onnx_int8"])


@pytest.mark.parametrize("kind", ["reviews", "several", "scores"])
def test_answers_are_alike_where_classes_agree_and_numbers_are_near(kind: str) -> None:
    data = interface_of(task_of(kind).preprocessing(), "task")
    expected = np.random.default_rng(0).normal(size=(40, len(data.classes))).astype(np.float32)
    assert data.agree(expected + 1e-6, expected) == 40
    other = expected.copy()
    other[3] = -expected[3] + 9 * (kind == "scores")
    assert data.agree(other, expected) == 39


def wrong(folder: str) -> Callable[[Any], Any]:
    import numpy

    return lambda ids, mask, types: numpy.random.default_rng(0).normal(size=(len(ids), 2))


def broken(folder: str) -> Callable[[Any], Any]:
    raise OSError("no such thing")


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (wrong, r"form onnx_int8 gives \d+\.\d % of the network's labels, of 30; 97 % are needed"),
        (broken, "cannot be l"),
    ],
)
@pytest.mark.slow
def test_a_form_that_fails_is_left_out_unless_it_is_asked_for(
    load: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of("reviews")
    monkeypatch.setattr(onnx_int8, "load", load)
    only = (["onnx_int8", "torch"], [])
    monkeypatch.setattr("ddpnas_ray.deploy.folder.writable", lambda spec: only)
    done = write_model(network_of(task), tmp_path / "model", examples=task.prepared(30))
    (note,) = done.notes
    assert note.startswith("no form onnx_int8: form onnx_int8 ") and read_model(done.folder).forms == ("torch",)
    assert not (done.folder / "model_int8.onnx").exists() and "int8" not in (done.folder / "README.md").read_text()
    with pytest.raises(ExportError, match=reason) as error:
        write_model(network_of(task), tmp_path / "other", examples=task.prepared(30), forms=["onnx_int8"])
    assert "\n" not in str(error.value) and not (tmp_path / "other").exists()


def refuse(*given: Any, **named: Any) -> None:
    raise RuntimeError("no\nway")


@pytest.mark.slow
def test_what_cannot_be_quantised_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("reviews")
    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", refuse)
    monkeypatch.setattr("ddpnas_ray.deploy.folder.writable", lambda spec: (["onnx_int8", "torch"], []))
    done = write_model(network_of(task), tmp_path / "model", examples=task.prepared(30))
    assert done.notes == (
        "no form onnx_int8: tiny: cannot be quantised (RuntimeError: no); leave out onnx_int8",
    ) and read_model(done.folder).forms == ("torch",)


@pytest.mark.slow
def test_its_file_alone_predicts_and_is_smaller(tmp_path: Path) -> None:
    task = task_of("reviews")
    network = network_of(task)
    done = write_model(network, tmp_path / "model", examples=task.prepared(30), forms=["onnx", "onnx_int8"])
    exact, small = (find_form(name).file_bytes(done.folder) for name in ("onnx", "onnx_int8"))
    assert small < 0.8 * exact, "weights of a network this small are not all of its file"
    model = load_model(done.folder / "model_int8.onnx")
    assert (model.form, model.preprocessing) == ("onnx_int8", network.preprocessing)
    inputs = task.prepared(30)
    expected = load_model(done.folder, "onnx").logits(*inputs)
    assert model.preprocessing.agree(model.logits(*inputs), expected) >= 0.97 * 30
    card = (done.folder / "README.md").read_text()
    assert "Of `onnx_int8` 97 % of the labels must be the same." in card and "model_int8.onnx" in card
    again = tmp_path / "again"
    again.mkdir()
    onnx_int8.write(network, again)
    assert (again / "model_int8.onnx").read_bytes() == (done.folder / "model_int8.onnx").read_bytes()
