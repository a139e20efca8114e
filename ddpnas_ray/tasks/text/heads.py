"""Outputs, losses and scores of several tasks at once: every task has its own columns of one output layer.

Axes: B examples of a batch, C outputs of all tasks together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpnas_ray.tasks.base import Metric

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """One task's outputs.

    Args:
        name: The task.
        classes: Class names; empty: a number is predicted.
        declared: Whether integer labels are class numbers, not names.
        metrics: Its score is the mean of these.
        first: Its first output.
        parts: Names of its parts, each scored on its own; its score is their mean.
    """

    name: str
    classes: tuple[str, ...]
    metrics: tuple[Metric, ...]
    first: int
    parts: tuple[str, ...]
    declared: bool = False

    @property
    def outputs(self) -> int:
        """Number of its outputs."""
        return len(self.classes) or 1

    def score(self, outputs: Sequence[tuple[Tensor, Tensor]]) -> float:
        """Return the mean of its metrics on its own outputs and labels."""
        return float(np.mean([metric.score(outputs) for metric in self.metrics]))


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of all tasks, in the order of their outputs. Parts are numbered over all of them.

    Targets of a batch are labels, shape (B,): class numbers of the one task, or float32 numbers to predict. If there
    are several parts they are a dictionary with ``part``, shape (B,), beside ``label``.
    """

    heads: tuple[Head, ...]

    @property
    def outputs(self) -> int:
        """C."""
        return sum(head.outputs for head in self.heads)

    @property
    def parts(self) -> list[tuple[str, int]]:
        """Name and number of the head of every part."""
        return [(part, number) for number, head in enumerate(self.heads) for part in head.parts]

    @property
    def metric(self) -> Metric:
        """The mean of all tasks' scores."""
        names = [f"{head.name} " * (len(self.heads) > 1) + _and(m.name for m in head.metrics) for head in self.heads]
        return Metric(names[0] if len(names) == 1 else f"mean of {_and(names)}", self.score)

    def targets(self, labels_B: Any, parts_B: Any) -> Any:
        """Return the targets of a batch from arrays."""
        import torch

        numbers = any(not head.classes for head in self.heads)
        labels = torch.from_numpy(labels_B.astype(np.float32 if numbers else np.int64))
        return labels if len(self.parts) == 1 else {"label": labels, "part": torch.from_numpy(parts_B)}

    def loss(self, outputs: Tensor, targets: Any, smoothing: float) -> Tensor:
        """Mean over examples of the cross-entropy among the outputs of their own task, or of the squared error.

        Steps read nothing from the device, so that a GPU can record them: every example is computed as of both kinds.

        Args:
            outputs: Shape (B, C).
            targets: See the class.
            smoothing: Share of the target spread over the task's classes.
        """
        import torch
        from torch.nn.functional import cross_entropy, mse_loss

        outputs = outputs.float()
        if len(self.parts) == 1:
            if not self.heads[0].classes:
                return mse_loss(outputs[:, 0], targets)
            return cross_entropy(outputs, targets, label_smoothing=smoothing)
        labels_B, (first_B, own_BC, numeric_B) = targets["label"], self._columns(outputs, targets)
        log_p_BC = _log_p(outputs, own_BC)
        at_B = (first_B + torch.where(numeric_B, 0, labels_B.long()))[:, None]
        entropy_B = -log_p_BC.gather(1, at_B)[:, 0]
        if smoothing:
            spread_B = -log_p_BC.masked_fill(~own_BC, 0.0).sum(dim=1) / own_BC.sum(dim=1)
            entropy_B = (1 - smoothing) * entropy_B + smoothing * spread_B
        error_B = (outputs.gather(1, first_B[:, None])[:, 0] - labels_B).square()
        return torch.where(numeric_B, error_B, entropy_B).mean()

    def distillation_loss(self, outputs: Tensor, taught: Tensor, targets: Any, temperature: float) -> Tensor:
        """Mean over examples of the divergence from the teacher among the outputs of their own task.

        Of tasks that predict a number it is the squared difference from the teacher's, whatever the temperature.

        Args:
            outputs: Shape (B, C).
            taught: The teacher's, shape (B, C).
            targets: See the class.
            temperature: Divides the outputs of both; the divergence is multiplied by its square.
        """
        import torch

        outputs, taught = outputs.float(), taught.float()
        first_B, own_BC, numeric_B = self._columns(outputs, targets)
        wanted_BC, log_p_BC = (_log_p(one / temperature, own_BC) for one in (taught, outputs))
        apart_BC = (wanted_BC.masked_fill(~own_BC, 0.0) - log_p_BC.masked_fill(~own_BC, 0.0)) * wanted_BC.exp()
        error_B = (outputs - taught).gather(1, first_B[:, None])[:, 0].square()
        return torch.where(numeric_B, error_B, temperature**2 * apart_BC.sum(dim=1)).mean()

    def score(self, outputs: Iterable[tuple[Tensor, Any]]) -> float:
        """Return the mean of the tasks' scores; tasks without examples do not count."""
        return self.mean(self.scores(outputs))

    def mean(self, by_part: Mapping[str, float]) -> float:
        """Return the mean over tasks of the mean over the parts of each that have a score."""
        return float(np.mean(list(self.by_task(by_part).values())))

    def by_task(self, by_part: Mapping[str, float]) -> dict[str, float]:
        """Return the score of every task that has one: the mean over its parts."""
        found = {head.name: [by_part[part] for part in head.parts if part in by_part] for head in self.heads}
        return {name: float(np.mean(scores)) for name, scores in found.items() if scores}

    def scores(self, outputs: Iterable[tuple[Tensor, Any]]) -> dict[str, float]:
        """Return the score of every part that has examples.

        Args:
            outputs: Outputs, shape (B, C), and targets of every batch.

        Raises:
            ValueError: There are no batches.
        """
        pairs = list(outputs)
        if not pairs:
            raise ValueError("a score needs at least one batch")
        found = {}
        for number, (name, head) in enumerate(self.parts):
            mine = [self._of_part(logits, targets, number) for logits, targets in pairs]
            mine = [(logits, labels) for logits, labels in mine if len(labels)]
            if mine:
                found[name] = self.heads[head].score(mine)
        return found

    def _of_part(self, outputs: Tensor, targets: Any, number: int) -> tuple[Tensor, Tensor]:
        if len(self.parts) == 1:
            return outputs, targets
        head = self.heads[self.parts[number][1]]
        rows = targets["part"] == number
        labels = targets["label"][rows]
        own = outputs[rows, head.first : head.first + head.outputs]
        return own, labels.long() if head.classes else labels

    def _columns(self, outputs: Tensor, targets: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return of every example's task the first output, the mask of its outputs, and whether it is a number."""
        import torch

        if len(self.parts) == 1:
            part_B = torch.zeros(len(outputs), dtype=torch.int64, device=outputs.device)
        else:
            part_B = targets["part"]
        head_B = self._values(part_B, [head for _, head in self.parts])
        first_B, count_B = (self._values(head_B, [getattr(h, key) for h in self.heads]) for key in ("first", "outputs"))
        column_C = torch.arange(outputs.shape[1], device=outputs.device)
        own_BC = (column_C >= first_B[:, None]) & (column_C < (first_B + count_B)[:, None])
        return first_B, own_BC, self._values(head_B, [not head.classes for head in self.heads])

    def _values(self, index_B: Tensor, values: Sequence[int | bool]) -> Tensor:
        """Look up a value for every example, without a copy from the host."""
        import torch

        found = torch.full_like(index_B, values[0], dtype=torch.bool if isinstance(values[0], bool) else torch.int64)
        for i, value in enumerate(values):
            found.masked_fill_(index_B == i, value)
        return found


def _log_p(outputs: Tensor, own_BC: Tensor) -> Tensor:
    """Return log-probabilities among the outputs of each example's own task; minus infinity elsewhere."""
    import torch

    return outputs.masked_fill(~own_BC, -torch.inf).log_softmax(dim=1)


def _and(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
