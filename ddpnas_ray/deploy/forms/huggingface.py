"""The model folder as a folder of Hugging Face transformers: ``config.json`` and ``preprocessor_config.json``.

The classes they name are in ``network.py`` (form ``torch``). The image processor there is our own: it makes grey images
where the network takes them, and rounds sides as in training (transformers' CLIPImageProcessor rounds the longer side
down, which moves the crop).
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
    """Write both files, and those of form ``torch`` if they are not there."""
    if not (folder / "network.py").exists():
        plain.write(network, folder)
    data = network.preprocessing
    config = {
        "architectures": ["FoundForImageClassification"],
        "auto_map": {
            "AutoConfig": "network.FoundConfig",
            "AutoModelForImageClassification": "network.FoundForImageClassification",
        },
        "model_type": "ddpnas-network",
        "id2label": {str(i): name for i, name in enumerate(data.classes)},
        "label2id": {name: i for i, name in enumerate(data.classes)},
        # of one class transformers makes a yes or no
        **({"problem_type": "single_label_classification"} if len(data.classes) > 1 else {}),
        "image_size": data.image_size,
        "num_channels": data.channels,
        "dtype": "float32",
    }
    preprocessor = {
        # the second one was transformers' name for faster processors; version 5 takes the first
        "auto_map": {"AutoImageProcessor": ["network.FoundImageProcessor", None]},
        "image_processor_type": "FoundImageProcessor",
        "size": {"shortest_edge": data.image_size},
        "crop_size": {"height": data.image_size, "width": data.image_size},
        "image_mean": list(data.mean),
        "image_std": list(data.std),
    }
    for name, content in (("config.json", config), ("preprocessor_config.json", preprocessor)):
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(folder: str) -> Callable[[Any], Any]:
    """Load the folder by transformers, offline, with the code in it."""
    import torch
    from transformers import AutoModelForImageClassification

    network = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True, local_files_only=True)
    network.eval()

    def logits(images: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).logits.numpy()

    return logits


def metadata(folder: Path) -> Mapping[str, str]:
    """Read the metadata of ``model.safetensors``."""
    return plain.metadata(folder)
