"""``model.onnx``: one file with weights and metadata, for ONNX Runtime and what compiles ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpnas_ray.core.errors import ExportError, ModelError

if TYPE_CHECKING:
    from ddpnas_ray.deploy.trained import TrainedNetwork

FILES = ("model.onnx",)
WRITING = ("onnx", "onnxscript")
LOADING = ("onnxruntime",)
OPSET = 20
USAGE = """
import numpy
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
images = numpy.zeros((2, *session.get_inputs()[0].shape[1:]), numpy.float32)  # yours, preprocessed
(logits,) = session.run(None, {"images": images})
"""


def write(network: TrainedNetwork, folder: Path) -> None:
    """Write ``model.onnx``: the inputs with free axes (``Interface.axes``), and output ``logits``.

    Raises:
        ExportError: The exporter cannot translate an operation of the network.
    """
    import torch

    program = network.program
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                input_names=list(network.preprocessing.inputs),
                output_names=["logits"],
                verbose=False,
            )
    except Exception as error:  # the exporter raises errors of many kinds
        first = " ".join(str(error).split("\n")[0].split())
        raise ExportError(f"{network.name}: no ONNX file ({type(error).__name__}: {first}); leave out onnx") from error
    finally:
        logger.setLevel(before)
    assert exported is not None
    model = exported.model
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # names and paths of the machine that exported
    _name_axes(model, {number: axis.name for number, axis in network.preprocessing.axes.items()})
    model.metadata_props.update(network.metadata)
    exported.save(folder / "model.onnx", external_data=False)


def load(folder: str) -> Callable[[Any], Any]:
    """Open ``model.onnx`` in ONNX Runtime, on the CPU."""
    import os

    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(os.path.join(folder, "model.onnx"), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def logits(*inputs: Any) -> Any:
        return session.run(None, dict(zip(names, inputs, strict=True)))[0]

    return logits


def metadata(folder: Path) -> Mapping[str, str]:
    """Read the file's metadata_props; see ``metadata_of``."""
    return metadata_of(folder / "model.onnx")


def metadata_of(path: Path) -> Mapping[str, str]:
    """Read the metadata_props of an ONNX file.

    Raises:
        ModelError: The file is missing or damaged.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises its own C++ errors
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: ONNX Runtime cannot open it ({reason}); export it again") from None
    found: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return found


def _name_axes(model: Any, axes: Mapping[int, str]) -> None:
    """Call the free dimensions by name, such as ``batch``, instead of by symbols of torch's."""
    import onnx_ir

    names = {model.graph.inputs[0].shape[axis].value: name for axis, name in axes.items()}
    values = {*model.graph.inputs, *model.graph.outputs, *(v for node in model.graph.all_nodes() for v in node.outputs)}
    for value in values:
        if value.shape is not None and any(getattr(side, "value", None) in names for side in value.shape):
            value.shape = onnx_ir.Shape([names.get(getattr(side, "value", None), side) for side in value.shape])
