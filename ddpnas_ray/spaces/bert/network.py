"""BERT with layers of different sizes: the supernet, and the network of one architecture.

One class serves both. A supernet computes the first heads of a layer and the first units of its feed-forward part, on
real slices of the weights. Parameters have the names of ``transformers.BertForSequenceClassification``.

Axes: B texts, T tokens, H width of hidden states.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpnas_ray.core.space import IntArray
from ddpnas_ray.nn.weights import Piece
from ddpnas_ray.spaces.bert.costs import Encoder, Sizes


class Linear(nn.Linear):
    """A linear layer of which the first outputs, or of the first inputs, can be computed alone."""

    def forward(self, x: Tensor, outputs: int | None = None) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        inputs = x.shape[-1]
        if inputs == self.in_features and outputs in (None, self.out_features):
            return F.linear(x, self.weight, self.bias)
        # A copy has the memory format of the stand-alone layer, and so its bits.
        return F.linear(x, self.weight[:outputs, :inputs].contiguous(), self.bias[:outputs])


class Embeddings(nn.Module):
    """Token, position and type embeddings, their norm, dropout."""

    def __init__(self, encoder: Encoder, vocabulary: int) -> None:
        super().__init__()
        self.dropout = encoder.dropout
        self.word_embeddings = nn.Embedding(vocabulary, encoder.hidden)
        self.position_embeddings = nn.Embedding(encoder.positions, encoder.hidden)
        self.token_type_embeddings = nn.Embedding(2, encoder.hidden)
        self.LayerNorm = nn.LayerNorm(encoder.hidden, eps=encoder.norm_eps)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        """Texts -> hidden states (B, T, H)."""
        ids_BT = x["input_ids"]
        places_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
        found = self.word_embeddings(ids_BT) + self.token_type_embeddings(x["token_type_ids"])
        return F.dropout(self.LayerNorm(found + self.position_embeddings(places_T)), self.dropout, self.training)


class Attention(nn.Module):
    """Self-attention with its output projection, residual connection and norm."""

    def __init__(self, encoder: Encoder, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, encoder.head_width
        self.dropout, self.attention_dropout = encoder.dropout, encoder.attention_dropout
        hidden, width = encoder.hidden, heads * encoder.head_width
        self.self = nn.ModuleDict({name: Linear(hidden, width) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict(
            {"dense": Linear(width, hidden), "LayerNorm": nn.LayerNorm(hidden, eps=encoder.norm_eps)}
        )

    def forward(self, x: Tensor, mask_B11T: Tensor | None = None, heads: int | None = None) -> Tensor:
        """(B, T, H) -> (B, T, H) with the first ``heads`` heads, or all; without a mask nothing is padding."""
        heads = self.heads if heads is None else heads
        if mask_B11T is None:
            mask_B11T = torch.ones(x.shape[0], 1, 1, x.shape[1], dtype=torch.bool, device=x.device)
        (batch, tokens), width = x.shape[:2], heads * self.head_width
        q, k, v = (
            project(x, width).view(batch, tokens, heads, self.head_width).transpose(1, 2)
            for project in self.self.values()
        )
        dropped = self.attention_dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_B11T, dropout_p=dropped)
        found = self.output["dense"](found.transpose(1, 2).reshape(batch, tokens, width))
        return self.output["LayerNorm"](F.dropout(found, self.dropout, self.training) + x)


class FeedForward(nn.Module):
    """The feed-forward part of a layer, with residual connection and norm."""

    def __init__(self, encoder: Encoder, ffn: int) -> None:
        super().__init__()
        self.dropout, self.activation = encoder.dropout, encoder.activation
        self.intermediate = nn.ModuleDict({"dense": Linear(encoder.hidden, ffn)})
        self.output = nn.ModuleDict(
            {"dense": Linear(ffn, encoder.hidden), "LayerNorm": nn.LayerNorm(encoder.hidden, eps=encoder.norm_eps)}
        )

    def forward(self, x: Tensor, ffn: int | None = None) -> Tensor:
        """(B, T, H) -> (B, T, H) with the first ``ffn`` units, or all."""
        found = self.output["dense"](getattr(F, self.activation)(self.intermediate["dense"](x, ffn)))
        return self.output["LayerNorm"](F.dropout(found, self.dropout, self.training) + x)


class Layer(FeedForward):
    """Attention, then the feed-forward part."""

    def __init__(self, encoder: Encoder, heads: int, ffn: int) -> None:
        super().__init__(encoder, ffn)
        self.attention = Attention(encoder, heads)

    def forward(self, x: Tensor, mask_B11T: Tensor, heads: int, ffn: int) -> Tensor:  # type: ignore[override]
        """(B, T, H) -> (B, T, H) with the first heads and feed-forward units."""
        return super().forward(self.attention(x, mask_B11T, heads), ffn)


class Output(nn.Module):
    """The pooled first token and the output layer on their own, to be timed."""

    def __init__(self, encoder: Encoder, outputs: int) -> None:
        super().__init__()
        self.pooler, self.classifier = Linear(encoder.hidden, encoder.hidden), Linear(encoder.hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, H) -> (B, outputs)."""
        return self.classifier(self.pooler(x[:, 0]).tanh())


class BertNetwork(nn.Module):
    """Embeddings, layers, the pooled first token, and one output layer.

    Args:
        encoder: Sizes that all layers share.
        sizes: Heads and feed-forward width of every layer that there is, by its number in the full encoder.
        vocabulary: Number of token ids.
        outputs: Number of outputs.
        frozen: Embeddings get no gradient.
    """

    def __init__(self, encoder: Encoder, sizes: Sizes, vocabulary: int, outputs: int, *, frozen: bool = False) -> None:
        super().__init__()
        self.encoder, self.sizes, self.frozen = encoder, dict(sizes), frozen
        self.bert = nn.ModuleDict(
            {
                "embeddings": Embeddings(encoder, vocabulary),
                "encoder": nn.ModuleDict(
                    {"layer": nn.ModuleDict({str(i): Layer(encoder, *size) for i, size in sizes.items()})}
                ),
                "pooler": nn.ModuleDict({"dense": Linear(encoder.hidden, encoder.hidden)}),
            }
        )
        self.classifier = Linear(encoder.hidden, outputs)
        self.apply(self._initialise)

    def forward(self, x: dict[str, Tensor], alpha_E: IntArray | None = None) -> Tensor:
        """Texts -> outputs (B, outputs), computing what one architecture keeps and nothing else.

        Args:
            x: ``input_ids``, ``attention_mask`` and ``token_type_ids``, shape (B, T).
            alpha_E: The architecture; None: all that there is.
        """
        h_BTH = self.bert["embeddings"](x)
        if self.frozen:
            h_BTH = h_BTH.detach()
        mask_B11T = x["attention_mask"][:, None, None, :].bool()
        layers: Any = self.bert["encoder"]["layer"]  # type: ignore[index]
        for i, (heads, ffn) in (self.sizes if alpha_E is None else self.encoder.sizes(alpha_E)).items():
            h_BTH = layers[str(i)](h_BTH, mask_B11T, heads, ffn)
        pooled_BH = self.bert["pooler"]["dense"](h_BTH[:, 0]).tanh()  # type: ignore[index]
        return self.classifier(F.dropout(pooled_BH, self.encoder.dropout, self.training))

    def hidden_states(self) -> dict[str, nn.Module]:
        """Return the layers by their number in the full encoder; their outputs have shape (B, T, H)."""
        return dict(self.bert["encoder"]["layer"])  # type: ignore[index]

    def pieces(self, alpha_E: IntArray) -> list[Piece]:
        """Return the parts of the parameters that an architecture uses, in the order of its stand-alone network."""
        sizes = self.encoder.sizes(alpha_E)
        found = []
        for name, parameter in self.named_parameters():
            layer = layer_of(name)
            if layer is None:
                found.append(Piece(name, tuple(parameter.shape), frozen=self.frozen and ".embeddings." in name))
            elif layer in sizes:
                shape = sliced_shape(name, tuple(parameter.shape), self.encoder, *sizes[layer])
                whole = shape == tuple(parameter.shape)
                found.append(Piece(name, shape, None if whole else tuple(slice(0, size) for size in shape)))
        return found

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.encoder.std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def layer_of(name: str) -> int | None:
    """Return the layer that a parameter belongs to; None: all architectures use it.

    Example:
        >>> layer_of("bert.encoder.layer.7.intermediate.dense.bias"), layer_of("classifier.bias")
        (7, None)
    """
    parts = name.split(".")
    return int(parts[3]) if parts[:3] == ["bert", "encoder", "layer"] else None


def sliced_shape(name: str, shape: tuple[int, ...], encoder: Encoder, heads: int, ffn: int) -> tuple[int, ...]:
    """Return the shape of the part of a layer's parameter that is used with so many heads and feed-forward units."""
    width = heads * encoder.head_width
    if ".attention.self." in name:
        return (width, *shape[1:])
    if name.endswith("attention.output.dense.weight"):
        return (shape[0], width)
    if ".intermediate." in name:
        return (ffn, *shape[1:])
    if name.endswith("output.dense.weight"):
        return (shape[0], ffn)
    return shape
