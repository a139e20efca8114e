"""The mobile space of ProxylessNAS (Sec. 3.1, "layer-wise"): a chain of blocks with six candidates each.

An edge is a block. A block that keeps the shape of its input may also be left out (``zero``), so that depth is searched
as well as width and kernels. The searched network is the one that is deployed.

Axes: E edges, K candidates.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, MinLen

from ddpnas_ray.core.errors import ConfigError, GenotypeError, did_you_mean
from ddpnas_ray.core.space import CostTable, Edge, IntArray, Op, SearchSpace, each_edge_alone
from ddpnas_ray.costs.convnet import KINDS, Kind, Size, height_and_width
from ddpnas_ray.spaces.base import Genotype, Part, SpaceSpec, Supernet, head_part, module_of
from ddpnas_ray.spaces.mobile.costs import ZERO, Backbone, chosen, cost_table
from ddpnas_ray.spaces.mobile.plain import network_source
from ddpnas_ray.spaces.target import Example, Head, Inputs, Target, TargetDefaults

if TYPE_CHECKING:
    from ddpnas_ray.spaces.mobile.network import MobileNetwork

Positive = Annotated[int, Ge(1)]
MBConvName = Literal["mbconv_k3_e3", "mbconv_k3_e6", "mbconv_k5_e3", "mbconv_k5_e6", "mbconv_k7_e3", "mbconv_k7_e6"]


def make(
    *,
    widths: tuple[Positive, ...] = (32, 16, 24, 40, 80, 96, 192, 320, 1280),
    depths: Annotated[tuple[Positive, ...], MinLen(1)] = (4, 4, 4, 4, 4, 1),
    strides: tuple[Literal[1, 2], ...] = (2, 2, 2, 1, 2, 1),
    stem_stride: Literal[1, 2] = 2,
    first_kernel: Literal[3, 5, 7] = 3,
    search_last: bool = True,
    last: MBConvName = "mbconv_k3_e6",
) -> SpaceSpec:
    """Create the mobile space.

    Args:
        widths: Channels of the stem, of the first block, of every stage and of the last convolution.
        depths: Blocks of every stage.
        strides: Stride of every stage's first block. Images of 32 pixels: ``[1, 2, 2, 1, 2, 1]`` and stem_stride 1.
        stem_stride: Stride of the stem.
        first_kernel: Kernel of the first block, which is fixed and has expansion 1.
        search_last: False fixes the blocks of the last stage: the paper's 20 layers.
        last: Their operation in that case.

    Raises:
        ConfigError: The numbers of widths, depths and strides do not fit, or no block is left to search.
    """
    shape = backbone(
        widths=widths,
        depths=depths,
        strides=strides,
        stem_stride=stem_stride,
        first_kernel=first_kernel,
        search_last=search_last,
        last=last,
    )
    places = [f"stage{stage}.{block}" for stage, depth in enumerate(depths) for block in range(depth)]
    edges = tuple(
        Edge(place, tuple(Op(name, "non_parameter" if name == ZERO else "parameter") for name in names))
        for place, names in zip(places[: shape.searched], shape.candidates(), strict=False)
    )
    return SpaceSpec(
        space=SearchSpace("mobile", edges, each_edge_alone(edges)),
        supernet=partial(_supernet, shape),
        build=partial(_build, shape),
        deploy=partial(_deploy, shape),
        encode=partial(encode, backbone=shape),
        decode=partial(decode, backbone=shape),
        costs={
            **{kind: partial(_cost, kind, shape) for kind in KINDS},
            "nonparametric": partial(_count_blocks, shape, left_out=True),
            "height": partial(_count_blocks, shape, left_out=False),
        },
        target=TargetDefaults(head=True),
        parts=partial(_parts, shape),
        effort=partial(_effort, shape),
        source=partial(network_source, shape),
    )


def backbone(
    *,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    strides: tuple[int, ...],
    stem_stride: int,
    first_kernel: int,
    search_last: bool,
    last: str,
) -> Backbone:
    """Check the options of ``make`` and build the backbone.

    Raises:
        ConfigError: See ``make``.
    """
    if len(strides) != len(depths):
        raise ConfigError(
            f"space.strides has {len(strides)} numbers and space.depths {len(depths)}; give one per stage in both"
        )
    if len(widths) != len(depths) + 3:
        raise ConfigError(
            f"space.widths has {len(widths)} numbers; {len(depths)} stages (space.depths) need {len(depths) + 3}: "
            "stem, first block, one per stage, last convolution"
        )
    if not search_last and len(depths) == 1:
        raise ConfigError(
            "space.search_last is false and space.depths has one stage, so no block is left to search; "
            "set it to true, or add a stage"
        )
    return Backbone(
        widths=widths,
        depths=depths,
        strides=strides,
        stem_stride=stem_stride,
        first_kernel=first_kernel,
        fixed_last=None if search_last else last,
    )


def encode(genotype: Genotype, *, backbone: Backbone) -> IntArray:
    """Genotype -> alpha_E.

    Args:
        genotype: ``{"stages": [["mbconv_k5_e3", "zero", ...], ...]}``, one operation per block, fixed ones included.
        backbone: The network.

    Raises:
        GenotypeError: A count or an operation that does not fit.
    """
    stages = genotype.get("stages") if isinstance(genotype, dict) else None
    if not isinstance(stages, (list, tuple)):
        raise GenotypeError("genotype: the key 'stages' with a list of operations for each stage is missing")
    if len(stages) != len(backbone.depths):
        raise GenotypeError(f"genotype: stages has {len(stages)} stages, this space has {len(backbone.depths)}")
    alpha, candidates = [], iter(backbone.candidates())
    for s, (stage, depth) in enumerate(zip(stages, backbone.depths, strict=True)):
        if not isinstance(stage, (list, tuple)):
            raise GenotypeError(f"genotype: stages[{s}] is {stage!r}; a list of {depth} operations is needed")
        if len(stage) != depth:
            raise GenotypeError(f"genotype: stages[{s}] has {len(stage)} operations; this stage has {depth} blocks")
        for b, name in enumerate(stage):
            allowed = next(candidates)
            if name not in allowed:
                raise GenotypeError(f"genotype: stages[{s}][{b}]: {_why_not(name, allowed)}")
            alpha.append(allowed.index(name))
    return np.array(alpha[: backbone.searched], dtype=np.int64)


def decode(alpha_E: IntArray, *, backbone: Backbone) -> Genotype:
    """alpha_E -> the operation of every block, stage by stage."""
    names = iter(chosen(backbone.candidates(), alpha_E))
    return {"stages": [[next(names) for _ in range(depth)] for depth in backbone.depths]}


def _why_not(name: Any, allowed: tuple[str, ...]) -> str:
    if len(allowed) == 1:
        return f"{name!r}; the blocks of the last stage are fixed to {allowed[0]} (space.search_last, space.last)"
    if name == ZERO:
        return f"'zero' would leave out a block that changes width or size; allowed: {', '.join(allowed)}"
    return f"{name!r} is not an operation of this block{did_you_mean(str(name), allowed)}"


def _cost(kind: Kind, backbone: Backbone, target: Target) -> CostTable:
    inputs = target.inputs
    return cost_table(
        kind,
        _of_head(backbone, inputs.head),
        image_size=inputs.image_size,
        input_channels=inputs.channels,
        classes=target.classes,
        head=inputs.head,
    )


def _count_blocks(backbone: Backbone, target: Target, *, left_out: bool) -> CostTable:
    """Count searched blocks that are left out (N of Table 4, for a chain), or those that remain (H)."""
    candidates = backbone.candidates()[: backbone.searched]
    entries_EK = np.zeros((len(candidates), max(map(len, candidates))), dtype=np.int64)
    for e, names in enumerate(candidates):
        entries_EK[e, : len(names)] = [(name == ZERO) == left_out for name in names]
    return CostTable(0, entries_EK)


def _parts(backbone: Backbone, target: Target) -> list[Part]:
    """Return all timed parts of the network; blocks include their residual addition, and ``zero`` has none."""
    inputs, stem_stride = target.inputs, backbone.stem_stride
    backbone = _of_head(backbone, inputs.head)
    widths, sizes, kernel = backbone.widths, backbone.sizes(inputs.image_size), backbone.first_kernel
    image = (inputs.channels, inputs.image_size)
    parts = [
        _part(
            f"conv_3x3 stride {stem_stride} to {widths[0]}", image, "conv_bn_relu",
            inputs.channels, widths[0], kernel=3, stride=stem_stride,
        ),
        _part(
            f"mbconv_k{kernel}_e1 stride 1 to {widths[1]}", (widths[0], sizes[0]), "MBConv",
            backbone.first, kernel=kernel, expand=1,
        ),
    ]  # fmt: skip
    for e, (block, names, size) in enumerate(zip(backbone.blocks(), backbone.candidates(), sizes, strict=False)):
        for k, name in enumerate(names):
            if name != ZERO:
                key = f"{name} stride {block.step} to {block.out_channels}"
                key += f" dilation {block.dilation}" if block.dilation > 1 else ""
                part = _part(key, (block.in_channels, size), "build_mbconv", name, block)
                parts.append(replace(part, edge=e, candidate=k) if e < backbone.searched else part)
    last, width, classes = sizes[-1], widths[-1], target.classes
    if inputs.head is not None:
        return [*parts, head_part(inputs.head, backbone.features(inputs.image_size), classes, inputs.image_size)]
    return [
        *parts,
        _part(f"conv_1x1 to {width}", (widths[-2], last), "conv_bn_relu", widths[-2], width, kernel=1),
        _part(f"classifier to {classes}", (width, last), "classifier", width, classes),
    ]


def _part(key: str, of: tuple[int, Size], function: str, *arguments: Any, **options: Any) -> Part:
    """Return a part common to all networks, of channels and size, built by a function of ``spaces.mobile.network``."""
    build = partial(module_of, "ddpnas_ray.spaces.mobile.network", function, *arguments, **options)
    shape = (of[0], *height_and_width(of[1]))
    return Part(edge=None, key=f"{key} from {'x'.join(map(str, shape))}", example=Example(shape=shape), build=build)


def _of_head(backbone: Backbone, head: Head | None) -> Backbone:
    """Return the backbone at the output stride that a head wants."""
    return backbone if head is None else replace(backbone, output_stride=head.output_stride)


def _effort(backbone: Backbone, alpha_E: IntArray, inputs: Inputs) -> float:
    network = Target(
        image_size=inputs.image_size, classes=inputs.outputs, input_channels=inputs.channels, head=inputs.head
    )
    return float(_cost("macs", backbone, network)(alpha_E))


def _supernet(backbone: Backbone, inputs: Inputs) -> Supernet:
    return _network(backbone, backbone.candidates(), inputs)


def _build(backbone: Backbone, alpha_E: IntArray, inputs: Inputs) -> MobileNetwork:
    return _network(backbone, [(name,) for name in chosen(backbone.candidates(), alpha_E)], inputs)


def _deploy(backbone: Backbone, alpha_E: IntArray, target: Target) -> MobileNetwork:
    return _build(backbone, alpha_E, target.inputs)


def _network(backbone: Backbone, candidates: list[tuple[str, ...]], inputs: Inputs) -> MobileNetwork:
    from ddpnas_ray.spaces.mobile.network import MobileNetwork

    head = inputs.head
    return MobileNetwork(
        _of_head(backbone, head), candidates, input_channels=inputs.channels, classes=inputs.outputs, head=head
    )
