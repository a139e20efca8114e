"""Read texts and labels from TSV, CSV or Parquet files, and from Hugging Face data sets.

Axes: N examples.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddpnas_ray.core.errors import DataError, did_you_mean
from ddpnas_ray.core.space import FloatArray, IntArray
from ddpnas_ray.data.problems import Problems
from ddpnas_ray.data.tables import RowNames, features_of

FORMATS = (".parquet", ".tsv", ".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which columns of a data set are read.

    Args:
        texts: One or two names; in a file without a header ``"3"`` is the fourth column.
        label: Name of the label; empty: none is read.
        texts_key: The key that sets the texts, for messages.
        label_key: The key that sets the label, for messages.
        lenient: Take empty texts, and leave out rows that a file has cut short: for published data that have some.
    """

    texts: tuple[str, ...]
    label: str
    texts_key: str = "task.columns"
    label_key: str = "data.label_column"
    lenient: bool = False

    @property
    def all(self) -> tuple[str, ...]:
        """All names, the label last."""
        return (*self.texts, self.label) if self.label else self.texts

    @property
    def header(self) -> bool:
        """Whether the file names its columns."""
        return not self.label.isdecimal()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """One split as stored.

    Args:
        texts: One or two columns of N texts.
        labels: The N labels: integers, strings, or fractions; None: there is no such column.
        classes: Class names that integer labels index, if the data declare them.
        origin: The file or folder, for messages.
        names: Names of the rows in messages.
        problems: Problems of the rows; rows with one are left out.
    """

    texts: tuple[list[str], ...]
    labels: list[Any] | None
    classes: tuple[str, ...] | None
    origin: str
    names: Sequence[str]
    problems: Problems = field(default_factory=Problems)

    def __len__(self) -> int:
        return len(self.texts[0])


def read_files(
    files: Sequence[Path], columns: Columns, *, labelled: bool = True, problems: Problems | None = None
) -> Rows:
    """Read the rows of a split's files.

    Args:
        files: At least one, all of one format, by the end of their names.
        columns: The columns.
        labelled: Whether the label is needed; else it may be absent.
        problems: Takes the problems of the rows; None: those of this call alone.

    Raises:
        DataError: A file or a column does not exist, or cannot be read.
    """
    origin = str(files[0] if len(files) == 1 else files[0].parent)
    problems = Problems() if problems is None else problems
    tables, classes = [], None
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: no such file")
        if file.suffix.lower() == ".parquet":
            found, classes, names = _parquet(file, columns, labelled)
        else:
            found, names = _lines(file, columns, labelled, problems)
        tables.append((found, names))
    if any(found.keys() != tables[0][0].keys() for found, _ in tables):
        raise DataError(f"{origin}: only some of its files have a column {columns.label!r}")
    merged = {name: [value for found, _ in tables for value in found[name]] for name in tables[0][0]}
    row_names = tables[0][1] if len(tables) == 1 else [name for _, names in tables for name in names]
    return _rows(merged, columns, origin, row_names, classes, problems)


def read_loaded(dataset: Any, columns: Columns, origin: str, *, labelled: bool = True) -> Rows:
    """Read the rows of a split of a Hugging Face data set; see ``read_files``."""
    schema = dataset.features.arrow_schema
    wanted = _existing(schema.names, columns, origin, labelled)
    table = dataset.select_columns(wanted).with_format("arrow")[:]
    names = RowNames(files=(origin,), starts=(0,), total=len(table))
    return _rows(_values(table, wanted), columns, origin, names, _classes(schema, columns), Problems())


def class_names(train: Rows) -> tuple[str, ...]:
    """Return the classes: as declared, else the distinct labels, sorted; integers as numbers.

    Raises:
        DataError: There are fewer than two, or the labels are fractions.
    """
    if train.classes is not None:
        return train.classes
    labels = train.labels or []
    if fraction := next((label for label in labels if isinstance(label, float)), None):
        raise DataError(
            f"{train.origin}: labels are fractions, such as {fraction:g}; set task.regression=true to predict numbers"
        )
    names = {str(label) for label in labels}
    if len(names) < 2:
        only = f"only one class ({names.pop()!r})" if names else "no examples"
        raise DataError(f"{train.origin}: {only}; a search needs at least 2 classes")
    numeric = all(name.removeprefix("-").isdecimal() for name in names)
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if numeric else None))


def class_numbers(rows: Rows, classes: Sequence[str], *, declared: bool) -> IntArray:
    """Return the class number of every row, shape (N,).

    Args:
        rows: Any split.
        classes: Class names, of the training rows.
        declared: Whether integers are class numbers; else they are names.

    Raises:
        DataError: A row has another label; the message names the first.
    """
    number = {name: i for i, name in enumerate(classes)}
    if declared:
        number |= {str(i): i for i in range(len(classes)) if str(i) not in number}
    own = rows.classes if rows.classes is not None and set(rows.classes) <= set(classes) else ()  # of another order?
    labels = [str(own[i] if isinstance(i, int) and 0 <= i < len(own) else i) for i in _labels(rows)]
    found_N = np.fromiter((number.get(label, -1) for label in labels), dtype=np.int64, count=len(labels))
    if (found_N < 0).any():
        first, others = int((found_N < 0).argmax()), int((found_N < 0).sum()) - 1
        more = f" (and {others} more)" if others else ""
        listed = ", ".join(classes[:10]) + (f" and {len(classes) - 10} more" if len(classes) > 10 else "")
        raise DataError(
            f"{rows.names[first]}: label {labels[first]!r} is not one of the training data{more}: {listed}; drop such "
            "rows, or correct them"
        )
    return found_N


def numbers(rows: Rows) -> FloatArray:
    """Return the labels as numbers, shape (N,).

    Raises:
        DataError: A label is not a finite number.
    """
    found = []
    for name, label in zip(rows.names, _labels(rows), strict=True):
        try:
            value = float(label)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{name}: label {label!r} is not a number; correct it, or set task.regression=false")
        found.append(value)
    return np.array(found, dtype=np.float64)


def _labels(rows: Rows) -> list[Any]:
    """Return the labels; -1 throughout is Hugging Face's way to say that there are none."""
    labels = rows.labels
    if labels is None or (labels and all(label == -1 for label in labels)):
        raise DataError(f"{rows.origin}: its examples have no labels, so nothing can be scored on them")
    return labels


def _rows(
    values: dict[str, list[Any]],
    columns: Columns,
    origin: str,
    names: Sequence[str],
    classes: tuple[str, ...] | None,
    problems: Problems,
) -> Rows:
    """Check every row; what is missing is a problem."""
    bad: set[int] = set()
    for column, found in values.items():
        for i, value in enumerate(found):
            empty = isinstance(value, str) and not value.strip()
            if value is None or (empty and not (columns.lenient and column in columns.texts)):
                bad.add(i)
                problems.add([f"{names[i]}: column {column!r} is empty; drop such rows"])
    if bad:
        kept = [i for i in range(len(names)) if i not in bad]
        names = [names[i] for i in kept]
        values = {column: [found[i] for i in kept] for column, found in values.items()}
    return Rows(
        texts=tuple(values[column] for column in columns.texts),
        labels=values.get(columns.label),
        classes=classes,
        origin=origin,
        names=names,
        problems=problems,
    )


def _existing(names: Sequence[str], columns: Columns, origin: str, labelled: bool) -> list[str]:
    """Return the columns that are there.

    Raises:
        DataError: One that is needed is not.
    """
    for column in columns.all:
        if column not in names and (labelled or column != columns.label):
            key = columns.label_key if column == columns.label else columns.texts_key
            raise DataError(f"{origin}: no column {column!r} ({key}){did_you_mean(column, names)}")
    return [column for column in columns.all if column in names]


def _parquet(
    file: Path, columns: Columns, labelled: bool
) -> tuple[dict[str, list[Any]], tuple[str, ...] | None, Sequence[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            wanted = _existing(schema.names, columns, str(file), labelled)
            table = opened.read(columns=wanted, use_threads=False)  # see data/parquet.py
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({' '.join(str(error).split())})") from None
    for column in columns.texts:
        kind = schema.field(column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise DataError(f"{file}: column {column!r} (task.columns) holds {kind}, not texts")
    names = RowNames(files=(str(file),), starts=(0,), total=len(table))
    return _values(table, wanted), _classes(schema, columns), names


def _values(table: Any, wanted: Sequence[str]) -> dict[str, list[Any]]:
    """Return the columns of an Arrow table as lists; booleans are 0 and 1."""
    found = {column: table.column(column).to_pylist() for column in wanted}
    return {
        column: [int(value) if isinstance(value, bool) else value for value in values]
        for column, values in found.items()
    }


def _classes(schema: Any, columns: Columns) -> tuple[str, ...] | None:
    names = features_of(schema).get(columns.label, {}).get("names")
    return None if names is None else tuple(map(str, names))


def _lines(
    file: Path, columns: Columns, labelled: bool, problems: Problems
) -> tuple[dict[str, list[Any]], Sequence[str]]:
    """Read a TSV file, whose texts are as they stand (GLUE's hold quotation marks), or a CSV file, with quotes."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            if file.suffix.lower() == ".csv":
                reader = csv.reader(opened, strict=True)
                lines = [(reader.line_num, row) for row in reader if row]
            else:
                texts = opened.read().replace("\r\n", "\n").split("\n")
                lines = [(i, text.split("\t")) for i, text in enumerate(texts, start=1) if text]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as {file.suffix[1:].upper()} in UTF-8 ({error})") from None
    if not lines:
        raise DataError(f"{file}: it is empty")
    head = lines.pop(0)[1] if columns.header else [str(i) for i in range(len(lines[0][1]))]
    wanted = _existing(head, columns, str(file), labelled)
    at = [head.index(column) for column in wanted]
    found: dict[str, list[Any]] = {column: [] for column in wanted}
    names = []
    for line, values in lines:
        if len(values) != len(head):
            if not columns.lenient:
                problems.add([f"{file}, line {line}: {len(values)} columns, but there are {len(head)}"])
            continue
        names.append(f"{file}, line {line}")
        for column, i in zip(wanted, at, strict=True):
            found[column].append(values[i])
    return found, names
