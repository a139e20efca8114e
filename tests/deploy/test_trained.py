"""A trained network and its preprocessing: what every export starts from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ddpnas_ray.core.errors import ConfigError, ModelError
from ddpnas_ray.data.batches import normalise
from ddpnas_ray.data.decoding import fit_image
from ddpnas_ray.deploy.trained import Preprocessing
from tests.data.making import image
from tests.deploy.making import AWKWARD, noise, tiny


def test_metadata_carry_preprocessing_through_texts() -> None:
    data = tiny().preprocessing
    assert data.classes == AWKWARD
    assert Preprocessing.from_metadata({**data.to_metadata(), "format": "pt"}, "file") == data


@pytest.mark.parametrize(
    "damage",
    [
        *({"classes": bad} for bad in ("no JSON", '"abc"', "[]", "[1]")),
        *({"channels": bad} for bad in ('"3"', "2", "true")),
        *({"image_size": bad} for bad in ('"x"', "0", "1000000", "8.5")),
        *({"mean": bad} for bad in ("3", "[0.5]", "[0.5, 0.5, NaN]", '"abc"')),
        *({"std": bad} for bad in (None, "[0, 0.5, 0.5]", "[Infinity, 1, 1]", "null")),
    ],
    ids=lambda bad: str(bad),
)
def test_damaged_metadata_are_one_line(damage: dict[str, str | None]) -> None:
    kept = {key: value for key, value in {**tiny().metadata, **damage}.items() if value is not None}
    with pytest.raises(ModelError, match=r"^model\.onnx: (no metadata with|its metadata have) [a-z]") as error:
        Preprocessing.from_metadata(kept, "model.onnx")
    assert "\n" not in str(error.value)


def test_prepared_images_are_those_of_training() -> None:
    data, picture = tiny().preprocessing, image(0, (20, 11))
    expected = normalise(fit_image(picture, channels=3, image_size=8)[None], data.mean, data.std)[0]
    assert np.array_equal(data.prepare(picture), expected)


def test_the_module_has_the_weights_and_is_in_eval_mode() -> None:
    import torch

    network = tiny()
    module = network.module()
    assert not module.training
    assert {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()} == {
        name: tensor.tobytes() for name, tensor in network.tensors.items()
    }
    with torch.no_grad():
        assert module(torch.from_numpy(noise(network))).shape == (5, 10)


def test_weights_of_another_architecture_are_one_line() -> None:
    network = tiny()
    other = dataclasses.replace(network, tensors=tiny(seed=1).tensors)
    with pytest.raises(ModelError, match="tiny: the weights are not those of this architecture and target") as error:
        other.module()
    assert "\n" not in str(error.value)


def test_a_target_for_other_images_than_the_datas_is_refused() -> None:
    network = tiny()
    with pytest.raises(
        ConfigError, match=r"the deploy network is for 16 pixels, its data have 8; set target.image_size"
    ):
        dataclasses.replace(network, target=dataclasses.replace(network.target, image_size=16))
