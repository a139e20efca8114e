"""The BERT-compression space (Sec. 4.4.1): number of layers, and attention heads and feed-forward width of each.

The edge ``depth`` decides which layers there are; those of the other layers are inactive. Networks are nested: fewer
heads are the first ones, and so are fewer feed-forward units, the most important first if there is a pretrained model.

Axes: E edges, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from annotated_types import Ge, Lt, MinLen

from ddpnas_ray.core.errors import ConfigError, GenotypeError
from ddpnas_ray.core.plugins import Place
from ddpnas_ray.core.space import CostTable, IntArray, SearchSpace, each_edge_alone
from ddpnas_ray.spaces.base import Genotype, Part, SpaceSpec, Supernet, module_of
from ddpnas_ray.spaces.bert.costs import CostName, Encoder, cost_table
from ddpnas_ray.spaces.bert.plain import network_source, stock_config
from ddpnas_ray.spaces.bert.pretrained import Start, encoder_config, found_at
from ddpnas_ray.spaces.target import Example, Inputs, Target, TargetDefaults

if TYPE_CHECKING:
    from ddpnas_ray.spaces.bert.network import BertNetwork

Positive = Annotated[int, Ge(1)]
Candidates = Annotated[tuple[Positive, ...], MinLen(1)]

# Shares of BERT base that the paper's candidates are: of 12 layers, of 12 heads, of 3072 feed-forward units.
DEPTHS, HEADS, WIDTHS = (6 / 12, 8 / 12, 10 / 12, 1.0), (4 / 12, 8 / 12, 1.0), (512 / 3072, 0.25, 1024 / 3072, 1.0)
NEW = {"hidden": 128, "layers": 4, "heads": 4, "ffn": 512, "positions": 512}  # a small encoder with new weights


def make(
    *,
    model: Annotated[str | None, Place()] = None,
    hidden: Positive | None = None,
    layers: Positive | None = None,
    heads: Positive | None = None,
    ffn: Positive | None = None,
    positions: Positive | None = None,
    dropout: Annotated[float, Ge(0.0), Lt(1.0)] | None = None,
    depths: Candidates | None = None,
    head_counts: Candidates | None = None,
    ffn_widths: Candidates | None = None,
    layer_order: tuple[Annotated[int, Ge(0)], ...] | None = None,
    importance: Annotated[int, Ge(0)] = 128,
    freeze_embeddings: bool = False,
) -> SpaceSpec:
    """Create the BERT space.

    Args:
        model: Pretrained BERT to compress, a name on the Hugging Face hub or a folder; None: a new one of the sizes
            below, with random weights.
        hidden: Width of the hidden states of a new one; None: 128.
        layers: Its layers; None: 4.
        heads: Its attention heads per layer; None: 4.
        ffn: Its feed-forward width; None: 512.
        positions: Its longest sequence; None: 512.
        dropout: Of hidden states and attention weights; None: the model's, or 0.1.
        depths: Numbers of layers to choose from; None: 6, 8, 10 and 12 twelfths of the model's, as in the paper.
        head_counts: Attention heads of a layer; None: 4, 8 and 12 twelfths.
        ffn_widths: Feed-forward widths of a layer; None: 512, 768, 1024 and 3072 of 3072 parts.
        layer_order: All layers, numbered from 0, the most important first: a depth keeps the first ones. None: evenly
            spaced layers.
        importance: Training examples by which heads and feed-forward units of a pretrained model are ordered before the
            search, the most important first; 0: they keep their order.
        freeze_embeddings: The search leaves the pretrained embeddings as they are; retraining does not.

    Raises:
        ConfigError: The model is not a BERT encoder, or an option does not fit it.
        DataError: The model cannot be read.
    """
    new = {"hidden": hidden, "layers": layers, "heads": heads, "ffn": ffn, "positions": positions}
    if model is None and freeze_embeddings:
        raise ConfigError("space.freeze_embeddings is true, but new embeddings must learn; give space.model")
    shape = _shape(model, new, dropout)
    encoder = Encoder(
        **shape,
        depths=_candidates("depths", depths, shape["layers"], "layers", DEPTHS),
        head_counts=_candidates("head_counts", head_counts, shape["heads"], "attention heads", HEADS),
        ffn_widths=_candidates("ffn_widths", ffn_widths, shape["ffn"], "feed-forward units", WIDTHS),
        layer_order=_order(layer_order, shape["layers"]),
    )
    edges = encoder.edges()
    return SpaceSpec(
        space=SearchSpace("bert", edges, each_edge_alone(edges), gate=encoder.gate()),
        supernet=partial(_supernet, encoder, freeze_embeddings),
        build=partial(_build, encoder, freeze_embeddings),
        deploy=partial(_deploy, encoder),
        encode=partial(encode, encoder=encoder),
        decode=partial(decode, encoder=encoder),
        costs={name: partial(_cost, name, encoder) for name in ("params", "macs", "layers")},
        target=TargetDefaults(text=True, positions=encoder.positions, vocabulary=encoder.vocabulary),
        parts=partial(_parts, encoder),
        effort=partial(_effort, encoder),
        source=partial(network_source, encoder),
        stock=partial(stock_config, encoder),
        initialise=None if model is None else Start(found_at(model), encoder, importance),
    )


def encode(genotype: Genotype, *, encoder: Encoder) -> IntArray:
    """Genotype -> alpha_E, the canonical one.

    Args:
        genotype: ``{"layers": [0, 2, ...], "heads": [8, 12, ...], "ffn": [512, 3072, ...]}``: the kept layers of the
            full encoder, numbered from 0, and their sizes.
        encoder: The encoders.

    Raises:
        GenotypeError: A key, layer or size that does not fit.
    """
    keys = ("layers", "heads", "ffn")
    if not isinstance(genotype, dict) or any(not isinstance(genotype.get(key), (list, tuple)) for key in keys):
        raise GenotypeError("genotype: lists 'layers', 'heads' and 'ffn' are needed, one number per kept layer")
    layers, heads, widths = (tuple(genotype[key]) for key in keys)
    if not len(layers) == len(heads) == len(widths):
        raise GenotypeError(
            f"genotype: {len(layers)} layers, {len(heads)} heads and {len(widths)} ffn; one of each per kept layer"
        )
    kept = {encoder.kept(depth): k for k, depth in enumerate(encoder.depths)}
    if layers not in kept:
        raise GenotypeError(
            f"genotype: layers are {list(layers)}; allowed: {', '.join(str(list(some)) for some in kept)}"
        )
    alpha = [kept[layers]]
    by_layer = dict(zip(layers, zip(heads, widths, strict=True), strict=True))
    for layer in encoder.searched:
        count, width = by_layer.get(layer, (encoder.head_counts[0], encoder.ffn_widths[0]))
        alpha.append(_index("heads", layer, count, encoder.head_counts))
        alpha.append(_index("ffn", layer, width, encoder.ffn_widths))
    return np.array(alpha, dtype=np.int64)


def decode(alpha_E: IntArray, *, encoder: Encoder) -> Genotype:
    """alpha_E -> the kept layers, with the heads and the feed-forward width of each."""
    sizes = encoder.sizes(alpha_E)
    return {
        "layers": list(sizes),
        "heads": [heads for heads, _ in sizes.values()],
        "ffn": [width for _, width in sizes.values()],
    }


def _index(key: str, layer: int, size: Any, allowed: Sequence[int]) -> int:
    if size not in allowed:
        raise GenotypeError(f"genotype: {key} of layer {layer}: {size!r}; allowed: {', '.join(map(str, allowed))}")
    return allowed.index(size)


def _shape(model: str | None, new: dict[str, int | None], dropout: float | None) -> dict[str, Any]:
    """Return sizes and rates of the full model, as arguments of ``Encoder``: a pretrained one's, or of a new one."""
    if model is None:
        shape: dict[str, Any] = {key: NEW[key] if value is None else value for key, value in new.items()}
    else:
        if given := [key for key, value in new.items() if value is not None]:
            raise ConfigError(
                f"space.{given[0]} is {new[given[0]]}, but space.model={model} brings its own sizes; set it to null"
            )
        shape = encoder_config(model)
    if dropout is not None:
        shape |= {"dropout": dropout, "attention_dropout": dropout}
    if shape["hidden"] % shape["heads"]:
        raise ConfigError(
            f"space.hidden is {shape['hidden']}, which {shape['heads']} heads (space.heads) do not divide; choose a "
            "multiple of them"
        )
    return shape


def _candidates(
    key: str, given: tuple[int, ...] | None, most: int, what: str, shares: tuple[float, ...]
) -> tuple[int, ...]:
    """Check candidates, or scale the paper's."""
    if given is None:
        return tuple(sorted({max(1, round(share * most)) for share in shares}))
    if max(given) > most:
        raise ConfigError(f"space.{key} has {max(given)}; the full model has {most} {what}: give at most that")
    if len(set(given)) < len(given):
        raise ConfigError(f"space.{key} is {list(given)}; give every number once")
    return tuple(sorted(given))


def _order(given: tuple[int, ...] | None, layers: int) -> tuple[int, ...] | None:
    if given is not None and sorted(given) != list(range(layers)):
        raise ConfigError(f"space.layer_order is {list(given)}; give each of the layers 0 to {layers - 1} once")
    return given


def _cost(name: CostName, encoder: Encoder, target: Target) -> CostTable:
    return cost_table(name, encoder, target)


def _parts(encoder: Encoder, target: Target) -> list[Part]:
    """Return all timed parts; attention and feed-forward parts of one size are timed once for all layers."""
    assert target.sequence_length is not None  # see ``Target.resolve``
    hidden = Example(shape=(target.sequence_length, encoder.hidden))
    vocabulary = _vocabulary(encoder, target.inputs)

    def part(key: str, function: str, *arguments: Any, edge: int | None = None, candidate: int = 0) -> Part:
        build = partial(module_of, "ddpnas_ray.spaces.bert.network", function, encoder, *arguments)
        example = target.inputs if function == "Embeddings" else hidden
        key = f"{key}, {target.sequence_length} tokens of width {encoder.hidden}"
        return Part(edge=edge, candidate=candidate, key=key, example=example, build=build)

    found = [
        part(f"embeddings of {vocabulary}", "Embeddings", vocabulary),
        part(f"output layer to {target.classes}", "Output", target.classes),
    ]
    for e in range(1, 1 + 2 * len(encoder.searched), 2):
        found += [
            part(f"{count} heads of {encoder.head_width}", "Attention", count, edge=e, candidate=k)
            for k, count in enumerate(encoder.head_counts)
        ]
        found += [
            part(f"feed-forward {width}", "FeedForward", width, edge=e + 1, candidate=k)
            for k, width in enumerate(encoder.ffn_widths)
        ]
    return found


def _effort(encoder: Encoder, alpha_E: IntArray, inputs: Inputs) -> float:
    target = Target(sequence_length=inputs.shape[0], vocabulary=inputs.vocabulary, classes=inputs.outputs)
    sizes, table = encoder.sizes(alpha_E), cost_table("macs", encoder, target)
    chosen = (1 + 2 * i + j for i, layer in enumerate(encoder.searched) if layer in sizes for j in (0, 1))
    return float(table.base + sum(int(table.entries_EK[e, alpha_E[e]]) for e in chosen))


def _supernet(encoder: Encoder, frozen: bool, inputs: Inputs) -> Supernet:
    from ddpnas_ray.spaces.bert.network import BertNetwork

    return BertNetwork(encoder, encoder.largest, _vocabulary(encoder, inputs), inputs.outputs, frozen=frozen)


def _build(encoder: Encoder, frozen: bool, alpha_E: IntArray, inputs: Inputs) -> BertNetwork:
    import torch

    from ddpnas_ray.spaces.bert.network import BertNetwork

    sizes, vocabulary = encoder.sizes(alpha_E), _vocabulary(encoder, inputs)
    with torch.device("meta"):
        network = BertNetwork(encoder, sizes, vocabulary, inputs.outputs, frozen=frozen)
    return network.to_empty(device="cpu")  # not initialised: every parameter is bound to the supernet's weights


def _deploy(encoder: Encoder, alpha_E: IntArray, target: Target) -> BertNetwork:
    from ddpnas_ray.spaces.bert.network import BertNetwork

    return BertNetwork(encoder, encoder.sizes(alpha_E), _vocabulary(encoder, target.inputs), target.classes)


def _vocabulary(encoder: Encoder, inputs: Inputs) -> int:
    if inputs.vocabulary is None:
        raise ConfigError("networks of space bert take texts; choose another space.name or task.name")
    return encoder.vocabulary or inputs.vocabulary
