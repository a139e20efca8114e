"""What is to be predicted: image files, or rows of a text file, found before the network runs.

Axes: N questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

Arrays = tuple[npt.NDArray[Any], ...]
"""Inputs of a network, the first axis of each is the example: one array of images, or token ids, mask and types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """The outputs of one task of a network.

    Args:
        task: Its name; empty: the network has one task.
        classes: Class names; empty: a number is predicted.
        first: Its first output.
        metrics: Names of its metrics, printed with labels.
    """

    task: str = ""
    classes: tuple[str, ...]
    first: int = 0
    metrics: tuple[str, ...] = ("accuracy",)

    @property
    def count(self) -> int:
        """Number of outputs."""
        return len(self.classes) or 1


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A question that cannot be read.

    Args:
        path: Its path, or its file and line.
        reason: One line that names it.
    """

    path: str
    reason: str


class Questions(Protocol):
    """What is to be predicted, in order.

    Attributes:
        key: Name of the field that finds a question again, such as ``path``.
        one: The word for one.
    """

    @property
    def key(self) -> str: ...

    @property
    def one(self) -> str: ...

    @property
    def outputs(self) -> Outputs:
        """The outputs that answer."""
        ...

    @property
    def expected(self) -> Sequence[Any] | None:
        """The right class names or numbers; None: not known."""
        ...

    @property
    def unread(self) -> Sequence[Unreadable]:
        """What was left out before, such as rows without a text."""
        ...

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """Return what shows a question to people."""
        ...

    def fields(self, number: int) -> Mapping[str, str]:
        """Return what names a question in files, ``key`` first; the same keys for all."""
        ...

    def read(self, start: int, stop: int) -> tuple[Arrays | None, dict[int, Unreadable]]:
        """Prepare some questions as the network's inputs.

        Returns:
            The inputs of those that can be read, in order, None if none can; the others by number.
        """
        ...
