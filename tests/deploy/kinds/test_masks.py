"""Images with a class for every pixel: preprocessing, metadata, and every form of a network."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpnas_ray.core.errors import ConfigError, ExportError, ModelError
from ddpnas_ray.deploy.folder import read_model, write_model
from ddpnas_ray.deploy.interface import from_metadata
from ddpnas_ray.deploy.loaded import load_model
from ddpnas_ray.deploy.registry import FORMS
from ddpnas_ray.deploy.verify import TOLERANCE, logits_of, rows_of
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.spaces.target import Target
from tests.deploy.making import MOBILE, elsewhere
from tests.deploy.mask_making import (
    CLASSES,
    PALETTE,
    VALUES,
    headed,
    interface,
    labels_of,
    picture,
    prepared,
    small,
    small_folder,
)

CELLS: dict[str, Any] = {"cells": 6, "channels": 4, "stem": "imagenet"}
WITH_TRANSFORMERS = """
import json, sys
import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline

folder = sys.argv[1]
processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
network = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=True)
image = Image.open(folder + "/../image.png")
inputs = processor(image, return_tensors="pt")
labels = torch.full((1, 24, 32), 255)
labels[0, :2, :3] = 1
with torch.inference_mode():
    out = network(**inputs, labels=labels)
    wide = network(pixel_values=torch.zeros(2, 3, 33, 21)).logits
(map,) = processor.post_process_semantic_segmentation(out, target_sizes=[(image.height, image.width)])
found = pipeline("image-segmentation", model=folder, trust_remote_code=True)(image)
masks = {one["label"]: int((np.asarray(one["mask"]) > 0).sum()) for one in found}
print(json.dumps({"logits": out.logits.tolist(), "loss": out.loss.item(), "map": map.tolist(), "masks": masks,
                  "wide": list(wide.shape), "size": found[0]["mask"].size}))
"""


def test_images_are_resized_as_a_whole_and_normalised() -> None:
    data, image = interface(), picture(0, (50, 20))
    found = data.prepare(image)
    assert (found.shape, found.dtype) == ((3, 24, 32), np.float32)
    pixels = np.asarray(image.resize((32, 24), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255
    expected = (pixels - np.array(data.mean)[:, None, None]) / np.array(data.std)[:, None, None]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_metadata_hold_the_whole_interface() -> None:
    data = interface()
    assert from_metadata(data.to_metadata(), "m.onnx") == data
    assert {key: json.loads(text) for key, text in data.to_metadata().items()} == VALUES
    assert (data.hub_task, data.classes, data.palette) == ("image-segmentation", CLASSES, PALETTE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", []),
        ("classes", ["x"] * 257),
        ("channels", 1),
        ("height", 0),
        ("width", 1.5),
        ("mean", [0.5]),
        ("std", [0.5, 0.5, 0.0]),
        ("void", 2),
        ("palette", [[0, 0, 0]]),
        ("palette", [[0, 0, 0], [0, 0, 0], [0, 0, 256]]),
        ("hub_task", 7),
        ("ids", [0, 1, 1]),
        ("void_ids", [1.5]),
    ],
)
def test_values_that_no_network_has_are_one_line(key: str, value: object) -> None:
    metadata = interface().to_metadata() | {key: json.dumps(value)}
    with pytest.raises(ModelError, match=rf"m\.onnx: its metadata have {key} .*; export the network again$"):
        from_metadata(metadata, "m.onnx")
    del metadata[key]
    if key in ("ids", "void_ids"):
        assert from_metadata(metadata, "m.onnx") == interface(), "class numbers, and void"
        return
    with pytest.raises(ModelError, match=r"m\.onnx: no metadata with classes, .*; give a model that ddpnas wrote"):
        from_metadata(metadata, "m.onnx")


def test_batches_are_small_where_images_are_large() -> None:
    assert (interface().batch, interface().compared) == (64, 64)
    large = interface(height=1024, width=2048)
    assert (large.batch, large.compared) == (2, 2)
    assert interface(height=4096, width=4096).batch == 1
    images = np.zeros((5, 3, 24, 32), np.float32)
    assert [len(batch[0]) for batch in interface().batches((images,), 2)] == [2, 2, 1]


def test_forms_are_compared_on_another_size_too() -> None:
    *whole, (other,) = interface().trials((prepared(3),))
    assert [batch[0].shape for batch in whole] == [(3, 3, 24, 32)]
    assert other.shape == (2, 3, 17, 17)
    np.testing.assert_array_equal(other, whole[0][0][:2, :, :17, :17])
    for (height, width), expected in {(360, 480): (65, 97), (48, 97): (65, 96), (17, 1): (32, 1)}.items():
        *_, (other,) = interface().trials((np.zeros((1, 3, height, width), np.float32),))
        assert other.shape[2:] == expected


def test_networks_are_traced_on_small_images_with_as_many_features_as_they_need() -> None:
    assert interface(height=1024, width=2048).blank()[0].shape == (2, 3, 96, 128)
    assert interface(height=24, width=40).blank()[0].shape == (2, 3, 24, 128)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"image_size": 24}, r"for \(24, 24\) pixels, its data have \(24, 32\)"),
        ({"classes": 4}, "for 4 classes, its data have 3"),
        ({"input_channels": 1}, "for 1 channels, its data have 3"),
    ],
)
def test_a_deploy_network_for_other_data_is_refused(change: dict[str, Any], wanted: str) -> None:
    target = Target(**({"image_size": (24, 32), "classes": 3} | change))
    with pytest.raises(ConfigError, match=wanted):
        interface().check_target(target)


def test_images_of_any_size_are_taken_but_not_of_other_channels() -> None:
    interface().check((np.zeros((1, 3, 7, 9), np.float32),))
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\) is needed"):
        interface().check((np.zeros((1, 1, 24, 32), np.float32),))


def test_a_loaded_form_labels_images_of_any_size() -> None:
    for form in ("torch", "pt2"):
        model = load_model(small_folder(), form)
        for size in ((24, 32), (37, 19)):
            images = np.random.default_rng(0).normal(size=(2, 3, *size)).astype(np.float32)
            found = model.logits(images)
            assert found.shape == (2, 3, *size)
            np.testing.assert_allclose(found, logits_of(small().module(), images), atol=1e-6)
        assert model.logits(np.zeros((0, 3, 24, 32), np.float32)).shape == (0, 3, 24, 32)


def test_the_source_makes_label_maps_without_this_package(tmp_path: Path) -> None:
    picture(3, (45, 31)).save(tmp_path / "image.png")
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from PIL import Image
from network import CLASSES, label_map, load
label_map(load(), Image.open(sys.argv[1] + "/image.png")).save(sys.argv[1] + "/labels.png")
print(len(CLASSES))
"""
    for name in ("network.py", "model.safetensors"):
        (tmp_path / name).write_bytes((small_folder() / name).read_bytes())
    assert elsewhere(script, tmp_path, tmp_path / "elsewhere") == "3\n"
    with Image.open(tmp_path / "labels.png") as labels:
        assert (labels.mode, labels.size) == ("P", (45, 31))
        np.testing.assert_array_equal(np.asarray(labels), labels_of(small(), picture(3, (45, 31))))
        assert tuple(labels.getpalette()[:9]) == sum(PALETTE, ())


def test_the_card_names_classes_with_colours_and_the_size() -> None:
    card = (small_folder() / "README.md").read_text()
    assert "pipeline_tag: image-segmentation" in card
    assert "| 1 | ro\\|ad | `#804080` |" in card
    assert "3 classes, RGB images, evaluated at 24 x 32 pixels" in card
    assert "run on 3 images. The largest" in card and "Every pixel has a label" in card
    assert f"| torch | network.py | 0.01 MB | 0 | {3 * 24 * 32 + 2 * 17 * 17} of {3 * 24 * 32 + 2 * 17 * 17} |" in card


def test_a_form_that_differs_at_one_pixel_is_not_written(tmp_path: Path) -> None:
    network = small()
    source = network.spec.source
    assert source is not None
    broken = dataclasses.replace(
        network,
        spec=dataclasses.replace(
            network.spec,
            source=lambda alpha_E, target: source(alpha_E, target).replace(
                "        return F", "        x = x * (torch.arange(x.shape[3]) < x.shape[3] - 1)\n        return F"
            ),
        ),
    )
    with pytest.raises(ExportError, match=r"form torch does not compute what the network does: .* labels agree"):
        write_model(broken, tmp_path / "model", examples=prepared(2), forms=["torch"])
    assert not (tmp_path / "model").exists()


def test_rows_are_pixels_in_order() -> None:
    logits = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    rows = rows_of(logits)
    assert rows.shape == (8, 3)
    assert rows[1].tolist() == logits[0, :, 0, 1].tolist() and rows[6].tolist() == logits[1, :, 1, 0].tolist()
    labels = np.arange(6).reshape(2, 3)
    assert rows_of(labels).tolist() == labels.tolist()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="no ONNX Runtime")
def test_every_form_runs_without_this_package(tmp_path: Path) -> None:
    import onnxruntime

    written = write_model(small(), tmp_path / "model", examples=prepared(3))
    assert written.notes == () and read_model(written.folder).forms == FORMS.names()
    for row in written.rows:
        assert row.largest_difference <= TOLERANCE * row.largest_logit
        assert (row.examples, row.labels) == (3, 3 * 24 * 32 + 2 * 17 * 17) and row.labels_agree == row.labels
    session = onnxruntime.InferenceSession(written.folder / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert session.get_outputs()[0].shape == ["batch", 3, "height", "width"]

    image = picture(5, (47, 29))
    image.save(tmp_path / "image.png")
    told = json.loads(elsewhere(WITH_TRANSFORMERS, written.folder, tmp_path / "elsewhere"))
    given = small().preprocessing.prepare(image)[None]  # type: ignore[attr-defined]
    expected = logits_of(small().module(), given)
    np.testing.assert_allclose(told["logits"], expected, atol=1e-5)
    few = torch.from_numpy(expected[:, :, :2, :3])
    loss = torch.nn.functional.cross_entropy(few, torch.ones(1, 2, 3, dtype=torch.int64))
    assert told["loss"] == pytest.approx(float(loss), abs=1e-5), "void pixels do not count"
    labels_HW = labels_of(small(), image)
    np.testing.assert_array_equal(told["map"], labels_HW)
    counts = np.bincount(labels_HW.ravel(), minlength=3)
    assert told["masks"] == {name: int(count) for name, count in zip(CLASSES, counts, strict=True) if count}
    assert told["size"] == [47, 29] and told["wide"] == [2, 3, 33, 21]


NETWORKS = {
    "cell, dilated": lambda: headed(
        find_space("cell")(nodes=2), "decoder", 16, np.arange(10) % 7 + 1, size=(48, 64), **CELLS
    ),
    "cell": lambda: headed(find_space("cell")(nodes=2), "aspp", 32, size=(33, 70), **CELLS),
    "mobile": lambda: headed(find_space("mobile")(**MOBILE), "lraspp", 8, size=(48, 64)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_both_spaces_have_every_form_at_any_size(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]()
    data = network.preprocessing
    images = np.stack([data.prepare(picture(i)) for i in range(2)])  # type: ignore[attr-defined]
    written = write_model(network, tmp_path / "model", examples=images)
    assert written.notes == () and read_model(written.folder).forms == FORMS.names()
    for size in ((80, 50), (97, 65), (64, 128)):
        images = np.random.default_rng(0).normal(size=(1, 3, *size)).astype(np.float32)
        expected = logits_of(network.module(), images)
        for form in ("torch", "pt2", "onnx"):
            found = load_model(written.folder, form).logits(images)
            assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max(), (size, form)
