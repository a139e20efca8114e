"""Find and read text files that are to be predicted: tables with the columns of training, or one text per line.

Axes: N texts.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.problems import Problems
from ddpnas_ray.deploy.questions import Arrays, Outputs, Unreadable
from ddpnas_ray.tasks.text.examples import Examples
from ddpnas_ray.tasks.text.reading import FORMATS, Columns, Rows, class_numbers, numbers, read_files

PLAIN = ".txt"
SHOWN = 60  # characters of a text on the screen
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OWN = ("row", "label", "probability", "probabilities", "value", "expected", "top", "error")  # columns of predictions


@dataclass(frozen=True, slots=True)
class TextRows:
    """Rows of text files, in order.

    Args:
        columns: Names of the one or two text columns.
        files: What was read from each file.
        unread: Rows that were left out.
    """

    columns: tuple[str, ...]
    files: tuple[Rows, ...]
    unread: tuple[Unreadable, ...]

    @property
    def texts(self) -> list[list[str]]:
        """One or two columns of N texts."""
        return [[text for rows in self.files for text in rows.texts[i]] for i in range(len(self.columns))]

    @property
    def names(self) -> list[str]:
        """File and line of every row."""
        return [name for rows in self.files for name in rows.names]

    def expected(self, classes: Sequence[str], *, declared: bool) -> list[Any]:
        """Return the labels: class names, or numbers if there are no classes.

        Raises:
            DataError: One is not a class, or not a number.
        """
        if not classes:
            return [float(value) for rows in self.files for value in numbers(rows)]
        return [classes[k] for rows in self.files for k in class_numbers(rows, classes, declared=declared)]


@dataclass(frozen=True, kw_only=True)
class TextQuestions:
    """Texts to predict; see ``Questions``.

    Args:
        names: File and line of every text.
        texts: One or two columns of texts, by name.
        examples: The same, encoded.
        outputs: The outputs that answer.
        pad_id: Id of the padding.
        unread: Rows that were left out.
        expected: Classes or numbers, where they are known.
    """

    names: Sequence[str]
    texts: Mapping[str, Sequence[str]]
    examples: Examples
    outputs: Outputs
    pad_id: int
    unread: Sequence[Unreadable] = ()
    expected: Sequence[Any] | None = None
    key: str = "row"
    one: str = "text"

    def __len__(self) -> int:
        return len(self.examples)

    def name(self, number: int) -> str:
        """See ``Questions``: the text, or both, shortened."""
        text = " | ".join(column[number] for column in self.texts.values())
        return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."

    def fields(self, number: int) -> dict[str, str]:
        """See ``Questions``: file and line, and the text."""
        own = {f"{name}_" if name in OWN else name: column[number] for name, column in self.texts.items()}
        return {self.key: self.names[number], **own}

    def read(self, start: int, stop: int) -> tuple[Arrays | None, dict[int, Unreadable]]:
        """See ``Questions``: all of these can be."""
        rows = np.arange(start, min(stop, len(self)))
        return (padded(self.examples, rows, self.pad_id) if len(rows) else None), {}


def padded(examples: Examples, rows: IntArray, pad_id: int) -> Arrays:
    """Return some examples as a network's inputs, as wide as the longest of them."""
    arrays = examples.padded(rows, int(examples.lengths_N[rows].max(initial=0)), pad_id)
    return tuple(arrays[name] for name in INPUTS)


def read_rows(given: Sequence[str], columns: Sequence[str], label: str | None) -> TextRows:
    """Read the rows of text files, each file once, in the given order; rows without a text are left out.

    Args:
        given: TSV, CSV or Parquet files, or plain ones for a single text column; or patterns.
        columns: The one or two text columns.
        label: The label column; None: it is not read.

    Raises:
        DataError: A file does not exist, has no such column, or is not a text file.
    """
    problems = Problems(most=None)
    wanted = Columns(
        texts=tuple(columns),
        label="" if label is None else label,
        texts_key="a text of the model",
        label_key="its label, which --labelled needs",
    )
    found = [_read(file, wanted, problems) for file in _files(given)]
    unread = tuple(Unreadable(reason.partition(": ")[0], reason) for reason in problems.kept)
    if not unread and not any(map(len, found)):
        raise DataError(f"{', '.join(given)}: no texts; add some, or give another file")
    return TextRows(tuple(columns), tuple(found), unread)


def _files(given: Sequence[str]) -> list[Path]:
    """List the files that paths and patterns name, each once."""
    found: dict[str, Path] = {}
    for text in given:
        path = os.path.expanduser(text)
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if not matches:
            raise DataError(f"{text}: no such file, and no pattern that matches one; correct EXAMPLES")
        for match in map(Path, matches):
            if match.is_dir():
                raise DataError(f"{match}: is a folder; give its text files, such as '{match}/*.tsv'")
            if match.suffix.lower() not in (*FORMATS, PLAIN):
                raise DataError(
                    f"{match}: the model takes texts, in files of {', '.join((*FORMATS, PLAIN))}; convert it"
                )
            found.setdefault(os.path.abspath(match), match)
    return list(found.values())


def _read(file: Path, columns: Columns, problems: Problems) -> Rows:
    if file.suffix.lower() != PLAIN:
        return read_files([file], columns, labelled=bool(columns.label), problems=problems)
    if len(columns.texts) > 1 or columns.label:
        what = "labels" if columns.label else f"pairs ({' and '.join(columns.texts)})"
        raise DataError(f"{file}: a plain file has one text per line, no {what}; give {', '.join(FORMATS)}")
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as texts in UTF-8 ({error})") from None
    if not lines[-1]:
        lines.pop()
    names = [f"{file}, line {i}" for i in range(1, len(lines) + 1)]
    problems.add(f"{name}: it is empty" for name, line in zip(names, lines, strict=True) if not line.strip())
    kept = [(name, line.rstrip("\r")) for name, line in zip(names, lines, strict=True) if line.strip()]
    return Rows(
        texts=([line for _, line in kept],),
        labels=None,
        classes=None,
        origin=str(file),
        names=[name for name, _ in kept],
        problems=problems,
    )
