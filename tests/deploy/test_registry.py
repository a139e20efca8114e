"""Forms are files of a folder; missing packages and sources are one line."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest

from ddpnas_ray.core.errors import ConfigError, ResourceError
from ddpnas_ray.deploy import registry
from ddpnas_ray.deploy.registry import FORMS, choose, find_form, writable
from ddpnas_ray.spaces.base import find_space

SPEC = find_space("cell")()


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        registry.importlib.util,
        "find_spec",
        lambda name: None if name == package else real(name),  # type: ignore[attr-defined]
    )


def test_every_form_has_all_that_the_registry_names() -> None:
    assert FORMS.names() == ("huggingface", "onnx", "pt2", "torch")
    for name in FORMS.names():
        form = find_form(name)
        assert form.files
        assert len(form.usage.splitlines()) <= 6
        compile(form.usage, name, "exec")


def test_each_form_is_chosen_once_and_unknown_ones_are_refused() -> None:
    assert [form.name for form in choose(SPEC, ["torch", "pt2", "torch"])] == ["torch", "pt2"]
    with pytest.raises(ConfigError, match=r"form: 'onx' is not a built-in form .* did you mean onnx"):
        choose(SPEC, ["onx"])
    with pytest.raises(ConfigError, match="no form is given; allowed: huggingface, onnx, pt2, torch"):
        choose(SPEC, [])
    with pytest.raises(ConfigError, match="its module does not define load"):
        find_form("tests.deploy.test_registry:without")


def test_a_missing_package_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnxscript")
    with pytest.raises(ResourceError) as error:
        choose(SPEC, ["onnx"])
    assert str(error.value) == "form onnx needs onnxscript: pip install 'ddpnas-ray[deploy]', or leave onnx out"
    forms, notes = writable(SPEC)
    assert forms == ["huggingface", "pt2", "torch"]
    assert notes == ["no form onnx: it needs onnxscript: pip install 'ddpnas-ray[deploy]'"]
    find_form("onnx").require(loading_only=True)


def test_a_space_without_source_has_the_other_forms() -> None:
    own = dataclasses.replace(SPEC, source=None)
    forms, notes = writable(own)
    assert forms == ["onnx", "pt2"]
    assert notes[0] == "no form huggingface: space 'cell' has no source (SpaceSpec.source)"
    with pytest.raises(ConfigError, match=r"form torch: space 'cell' has no source \(SpaceSpec.source\); it has the"):
        choose(own, ["torch"])
