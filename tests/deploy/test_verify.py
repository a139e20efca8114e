"""Forms are compared with the network in a process that cannot import this package."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import ExportError
from ddpnas_ray.deploy.folder import read_model
from ddpnas_ray.deploy.registry import Form, find_form
from ddpnas_ray.deploy.trained import TrainedNetwork
from ddpnas_ray.deploy.verify import compare, fresh_process, logits_of
from tests.deploy.making import noise, tiny

EXPECTED = np.array([[1.0, 2.0], [4.0, 3.0], [1.0, 1.000001]])


def test_equal_logits_and_small_differences_pass() -> None:
    assert compare("pt2", EXPECTED, EXPECTED) == (0.0, 4.0, 3)
    swapped = EXPECTED.copy()
    swapped[2] = swapped[2, ::-1]  # closer than the tolerance: either label is right
    difference, largest, agree = compare("pt2", swapped, EXPECTED)
    assert (round(difference, 9), largest, agree) == (1e-6, 4.0, 2)


@pytest.mark.parametrize("wrong", [EXPECTED + 1e-4, EXPECTED * np.nan, EXPECTED[:, ::-1]])
def test_other_logits_are_an_error_with_form_and_figures(wrong: np.ndarray) -> None:
    with pytest.raises(
        ExportError, match=r"form pt2 does not compute .* differ by up to .* of 3 labels agree"
    ) as error:
        compare("pt2", wrong, EXPECTED)
    assert "\n" not in str(error.value)
    with pytest.raises(ExportError, match=r"form pt2 returns shape \(2, 2\), the network \(3, 2\)"):
        compare("pt2", EXPECTED[:2], EXPECTED)


def test_a_diverged_network_is_named_as_the_cause() -> None:
    network = tiny()
    broken = {
        name: tensor * np.nan if name == "classifier.bias" else tensor for name, tensor in network.tensors.items()
    }
    with pytest.raises(ExportError, match="the network's own logits are not finite"):
        logits_of(dataclasses.replace(network, tensors=broken).module(), noise(network))


def ours(folder: str) -> Callable[[Any], Any]:
    from ddpnas_ray.deploy import trained

    return lambda images: trained


def death(folder: str) -> Callable[[Any], Any]:
    import os

    os._exit(3)


@pytest.mark.slow
def test_all_forms_of_one_folder_are_loaded_by_one_process(network: TrainedNetwork, written: Path) -> None:
    forms = [find_form("torch"), find_form("pt2")]
    with fresh_process(forms) as process:
        expected_NO = logits_of(network.module(), noise(network))
        rows = process.check(written, noise(network), expected_NO, network.preprocessing)
    assert [(row.form, row.examples, row.largest_difference, row.labels_agree) for row in rows] == [
        ("torch", 5, 0.0, 5),
        ("pt2", 5, 0.0, 5),
    ]
    assert [row.file_bytes for row in rows] == [
        sum((written / name).stat().st_size for name in form.files) for form in forms
    ]
    read_model(written)  # no bytecode was left in it


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (ours, "form torch cannot be loaded without ddpnas_ray: ImportError: an exported file imports ddpnas_ray"),
        (death, "the process that loads the forms torch died: exit code 3"),
    ],
)
def test_what_cannot_be_loaded_is_an_error_of_one_line(
    load: Any, message: str, network: TrainedNetwork, written: Path
) -> None:
    form: Form = dataclasses.replace(find_form("torch"), load=load)
    with pytest.raises(ExportError, match=message) as error, fresh_process([form]) as process:
        process.check(written, noise(network), logits_of(network.module(), noise(network)), network.preprocessing)
    assert "\n" not in str(error.value)


def test_a_preprocessing_that_differs_is_an_error(network: TrainedNetwork, model: Path) -> None:
    text = (model / "network.py").read_text()
    (model / "network.py").write_text(text.replace('if "exif" in image.info else 1', ""))  # turns by XMP too
    expected_NO, message = logits_of(network.module(), noise(network)), r"does not prepare an image \(xmp\.jpg\) as in"
    with pytest.raises(ExportError, match=message), fresh_process([find_form("torch")]) as process:
        process.check(model, noise(network), expected_NO, network.preprocessing)
