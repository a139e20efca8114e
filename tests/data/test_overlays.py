"""Colours of label maps."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ddpnas_ray.data.overlays import beside, coloured, default_palette, overlay, palette_png, png

PALETTE = ((10, 20, 30), (200, 100, 0))


def test_labels_have_the_colours_of_their_classes_and_others_are_black() -> None:
    labels = np.array([[0, 1], [255, -1]])
    assert coloured(labels, PALETTE).tolist() == [[[10, 20, 30], [200, 100, 0]], [[0, 0, 0], [0, 0, 0]]]


def test_colours_are_blended_onto_the_image_but_where_there_are_none() -> None:
    image = np.full((1, 3, 3), 100, dtype=np.uint8)
    assert overlay(image, np.array([[0, 1, 255]]), PALETTE, 0.5).tolist() == [
        [[55, 60, 65], [150, 100, 50], [100, 100, 100]]
    ]


@given(seed=st.integers(0, 99), alpha=st.floats(0, 1))
def test_a_blend_lies_between_image_and_colour(seed: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    image, labels = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), rng.integers(0, 3, (4, 5))
    found, colours = overlay(image, labels, default_palette(3), alpha), coloured(labels, default_palette(3))
    assert (found >= np.minimum(image, colours)).all() and (found <= np.maximum(image, colours)).all()


@pytest.mark.parametrize("classes", [2, 250, 256])
def test_a_label_map_is_a_palette_image_of_class_numbers(classes: int) -> None:
    labels = np.arange(256).reshape(16, 16)
    image = Image.open(io.BytesIO(palette_png(labels, default_palette(classes))))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), labels)
    shown = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(shown, coloured(labels, default_palette(classes)))


def test_default_colours_differ() -> None:
    assert len(set(default_palette(255))) == 255 and len(default_palette(300)) == 300
    assert (0, 0, 0) not in default_palette(255)


def test_images_stand_side_by_side_in_a_png() -> None:
    one, other = np.zeros((2, 3, 3), dtype=np.uint8), np.full((2, 5, 3), 9, dtype=np.uint8)
    found = np.asarray(Image.open(io.BytesIO(png(beside([one, other])))))
    assert found.shape == (2, 12, 3)
    assert (found[:, :3] == 0).all() and (found[:, 3:7] == 255).all() and (found[:, 7:] == 9).all()
