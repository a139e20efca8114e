"""``network.py`` is plain, readable PyTorch with the deploy network's weights, for every space and odd networks."""

from __future__ import annotations

import ast
import dataclasses
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpnas_ray.core.errors import ExportError
from ddpnas_ray.data.decoding import open_image
from ddpnas_ray.deploy.forms import torch as plain
from ddpnas_ray.deploy.trained import TrainedNetwork
from ddpnas_ray.deploy.verify import logits_of
from ddpnas_ray.spaces.base import find_space
from tests.data.making import encoded, image
from tests.deploy.making import AWKWARD, MOBILE, noise, tiny, trained
from tests.deploy.mask_making import headed

CELL = find_space("cell")
CIFAR: dict[str, Any] = {"cells": 3, "channels": 4, "stem": "cifar"}
NETWORKS = {
    "cell": lambda: trained(CELL(nodes=2), **CIFAR),
    "cell, four nodes, another seed": lambda: trained(CELL(nodes=4), seed=1, **CIFAR),
    "cell, imagenet stem, odd width": lambda: trained(
        CELL(nodes=2), size=33, cells=4, channels=5, stem="imagenet", seed=2
    ),
    "cell, odd size": lambda: trained(CELL(nodes=3), size=7, seed=3, **CIFAR),
    "cell, one cell": lambda: trained(CELL(nodes=1), seed=4, **{**CIFAR, "cells": 1}),
    "cell, one cell, imagenet stem": lambda: trained(
        CELL(nodes=1), seed=4, size=32, cells=1, channels=4, stem="imagenet"
    ),
    "cell, none everywhere": lambda: trained(CELL(nodes=2), np.zeros(10, int), **CIFAR),
    "cell, skips that halve": lambda: trained(CELL(nodes=2), np.full(10, 3), size=9, **{**CIFAR, "cells": 2}),
    "cell, grey": lambda: trained(CELL(nodes=2), colours=1, **CIFAR),
    "cell, two classes": lambda: trained(CELL(nodes=2), classes=("no", "yes"), **CIFAR),
    "cell, one class": lambda: trained(CELL(nodes=2), classes=("thing",), **CIFAR),
    "mobile": lambda: trained(find_space("mobile")(**MOBILE)),
    "mobile, odd size, others": lambda: trained(find_space("mobile")(**{**MOBILE, "stem_stride": 2}), size=15, seed=1),
    "mobile, zero everywhere": lambda: trained(find_space("mobile")(**MOBILE), np.array([0, 6, 1, 6])),
    "mobile, last stage fixed": lambda: trained(find_space("mobile")(**MOBILE, search_last=False, first_kernel=5)),
    "nasbench201": lambda: trained(find_space("nasbench201")(), cells=1, channels=4),
    "nasbench201, odd size": lambda: trained(find_space("nasbench201")(), size=7, cells=2, channels=3, seed=1),
    "nasbench201, none everywhere": lambda: trained(find_space("nasbench201")(), np.zeros(6, int), cells=1, channels=4),
    "nasbench201, every operation": lambda: trained(
        find_space("nasbench201")(), np.array([4, 1, 2, 3, 0, 4]), cells=2, channels=4
    ),
}


MOBILE_DEEP: dict[str, Any] = {
    "widths": (8, 4, 8, 8, 12, 16), "depths": (2, 2, 1), "strides": (2, 2, 2), "stem_stride": 2
}  # fmt: skip
HEADED = {
    f"{space}, {head} at stride {stride}": partial(make, head, stride)
    for space, make in {
        "cell": lambda head, stride: headed(CELL(nodes=2), head, stride, cells=6, channels=4, stem="imagenet"),
        "mobile": lambda head, stride: headed(find_space("mobile")(**MOBILE_DEEP), head, stride, seed=2),
    }.items()
    for head in ("aspp", "decoder", "lraspp")
    for stride in (8, 16, 32)
} | {
    "cell, cifar stem": lambda: headed(CELL(nodes=2), "decoder", 8, size=(9, 14), **CIFAR),
    "cell, cifar stem, fine features of the stem": lambda: headed(
        CELL(nodes=2), "lraspp", 8, cells=1, channels=4, stem="cifar"
    ),
    "cell, dilated, every operation": lambda: headed(
        CELL(nodes=2), "aspp", 8, np.arange(10) % 7 + 1, size=(65, 41), cells=6, channels=5, stem="imagenet"
    ),
    "cell, dilated, none everywhere": lambda: headed(
        CELL(nodes=2), "lraspp", 8, np.zeros(10, int), cells=3, channels=4, stem="imagenet"
    ),
    "cell, dilated, skips": lambda: headed(
        CELL(nodes=2), "decoder", 16, np.full(10, 3), size=(33, 70), cells=6, channels=5, stem="imagenet"
    ),
    "mobile, zeros": lambda: headed(
        find_space("mobile")(**MOBILE_DEEP), "decoder", 8, np.array([0, 6, 1, 6, 2]), size=(31, 45)
    ),
}
NETWORKS |= HEADED


def run_file(network: TrainedNetwork) -> dict[str, Any]:
    """The globals of a network's file."""
    found: dict[str, Any] = {"__name__": "network", "__file__": "network.py"}
    exec(compile(plain.source(network), "network.py", "exec"), found)
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_computes_what_the_deploy_network_does(name: str, tmp_path: Path) -> None:
    network = NETWORKS[name]()
    plain.write(network, tmp_path)
    expected_NO = logits_of(network.module(), noise(network))
    found_NO = plain.load(str(tmp_path))(noise(network))
    assert found_NO.shape == network.preprocessing.logits_shape((noise(network),))
    assert np.array_equal(found_NO, expected_NO)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "network.py"]


@pytest.mark.parametrize("name", HEADED)
def test_a_file_with_a_head_labels_images_of_any_size(name: str, tmp_path: Path) -> None:
    network = HEADED[name]()
    plain.write(network, tmp_path)
    other = np.random.default_rng(0).normal(size=(1, 3, 39, 27)).astype(np.float32)
    found = plain.load(str(tmp_path))(other)
    assert found.shape == (1, 3, 39, 27)
    assert np.array_equal(found, logits_of(network.module(), other))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_is_short_and_imports_nothing_of_ours(name: str) -> None:
    text = plain.source(NETWORKS[name]())
    assert max(map(len, text.splitlines())) <= 120
    assert len(text.splitlines()) < (330 if name in HEADED else 260)
    assert "\n\n\n\n" not in text
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            modules |= {name.partition(".")[0] for name in names}
    outside = {"numpy", "torch", "PIL", "safetensors", "transformers"}
    assert modules <= {"__future__", "sys", "functools", "pathlib", *outside}


def test_a_file_holds_only_the_operations_that_its_network_uses() -> None:
    text = plain.source(trained(CELL(nodes=2), np.full(10, 2), **CIFAR))
    assert "avg_pool_3x3" in text
    assert "max_pool" not in text
    assert "depthwise" not in text


def test_class_names_arrive_as_they_are() -> None:
    found = run_file(tiny())
    assert found["CLASSES"] == AWKWARD
    assert (found["IMAGE_SIZE"], found["MEAN"], found["STD"]) == (8, (0.5, 0.4, 0.3), (0.25,) * 3)


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (13, 31), (40, 9), (5, 5), (1, 301)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA", "CMYK"])
def test_its_preprocessing_is_that_of_the_data_readers(colours: int, size: tuple[int, int], mode: str) -> None:
    network = tiny(colours=colours)
    picture = image(3, size, "RGB").convert("L").convert("LA") if mode == "LA" else image(3, size, mode)
    found = run_file(network)["preprocess"](picture).numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, network.preprocessing.prepare(picture), atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_its_preprocessing_turns_photographs_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(image(0, (20, 10)), exif=exif)
    preprocess = run_file(tiny())["preprocess"]
    found, expected = preprocess(Image.open(io.BytesIO(stored))), preprocess(open_image(stored, "turned"))
    assert torch.equal(found, expected)


def test_its_preprocessing_refuses_images_that_training_refuses() -> None:
    preprocess = run_file(tiny())["preprocess"]
    for mode in ("I;16", "I", "F"):
        with pytest.raises(ValueError, match=f"image mode '{mode}' has more than 8 bits per channel; convert it"):
            preprocess(Image.new(mode, (8, 8)))


def test_a_source_with_other_weights_is_an_error_of_one_line(tmp_path: Path) -> None:
    network = tiny()
    other = dataclasses.replace(network.spec, source=lambda alpha_E, target: "class Network(nn.Identity):\n    pass")
    with pytest.raises(
        ExportError, match=r"space 'cell': its source creates 0 weights, its deploy network [0-9]+"
    ) as e:
        plain.write(dataclasses.replace(network, spec=other), tmp_path)
    assert "\n" not in str(e.value)
