"""Trace a network into a graph of torch operations."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ddpnas_ray.core.errors import ExportError

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

TRACES = ("stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack", "from_node")  # paths and source lines


def export(network: nn.Module, input_shape: tuple[int, int, int], name: str) -> ExportedProgram:
    """Export a network in eval mode with a free batch size.

    Args:
        network: (B, C, H, W) -> (B, classes).
        input_shape: (C, H, W).
        name: Its name, for messages.

    Raises:
        ExportError: It cannot be traced, as where its forward pass depends on values of the images.
    """
    import torch

    # Two images: a batch of 1 would be taken for a constant. Zeros: the example inputs are stored with the program.
    example = torch.zeros(2, *input_shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
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
