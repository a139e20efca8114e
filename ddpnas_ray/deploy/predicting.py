"""Predict the classes of image files with a loaded model: nothing of the search is read.

Axes: N images, C channels, H height, W width, O classes.
"""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ddpnas_ray.core.errors import ConfigError, DataError, RunDirError
from ddpnas_ray.data.batches import Float32Array
from ddpnas_ray.data.decoding import open_image, read_source
from ddpnas_ray.data.folder import SUFFIXES, image_files
from ddpnas_ray.data.pixels import in_chunks
from ddpnas_ray.deploy.loaded import LoadedModel
from ddpnas_ray.deploy.trained import Preprocessing
from ddpnas_ray.storage.folder import HINT, place, writing
from ddpnas_ray.storage.parquet import parquet_bytes

METADATA = b"ddpnas_predictions"  # key of the Parquet schema's metadata, a JSON object
CHUNK = 8  # images per decoding task


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file to predict.

    Args:
        path: Its path, as given or below a given folder.
        folders: Names of the folders that may name its class.
        above: Name of the given folder, which names it if none of those does.
    """

    path: str
    folders: tuple[str, ...]
    above: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """The probabilities of one image.

    Args:
        path: Its path.
        classes: Class names.
        probabilities_O: One per class, float32, shape (O,).
    """

    path: str
    classes: tuple[str, ...]
    probabilities_O: Float32Array

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(self.probabilities_O.argmax())]

    @property
    def probability(self) -> float:
        """Its probability."""
        return float(self.probabilities_O.max())

    def top(self, k: int) -> list[tuple[str, float]]:
        """Return the ``k`` most probable classes with their probabilities, the most probable first."""
        order = np.argsort(-self.probabilities_O, kind="stable")[:k]
        return [(self.classes[o], float(self.probabilities_O[o])) for o in order]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that cannot be read.

    Args:
        path: Its path.
        reason: One line that names it.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """How the images of one class were labelled.

    Args:
        name: The class.
        images: Number of its images.
        right: Those labelled correctly.
        mistaken_for: Most frequent wrong label; None: there is none.
        times: How often that was.
    """

    name: str
    images: int
    right: int
    mistaken_for: str | None
    times: int


def find_images(given: Sequence[str]) -> list[ImageFile]:
    """List the files that paths and patterns name, each once, in the given order.

    Folders are searched recursively for files with an image suffix, sorted; a file that is named itself, or matches a
    pattern (``*``, ``?``, ``[...]``, ``**``), may have any suffix.

    Raises:
        DataError: A path does not exist, a pattern matches no file, or a folder holds no images.
    """
    found: dict[str, ImageFile] = {}  # by absolute path
    for text in given:
        path = os.path.expanduser(text)
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        if not matches:
            raise DataError(f"{text}: no such file or folder, and no pattern that matches one; correct IMAGES")
        for match in matches:
            if not os.path.isdir(match):
                found.setdefault(os.path.abspath(match), ImageFile(match, _parents(match)))
                continue
            inside = image_files(Path(match))
            if not inside and len(matches) == 1:
                raise DataError(
                    f"{text}: no images in this folder; add some ({', '.join(sorted(SUFFIXES))}), or name files"
                )
            for file in inside:
                below = Path(file).relative_to(match).parts[:-1]
                above = (Path(match).absolute().name,)
                found.setdefault(os.path.abspath(file), ImageFile(file, below, above))
    if not found:
        raise DataError(f"{', '.join(given)}: no images in these folders")
    return list(found.values())


def expected_labels(images: Sequence[ImageFile], classes: Sequence[str]) -> dict[str, str]:
    """Return each file's class by path: that which one of its folders is named as.

    Raises:
        DataError: A file lies in no such folder, or in those of several classes.
    """
    known, expected = set(classes), {}
    for image in images:
        names = sorted(known.intersection(image.folders) or known.intersection(image.above))
        if len(names) > 1:
            raise DataError(
                f"--labelled: {image.path} lies in folders of several classes ({', '.join(map(repr, names))}); give "
                "the folder that the class folders are in"
            )
        if not names:
            some = ", ".join(repr(name) for name in list(classes)[:5])
            raise DataError(
                f"--labelled: {image.path} lies in no folder named as a class of the model ({some}"
                f"{', ...' if len(classes) > 5 else ''}); expected CLASS/NAME.png"
            )
        expected[image.path] = names[0]
    return expected


def predict(model: LoadedModel, paths: Sequence[str], *, batch: int = 64) -> Iterator[Prediction | Unreadable]:
    """Predict image files in order, prepared as in training.

    Args:
        model: The loaded model.
        paths: Files.
        batch: Images per forward pass, and held in memory.

    Yields:
        One result per file.
    """
    for start in range(0, len(paths), batch):
        part = paths[start : start + batch]
        read = read_images(model.preprocessing, part)
        images = [image_CHW for image_CHW in read if not isinstance(image_CHW, Unreadable)]
        rows = iter(probabilities(model.logits(np.stack(images))) if images else ())
        for path, image in zip(part, read, strict=True):
            yield image if isinstance(image, Unreadable) else Prediction(path, model.classes, next(rows))


def read_images(preprocessing: Preprocessing, paths: Sequence[str]) -> list[Float32Array | Unreadable]:
    """Read and prepare image files, on a few threads."""

    def one(path: str) -> Float32Array | Unreadable:
        try:
            return preprocessing.prepare(open_image(read_source(path, path), path))
        except DataError as error:
            return Unreadable(path, str(error))
        except (OSError, ValueError) as error:  # Pillow cannot convert or resize it
            return Unreadable(path, f"{path}: cannot be converted ({' '.join(str(error).split())})")

    def work(start: int, stop: int) -> list[Float32Array | Unreadable]:
        return [one(path) for path in paths[start:stop]]

    return [image for part in in_chunks(work, len(paths), chunk=CHUNK) for image in part]


def probabilities(logits_NO: Float32Array) -> Float32Array:
    """Compute the softmax of logits, shape (N, O).

    Example:
        >>> probabilities(np.array([[0.0, 0.0], [1000.0, 0.0]], dtype=np.float32))
        array([[0.5, 0.5],
               [1. , 0. ]], dtype=float32)
    """
    shifted_NO = np.exp(logits_NO.astype(np.float64) - logits_NO.max(axis=1, keepdims=True))
    shares_NO: Float32Array = (shifted_NO / shifted_NO.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares_NO


def class_scores(predictions: Sequence[Prediction], expected: dict[str, str]) -> list[ClassScore]:
    """Count the labels of every class that has images, in the order of the classes."""
    counts: dict[str, Counter[str]] = {}
    for prediction in predictions:
        counts.setdefault(expected[prediction.path], Counter())[prediction.label] += 1
    scores = []
    for name in predictions[0].classes if predictions else ():
        if labels := counts.get(name):
            wrong, times = max(
                ((label, n) for label, n in labels.items() if label != name),
                key=lambda pair: pair[1],
                default=(None, 0),
            )
            scores.append(
                ClassScore(name=name, images=labels.total(), right=labels[name], mistaken_for=wrong, times=times)
            )
    return scores


def check_out(out: str) -> None:
    """Check before long work that a Parquet file can be written.

    Raises:
        ConfigError: It has another suffix.
        RunDirError: Its folder does not exist or cannot be written.
    """
    if not out.endswith(".parquet"):
        raise ConfigError(f"--out {out}: predictions are written as Parquet; give a name that ends in .parquet")
    folder, name = place(out)
    if not folder.is_local:
        return
    path = Path(folder.path)
    with writing(out):
        if not path.is_dir():
            raise RunDirError(f"{out}: cannot be written: {path} is not a folder; create it, or choose another --out")
        if (path / name).is_dir():
            raise RunDirError(f"{out}: is a folder; choose another --out")
        if not os.access(path, os.W_OK):
            raise RunDirError(f"{out}: cannot be written: permission denied; {HINT}")


def write_predictions(
    out: str, predictions: Sequence[Prediction], model: LoadedModel, expected: dict[str, str] | None = None
) -> None:
    """Write predictions to a Parquet file, atomically.

    Columns: ``path``, ``label``, ``probability``, ``probabilities`` (one per class; the class names are in the schema's
    metadata, ``ddpnas_predictions``), and ``expected`` if the images are labelled.

    Args:
        out: Local path or URI.
        predictions: What to write.
        model: What made them.
        expected: Class by path.

    Raises:
        RunDirError: It cannot be written.
    """
    columns = {
        "path": pa.array([_utf8(p.path) for p in predictions], pa.string()),
        "label": pa.array([p.label for p in predictions], pa.string()),
        "probability": pa.array([p.probability for p in predictions], pa.float32()),
        "probabilities": pa.array([p.probabilities_O for p in predictions], pa.list_(pa.float32())),
    }
    if expected is not None:
        columns["expected"] = pa.array([expected[p.path] for p in predictions], pa.string())
    about = {"classes": model.classes, "model": str(model.path), "form": model.form}
    table = pa.table(columns).replace_schema_metadata({METADATA: json.dumps(about).encode()})
    folder, name = place(out)
    folder.write(name, parquet_bytes(table))


def _parents(path: str) -> tuple[str, ...]:
    """Return the names of the folders above a file as far as they are given, at least one."""
    return Path(path).parts[:-1] or (Path(path).absolute().parent.name,)


def _utf8(path: str) -> str:
    """Escape bytes of a file name that are not UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()
