"""What a network takes: images of its own size, and texts up to its length."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.costs.convnet import Size
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.spaces.target import (
    Example,
    Head,
    Inputs,
    Target,
    TargetConfig,
    TargetDefaults,
    resolve_stem,
    same_target,
    size_of,
    size_text,
    target_text,
)

IMAGES = Inputs(shape=(3, 32, 32), outputs=10)
TEXTS = Inputs(shape=(128,), outputs=2, vocabulary=8000)


@pytest.mark.parametrize(
    ("network", "data", "taken"),
    [
        (IMAGES, IMAGES, True),
        (IMAGES, replace(IMAGES, shape=(3, 16, 16)), False),
        (IMAGES, replace(IMAGES, shape=(1, 32, 32)), False),
        (IMAGES, replace(IMAGES, outputs=9), False),
        (TEXTS, TEXTS, True),
        (TEXTS, replace(TEXTS, shape=(64,)), True),
        (TEXTS, replace(TEXTS, shape=(256,)), False),
        (TEXTS, replace(TEXTS, vocabulary=9000), False),
        (TEXTS, replace(TEXTS, outputs=3), False),
        (TEXTS, IMAGES, False),
        (IMAGES, TEXTS, False),
    ],
)
def test_networks_take_images_of_their_size_and_shorter_texts(network: Inputs, data: Inputs, taken: bool) -> None:
    assert network.takes(data) is taken


@pytest.mark.parametrize("tokens", [1, 2, 12])
def test_random_texts_are_shorter_where_they_are_to_be_padded_and_never_empty(tokens: int) -> None:
    text = Example(shape=(tokens,), vocabulary=50)
    mask = text.random(3)["attention_mask"]
    assert mask[0].all() and mask[1:, 0].all()
    assert mask[1:].sum(dim=1).tolist() == 2 * [tokens - tokens // 3]
    assert text.random(3, padded=False)["attention_mask"].all()


def test_random_tensors_have_any_rank() -> None:
    hidden = Example(shape=(7, 4))
    assert hidden.random(3).shape == (3, 7, 4)
    assert hidden.random(3).equal(hidden.random(3))


def test_sizes_of_the_data_are_those_of_images_or_texts() -> None:
    images, texts = TargetDefaults(), TargetDefaults(text=True)
    assert images.sizes == {"image_size": None, "input_channels": 3, "classes": None}
    assert images.inputs({"image_size": 8, "input_channels": 1, "classes": 4}) == Inputs(shape=(1, 8, 8), outputs=4)
    found = texts.inputs({"sequence_length": 6, "vocabulary": 50, "classes": 4})
    assert texts.sizes.keys() == {"sequence_length", "vocabulary", "classes"}
    assert found == Inputs(shape=(6,), vocabulary=50, outputs=4)


# --- rectangles and heads -------------------------------------------------------------------------------------------

HEAD = Head(name="aspp", width=64, output_stride=16)
STREETS = Inputs(shape=(3, 1024, 2048), outputs=19, head=HEAD)


@pytest.mark.parametrize(
    ("data", "taken"),
    [
        (STREETS, True),
        (replace(STREETS, shape=(3, 97, 65)), True),
        (replace(STREETS, shape=(1, 1024, 2048)), False),
        (replace(STREETS, outputs=11), False),
        (replace(STREETS, head=None), False),
        (replace(STREETS, head=replace(HEAD, width=32)), False),
        (TEXTS, False),
    ],
)
def test_networks_with_a_head_take_images_of_any_size(data: Inputs, taken: bool) -> None:
    assert STREETS.takes(data) is taken
    assert not replace(STREETS, head=None).takes(replace(STREETS, head=None, shape=(3, 97, 65)))


def test_a_target_of_rectangles_with_a_head_says_so_and_comes_back_from_a_file() -> None:
    target = Target.resolve(TargetConfig(), STREETS, TargetDefaults(cells=20, channels=36, stem=True, head=True))
    assert str(target) == (
        "20 cells, 36 channels, 1024x2048 px, 19 classes, imagenet stem, aspp head of 64 channels at stride 16"
    )
    assert target.inputs == STREETS
    saved = json.loads(json.dumps(asdict(target)))
    assert Target(**saved) == target
    assert target_text(saved) == str(target)
    assert str(STREETS) == "3x1024x2048, 19 outputs, aspp head of 64 channels at stride 16"


def test_a_target_of_an_earlier_version_has_no_head() -> None:
    saved = {"image_size": 32, "classes": 10, "cells": 20, "channels": 36, "stem": "cifar"}
    assert Target(**saved).head is None  # type: ignore[arg-type]
    assert same_target(saved, asdict(Target(**saved)))  # type: ignore[arg-type]
    assert not same_target(saved, saved | {"head": asdict(HEAD)})
    assert same_target(saved | {"image_size": [64, 96]}, saved | {"image_size": (64, 96)})


def test_equal_sides_are_a_square() -> None:
    assert Target(image_size=(64, 64), classes=2) == Target(image_size=64, classes=2)
    assert replace(STREETS, shape=(3, 64, 64)).image_size == 64


@pytest.mark.parametrize(("size", "stem"), [((127, 2048), "cifar"), ((128, 500), "imagenet"), (128, "imagenet")])
def test_the_shorter_side_decides_on_the_stem(size: Size, stem: str) -> None:
    assert resolve_stem("auto", size) == stem


def test_spaces_without_a_head_refuse_one_by_name() -> None:
    with pytest.raises(ConfigError, match=r"no head for outputs of every pixel.*; set space\.name to cell or mobile"):
        Target.resolve(TargetConfig(), STREETS, find_space("nasbench201")().target)


@pytest.mark.parametrize("size", [32, (1024, 2048), 1])
def test_sizes_are_read_as_they_are_written(size: Size) -> None:
    assert size_of(size_text(size)) == size


@pytest.mark.parametrize("text", ["", "0", "0x5", "1x2x3", "x", "3x", "-1", "1.5", "a", "1000001"])
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size such as 32 or, height first, 1024x2048"):
        size_of(text)
