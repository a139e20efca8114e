"""What the card of a network of masks tells: its classes and their colours, how to use it, and its limits."""

from __future__ import annotations

from collections.abc import Sequence

from ddpnas_ray.deploy.interface import MOST_CLASSES


def usage_of(hub_task: str) -> dict[str, str]:
    """Return the lines that load each form and make a label map."""
    after = "\n# (1, classes, height, width): the largest of a pixel is its class"
    return {
        "torch": "from PIL import Image\nfrom network import label_map, load\n\n"
        'label_map(load(), Image.open("image.png")).save("labels.png")  # of the size of the image; see PALETTE',
        "huggingface": "from transformers import pipeline\n\n"
        f'find = pipeline("{hub_task}", model=".", trust_remote_code=True)\n'
        'for found in find("image.png"):\n    found["mask"].save(f"{found[\'label\']}.png")',
        "onnx": "import numpy\nimport onnxruntime\n\n"
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        "images = numpy.zeros((1, 3, 64, 96), numpy.float32)  # yours, preprocessed; of any size\n"
        f'(logits,) = session.run(None, {{"images": images}}){after}',
        "pt2": "import torch\n\n"
        'program = torch.export.load("model.pt2")\n'
        f"logits = program.module()(torch.zeros(1, 3, 64, 96))  # yours, preprocessed; of any size{after}",
    }


def classes_of(classes: Sequence[str], palette: Sequence[tuple[int, int, int]]) -> str:
    """Return a table of the classes: number, name and colour."""
    shown = list(enumerate(zip(classes, palette, strict=True)))[:MOST_CLASSES]
    rows = [f"| {i} | {_cell(name)} | `#{bytes(colour).hex()}` |" for i, (name, colour) in shown]
    text = "\n".join(["| number | class | colour |", "| --- | --- | --- |", *rows])
    if len(classes) > MOST_CLASSES:
        text += f"\n\nand {len(classes) - MOST_CLASSES} more; every file with weights names all of them."
    return text


def words_of(size: tuple[int, int], mean: Sequence[float], std: Sequence[float], classes: int) -> dict[str, str]:
    """Return how images are prepared (section ``Load it``), and the section ``Limits``."""
    height, width = size
    prepared = (
        "The labels are resized back to the image's own size (nearest), as `label_map` in `network.py` does. Before, "
        f"images are resized to {height} x {width} pixels (height x width, bilinear, antialiased), divided by 255, and "
        f"normalised with mean {list(mean)} and std {list(std)}"
    )
    limits = [
        f"Every pixel gets one of its {classes} classes, also where an image shows anything else; its probabilities "
        "are not calibrated.",
        f"It was evaluated at {height} x {width} pixels. The network takes images of other sizes too, but was not "
        "measured on them.",
        "It is meant for images like those it was trained on.",
    ]
    return {"Load it": prepared, "Limits": "\n".join(f"- {line}" for line in limits)}


def _cell(name: str) -> str:
    """One line that does not break the table."""
    return " ".join(name.split()).replace("|", "\\|")
