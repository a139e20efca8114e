"""How examples become a network's inputs and what its outputs mean: the part of an export that depends on the task.

A kind of example is a file of ``kinds/`` that defines ``from_metadata(metadata, file)`` and returns an ``Interface``.
Tasks name their kind (``ddpnas_ray.tasks.base.Deploys``), and every exported file carries it in its metadata.

Axes: N examples, O outputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy.typing as npt

from ddpnas_ray.core.errors import ConfigError, ModelError
from ddpnas_ray.core.plugins import Kind
from ddpnas_ray.data.batches import Float32Array
from ddpnas_ray.deploy.questions import Arrays, Questions
from ddpnas_ray.spaces.target import Target

if TYPE_CHECKING:
    from torch import nn

KINDS = Kind("kind of example", "ddpnas_ray.deploy.kinds", function="from_metadata", returns="an Interface")
IMAGES = "images"  # whose files do not name it
TOLERANCE = 1e-5  # of the largest logit
MOST_CLASSES = 50  # listed on a card
BATCH = 256  # most examples per forward pass of those with one label
COMPARED = 200  # examples of that kind that every form is compared on


class Axis(NamedTuple):
    """An axis of an input that may have any size.

    Args:
        name: Its name.
        most: Its largest size; None: no limit.
        bounded: Whether the network sets a smallest size, as where it halves an image's sides.
    """

    name: str
    most: int | None = None
    bounded: bool = False


BATCH_AXIS = Axis("batch")


class Interface(Protocol):
    """Preprocessing, outputs and words of one kind of example.

    Attributes:
        kind: Its file in ``kinds/``.
        one: The word for an example; with an s for several.
        hub_task: Task on the Hugging Face hub, and of transformers' pipeline.
        inputs: Names of the network's inputs.
        axes: Those of each input that may have any size, by number.
        batch: Examples per forward pass, and in memory, where nothing else is asked for.
        compared: Most examples that exported forms are compared on.
        usage: Lines of Python that load a form and end with logits or labels, by its name; others have their own.
        template: Jinja template of ``network.py``.
    """

    @property
    def kind(self) -> str: ...
    @property
    def one(self) -> str: ...
    @property
    def hub_task(self) -> str: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def axes(self) -> Mapping[int, Axis]: ...
    @property
    def batch(self) -> int: ...
    @property
    def compared(self) -> int: ...
    @property
    def usage(self) -> Mapping[str, str]: ...
    @property
    def template(self) -> Path: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        ...

    def to_metadata(self) -> dict[str, str]:
        """Return it as JSON texts by key, as all files carry it."""
        ...

    def write(self, folder: Path) -> None:
        """Write the files that every form needs, such as a tokenizer."""
        ...

    def check_target(self, target: Target) -> None:
        """Check that a deploy network is for these examples.

        Raises:
            ConfigError: It is not.
        """
        ...

    def check(self, inputs: Arrays) -> None:
        """Check the shapes of inputs.

        Raises:
            ValueError: They are not those of the network.
        """
        ...

    def batches(self, inputs: Arrays, size: int) -> Iterator[Arrays]:
        """Cut inputs into batches as they are used."""
        ...

    def trials(self, inputs: Arrays) -> Iterator[Arrays]:
        """Return the batches that forms are compared on: the inputs, and other sizes if the network takes them."""
        ...

    def logits_shape(self, inputs: Arrays) -> tuple[int, ...]:
        """Return the shape of a network's outputs for inputs: (N, O), or (N, O, H, W) of every pixel."""
        ...

    def positional(self, network: nn.Module) -> nn.Module:
        """Return a network of tensors, in the order of ``inputs``, from a deploy network."""
        ...

    def blank(self) -> Arrays:
        """Return two examples without content, to trace a network on; they are stored with its graph."""
        ...

    def random(self, count: int) -> Arrays:
        """Return random examples, always the same, to time a network on."""
        ...

    def shape_text(self, inputs: Arrays) -> str:
        """Describe the shape of one example."""
        ...

    def source_values(self) -> dict[str, Any]:
        """Return what ``template`` names."""
        ...

    def huggingface(self) -> dict[str, dict[str, Any]]:
        """Return the files, by name, that transformers reads beside the weights; ``config.json`` is one of them."""
        ...

    def write_samples(self, job: Path) -> None:
        """Write awkward examples for ``prepare_samples``."""
        ...

    def prepare_samples(self) -> tuple[str, str]:
        """Return name and source of a function: (globals of ``network.py``, folder of samples) -> prepared arrays.

        It runs where this package cannot be imported.
        """
        ...

    def check_samples(self, prepared: Sequence[npt.NDArray[Any]]) -> None:
        """Check what ``network.py`` prepared.

        Raises:
            ExportError: It is not what training prepares.
        """
        ...

    def agree(self, found_NO: Float32Array, expected_NO: Float32Array) -> int:
        """Return the number of examples, or of pixels, that two networks answer alike."""
        ...

    def summary(self) -> str:
        """Return a sentence part for the card: what the network is."""
        ...

    def sections(self) -> dict[str, str]:
        """Return text of the card's sections ``Classes``, ``Load it`` (how examples are prepared) and ``Limits``."""
        ...

    def questions(
        self, given: Sequence[str], *, labelled: bool = False, task: str | None = None, masks: str | None = None
    ) -> Questions:
        """Find what is to be predicted.

        Args:
            given: Files, folders or patterns.
            labelled: Whether the right outputs are given too, by folders or a column.
            task: One of several tasks of the network; None: the only one.
            masks: Folder of the right outputs of every pixel; None: not given.

        Raises:
            DataError: A file cannot be found or used.
            ConfigError: There is no such task, or several and none is named; or the right outputs are given otherwise.
        """
        ...


def interface_of(values: Mapping[str, Any], file: str) -> Interface:
    """Return the interface that plain values describe, ``kind`` among them.

    Args:
        values: As of ``Deploys.preprocessing``.
        file: Where they come from, for messages.

    Raises:
        ModelError: A value is missing, or one that no network has.
    """
    return from_metadata({key: json.dumps(value) for key, value in values.items()}, file)


def from_metadata(metadata: Mapping[str, str], file: str) -> Interface:
    """Read what ``Interface.to_metadata`` returned.

    Args:
        metadata: JSON texts by key; other keys are ignored.
        file: Where they were found, for messages.

    Raises:
        ModelError: A key is missing, damaged, or has a value that no network has.
    """
    try:
        kind = json.loads(metadata.get("kind", f'"{IMAGES}"'))
    except (ValueError, TypeError):
        kind = None
    if kind not in KINDS.names():
        raise ModelError(
            f"{file}: its metadata have examples of kind {kind!r}; this version knows {', '.join(KINDS.names())}"
        )
    found: Interface = KINDS.find(kind, "kind")(metadata, file)
    return found


def listed(names: Sequence[str]) -> str:
    """Return class names as a block of JSON for a card, a long list shortened."""
    text = f"```json\n{json.dumps(list(names[:MOST_CLASSES]), ensure_ascii=False)}\n```"
    if len(names) > MOST_CLASSES:
        text += f"\n\nand {len(names) - MOST_CLASSES} more; every file with weights names all of them."
    return text


def refuse_masks(masks: str | None) -> None:
    """Check that no masks are given for a network with one label per example.

    Raises:
        ConfigError: They are.
    """
    if masks is not None:
        raise ConfigError(f"--masks {masks}: the model's outputs are not those of every pixel; use --labelled")
