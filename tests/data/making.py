"""Small real data sets: PNG and JPEG bytes, folders and Parquet files of them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ddpnas_ray.data.images import ImageData, Split


def image(seed: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    """Random image of (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def write_folder(root: Path, counts: Mapping[str, int], *, seed: int = 0, suffix: str = ".png", **options: Any) -> Path:
    """``root/class/0.png, 1.png, ...`` with the given number of images per class; returns root."""
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture = image(seed * 1_000_000 + number * 1000 + i, **options)
            picture.save(root / name / f"{i:03}{suffix}")
    return root


def write_parquet(
    path: Path,
    labels: Any,
    *,
    seed: int = 0,
    struct: bool = True,
    names: Sequence[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    images: Sequence[bytes | None] | None = None,
    **more: Any,
) -> Path:
    """Write a Parquet file in Hugging Face's image layout, or with plain binary images; returns its path."""
    stored = [encoded(image(seed * 1000 + i)) for i in range(len(labels))] if images is None else list(images)
    column = pa.array(stored, pa.binary())
    if struct:
        column = pa.StructArray.from_arrays([column, pa.nulls(len(stored), pa.string())], ["bytes", "path"])
    table = pa.table({columns[0]: column, columns[1]: pa.array(labels), **more})
    if names is not None:
        features = {columns[0]: {"_type": "Image"}, columns[1]: {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def pixels(split: Split) -> np.ndarray:
    """All images of a split, in order."""
    return split.images.gather(np.arange(len(split)))


def same(a: ImageData, b: ImageData) -> bool:
    """Return whether two data sets agree in pixels, labels and digest."""
    return (
        a.digest == b.digest
        and a.classes == b.classes
        and np.array_equal(pixels(a.train), pixels(b.train))
        and np.array_equal(pixels(a.val), pixels(b.val))
        and np.array_equal(a.train.labels_N, b.train.labels_N)
        and np.array_equal(a.val.labels_N, b.val.labels_N)
    )
