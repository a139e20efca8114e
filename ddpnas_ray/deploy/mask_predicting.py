"""Label the pixels of images with a loaded model, compare the labels with masks, and write them.

Axes: O classes, H height, W width.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from ddpnas_ray.core.errors import DataError, RunDirError
from ddpnas_ray.core.space import FloatArray, IntArray
from ddpnas_ray.data.decoding import ByteArray, open_image, read_source
from ddpnas_ray.data.overlays import overlay, palette_png
from ddpnas_ray.deploy.loaded import LoadedModel
from ddpnas_ray.deploy.mask_files import MaskQuestions, size_of
from ddpnas_ray.deploy.predicting import METADATA, logits_of_each, utf8
from ddpnas_ray.deploy.questions import Unreadable
from ddpnas_ray.storage.folder import HINT, Folder, place, writing
from ddpnas_ray.storage.parquet import parquet_bytes

TABLE = "predictions.parquet"  # in the folder of label maps
OVERLAY = ".overlay.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPrediction:
    """What a network says of the pixels of one image.

    Args:
        name: Path of the image.
        fields: What names it in files.
        classes: Class names.
        size: Height and width of the image.
        counts_O: Pixels of every class.
        labels_HW: Class of every pixel; None: not kept.
        confusion_OO: Pixels by true class (row) and predicted class, void left out; None: no mask is given.
        files: Paths of label map and overlay, by ``label_map`` and ``overlay``; empty: not written.
    """

    name: str
    fields: Mapping[str, str]
    classes: tuple[str, ...]
    size: tuple[int, int]
    counts_O: IntArray
    labels_HW: ByteArray | None = None
    confusion_OO: IntArray | None = None
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def shares_O(self) -> FloatArray:
        """Share of every class of the pixels."""
        return self.counts_O / self.counts_O.sum()

    def top(self, k: int | None = None) -> list[tuple[str, float]]:
        """Return the classes that occur with their shares, the largest first; at most ``k``."""
        shares_O = self.shares_O
        order = np.argsort(-shares_O, kind="stable")[:k]
        return [(self.classes[o], float(shares_O[o])) for o in order if shares_O[o] > 0]


def predict_masks(
    model: LoadedModel, questions: MaskQuestions, *, batch: int = 1
) -> Iterator[MaskPrediction | Unreadable]:
    """Label the pixels of images in order; the labels have the images' own size.

    Args:
        model: The loaded model.
        questions: The images.
        batch: Images in memory at once.

    Yields:
        One result per image.

    Raises:
        DataError: A mask cannot be read, or has unknown labels.
    """
    outputs = len(questions.outputs.classes)
    for number, found in logits_of_each(model, questions, batch):
        if isinstance(found, Unreadable):
            yield found
            continue
        path = questions.name(number)
        height, width = size_of(path)
        small_HW = Image.fromarray(found.argmax(axis=0).astype(np.uint8))
        labels_HW = np.asarray(small_HW.resize((width, height), Image.Resampling.NEAREST))
        confusion_OO = None
        if questions.expected is not None:
            confusion_OO = confusion(questions.mask(number, (height, width)), labels_HW, outputs)
        yield MaskPrediction(
            name=path,
            fields=questions.fields(number),
            classes=questions.outputs.classes,
            size=(height, width),
            counts_O=np.bincount(labels_HW.ravel(), minlength=outputs),
            labels_HW=labels_HW,
            confusion_OO=confusion_OO,
        )


def confusion(expected_HW: IntArray, labels_HW: ByteArray, classes: int) -> IntArray:
    """Count pixels by true class (row) and predicted class; those that are not of a class are left out.

    Example:
        >>> confusion(np.array([[0, 1, 1, -1]]), np.array([[0, 0, 1, 1]]), 2).tolist()
        [[1, 0], [1, 1]]
    """
    counted_HW = (expected_HW >= 0) & (expected_HW < classes)
    pairs = expected_HW[counted_HW] * classes + labels_HW[counted_HW]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def ious(confusion_OO: IntArray) -> FloatArray:
    """Return the intersection over union of every class; NaN where it is neither true nor predicted.

    Example:
        >>> ious(np.array([[1, 0, 0], [1, 2, 0], [0, 0, 0]])).round(3).tolist()
        [0.5, 0.667, nan]
    """
    right_O = confusion_OO.diagonal()
    union_O = confusion_OO.sum(axis=0) + confusion_OO.sum(axis=1) - right_O
    found_O: FloatArray = np.divide(right_O, union_O, out=np.full(len(union_O), np.nan), where=union_O > 0)
    return found_O


def mask_scores(confusion_OO: IntArray) -> dict[str, float]:
    """Return ``miou``, the mean over classes that occur, and ``pixel_accuracy``; NaN if no pixel counts.

    Example:
        >>> mask_scores(np.array([[1, 0], [1, 2]]))
        {'miou': 0.5833333333333333, 'pixel_accuracy': 0.75}
    """
    iou_O, pixels = ious(confusion_OO), int(confusion_OO.sum())
    if not pixels:
        return {"miou": float("nan"), "pixel_accuracy": float("nan")}
    return {"miou": float(np.nanmean(iou_O)), "pixel_accuracy": int(confusion_OO.trace()) / pixels}


def check_folder(out: str, questions: MaskQuestions) -> None:
    """Check before long work that label maps can be written into a folder.

    Raises:
        RunDirError: It is a URI, a file or not empty, or cannot be written.
        DataError: Two images would have the same files.
    """
    if "://" in out:
        raise RunDirError(f"{out}: label maps are written to local disks; give a local folder, or a name of .parquet")
    path = Path(out)
    with writing(out):
        if path.exists() and not path.is_dir():
            raise RunDirError(f"{out}: exists and is not a folder; choose another --out")
        if path.exists() and any(path.iterdir()):
            raise RunDirError(f"{out}: exists and is not empty; choose another --out, or remove it")
        above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not above.is_dir():
            raise RunDirError(f"{out}: cannot be written: {above} is not a folder; choose another --out")
        if not os.access(above, os.W_OK):
            raise RunDirError(f"{out}: cannot be written: permission denied; {HINT}")
    owners: dict[str, str] = {}
    for image in questions.images:
        for name in _names(image.path):
            if owners.setdefault(name, image.path) != image.path:
                raise DataError(
                    f"{owners[name]} and {image.path} would both be written to {out}/{name}; rename one, or predict "
                    "them into two folders"
                )


def write_files(out: str, found: MaskPrediction, palette: Sequence[tuple[int, int, int]]) -> MaskPrediction:
    """Write label map and overlay of an image into a folder, which is made if it does not exist.

    Returns:
        The prediction with the files' paths.

    Raises:
        RunDirError: They cannot be written.
    """
    assert found.labels_HW is not None
    folder = Folder.open(out)
    folder.make()
    image = open_image(read_source(found.name, found.name), found.name)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    mixed_HW3 = overlay(np.asarray(image.convert("RGB")), found.labels_HW, palette)
    names = _names(found.name)
    folder.write(names[0], palette_png(found.labels_HW, palette))
    folder.write(names[1], _png(mixed_HW3))
    paths = [str(Path(out) / name) for name in names]
    return replace(found, files=dict(zip(("label_map", "overlay"), paths, strict=True)))


def write_table(out: str, predictions: Sequence[MaskPrediction], model: LoadedModel) -> None:
    """Write the shares of classes to a Parquet file, atomically.

    Columns: ``path``, ``height``, ``width``, ``shares`` (one per class; the class names are in the schema's metadata,
    ``ddpnas_predictions``), ``label_map`` and ``overlay`` if they were written, and with masks ``miou`` and
    ``pixel_accuracy``.

    Raises:
        RunDirError: It cannot be written.
    """
    first = predictions[0]
    columns = {name: pa.array([utf8(p.fields[name]) for p in predictions], pa.string()) for name in first.fields}
    columns["height"] = pa.array([p.size[0] for p in predictions], pa.int32())
    columns["width"] = pa.array([p.size[1] for p in predictions], pa.int32())
    columns["shares"] = pa.array([p.shares_O for p in predictions], pa.list_(pa.float64()))
    for name in first.files:
        columns[name] = pa.array([utf8(p.files[name]) for p in predictions], pa.string())
    if first.confusion_OO is not None:
        scores = [mask_scores(p.confusion_OO) for p in predictions if p.confusion_OO is not None]
        for name in ("miou", "pixel_accuracy"):
            columns[name] = pa.array([score[name] for score in scores], pa.float64())
    about = {"classes": first.classes, "model": str(model.path), "form": model.form}
    table = pa.table(columns).replace_schema_metadata({METADATA: json.dumps(about).encode()})
    folder, name = place(out)
    folder.write(name, parquet_bytes(table))


def _names(path: str) -> tuple[str, str]:
    """Return the names of an image's label map and overlay."""
    stem = Path(path).stem
    return f"{stem}.png", f"{stem}{OVERLAY}"


def _png(pixels_HW3: ByteArray) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(pixels_HW3).save(stored, format="PNG", compress_level=1)
    return stored.getvalue()
