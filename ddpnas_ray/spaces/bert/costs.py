"""Shape and exact costs of BERT encoders whose layers differ in attention heads and feed-forward width, without torch.

Axes: E edges (depth, then heads and feed-forward width of every layer), K candidates. H is the width of the hidden
states, a the width of a layer's heads together, k its feed-forward width, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ddpnas_ray.core.space import CostTable, Edge, Gate, IntArray, Op
from ddpnas_ray.spaces.target import Target

CostName = Literal["params", "macs", "layers"]
Sizes = Mapping[int, tuple[int, int]]  # layer -> attention heads and feed-forward width


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A BERT encoder, and the smaller ones that are searched.

    Args:
        hidden: Width of the hidden states.
        layers: Number of layers of the full encoder.
        heads: Attention heads per layer of the full encoder; each is ``hidden / heads`` wide.
        ffn: Feed-forward width of the full encoder.
        positions: Longest sequence.
        vocabulary: Token ids of the pretrained model; None: those of the task.
        dropout: Of hidden states.
        attention_dropout: Of attention weights.
        activation: Of the feed-forward part, a name of ``torch.nn.functional``.
        norm_eps: Epsilon of LayerNorm.
        std: Standard deviation of new weights.
        depths: Candidates of the number of layers, ascending.
        head_counts: Candidates of a layer's attention heads, ascending.
        ffn_widths: Candidates of a layer's feed-forward width, ascending.
        layer_order: All layers, the most important first: a depth keeps the first ones. None: evenly spaced layers.
    """

    hidden: int
    layers: int
    heads: int
    ffn: int
    positions: int
    vocabulary: int | None = None
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: str = "gelu"
    norm_eps: float = 1e-12
    std: float = 0.02
    depths: tuple[int, ...]
    head_counts: tuple[int, ...]
    ffn_widths: tuple[int, ...]
    layer_order: tuple[int, ...] | None = None

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    def kept(self, depth: int) -> tuple[int, ...]:
        """Return the layers of the full encoder that a depth keeps, ascending.

        Example:
            >>> base = Encoder(
            ...     hidden=768, layers=12, heads=12, ffn=3072, positions=512, depths=(6, 12), head_counts=(12,),
            ...     ffn_widths=(3072,),
            ... )
            >>> base.kept(6)
            (0, 2, 4, 7, 9, 11)
        """
        if self.layer_order is not None:
            return tuple(sorted(self.layer_order[:depth]))
        return tuple(int(layer) for layer in np.linspace(0, self.layers - 1, depth).round())

    @property
    def searched(self) -> tuple[int, ...]:
        """The layers that some depth keeps, ascending; the others are in no network."""
        return tuple(sorted({layer for depth in self.depths for layer in self.kept(depth)}))

    @property
    def largest(self) -> Sizes:
        """Sizes of the supernet's layers."""
        return dict.fromkeys(self.searched, (self.head_counts[-1], self.ffn_widths[-1]))

    @property
    def full(self) -> Encoder:
        """The full encoder as a space of one network."""
        return replace(
            self,
            depths=(self.layers,),
            head_counts=(self.heads,),
            ffn_widths=(self.ffn,),
            layer_order=None,
        )

    def edges(self) -> tuple[Edge, ...]:
        """Return the edges: depth, then heads and feed-forward width of every searched layer."""
        pairs = (
            edge
            for layer in self.searched
            for edge in (
                Edge(f"layer{layer}.heads", _ops(self.head_counts)),
                Edge(f"layer{layer}.ffn", _ops(self.ffn_widths)),
            )
        )
        return (Edge("depth", _ops(self.depths)), *pairs)

    def gate(self) -> Gate:
        """Return the gate: the edges of the layers that a depth leaves out are inactive."""
        inactive = (set(self.searched) - set(self.kept(depth)) for depth in self.depths)
        place = {layer: 1 + 2 * i for i, layer in enumerate(self.searched)}
        return Gate(0, tuple(tuple(e for layer in sorted(out) for e in _pair(place[layer])) for out in inactive))

    def sizes(self, alpha_E: Sequence[int] | IntArray) -> Sizes:
        """Return heads and feed-forward width of the layers that an architecture keeps, in order."""
        kept = self.kept(self.depths[int(alpha_E[0])])
        return {
            layer: (self.head_counts[int(alpha_E[1 + 2 * i])], self.ffn_widths[int(alpha_E[2 + 2 * i])])
            for i, layer in enumerate(self.searched)
            if layer in kept
        }


def cost_table(name: CostName, encoder: Encoder, target: Target) -> CostTable:
    """Compute a cost of every choice.

    Args:
        name: params: all weights; macs: multiply-adds of matrix products, attention included, for one sequence of
            ``target.sequence_length`` tokens; layers: how many there are.
        encoder: The encoders.
        target: Gives the vocabulary, the length and the number of outputs.

    Returns:
        The table; entries have shape (E, K). Those of layers that a depth leaves out are 0 by the space's gate.
    """
    edges = encoder.edges()
    entries_EK = np.zeros((len(edges), max(len(edge.candidates) for edge in edges)), dtype=np.int64)
    if name == "layers":
        entries_EK[0, : len(encoder.depths)] = encoder.depths
        return CostTable(0, entries_EK)
    hidden, outputs = encoder.hidden, target.classes
    assert target.vocabulary is not None and target.sequence_length is not None  # see ``Target.resolve``
    if name == "params":
        vocabulary = encoder.vocabulary or target.vocabulary
        base = (vocabulary + encoder.positions + 2) * hidden + 2 * hidden  # embeddings and their norm
        base += hidden * hidden + hidden + hidden * outputs + outputs  # pooler and classifier
    else:
        base = hidden * hidden + hidden * outputs
    heads = [attention_cost(name, encoder, count, target.sequence_length) for count in encoder.head_counts]
    widths = [feed_forward_cost(name, encoder, width, target.sequence_length) for width in encoder.ffn_widths]
    entries_EK[1::2, : len(heads)] = heads
    entries_EK[2::2, : len(widths)] = widths
    return CostTable(base, entries_EK)


def attention_cost(name: Literal["params", "macs"], encoder: Encoder, heads: int, tokens: int) -> int:
    """Return the cost of a layer's attention with its output projection and norm."""
    hidden, width = encoder.hidden, heads * encoder.head_width
    if name == "params":
        return 3 * (hidden * width + width) + width * hidden + hidden + 2 * hidden
    return 4 * tokens * hidden * width + 2 * tokens * tokens * width


def feed_forward_cost(name: Literal["params", "macs"], encoder: Encoder, width: int, tokens: int) -> int:
    """Return the cost of a layer's feed-forward part with its norm."""
    hidden = encoder.hidden
    return 2 * hidden * width + width + hidden + 2 * hidden if name == "params" else 2 * tokens * hidden * width


def _ops(numbers: Sequence[int]) -> tuple[Op, ...]:
    return tuple(Op(str(number), "parameter") for number in numbers)


def _pair(edge: int) -> tuple[int, int]:
    return edge, edge + 1
