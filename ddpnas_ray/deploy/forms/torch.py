"""``network.py``: one readable file of plain PyTorch, with the weights in ``model.safetensors``.

The weights of ``Network`` are those of our deploy network in the same order, under the names that read well there. The
file's last part lets transformers load the same folder (form ``huggingface``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpnas_ray.core.errors import ExportError
from ddpnas_ray.deploy.weights import read_metadata, write_weights
from ddpnas_ray.spaces.plain import render

if TYPE_CHECKING:
    from torch import nn

    from ddpnas_ray.deploy.trained import TrainedNetwork

FILES = ("network.py", "model.safetensors")
NEEDS_SOURCE = True
USAGE = """
from PIL import Image
from network import CLASSES, load, preprocess

logits = load()(preprocess(Image.open("image.png"))[None])
print(CLASSES[int(logits.argmax())])
"""


def write(network: TrainedNetwork, folder: Path) -> None:
    """Write ``network.py`` and ``model.safetensors``.

    Raises:
        ExportError: The space's source creates other weights than its deploy network.
    """
    text = source(network)
    (folder / "network.py").write_text(text, encoding="utf-8")
    write_weights(folder, _renamed(network, text), network.metadata)


def load(folder: str) -> Callable[[Any], Any]:
    """Load ``network.py`` with its weights, without leaving bytecode beside it."""
    import os
    import types

    import torch

    path = os.path.join(folder, "network.py")
    module = types.ModuleType("network")
    module.__file__ = path
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec"), module.__dict__)
    network = module.load(folder)

    def logits(*inputs: Any) -> Any:
        with torch.inference_mode():
            return network(*map(torch.from_numpy, inputs)).numpy()

    return logits


def metadata(folder: Path) -> Mapping[str, str]:
    """Read the metadata of ``model.safetensors``."""
    return read_metadata(folder / "model.safetensors")


def source(network: TrainedNetwork) -> str:
    """Write the whole of ``network.py``."""
    assert network.spec.source is not None
    body = network.spec.source(network.alpha_E, network.target).strip("\n")
    return render(
        network.preprocessing.template,
        body=body,
        classes=_names(network.preprocessing.classes),
        searched=bool(network.facts.get("search")),
        space=network.spec.space.name,
        functional="F." in body,
        reduces="reduce(" in body,
        **network.preprocessing.source_values(),
    )


def _renamed(network: TrainedNetwork, text: str) -> dict[str, Any]:
    """Return the weights under the names of ``network.py``'s network."""
    import torch

    module: dict[str, Any] = {"__name__": "network", "__file__": "network.py"}
    exec(compile(text, "network.py", "exec"), module)
    with torch.random.fork_rng(devices=[]):  # its random weights are not used
        plain: nn.Module = module["Network"]()
    ours, theirs = network.module().state_dict(), plain.state_dict()
    kinds = [
        [(name.rpartition(".")[2], tuple(tensor.shape)) for name, tensor in state.items()] for state in (ours, theirs)
    ]
    if kinds[0] != kinds[1]:
        raise ExportError(
            f"space {network.spec.space.name!r}: its source creates {len(kinds[1])} weights, its deploy network "
            f"{len(kinds[0])}, or in another order or shape; correct SpaceSpec.source"
        )
    return dict(zip(theirs, ours.values(), strict=True))


def _names(classes: tuple[str, ...]) -> str:
    """Write class names as a tuple, on one line if they fit."""
    names = [repr(name) if "'" in name or '"' in name else f'"{repr(name)[1:-1]}"' for name in classes]
    line = f"({', '.join(names)}{',' * (len(names) == 1)})"
    return line if len(line) <= 100 else "(\n" + "".join(f"    {name},\n" for name in names) + ")"
