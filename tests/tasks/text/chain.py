"""A search space of texts: embeddings, two layers of a choice each, the mean over tokens, one output layer. Gated, its
networks may have one layer.

Axes: B texts, T tokens, H width; E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddpnas_ray.core.space import CostTable, Edge, Gate, IntArray, Op, SearchSpace, each_edge_alone
from ddpnas_ray.nn.weights import Piece
from ddpnas_ray.spaces.base import Part, SpaceSpec, decode_edges, encode_edges
from ddpnas_ray.spaces.target import Example, Inputs, Target, TargetDefaults

OPS = (Op("mlp", "parameter"), Op("attention", "parameter"), Op("skip", "non_parameter"))
LAYERS = tuple(Edge(f"layer{e}", OPS) for e in range(2))
DEPTH, ONE_OR_TWO = Edge("depth", (Op("1", "parameter"), Op("2", "parameter"))), Gate(2, inactive=((1,), ()))


def make(*, width: int = 16, gated: bool = False) -> SpaceSpec:
    """Return the space."""
    edges, gate = ((*LAYERS, DEPTH), ONE_OR_TWO) if gated else (LAYERS, None)
    return SpaceSpec(
        SearchSpace("text_chain", edges, ((0,), (1, 2)) if gated else each_edge_alone(edges), gate),
        supernet=partial(_supernet, width),
        build=partial(_build, width),
        deploy=partial(_deploy, width),
        encode=partial(encode_edges, edges, gate=gate),
        decode=partial(decode_edges, edges, gate=gate),
        costs={kind: partial(_costs, kind, width, len(edges)) for kind in ("params", "macs")},
        target=TargetDefaults(text=True),
        parts=partial(_parts, width),
        source=None if gated else partial(_source, width),
    )


def _ones(x: Tensor) -> Tensor:
    """The mask of a part that is timed on its own: nothing is padding."""
    return torch.ones(x.shape[:2], dtype=torch.int64, device=x.device)


class Layer(nn.Module):
    """A residual layer, (B, T, H) -> (B, T, H)."""

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        self.name, self.norm = name, nn.LayerNorm(width)
        self.first = nn.Linear(width, (2 if name == "mlp" else 3) * width)
        self.last = nn.Linear(2 * width if name == "mlp" else width, width)

    def forward(self, x: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        mask_BT = _ones(x) if mask_BT is None else mask_BT
        found = self.first(self.norm(x))
        if self.name == "mlp":
            return x + self.last(found.relu())
        q, k, v = found.chunk(3, dim=2)
        weights = (q @ k.transpose(1, 2) / q.shape[2] ** 0.5).masked_fill(mask_BT[:, None] == 0, -1e9).softmax(dim=2)
        return x + self.last(weights @ v)


class Embeddings(nn.Module):
    """The embeddings of a batch, (B, T, H)."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.tokens, self.types = nn.Embedding(vocabulary, width), nn.Embedding(2, width)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        return self.tokens(x["input_ids"]) + self.types(x["token_type_ids"])


class Mean(nn.Module):
    """The mean over tokens, (B, T, H) -> (B, H)."""

    def forward(self, x: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        mask_BT = _ones(x) if mask_BT is None else mask_BT
        return (x * mask_BT[..., None]).sum(dim=1) / mask_BT.sum(dim=1, keepdim=True)


class Chain(nn.Module):
    """Supernet, or the network of one architecture."""

    def __init__(self, names: Sequence[Sequence[str]], width: int, inputs: Inputs) -> None:
        super().__init__()
        assert inputs.vocabulary is not None
        self.names = names
        self.embeddings, self.mean = Embeddings(inputs.vocabulary, width), Mean()
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: Layer(name, width) for name in layer if name != "skip"}) for layer in names
        )
        self.head = nn.Linear(width, inputs.outputs)

    def forward(self, x: dict[str, Tensor], alpha_E: IntArray | None = None) -> Tensor:
        mask_BT, h = x["attention_mask"], self.embeddings(x)
        chosen = [names[0] for names in self.names] if alpha_E is None else _chosen(alpha_E)
        for layer, name in zip(self.layers, chosen, strict=False):
            h = h if name == "skip" else layer[name](h, mask_BT)
        return self.head(self.mean(h, mask_BT))

    def pieces(self, alpha_E: IntArray) -> list[Piece]:
        used = tuple(f"layers.{e}.{name}." for e, name in enumerate(_chosen(alpha_E)))
        return [
            Piece(name, tuple(parameter.shape))
            for name, parameter in self.named_parameters()
            if not name.startswith("layers.") or name.startswith(used)
        ]


def _chosen(alpha_E: IntArray) -> list[str]:
    """The operations of the active layers."""
    return [OPS[k].name for k in alpha_E[: alpha_E[2] + 1 if len(alpha_E) > 2 else 2]]


def _supernet(width: int, inputs: Inputs) -> Any:
    return Chain([[op.name for op in OPS]] * 2, width, inputs)


def _build(width: int, alpha_E: IntArray, inputs: Inputs) -> nn.Module:
    return Chain([[name] for name in _chosen(alpha_E)], width, inputs)


def _deploy(width: int, alpha_E: IntArray, target: Target) -> nn.Module:
    return _build(width, alpha_E, target.inputs)


def _parts(width: int, target: Target) -> list[Part]:
    assert target.vocabulary is not None and target.sequence_length is not None
    hidden = Example(shape=(target.sequence_length, width))
    embeddings = partial(Embeddings, target.vocabulary, width)
    return [
        Part(edge=None, key="embeddings", example=target.inputs, build=embeddings),
        Part(edge=None, key="head", example=hidden, build=partial(_head, width, target.classes)),
        *(
            Part(edge=e, candidate=k, key=op.name, example=hidden, build=partial(Layer, op.name, width))
            for e in range(2)
            for k, op in enumerate(OPS)
            if op.name != "skip"
        ),
    ]


def _head(width: int, outputs: int) -> nn.Module:
    return nn.Sequential(Mean(), nn.Linear(width, outputs))


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
    names = [name for name in _chosen(alpha_E) if name != "skip"]
    return SOURCE.format(names=names, width=width, vocabulary=target.vocabulary, outputs=target.classes)


def _costs(kind: str, width: int, edges: int, target: Target) -> CostTable:
    assert target.vocabulary is not None and target.sequence_length is not None
    w, tokens = width, target.sequence_length
    if kind == "params":
        base = (target.vocabulary + 2) * w + w * target.classes + target.classes
        layers = [2 * w + 4 * w * w + 3 * w, 2 * w + 4 * w * w + 4 * w, 0]
    else:
        base = w * target.classes
        layers = [4 * w * w * tokens, 4 * w * w * tokens + 2 * w * tokens**2, 0]
    return CostTable(base, np.array([layers, layers, [0, 0, 0]][:edges]))
