"""``SpaceSpec``, which every search space provides, and lookup of spaces by name.

A new space is one module with a function that returns a ``SpaceSpec``, named ``module:function`` in the configuration:
``space: {name: "my_lab.tiny:make", channels: 8}``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from ddpnas_ray.core.errors import GenotypeError, did_you_mean
from ddpnas_ray.core.generation.solve import most_likely
from ddpnas_ray.core.plugins import Kind
from ddpnas_ray.core.space import BoolArray, CostFunction, Edge, FloatArray, Gate, IntArray, SearchSpace
from ddpnas_ray.costs.convnet import Size, height_and_width
from ddpnas_ray.spaces.target import Example, Head, Inputs, Target, TargetDefaults, size_text

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ddpnas_ray.nn.weights import Piece

SPACES = Kind("space", "ddpnas_ray.spaces", function="make", returns="a SpaceSpec", file="space")

Genotype = dict[str, Any]
# (network, examples) -> the loss of each batch of that many representative training examples, not augmented.
Losses: TypeAlias = "Callable[[Callable[[Any], Tensor], int], Iterator[Tensor]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a deploy network that is timed on its own.

    Args:
        edge: The edge that chooses it; None: common to all networks (stem, preprocessing, classifier).
        candidate: Index of the choice.
        key: Identifies the work; parts with equal keys take equally long, and are timed once.
        example: What it takes, without the axis of examples: the target's inputs, or any tensor inside the network.
        build: Builds a module of one argument, with weights from torch's generator; what else it needs, such as an
            attention mask, it makes itself. Picklable.
    """

    edge: int | None
    candidate: int = 0
    key: str
    example: Example
    build: Callable[[], nn.Module]


def module_of(module: str, function: str, *arguments: Any, **options: Any) -> nn.Module:
    """Import a module that needs torch and call its function; partials of this are picklable."""
    made: nn.Module = getattr(importlib.import_module(module), function)(*arguments, **options)
    return made


def head_part(head: Head, features: Mapping[int, tuple[int, Size]], classes: int, size: Size) -> Part:
    """Return a head as a part: it takes the deepest features, given by stride with channels and sizes of all."""
    channels, deepest = features[max(features)]
    shape = (channels, *height_and_width(deepest))
    arguments = (head.name, dict(features), head.width, classes, size)
    return Part(
        edge=None,
        key=f"{head} to {classes} classes of {size_text(size)} from {'x'.join(map(str, shape))}",
        example=Example(shape=shape),
        build=partial(module_of, "ddpnas_ray.nn.heads", "HeadAlone", *arguments),
    )


class Supernet(Protocol):
    """An ``nn.Module`` with every candidate and the shared weights, in search form.

    ``forward(x, alpha_E)`` computes the operations of one architecture and nothing else.
    """

    def __call__(self, x: Any, alpha_E: IntArray) -> Any: ...

    def named_parameters(self) -> Any:
        """See ``nn.Module``: the shared weights, by the names that ``pieces`` gives them."""
        ...

    def pieces(self, alpha_E: IntArray) -> list[Piece]:
        """Return the weights that an architecture uses, in the order of its stand-alone network's parameters."""
        ...


@runtime_checkable
class DropsPaths(Protocol):
    """A deploy network that can drop paths: optional, tested with ``isinstance``.

    Attributes:
        drop_path: Probability of dropping a path, for each sample alone; 0 until retraining sets it, before every
            epoch: a number, or a tensor without axes if the network is compiled. Without effect in eval mode.
    """

    drop_path: float | Tensor


@runtime_checkable
class TakesAuxiliaryHead(Protocol):
    """A deploy network that can have an auxiliary head: optional, tested with ``isinstance``."""

    def add_auxiliary_head(self) -> None:
        """Add the head, with weights from torch's generator; its parameters have the prefix ``auxiliary.``.

        From then on ``forward`` returns ``(outputs, auxiliary_outputs)`` in training mode; in eval mode the outputs
        alone, as before.

        Raises:
            ConfigError: The feature maps are too small for the head; names ``retraining.auxiliary``.
        """
        ...


@runtime_checkable
class HasHiddenStates(Protocol):
    """A deploy network whose hidden states can be distilled: optional, tested with ``isinstance``."""

    def hidden_states(self) -> Mapping[str, nn.Module]:
        """Return the modules whose outputs are hidden states, by a name that networks of the space share.

        Outputs of one name have the same shape in all networks of the space.
        """
        ...


def equal_effort(alpha_E: IntArray, inputs: Inputs) -> float:
    """Default effort: equal for all architectures."""
    return 1.0


def same_name(name: str, target: Target, inputs: Inputs) -> str:
    """Default origin of a deploy network's parameter: the search network's parameter of the same name."""
    return name


def no_stock(alpha_E: IntArray, target: Target) -> None:
    """Default: transformers has no such architecture."""


@dataclass(frozen=True)
class SpaceSpec:
    """Everything that a search space provides.

    Args:
        space: Edges, candidates and blocks.
        supernet: Inputs -> the supernet, weights initialised from torch's generator.
        build: (alpha_E, inputs) -> the stand-alone network of one architecture in search form. Its parameters are those
            of ``supernet.pieces(alpha_E)``, by name and in order.
        deploy: (alpha_E, target) -> the stand-alone network in deploy form, to be trained from scratch.
        encode: Genotype -> alpha_E; raises ``GenotypeError``.
        decode: alpha_E -> genotype, plain JSON.
        costs: Name -> (target -> that cost as a function of alpha_E). Names with a dot are a family: a budget for
            ``height`` bounds ``height.normal`` and ``height.reduce``, each. They get the space's gate: entries of
            inactive edges count nothing, those of the gate's edge are the base of each mode.
        target: The options of section ``target`` that apply, with defaults.
        parts: Target -> the parts to time for a latency table; times add up. None: no latency table.
        effort: (alpha_E, inputs) -> relative time of one architecture-epoch; orders work, never results.
        inherit: (parameter of the deploy network, target, inputs) -> the parameter of the search network whose value it
            may start from; ``""``: none. Used where shapes are equal (``spaces.inherit``).
        initialise: (supernet, losses) sets the first weights of a search, such as those of a pretrained model; None:
            those that ``supernet`` made. Runs on the CPU.
        source: (alpha_E, target) -> the deploy network as plain PyTorch source, for files that need nothing of ours
            (see ``spaces.plain``). Its ``Network()`` creates the deploy network's weights in the same order. None: such
            networks are exported without source.
        stock: (alpha_E, target) -> the same network as an architecture that Hugging Face transformers has itself: its
            ``config.json``, with ``model_type`` and ``architectures``; None: it has not. Such a network is loaded there
            without code of ours, so ``source`` gives its weights the names of transformers.
    """

    space: SearchSpace
    supernet: Callable[[Inputs], Supernet]
    build: Callable[[IntArray, Inputs], nn.Module]
    deploy: Callable[[IntArray, Target], nn.Module]
    encode: Callable[[Genotype], IntArray]
    decode: Callable[[IntArray], Genotype]
    costs: Mapping[str, Callable[[Target], CostFunction]] = field(default_factory=dict)
    target: TargetDefaults = TargetDefaults()
    parts: Callable[[Target], list[Part]] | None = None
    effort: Callable[[IntArray, Inputs], float] = equal_effort
    inherit: Callable[[str, Target, Inputs], str] = same_name
    initialise: Callable[[Any, Losses], None] | None = None
    source: Callable[[IntArray, Target], str] | None = None
    stock: Callable[[IntArray, Target], dict[str, Any] | None] = no_stock

    def __post_init__(self) -> None:
        if (gate := self.space.gate) is not None:
            costs = {name: partial(_gated, cost, gate) for name, cost in self.costs.items()}
            object.__setattr__(self, "costs", costs)

    def argmax(self, theta_EK: FloatArray, live_EK: BoolArray) -> IntArray:
        """Return the architecture with the largest expectation among live, selectable operations, shape (E,)."""
        return most_likely(self.space, theta_EK, live_EK)


def _gated(cost: Callable[[Target], CostFunction], gate: Gate, target: Target) -> CostFunction:
    return replace(cost(target), gate=gate)


def decode_edges(edges: Sequence[Edge], alpha_E: IntArray, gate: Gate | None = None) -> Genotype:
    """alpha_E -> the operation of every active edge, by name: the default genotype.

    Args:
        edges: The edges.
        alpha_E: The architecture, shape (E,).
        gate: That of the space, if it has one.

    Example:
        >>> from ddpnas_ray.core.space import Op
        >>> layer = Edge("layer0", (Op("conv_3x3", "parameter"), Op("skip", "non_parameter")))
        >>> decode_edges((layer,), np.array([1]))
        {'layer0': 'skip'}
    """
    active_E = np.ones(len(edges), dtype=bool) if gate is None else gate.active(np.asarray(alpha_E))
    chosen = zip(edges, alpha_E, active_E, strict=True)
    return {edge.name: edge.candidates[k].name for edge, k, active in chosen if active}


def encode_edges(edges: Sequence[Edge], genotype: Genotype, gate: Gate | None = None) -> IntArray:
    """Genotype from ``decode_edges`` -> alpha_E, the canonical one.

    Raises:
        GenotypeError: An edge is missing or unknown, or has no such operation.
    """
    inactive: tuple[int, ...] = ()
    if gate is not None and isinstance(genotype, dict) and edges[gate.edge].name in genotype:
        inactive = gate.inactive[_chosen(edges[gate.edge], genotype)]
    active = [edge for e, edge in enumerate(edges) if e not in inactive]
    if not isinstance(genotype, dict) or genotype.keys() != {edge.name for edge in active}:
        raise GenotypeError(f"genotype: an operation for each of {', '.join(edge.name for edge in active)} is needed")
    alpha = []
    for e, edge in enumerate(edges):
        selectable = (k for k, op in enumerate(edge.candidates) if op.generable)
        alpha.append(next(selectable) if e in inactive else _chosen(edge, genotype))
    return np.array(alpha, dtype=np.int64)


def _chosen(edge: Edge, genotype: Genotype) -> int:
    names, name = [op.name for op in edge.candidates], genotype[edge.name]
    if name not in names:
        hint = did_you_mean(str(name), names)
        raise GenotypeError(f"genotype: {edge.name}: {name!r} is not an operation of this edge{hint}")
    return names.index(name)


def find_space(name: str) -> Callable[..., SpaceSpec]:
    """Return the function that makes a space: a built-in by name, or your own ``module:function``.

    Raises:
        ConfigError: The name cannot be imported.
    """
    return SPACES.find(name, "space.name")
