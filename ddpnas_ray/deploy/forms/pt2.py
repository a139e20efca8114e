"""``model.pt2``: the program of ``torch.export``, to run in PyTorch or to compile for devices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpnas_ray.core.errors import ModelError

if TYPE_CHECKING:
    from ddpnas_ray.deploy.trained import TrainedNetwork

FILES = ("model.pt2",)
METADATA = "ddpnas.json"  # an extra file in the archive
USAGE = """
import torch

program = torch.export.load("model.pt2")
(images,), _ = program.example_inputs  # zeros (batch, channels, height, width); yours, float32, preprocessed
logits = program.module()(images)
"""


def write(network: TrainedNetwork, folder: Path) -> None:
    """Write ``model.pt2`` with the metadata in it."""
    import io

    import torch

    archive = io.BytesIO()  # torch ends the process if its own file cannot be written
    torch.export.save(network.program, archive, extra_files={METADATA: json.dumps(network.metadata)})
    (folder / "model.pt2").write_bytes(archive.getvalue())


def load(folder: str) -> Callable[[Any], Any]:
    """Load ``model.pt2``."""
    import os

    import torch

    network = torch.export.load(os.path.join(folder, "model.pt2")).module()

    def logits(*inputs: Any) -> Any:
        with torch.inference_mode():
            return network(*map(torch.from_numpy, inputs)).numpy()

    return logits


def metadata(folder: Path) -> Mapping[str, str]:
    """Read the extra file, without torch.

    Raises:
        ModelError: It is missing, or the file is damaged.
    """
    import zipfile

    path = folder / "model.pt2"
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith(f"/{METADATA}"))
            found: dict[str, str] = json.loads(archive.read(name))
    except Exception as error:  # zipfile raises errors of many kinds
        raise ModelError(f"{path}: not a model.pt2 of ours ({error or 'no metadata'}); export it again") from None
    return found
