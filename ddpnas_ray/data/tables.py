"""Images and labels in columns of an Arrow table, shared by Parquet files and Hugging Face data sets."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from ddpnas_ray.core.errors import DataError, did_you_mean
from ddpnas_ray.core.space import IntArray
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.decoding import ImageSource
from ddpnas_ray.data.pixels import Picked
from ddpnas_ray.data.problems import Problems
from ddpnas_ray.data.raw import RawSplit

Features: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Hugging Face's description of each column: ``{"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}``."""


def choose_columns(schema: Any, features: Features, config: DataConfig, origin: str) -> tuple[str, str]:
    """Choose the image and the label column: as configured, else the only candidates.

    Args:
        schema: Arrow schema of the table.
        features: Hugging Face's column descriptions, if any; among several label candidates a single ClassLabel wins.
        config: Gives ``image_column`` and ``label_column``.
        origin: The file, for errors.

    Raises:
        DataError: The column does not exist, has the wrong type, or is ambiguous.
    """
    image = _choose("image_column", config.image_column, [f.name for f in schema if _is_image(f.type)], schema, origin)
    able = [f.name for f in schema if _is_label(f.type) and f.name != image]
    declared = [name for name in able if features.get(name, {}).get("_type") == "ClassLabel"]
    if config.label_column is None and len(declared) == 1:
        return image, declared[0]
    return image, _choose("label_column", config.label_column, able, schema, origin)


def choose_image_columns(schema: Any, config: DataConfig, origin: str) -> tuple[str, str]:
    """Choose the column of images and that of masks, both of images: as configured, else by name, else the only ones.

    Args:
        schema: Arrow schema of the table.
        config: Gives ``image_column``, and ``label_column`` for the masks.
        origin: The file, for errors.

    Raises:
        DataError: A column does not exist, has the wrong type, or is ambiguous.
    """
    able = [field.name for field in schema if _is_image(field.type)]
    image, mask = config.image_column, config.label_column
    if image is None and "image" in able and mask != "image":
        image = "image"
    image = _choose("image_column", image, [name for name in able if name != mask], schema, origin)
    if mask is not None and mask not in able and mask in schema.names:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise DataError(f"{origin}: data.label_column={mask} cannot hold masks (bytes); its columns are {columns}")
    rest = [name for name in able if name != image]
    if mask is None and len(rest) != 1:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        found = f"columns {', '.join(rest)}" if rest else "no column beside the images"
        raise DataError(
            f"{origin}: {found} could hold masks (bytes of PNG files); set data.label_column; its columns are {columns}"
        )
    return image, rest[0] if mask is None else _choose("label_column", mask, rest, schema, origin)


def image_pairs(
    table: Any, image: str, mask: str, names: Sequence[str], base: Path
) -> tuple[Sequence[ImageSource], Sequence[ImageSource], Sequence[str], Problems]:
    """Extract images and their masks from a table.

    Args:
        table: Arrow table.
        image: Name of the image column.
        mask: Name of the mask column.
        names: Names of the rows in errors.
        base: Base folder of relative paths.

    Returns:
        Images, masks and names of the rows that have both; the others are problems.
    """
    import pyarrow as pa

    columns = {what: table.column(name) for what, name in (("image", image), ("mask", mask))}
    problems, whole_N = Problems(), np.ones(len(table), dtype=bool)
    for (what, column), name in zip(columns.items(), (image, mask), strict=True):
        there_N = _has_image(column)
        problems.add(
            f"{names[row]}: no {what} (column {name!r} is null); drop such rows"
            for row in np.flatnonzero(~there_N).tolist()
        )
        whole_N &= there_N
    found = list(columns.values())
    if not whole_N.all():
        found = [column.filter(pa.array(whole_N)) for column in found]
        names = Picked(names, np.flatnonzero(whole_N))
    return _sources(found[0], base), _sources(found[1], base), names, problems


def raw_split(
    table: Any, image: str, label: str, features: Features, origin: str, *, names: Sequence[str], base: Path
) -> RawSplit:
    """Extract images and labels from a table.

    Args:
        table: Arrow table.
        image: Name of the image column.
        label: Name of the label column.
        features: Hugging Face's column descriptions.
        origin: The file or folder, for errors.
        names: Names of the rows in errors.
        base: Base folder of relative paths, in rows that hold a path instead of bytes.

    Returns:
        The split without rows that lack a label or an image; those are its problems.
    """
    import pyarrow as pa

    classes = features.get(label, {}).get("names")
    labels, images = _decoded(table.column(label)), table.column(image)
    problems, whole_N = Problems(), np.ones(len(table), dtype=bool)
    for what, column, there_N in (("label", label, _valid(labels)), ("image", image, _has_image(images))):
        problems.add(
            f"{names[row]}: no {what} (column {column!r} is null); drop such rows"
            for row in np.flatnonzero(~there_N).tolist()
        )
        whole_N &= there_N
    if not whole_N.all():
        labels, images = labels.filter(pa.array(whole_N)), images.filter(pa.array(whole_N))
        names = Picked(names, np.flatnonzero(whole_N))
    return RawSplit(
        sources=_sources(images, base),
        labels=_labels(labels),
        classes=None if classes is None else tuple(str(name) for name in classes),
        origin=origin,
        names=names,
        problems=problems,
    )


def features_of(schema: Any) -> Features:
    """Read Hugging Face's column descriptions from a schema's metadata; empty if there are none."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (TypeError, KeyError, ValueError):
        return {}
    return {name: value for name, value in features.items() if isinstance(value, dict)}


@dataclass(frozen=True, slots=True, eq=False)
class _ArrowBytes(Sequence[bytes]):
    """Column of encoded images as a sequence; its buffers pickle without a copy, so workers on a node share them."""

    column: Any

    def __len__(self) -> int:
        return len(self.column)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return Picked(self, np.arange(len(self))[index])
        value: bytes = self.column[index].as_py()
        return value


@dataclass(frozen=True, slots=True, eq=False)
class RowNames(Sequence[str]):
    """``"FILE, row R"`` for the concatenated rows of several files.

    Example:
        >>> RowNames(files=("a.parquet", "b.parquet"), starts=(0, 3), total=5)[4]
        'b.parquet, row 1'
    """

    files: tuple[str, ...]
    starts: tuple[int, ...]
    total: int

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return Picked(self, np.arange(len(self))[index])
        index = range(self.total)[index]  # IndexError ends an iteration
        file = bisect_right(self.starts, index) - 1
        return f"{self.files[file]}, row {index - self.starts[file]}"


def _choose(key: str, asked: str | None, able: list[str], schema: Any, origin: str) -> str:
    what = "images (bytes)" if key == "image_column" else "labels (integers or strings)"
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if asked is not None:
        if asked not in schema.names:
            raise DataError(f"{origin}: no column {asked!r} (data.{key}){did_you_mean(asked, schema.names)}")
        if asked not in able:
            raise DataError(f"{origin}: data.{key}={asked} cannot hold {what}; its columns are {columns}")
        return asked
    if len(able) != 1:
        found = f"{len(able)} columns ({', '.join(able)}) could hold" if able else "no column holds"
        hint = f"set data.{key} to one of them" if able else f"its columns are {columns}"
        raise DataError(f"{origin}: {found} {what}; {hint}")
    return able[0]


def _is_image(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_image(kind.field(index).type)
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_label(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_label(kind.value_type)
    return bool(types.is_integer(kind) or types.is_boolean(kind) or _is_string(kind))


def _is_string(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _decoded(column: Any) -> Any:
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _valid(column: Any) -> npt.NDArray[np.bool_]:
    valid_N: npt.NDArray[np.bool_] = column.is_valid().to_numpy().astype(bool)
    return valid_N


def _has_image(column: Any) -> npt.NDArray[np.bool_]:
    """Return which rows hold bytes or a file path."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_struct(column.type):
        return _valid(column)
    fields = [name for name in ("bytes", "path") if column.type.get_field_index(name) >= 0]
    return np.any([_valid(pc.struct_field(column, name)) for name in fields], axis=0)


def _labels(column: Any) -> IntArray | list[str]:
    import pyarrow as pa

    if _is_string(column.type):
        strings: list[str] = column.to_pylist()
        return strings
    labels_N: IntArray = column.cast(pa.int64()).to_numpy().astype(np.int64)
    return labels_N


def _sources(column: Any, base: Path) -> Sequence[ImageSource]:
    import pyarrow as pa
    import pyarrow.compute as pc

    struct = pa.types.is_struct(column.type)
    stored = pc.struct_field(column, "bytes") if struct else column
    stored = stored.cast(pa.large_binary())  # 32-bit offsets overflow at 2 GiB
    if not stored.null_count:
        return _ArrowBytes(stored)
    paths = pc.struct_field(column, "path").to_pylist()
    return [base / path if data is None else data for data, path in zip(stored.to_pylist(), paths, strict=True)]
