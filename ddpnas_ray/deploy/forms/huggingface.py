"""The model folder as a folder of Hugging Face transformers: ``config.json``, and how examples are prepared.

The classes that they name are in ``network.py`` (form ``torch``), or transformers' own where the architecture is
(``SpaceSpec.stock``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpnas_ray.deploy.forms import torch as plain

if TYPE_CHECKING:
    from ddpnas_ray.deploy.trained import TrainedNetwork

FILES = ("config.json", "preprocessor_config.json", *plain.FILES)
LOADING = ("transformers",)
NEEDS_SOURCE = True
USAGE = """
from transformers import pipeline

classify = pipeline("image-classification", model=".", trust_remote_code=True)
print(classify("image.png"))
"""


def write(network: TrainedNetwork, folder: Path) -> None:
    """Write these files, and those of form ``torch`` if they are not there."""
    if not (folder / "network.py").exists():
        plain.write(network, folder)
    files = network.preprocessing.huggingface()
    if (stock := network.stock) is not None:
        files["config.json"] = {key: value for key, value in files["config.json"].items() if key != "auto_map"} | stock
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(folder: str) -> Callable[[Any], Any]:
    """Load the folder by transformers, offline, with the code in it."""
    import json
    import os

    import torch
    from transformers.models.auto import modeling_auto

    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    task = "For" + config["architectures"][0].partition("For")[2]
    auto, code = getattr(modeling_auto, f"AutoModel{task}"), "auto_map" in config
    network = auto.from_pretrained(folder, trust_remote_code=code, local_files_only=True)
    network.eval()

    def logits(*inputs: Any) -> Any:
        with torch.inference_mode():
            return network(*map(torch.from_numpy, inputs)).logits.numpy()

    return logits


def metadata(folder: Path) -> Mapping[str, str]:
    """Read the metadata of ``model.safetensors``."""
    return plain.metadata(folder)
