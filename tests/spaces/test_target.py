"""What a network takes: images of its own size, and texts up to its length."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddpnas_ray.spaces.target import Inputs

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
