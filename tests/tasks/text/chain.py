"""A search space of texts: embeddings, two layers of a choice each, the mean over tokens, one output layer.

Axes: B texts, T tokens, H width; E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from ddpnas_ray.core.space import CostTable, Edge, IntArray, Op, SearchSpace, each_edge_alone
from ddpnas_ray.nn.weights import Piece
from ddpnas_ray.spaces.base import SpaceSpec, decode_edges, encode_edges
from ddpnas_ray.spaces.target import Inputs, Target, TargetDefaults

OPS = (Op("mlp", "parameter"), Op("attention", "parameter"), Op("skip", "non_parameter"))


def make(*, width: int = 16) -> SpaceSpec:
    """Return the space."""
    edges = tuple(Edge(f"layer{e}", OPS) for e in range(2))
    return SpaceSpec(
        SearchSpace("text_chain", edges, each_edge_alone(edges)),
        supernet=partial(_supernet, width),
        build=partial(_build, width),
        deploy=partial(_deploy, width),
        encode=partial(encode_edges, edges),
        decode=partial(decode_edges, edges),
        costs={kind: partial(_costs, kind, width) for kind in ("params", "macs")},
        target=TargetDefaults(text=True),
        source=partial(_source, width),
    )


class Layer(nn.Module):
    """A residual layer, (B, T, H) -> (B, T, H)."""

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        self.name, self.norm = name, nn.LayerNorm(width)
        self.first = nn.Linear(width, (2 if name == "mlp" else 3) * width)
        self.last = nn.Linear(2 * width if name == "mlp" else width, width)

    def forward(self, x: Tensor, mask_BT: Tensor) -> Tensor:
        found = self.first(self.norm(x))
        if self.name == "mlp":
            return x + self.last(found.relu())
        q, k, v = found.chunk(3, dim=2)
        weights = (q @ k.transpose(1, 2) / q.shape[2] ** 0.5).masked_fill(mask_BT[:, None] == 0, -1e9).softmax(dim=2)
        return x + self.last(weights @ v)


class Chain(nn.Module):
    """Supernet, or the network of one architecture."""

    def __init__(self, names: Sequence[Sequence[str]], width: int, inputs: Inputs) -> None:
        super().__init__()
        assert inputs.vocabulary is not None
        self.names = names
        self.tokens, self.types = nn.Embedding(inputs.vocabulary, width), nn.Embedding(2, width)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: Layer(name, width) for name in layer if name != "skip"}) for layer in names
        )
        self.head = nn.Linear(width, inputs.outputs)

    def forward(self, x: dict[str, Tensor], alpha_E: IntArray | None = None) -> Tensor:
        mask_BT = x["attention_mask"]
        h = self.tokens(x["input_ids"]) + self.types(x["token_type_ids"])
        for e, layer in enumerate(self.layers):
            name = self.names[e][0 if alpha_E is None else int(alpha_E[e])]
            h = h if name == "skip" else layer[name](h, mask_BT)
        return self.head((h * mask_BT[..., None]).sum(dim=1) / mask_BT.sum(dim=1, keepdim=True))

    def pieces(self, alpha_E: IntArray) -> list[Piece]:
        used = tuple(f"layers.{e}.{OPS[k].name}." for e, k in enumerate(alpha_E))
        return [
            Piece(name, tuple(parameter.shape))
            for name, parameter in self.named_parameters()
            if not name.startswith("layers.") or name.startswith(used)
        ]


def _supernet(width: int, inputs: Inputs) -> Any:
    return Chain([[op.name for op in OPS]] * 2, width, inputs)


def _build(width: int, alpha_E: IntArray, inputs: Inputs) -> nn.Module:
    return Chain([[OPS[k].name] for k in alpha_E], width, inputs)


def _deploy(width: int, alpha_E: IntArray, target: Target) -> nn.Module:
    return _build(width, alpha_E, target.inputs)


SOURCE = '''
LAYERS = {names!r}


class Network(nn.Module):
    """Embeddings, a chain of residual layers, the mean over tokens, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.types = nn.Embedding({vocabulary}, {width}), nn.Embedding(2, {width})
        self.layers = nn.ModuleList(Layer(name) for name in LAYERS)
        self.head = nn.Linear({width}, {outputs})

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Token ids, mask and types, each (B, T), int64 -> logits (B, {outputs})."""
        x = self.tokens(input_ids) + self.types(token_type_ids)
        for layer in self.layers:
            x = layer(x, attention_mask)
        return self.head((x * attention_mask[..., None]).sum(dim=1) / attention_mask.sum(dim=1, keepdim=True))


class Layer(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.norm = name, nn.LayerNorm({width})
        self.first = nn.Linear({width}, (2 if name == "mlp" else 3) * {width})
        self.last = nn.Linear(2 * {width} if name == "mlp" else {width}, {width})

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        found = self.first(self.norm(x))
        if self.name == "mlp":
            return x + self.last(F.relu(found))
        q, k, v = found.chunk(3, dim=2)
        scores = (q @ k.transpose(1, 2) / q.shape[2] ** 0.5).masked_fill(mask[:, None] == 0, -1e9)
        return x + self.last(scores.softmax(dim=2) @ v)
'''


def _source(width: int, alpha_E: IntArray, target: Target) -> str:
    names = [OPS[k].name for k in alpha_E if OPS[k].name != "skip"]
    return SOURCE.format(names=names, width=width, vocabulary=target.vocabulary, outputs=target.classes)


def _costs(kind: str, width: int, target: Target) -> CostTable:
    assert target.vocabulary is not None and target.sequence_length is not None
    w, tokens = width, target.sequence_length
    if kind == "params":
        base = (target.vocabulary + 2) * w + w * target.classes + target.classes
        layers = [2 * w + 4 * w * w + 3 * w, 2 * w + 4 * w * w + 4 * w, 0]
    else:
        base = w * target.classes
        layers = [4 * w * w * tokens, 4 * w * w * tokens + 2 * w * tokens**2, 0]
    return CostTable(base, np.array([layers] * 2))
