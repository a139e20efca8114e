"""Trace a network into a graph of torch operations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ddpnas_ray.core.errors import ExportError
from ddpnas_ray.deploy.interface import Axis
from ddpnas_ray.deploy.questions import Arrays

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

TRACES = ("stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack", "from_node")  # paths and source lines


def export(network: nn.Module, blank: Arrays, axes: Mapping[int, Axis], name: str) -> ExportedProgram:
    """Export a network in eval mode with a free batch size, and other free axes.

    Args:
        network: Tensors of B examples -> (B, outputs), or of every pixel (B, outputs, H, W).
        blank: Inputs of two examples, which are stored with the program: they should hold none of the user's.
        axes: Those of every input that may have any size, by number.
        name: Its name, for messages.

    Raises:
        ExportError: It cannot be traced, as where its forward pass depends on values of the examples.
    """
    import torch

    example = tuple(map(torch.from_numpy, blank))  # of two: a batch of 1 would be taken for a constant
    free = {
        number: torch.export.Dim.DYNAMIC(max=axis.most) if axis.bounded else torch.export.Dim(axis.name, max=axis.most)
        for number, axis in axes.items()
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(network, example, dynamic_shapes=(free,) * len(example))
    except Exception as error:  # torch.export raises errors of many kinds
        first = " ".join(str(error).split("\n")[0].split())
        raise ExportError(
            f"{name}: torch.export cannot trace the network ({type(error).__name__}: {first}); "
            "leave out the forms onnx and pt2"
        ) from error
    for graph_module in program.graph_module.modules():
        for node in getattr(graph_module, "graph", torch.fx.Graph()).nodes:
            for key in TRACES:
                node.meta.pop(key, None)
    return program
