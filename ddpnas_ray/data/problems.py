"""Collect the problems of a data set, so that one error lists them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ddpnas_ray.core.errors import DataError

MOST = 10


class Problems:
    """Problems of one data set: the first ten are kept, the rest only counted.

    Args:
        found: The first ones.
        most: How many are kept; None: all.

    Example:
        >>> problems = Problems(["a.png: damaged image", "b.png: damaged image"])
        >>> problems.refuse()
        Traceback (most recent call last):
        ddpnas_ray.core.errors.DataError: 2 problems: (1) a.png: damaged image (2) b.png: damaged image
    """

    def __init__(self, found: Iterable[str] = (), *, most: int | None = MOST) -> None:
        self._kept: list[str] = []
        self._most = most
        self._count = 0
        self.add(found)

    def __len__(self) -> int:
        return self._count

    @property
    def kept(self) -> tuple[str, ...]:
        """Those that were kept, in order."""
        return tuple(self._kept)

    def add(self, found: Iterable[str]) -> None:
        """Add problems in order."""
        for problem in found:
            self._count += 1
            if self._most is None or len(self._kept) < self._most:
                self._kept.append(problem)

    def extend(self, other: Problems) -> None:
        """Add the problems of another part of the data set."""
        self.add(other._kept)
        self._count += other._count - len(other._kept)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Catch and add a ``DataError`` raised in the block."""
        try:
            yield
        except DataError as error:
            self.add([str(error)])

    def refuse(self) -> None:
        """Raise if there are any problems.

        Raises:
            DataError: Lists all problems; a single one keeps its own text.
        """
        if self._count == 1:
            raise DataError(self._kept[0])
        if self._count:
            listed = " ".join(f"({number}) {problem}" for number, problem in enumerate(self._kept, start=1))
            others = self._count - len(self._kept)
            raise DataError(f"{self._count} problems: {listed}" + (f" and {others} more" if others else ""))
