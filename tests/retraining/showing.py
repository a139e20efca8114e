"""A task that shows what networks do: digits, with a confusion matrix and pictures of the test images."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.tasks.base import Illustrations
from ddpnas_ray.tasks.classification import task as classification

TASK = "task.name=tests.retraining.showing:make"
FAILING = "task.name=tests.retraining.showing:failing"


class Showing(classification.ClassificationTask):
    """Digits whose networks are shown."""

    def scores_by_task(self, outputs: Sequence[tuple[Tensor, Any]]) -> dict[str, float]:
        """Return the share of each digit that is recognised."""
        confusion = self.counts(outputs)
        return {
            name: row[i] / max(1, sum(row)) for i, (name, row) in enumerate(zip("0123456789", confusion, strict=True))
        }

    def illustrate(self, network: Callable[[Any], Tensor], outputs: Sequence[tuple[Tensor, Any]]) -> Illustrations:
        """Draw the outputs for two images."""
        batch = next(iter(self.validation_batches(2)))
        found = network(batch.inputs).softmax(dim=1).numpy()
        pictures = {f"image {i}": png(255 * found[i : i + 1]) for i in range(2)}
        return Illustrations(pictures, self.counts(outputs), list("0123456789"))

    @staticmethod
    def counts(outputs: Sequence[tuple[Tensor, Any]]) -> list[list[int]]:
        """Count the predictions of each digit."""
        found = torch.zeros(10, 10, dtype=torch.long)
        for logits, labels in outputs:
            found.index_put_((labels, logits.argmax(dim=1)), torch.tensor(1), accumulate=True)
        return found.tolist()  # type: ignore[no-any-return]


class Failing(Showing):
    """Cannot show anything."""

    def illustrate(self, network: Callable[[Any], Tensor], outputs: Sequence[tuple[Tensor, Any]]) -> Illustrations:
        """Fail."""
        raise ZeroDivisionError("no such colour")


def make(data: DataConfig, seed: int) -> Showing:
    """Make the task."""
    made = classification.make(data, seed)
    return Showing(**{field.name: getattr(made, field.name) for field in dataclasses.fields(made)})


def failing(data: DataConfig, seed: int) -> Failing:
    """Make one that cannot show anything."""
    return Failing(**vars(make(data, seed)))


def png(grey: np.ndarray) -> bytes:
    """Return a grey picture as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(grey.round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
