"""Searches that begin with a pretrained BERT, and models that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpnas_ray.core.errors import BadInput, ConfigError, DataError
from ddpnas_ray.spaces.bert.space import make
from ddpnas_ray.spaces.target import Inputs
from tests.spaces.bert.making import SIZES, saved, stock
from tests.spaces.bert.test_importance import losses

INPUTS = Inputs(shape=(11,), outputs=3, vocabulary=SIZES["vocab_size"] - 7)


def started(outputs: int = 3, **options: Any) -> tuple[Any, Any]:
    spec = make(**options)
    supernet: Any = spec.supernet(Inputs(shape=(11,), outputs=outputs, vocabulary=INPUTS.vocabulary))
    assert spec.initialise is not None
    spec.initialise(supernet, losses)
    return spec, supernet.eval()


def test_a_search_begins_with_the_model(tmp_path: Path) -> None:
    spec, supernet = started(model=saved(tmp_path / "model"))
    sizes = [len(edge.candidates) for edge in spec.space.edges]
    x = INPUTS.random(4)
    with torch.no_grad():
        torch.testing.assert_close(supernet(x, np.array(sizes) - 1), stock()(**x).logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(supernet(x), stock()(**x).logits, rtol=1e-5, atol=1e-5)
    assert not torch.equal(  # heads are ordered
        supernet.get_parameter("bert.encoder.layer.0.attention.self.query.weight"),
        stock().get_parameter("bert.encoder.layer.0.attention.self.query.weight"),
    )


def test_without_examples_heads_and_units_keep_their_order(tmp_path: Path) -> None:
    _, supernet = started(model=saved(tmp_path / "model"), importance=0)
    for name, parameter in stock().named_parameters():
        assert torch.equal(supernet.get_parameter(name), parameter), name


def test_a_smaller_supernet_takes_the_most_important_parts_of_the_whole_model(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    spec, small = started(model=model, depths=(2, 3), head_counts=(2, 3), ffn_widths=(8, 16))
    _, whole = started(model=model)
    assert spec.decode(np.zeros(len(spec.space.edges), dtype=int))["layers"] == [0, 3]
    for name, parameter in small.named_parameters():
        part = whole.get_parameter(name)[tuple(slice(0, n) for n in parameter.shape)]
        assert torch.equal(parameter, part), name


def test_a_model_without_pooler_and_with_another_output_layer_lends_its_encoder(tmp_path: Path) -> None:
    options = {"model": saved(tmp_path / "model", bare=True), "importance": 0}
    torch.manual_seed(3)
    _, first = started(outputs=5, **options)
    torch.manual_seed(3)
    new: Any = make(**options).supernet(Inputs(shape=(11,), outputs=5, vocabulary=INPUTS.vocabulary))
    for name, parameter in first.named_parameters():
        if name.startswith(("classifier.", "bert.pooler.")):
            assert torch.equal(parameter, new.get_parameter(name)), name
        else:
            assert torch.equal(parameter, stock().get_parameter(name)), name


def edited(folder: Path, **values: Any) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))
    return str(folder)


@pytest.mark.parametrize(
    "values,error,said",
    [
        ({"model_type": "gpt2"}, ConfigError, "is a model of type gpt2; this space takes BERT encoders"),
        ({"is_decoder": True}, ConfigError, "is a decoder"),
        ({"position_embedding_type": "relative_key"}, ConfigError, "positions of type relative_key"),
        ({"hidden_act": "silu"}, ConfigError, "activation silu; this space takes gelu and relu"),
        ({"type_vocab_size": 3}, ConfigError, "3 token types; this space takes 2"),
        ({"hidden_size": None}, DataError, "config.json has hidden_size None; it is damaged"),
        ({"num_attention_heads": 5}, ConfigError, "space.hidden is 24, which 5 heads (space.heads) do not divide"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, values: dict[str, Any], error: type[BadInput], said: str) -> None:
    saved(tmp_path)
    with pytest.raises(error) as caught:
        make(model=edited(tmp_path, **values))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values,said",
    [
        ({"intermediate_size": 64}, "it is damaged"),
        ({"num_hidden_layers": 6}, "no weights bert.encoder.layer.4.intermediate.dense.weight; it is damaged"),
        ({"vocab_size": 95}, "it is damaged"),
    ],
)
def test_weights_of_another_size_are_refused(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    saved(tmp_path)
    with pytest.raises(DataError) as caught:
        started(model=edited(tmp_path, **values))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    model = saved(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(DataError, match=f"{model}: its weights cannot be loaded"):
        started(model=model)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"no readable config\.json"):
        make(model=model)
    with pytest.raises(DataError, match=r"no such folder; set space\.model"):
        make(model=str(tmp_path / "absent"))
