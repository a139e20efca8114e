"""Render the source of a network in plain PyTorch from the template beside a space (``SpaceSpec.source``).

A rendered template defines ``Network``, an ``nn.Module`` without arguments, with the constants it needs before it. It
may use ``torch``, ``F`` (torch.nn.functional), ``Tensor``, ``nn`` and ``reduce``, which ``deploy`` imports above it.

``Network.forward`` takes images, or of texts three int64 tensors of shape (examples, tokens) instead of the deploy
network's dictionary: ``input_ids, attention_mask, token_type_ids``, as ONNX and ``.pt2`` do. There may be any number of
examples, and of tokens up to ``target.sequence_length``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ddpnas_ray.core.errors import GenotypeError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.costs.heads import inputs_of, low_width, rates
from ddpnas_ray.spaces.target import Head

HEADS = Path(__file__).with_name("heads.py.j2")


def render(template: Path, **values: Any) -> str:
    """Render a Jinja template of Python source.

    Args:
        template: The template's file.
        values: What it may name.
    """
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["literal"] = repr
    return environment.from_string(template.read_text(encoding="utf-8")).render(**values)


def head_source(head: Head | None, channels: Mapping[int, int], classes: int) -> str:
    """Write a head as Python source: class ``Head``, whose ``forward`` takes deep and fine features, and ``resize``.

    Args:
        head: The head; None: empty.
        channels: Stride -> channels of the last feature map of that stride.
        classes: Outputs per pixel.
    """
    if head is None:
        return ""
    deep, *low = inputs_of(head.name, channels)
    return render(
        HEADS,
        head=head,
        deep=channels[deep],
        low=channels[low[0]] if low else None,
        low_width=low_width(head.width),
        rates=rates(deep),
        classes=classes,
    ).strip("\n")


def fine_stride(head: Head | None, channels: Mapping[int, int]) -> int | None:
    """Return the stride of the fine features that a head takes beside the deepest; None: it takes none."""
    if head is None:
        return None
    _, *low = inputs_of(head.name, channels)
    return low[0] if low else None


def operations_of(
    names: tuple[str, ...], alpha_E: Sequence[int] | IntArray, edges: list[tuple[int, int]]
) -> list[list[list[Any]]]:
    """Return the operations into every node of a cell, as ``[name, input]``, without ``none``.

    Args:
        names: Names of the candidates, the same on every edge.
        alpha_E: The chosen one of every edge of the cell.
        edges: (input, node) of every edge, in order; nodes count from 0.

    Raises:
        GenotypeError: alpha_E does not have one number per edge.

    Example:
        >>> operations_of(("none", "skip_connect"), [1, 0, 1], [(0, 0), (0, 1), (1, 1)])
        [[['skip_connect', 0]], [['skip_connect', 1]]]
    """
    if len(alpha_E) != len(edges):
        raise GenotypeError(f"genotype: {len(alpha_E)} operations; this cell has {len(edges)} edges")
    nodes: list[list[list[Any]]] = [[] for _ in range(1 + max(node for _, node in edges))]
    for (source, node), k in zip(edges, alpha_E, strict=True):
        if names[k] != "none":
            nodes[node].append([names[k], source])
    return nodes
