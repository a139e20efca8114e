"""Predict examples with a loaded model: nothing of the search is read.

Axes: N examples, O outputs.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ddpnas_ray.core.errors import ConfigError, RunDirError
from ddpnas_ray.data.batches import Float32Array
from ddpnas_ray.deploy.loaded import LoadedModel
from ddpnas_ray.deploy.questions import Questions, Unreadable
from ddpnas_ray.storage.folder import HINT, place, writing
from ddpnas_ray.storage.parquet import parquet_bytes
from ddpnas_ray.tasks.base import METRICS, find_metric

METADATA = b"ddpnas_predictions"  # key of the Parquet schema's metadata, a JSON object


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a network says of one example.

    Args:
        name: What shows the example to people: its path, or its text.
        fields: What names it in files.
        classes: Class names; empty: a number is predicted.
        values_O: One probability per class, or the number; float32.
        expected: The right class or number; None: not known.
    """

    name: str
    fields: Mapping[str, str]
    classes: tuple[str, ...]
    values_O: Float32Array
    expected: Any = None

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[int(self.values_O.argmax())]

    @property
    def probability(self) -> float:
        """Its probability."""
        return float(self.values_O.max())

    def top(self, k: int) -> list[tuple[str, float]]:
        """Return the ``k`` most probable classes with their probabilities, the most probable first."""
        order = np.argsort(-self.values_O, kind="stable")[:k]
        return [(self.classes[o], float(self.values_O[o])) for o in order]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """How the examples of one class were labelled.

    Args:
        name: The class.
        examples: Number of its examples.
        right: Those labelled correctly.
        mistaken_for: Most frequent wrong label; None: there is none.
        times: How often that was.
    """

    name: str
    examples: int
    right: int
    mistaken_for: str | None
    times: int


def predict(model: LoadedModel, questions: Questions, *, batch: int = 64) -> Iterator[Prediction | Unreadable]:
    """Predict examples in order, prepared as in training.

    Args:
        model: The loaded model.
        questions: The examples.
        batch: Examples per forward pass, and held in memory.

    Yields:
        One result per example.
    """
    asked, expected = questions.outputs, questions.expected
    for number, found in logits_of_each(model, questions, batch):
        if isinstance(found, Unreadable):
            yield found
            continue
        own_O = found[asked.first : asked.first + asked.count]
        yield Prediction(
            name=questions.name(number),
            fields=questions.fields(number),
            classes=asked.classes,
            values_O=probabilities(own_O[None])[0] if asked.classes else own_O,
            expected=None if expected is None else expected[number],
        )


def logits_of_each(
    model: LoadedModel, questions: Questions, batch: int
) -> Iterator[tuple[int, Float32Array | Unreadable]]:
    """Yield the number of every question with its logits, (O,) or (O, H, W), a batch in memory at a time."""
    for start in range(0, len(questions), batch):
        stop = min(start + batch, len(questions))
        inputs, unreadable = questions.read(start, stop)
        answers = iter(()) if inputs is None else iter(model.logits(*inputs))
        for number in range(start, stop):
            yield number, unreadable[number] if number in unreadable else next(answers)


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


def class_scores(predictions: Sequence[Prediction]) -> list[ClassScore]:
    """Count the labels of every class that has examples, in the order of the classes."""
    counts: dict[str, Counter[str]] = {}
    for prediction in predictions:
        counts.setdefault(prediction.expected, Counter())[prediction.label] += 1
    scores = []
    for name in predictions[0].classes if predictions else ():
        if labels := counts.get(name):
            wrong, times = max(
                ((label, n) for label, n in labels.items() if label != name),
                key=lambda pair: pair[1],
                default=(None, 0),
            )
            scores.append(
                ClassScore(name=name, examples=labels.total(), right=labels[name], mistaken_for=wrong, times=times)
            )
    return scores


def metric_scores(predictions: Sequence[Prediction], names: Sequence[str]) -> dict[str, float]:
    """Score labelled predictions by built-in metrics; others are left out."""
    import torch

    values = torch.from_numpy(np.stack([prediction.values_O for prediction in predictions]))
    if predictions[0].classes:
        number = {name: i for i, name in enumerate(predictions[0].classes)}
        pairs = [(values.clamp_min(1e-30).log(), torch.tensor([number[p.expected] for p in predictions]))]
    else:
        pairs = [(values, torch.tensor([float(p.expected) for p in predictions]))]
    return {name: find_metric(name).score(pairs) for name in names if name in METRICS.names()}


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


def write_predictions(out: str, predictions: Sequence[Prediction], model: LoadedModel, task: str = "") -> None:
    """Write predictions to a Parquet file, atomically.

    Columns: what names the example (``path``; of texts ``row`` and the texts), ``label``, ``probability`` and
    ``probabilities`` (one per class; the class names are in the schema's metadata, ``ddpnas_predictions``), or
    ``value`` where a number is predicted, and ``expected`` if the examples are labelled.

    Args:
        out: Local path or URI.
        predictions: What to write, one or more.
        model: What made them.
        task: The task of several.

    Raises:
        RunDirError: It cannot be written.
    """
    first = predictions[0]
    columns = {name: pa.array([utf8(p.fields[name]) for p in predictions], pa.string()) for name in first.fields}
    if first.classes:
        columns["label"] = pa.array([p.label for p in predictions], pa.string())
        columns["probability"] = pa.array([p.probability for p in predictions], pa.float32())
        columns["probabilities"] = pa.array([p.values_O for p in predictions], pa.list_(pa.float32()))
    else:
        columns["value"] = pa.array([float(p.values_O[0]) for p in predictions], pa.float32())
    if first.expected is not None:
        columns["expected"] = pa.array(
            [p.expected for p in predictions], pa.string() if first.classes else pa.float64()
        )
    about = {"classes": first.classes, "model": str(model.path), "form": model.form} | ({"task": task} if task else {})
    table = pa.table(columns).replace_schema_metadata({METADATA: json.dumps(about).encode()})
    folder, name = place(out)
    folder.write(name, parquet_bytes(table))


def utf8(path: str) -> str:
    """Escape bytes of a file name that are not UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()
