"""What a network takes: images of its own size, and texts up to its length."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ddpnas_ray.spaces.target import Example, Inputs, TargetDefaults

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
