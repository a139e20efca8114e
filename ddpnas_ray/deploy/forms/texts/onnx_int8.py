"""``model_int8.onnx``: weights in 8 bits, for ONNX Runtime on CPUs: a quarter of the size, at twice the speed or more.

Activations are quantised as they come (dynamically), so no examples are needed. It computes nearly what the network
does; see ``LABELS``.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpnas_ray.core.errors import ExportError
from ddpnas_ray.deploy.forms import onnx as exact

if TYPE_CHECKING:
    from ddpnas_ray.deploy.trained import TrainedNetwork

FILES = ("model_int8.onnx",)
WRITING = (*exact.WRITING, "onnxruntime")
LOADING = exact.LOADING
LABELS = 0.97  # share of the examples whose labels must be the network's
OPTIONAL = True


def write(network: TrainedNetwork, folder: Path) -> None:
    """Write ``model_int8.onnx`` from ``model.onnx``, which is made if it is not there.

    Weights take 7 of the 8 bits, a scale per channel: products of 8 bits overflow on CPUs without VNNI.

    Raises:
        ExportError: The exporter cannot translate an operation of the network, or it cannot be quantised.
    """
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="ddpnas-int8-") as made:
        source = folder / exact.FILES[0]
        if not source.exists():
            exact.write(network, Path(made))
            source = Path(made) / exact.FILES[0]
        target = Path(made) / FILES[0]
        root = logging.getLogger()
        before = root.level
        root.setLevel(logging.ERROR)  # it recommends a preparation that changes nothing here
        try:
            quantize_dynamic(source, target, per_channel=True, reduce_range=True)
        except Exception as error:  # onnx raises errors of many kinds
            first = " ".join(str(error).split("\n")[0].split())
            raise ExportError(
                f"{network.name}: cannot be quantised ({type(error).__name__}: {first}); leave out onnx_int8"
            ) from error
        finally:
            root.setLevel(before)
        model = onnx.load(target)
        onnx.helper.set_model_props(model, dict(network.metadata))
        (folder / FILES[0]).write_bytes(model.SerializeToString(deterministic=True))


def load(folder: str) -> Callable[[Any], Any]:
    """Open ``model_int8.onnx`` in ONNX Runtime, on the CPU."""
    import os

    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(os.path.join(folder, "model_int8.onnx"), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def logits(*inputs: Any) -> Any:
        return session.run(None, dict(zip(names, inputs, strict=True)))[0]

    return logits


def metadata(folder: Path) -> Mapping[str, str]:
    """Read the file's metadata_props; see ``onnx.metadata_of``."""
    return exact.metadata_of(folder / FILES[0])
