"""``model.safetensors``: weights with metadata, readable without torch.

Metadata are texts: JSON of classes, channels, image size, mean, std and genotype.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpnas_ray.core.errors import ModelError

NAME = "model.safetensors"
LARGEST_HEADER = 100 * 2**20  # bytes; safetensors' own limit


def write_weights(folder: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write torch tensors by name, and what they need to be used; equal ones give equal bytes."""
    from safetensors.torch import save

    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    (folder / NAME).write_bytes(_sorted(save(contiguous, metadata={"format": "pt", **metadata})))


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file.

    Raises:
        ModelError: It is missing or not a safetensors file.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LARGEST_HEADER:
                raise ValueError("header too long")
            header = json.loads(file.read(length))
        found: dict[str, str] = header.get("__metadata__", {})
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}; is it a model folder?") from None
    except (ValueError, AttributeError):
        raise ModelError(f"{path}: not a safetensors file; export the network again") from None
    return found


def _sorted(stored: bytes) -> bytes:
    """Sort the metadata of a safetensors file, which the library writes in an order that changes."""
    length = int.from_bytes(stored[:8], "little")
    header = json.loads(stored[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the weights start at a multiple of 8
    return len(text).to_bytes(8, "little") + text + stored[8 + length :]
