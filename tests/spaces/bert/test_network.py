"""BERT networks compute what ``transformers`` does, whole and in part."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, BertModel

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.nn.weights import Layout, Weights, bind
from ddpnas_ray.spaces.base import SpaceSpec
from ddpnas_ray.spaces.bert.network import layer_of, sliced_shape
from ddpnas_ray.spaces.bert.space import make
from ddpnas_ray.spaces.target import Inputs, Target
from ddpnas_ray.training.config import TrainingConfig
from ddpnas_ray.training.epoch import optimizer_step
from tests.spaces.bert.making import SIZES, stock

INPUTS = Inputs(shape=(17,), outputs=3, vocabulary=SIZES["vocab_size"])
BASE = {"hidden": 768, "layers": 12, "heads": 12, "ffn": 3072}
ALIKE = partial(make, hidden=24, layers=4, heads=6, ffn=48, positions=40)


@pytest.fixture(scope="module")
def original() -> BertForSequenceClassification:
    return stock()


@pytest.fixture
def spec() -> SpaceSpec:
    return ALIKE()


def supernet_of(spec: SpaceSpec, original: nn.Module) -> Any:
    supernet: Any = spec.supernet(INPUTS)
    supernet.load_state_dict(dict(original.named_parameters()))
    return supernet.eval()


def shortened(original: BertForSequenceClassification, spec: SpaceSpec, alpha_E: IntArray) -> nn.Module:
    """Return the stock model with dropped layers and narrower linear layers: transformers' own forward pass."""
    model: Any = stock()
    encoder = model.bert.encoder
    kept = {}
    genotype = spec.decode(alpha_E)
    shape: Any = spec.supernet(INPUTS)
    for layer, heads, ffn in zip(genotype["layers"], genotype["heads"], genotype["ffn"], strict=True):
        module = encoder.layer[layer]
        for name, parameter in list(module.named_parameters()):
            whole = f"bert.encoder.layer.{layer}.{name}"
            size = sliced_shape(whole, tuple(parameter.shape), shape.encoder, heads, ffn)
            owner, _, own = name.rpartition(".")
            part = original.get_parameter(whole)[tuple(slice(0, n) for n in size)]
            setattr(module.get_submodule(owner), own, nn.Parameter(part.detach().clone()))
        attention = module.attention.self
        attention.num_attention_heads, attention.all_head_size = heads, heads * shape.encoder.head_width
        kept[layer] = module
    encoder.layer = nn.ModuleList(kept.values())
    return model.eval()


@pytest.mark.parametrize("seed", range(4))
def test_any_choice_computes_what_transformers_does(
    spec: SpaceSpec, original: BertForSequenceClassification, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    sizes = [len(edge.candidates) for edge in spec.space.edges]
    alpha_E = np.array([n - 1 for n in sizes]) if seed == 0 else rng.integers(sizes)
    x = INPUTS.random(5)
    stand_alone = shortened(original, spec, alpha_E)
    with torch.no_grad():
        expected = (original if seed == 0 else stand_alone)(**x).logits
        found = supernet_of(spec, original)(x, alpha_E)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_padding_changes_nothing(spec: SpaceSpec, original: BertForSequenceClassification) -> None:
    network, x = supernet_of(spec, original), INPUTS.random(2)
    x["attention_mask"][:, 9:] = 0
    other = {**x, "input_ids": x["input_ids"].clone()}
    other["input_ids"][:, 9:] = 5
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(other))
        torch.testing.assert_close(network({name: value[:, :9] for name, value in x.items()}), network(x))


@pytest.mark.parametrize(
    "depth,ffn,expected",
    [
        (12, 3072, 109_482_240),
        (6, 3072, 66_955_008),
        (12, 768, 66_987_264),
        (6, 512, None),
        (8, 3072, None),
        (10, 3072, None),
        (10, 768, None),
    ],
)
def test_params_are_those_that_transformers_counts(depth: int, ffn: int, expected: int | None) -> None:
    spec = make(**BASE)
    layers = [round(layer) for layer in np.linspace(0, 11, depth)]
    alpha_E = spec.encode({"layers": layers, "heads": [12] * depth, "ffn": [ffn] * depth})
    found = spec.costs["params"](Target(sequence_length=128, vocabulary=30522, classes=2))(alpha_E)
    with torch.device("meta"):
        stock_model = BertModel(BertConfig(num_hidden_layers=depth, intermediate_size=ffn))
    counted = sum(parameter.numel() for parameter in stock_model.parameters())
    assert found - (768 * 2 + 2) == counted  # without the classifier
    assert expected in (None, counted)


def test_frozen_embeddings_stay_as_they_are_under_weight_decay(spec: SpaceSpec) -> None:
    supernet: Any = spec.supernet(INPUTS)
    supernet.frozen = True
    alpha_E = np.zeros(len(spec.space.edges), dtype=np.int64)
    layout = Layout.of(supernet.pieces(alpha_E))
    weights = Weights({name: p.detach().numpy() for name, p in supernet.named_parameters()})
    network: Any = spec.build(alpha_E, INPUTS)
    network.frozen = True
    before = weights.cut(layout)
    whole = bind(network, layout, torch.from_numpy(before.copy()))
    for decay in ("all", "weights"):
        config = TrainingConfig(optimizer="adamw", weight_decay=0.1, decay=decay)
        update = optimizer_step(whole, layout, config, 0.1, fused=False)
        network(INPUTS.random(3)).square().sum().backward()
        update()
    after = whole.detach().numpy()
    changed = {
        piece.name
        for piece, old, new in zip(layout.pieces, layout.views(before), layout.views(after), strict=True)
        if not np.array_equal(old, new)
    }
    embeddings = {piece.name for piece in layout.pieces if ".embeddings." in piece.name}
    assert len(embeddings) == 5
    assert not changed & embeddings
    assert "classifier.weight" in changed


def deployed(spec: SpaceSpec, alpha_E: IntArray) -> tuple[Any, Target]:
    """A deploy network, and its target."""
    target = Target(sequence_length=17, vocabulary=SIZES["vocab_size"], classes=3)
    torch.manual_seed(5)
    return spec.deploy(alpha_E, target).eval(), target


def test_the_source_makes_the_same_network_with_the_same_weights(spec: SpaceSpec) -> None:
    alpha_E = np.array([2, 1, 3, 0, 2, 2, 1, 1, 0])
    network, target = deployed(spec, alpha_E)
    assert spec.source is not None
    names: dict[str, Any] = {"torch": torch, "nn": nn, "F": torch.nn.functional, "Tensor": torch.Tensor}
    exec(spec.source(alpha_E, target), names)
    torch.manual_seed(5)
    plain = names["Network"]().eval()
    x = INPUTS.random(4)
    for own, written in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(own, written)
    with torch.no_grad():
        assert torch.equal(plain(**x), network(x))


@pytest.mark.parametrize("ffn", [8, 48])
def test_networks_of_equal_layers_are_stock_berts(ffn: int) -> None:
    spec = ALIKE(ffn_widths=(8, 48), depths=(2, 4))
    alpha_E = spec.encode({"layers": [0, 3], "heads": [6, 6], "ffn": [ffn, ffn]})
    network, target = deployed(spec, alpha_E)
    config = spec.stock(alpha_E, target)
    assert config is not None and config["architectures"] == ["BertForSequenceClassification"]
    stock_network = BertForSequenceClassification(BertConfig(**config, num_labels=3)).eval()
    tensors = {name.replace("layer.3.", "layer.1."): p for name, p in network.named_parameters()}
    stock_network.load_state_dict(tensors)
    x = INPUTS.random(4)
    with torch.no_grad():
        torch.testing.assert_close(stock_network(**x).logits, network(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads,ffn", [([6, 4], [48, 48]), ([6, 6], [48, 16]), ([4, 4], [48, 48])])
def test_other_networks_are_not(heads: list[int], ffn: list[int]) -> None:
    spec = ALIKE(ffn_widths=(16, 48), depths=(2, 4))
    alpha_E = spec.encode({"layers": [0, 3], "heads": heads, "ffn": ffn})
    assert spec.stock(alpha_E, Target(sequence_length=17, vocabulary=90, classes=3)) is None


def test_layers_are_told_by_their_names() -> None:
    assert layer_of("bert.encoder.layer.11.output.dense.bias") == 11
    assert layer_of("bert.embeddings.LayerNorm.bias") is None
