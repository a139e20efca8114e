"""Show and write the predictions of a network: labels and numbers, or the labels of every pixel.

Axes: O classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TextIO

from ddpnas_ray.deploy.loaded import LoadedModel
from ddpnas_ray.deploy.mask_files import MaskQuestions
from ddpnas_ray.deploy.mask_predicting import (
    TABLE,
    MaskPrediction,
    check_folder,
    ious,
    mask_scores,
    predict_masks,
    write_files,
    write_table,
)
from ddpnas_ray.deploy.predicting import (
    Prediction,
    check_out,
    class_scores,
    metric_scores,
    predict,
    write_predictions,
)
from ddpnas_ray.deploy.questions import Questions, Unreadable

MOST_CLASSES = 10  # shown with labels
MOST_LABELS = 3  # shown per example


class Answers(Protocol):
    """The predictions of some questions, as they are made, shown and written."""

    def check_out(self, out: str) -> None:
        """Check before long work that ``--out`` can be written."""
        ...

    def predict(self, model: LoadedModel, batch: int, out: str | None) -> Iterator[Any]:
        """Yield a prediction per question, or ``Unreadable``; large files go to ``out`` meanwhile."""
        ...

    def line(self, found: Any, top: int | None) -> dict[str, object]:
        """Return one line of ``--json``."""
        ...

    def print(self, predictions: Sequence[Any], top: int | None, out: TextIO) -> None:
        """Print one row per example."""
        ...

    def print_scores(self, predictions: Sequence[Any], out: TextIO) -> None:
        """Compare with the right outputs, if they are given."""
        ...

    def write(self, out: str, predictions: Sequence[Any], model: LoadedModel) -> None:
        """Write what was predicted."""
        ...


def answers_of(questions: Questions) -> Answers:
    """Return how the predictions of these questions are made."""
    return Masks(questions) if isinstance(questions, MaskQuestions) else Labels(questions)


@dataclass(frozen=True)
class Labels:
    """Answers of one label or number per example; see ``Answers``."""

    questions: Questions

    def check_out(self, out: str) -> None:
        """See ``Answers``: a Parquet file."""
        check_out(out)

    def predict(self, model: LoadedModel, batch: int, out: str | None) -> Iterator[Prediction | Unreadable]:
        """See ``Answers``."""
        return predict(model, self.questions, batch=batch)

    def line(self, found: Prediction, top: int | None) -> dict[str, object]:
        """See ``Answers``."""
        line: dict[str, object] = dict(found.fields)
        if found.classes:
            best = [{"label": name, "probability": value} for name, value in found.top(top or MOST_LABELS)]
            line |= {"label": found.label, "probability": found.probability, "top": best}
        else:
            line["value"] = float(found.values_O[0])
        return line if found.expected is None else {**line, "expected": found.expected}

    def print(self, predictions: Sequence[Prediction], top: int | None, out: TextIO) -> None:
        """See ``Answers``."""
        first, k = predictions[0], top or MOST_LABELS
        labelled, others = first.expected is not None, k > 1 and len(first.classes) > 1
        answer = ["label", "probability"] if first.classes else ["value"]
        rows = []
        for prediction in predictions:
            row = [shown(prediction.name), *[shown(str(prediction.expected))] * labelled]
            if first.classes:
                (label, probability), *rest = prediction.top(k)
                row += [shown(label), f"{probability:.3f}"]
                row += [", ".join(f"{shown(name)} {value:.3f}" for name, value in rest)] * others
            else:
                row += [f"{prediction.values_O[0]:.3f}"]
            rows.append(row)
        names = [self.questions.one, *["expected"] * labelled, *answer, *["runners-up"] * others]
        print_table(names, rows, ("probability", "value"), out)

    def print_scores(self, predictions: Sequence[Prediction], out: TextIO) -> None:
        """See ``Answers``: the accuracy and the task's other metrics, and the classes with the most mistakes."""
        if self.questions.expected is None:
            return
        kind = f"{self.questions.one}s"
        scores = class_scores(predictions) if predictions[0].classes else []
        if scores:
            right = sum(score.right for score in scores)
            print(f"accuracy {right / len(predictions):.4f} ({right} of {len(predictions)} {kind})", file=out)
        others = metric_scores(predictions, [n for n in self.questions.outputs.metrics if n != "accuracy"])
        for name, value in others.items():
            print(f"{name} {value:.4f} ({len(predictions)} {kind})", file=out)
        worst = sorted((score for score in scores if score.right < score.examples), key=lambda s: s.right - s.examples)
        rows = [
            [
                shown(score.name),
                str(score.examples),
                f"{score.right / score.examples:.3f}",
                f"{shown(score.mistaken_for or '')} ({score.times})",
            ]
            for score in worst[:MOST_CLASSES]
        ]
        if rows:
            print_table(["class", kind, "correct", "mostly mistaken for"], rows, (kind, "correct"), out)
        if len(worst) > MOST_CLASSES:
            print(f"{len(worst) - MOST_CLASSES} more classes with mistakes", file=out)

    def write(self, out: str, predictions: Sequence[Prediction], model: LoadedModel) -> None:
        """See ``Answers``."""
        write_predictions(out, predictions, model, self.questions.outputs.task)


@dataclass(frozen=True)
class Masks:
    """Answers of one label per pixel; see ``Answers``."""

    questions: MaskQuestions

    def check_out(self, out: str) -> None:
        """See ``Answers``: a folder of label maps, or a Parquet file of the classes' shares."""
        if out.endswith(".parquet"):
            check_out(out)
        else:
            check_folder(out, self.questions)

    def predict(self, model: LoadedModel, batch: int, out: str | None) -> Iterator[MaskPrediction | Unreadable]:
        """See ``Answers``: label maps are written, and not kept."""
        for found in predict_masks(model, self.questions, batch=batch):
            if isinstance(found, Unreadable):
                yield found
                continue
            if out and not out.endswith(".parquet"):
                found = write_files(out, found, self.questions.palette)
            yield replace(found, labels_HW=None)

    def line(self, found: MaskPrediction, top: int | None) -> dict[str, object]:
        """See ``Answers``."""
        height, width = found.size
        shares = [{"label": name, "share": share} for name, share in found.top(top)]
        line: dict[str, object] = {**found.fields, "height": height, "width": width, "shares": shares, **found.files}
        if found.confusion_OO is not None:
            scores = mask_scores(found.confusion_OO)
            line |= {name: None if math.isnan(value) else value for name, value in scores.items()}
        return line

    def print(self, predictions: Sequence[MaskPrediction], top: int | None, out: TextIO) -> None:
        """See ``Answers``: the shares of the classes that occur."""
        rows = []
        for found in predictions:
            shares = ", ".join(f"{shown(name)} {100 * share:.1f} %" for name, share in found.top(top))
            row = [shown(found.name), f"{found.size[0]} x {found.size[1]}"]
            if found.confusion_OO is not None:
                row += [f"{value:.3f}" for value in mask_scores(found.confusion_OO).values()]
            rows.append([*row, shares])
        labelled = ["mIoU", "pixel accuracy"] if self.questions.expected is not None else []
        print_table(["image", "pixels", *labelled, "classes"], rows, ("pixels", *labelled), out)

    def print_scores(self, predictions: Sequence[MaskPrediction], out: TextIO) -> None:
        """See ``Answers``: mIoU and pixel accuracy over the pixels of all images, and the classes by their IoU."""
        counted = [found.confusion_OO for found in predictions if found.confusion_OO is not None]
        if not counted:
            return
        total_OO = sum(counted[1:], start=counted[0])
        scores, iou_O, pixels_O = mask_scores(total_OO), ious(total_OO), total_OO.sum(axis=1)
        print(
            f"mIoU {scores['miou']:.4f}, pixel accuracy {scores['pixel_accuracy']:.4f} ({len(counted)} images, "
            f"{total_OO.sum():,} pixels)",
            file=out,
        )
        classes = predictions[0].classes
        rows = [
            [shown(classes[o]), f"{pixels_O[o]:,}", f"{iou_O[o]:.3f}"]
            for o in sorted(range(len(classes)), key=lambda o: -iou_O[o])
            if not math.isnan(iou_O[o])
        ]
        if rows:
            print_table(["class", "pixels", "IoU"], rows, ("pixels", "IoU"), out)

    def write(self, out: str, predictions: Sequence[MaskPrediction], model: LoadedModel) -> None:
        """See ``Answers``: the table; label maps are written already."""
        write_table(out if out.endswith(".parquet") else f"{out.rstrip('/')}/{TABLE}", predictions, model)


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], out: TextIO) -> None:
    """Print a table; the columns named in ``right`` are aligned right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if out.isatty() else 200
    Console(file=out, markup=False, emoji=False, highlight=False, width=width).print(table)


def shown(name: str) -> str:
    """Return a class or file name that fits on a line."""
    return name if name and name.isprintable() else repr(name)
