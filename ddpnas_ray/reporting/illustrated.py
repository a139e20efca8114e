"""What a trained network does, for its page: a confusion matrix as a heat map, and pictures, from its folder."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.retraining.files import SPLITS
from ddpnas_ray.retraining.illustrations import INDEX, folder_of
from ddpnas_ray.runs.directory import parsed
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.base import PNG

MOST_BYTES = 1_500_000  # of all pictures of a page, before base64
MOST_CLASSES = 40  # of a heat map
FREQUENT = 10  # rows of the table of confusions


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a heat map.

    Args:
        text: Percent of the row; empty: it never happened.
        shade: Percent of the full colour.
        tip: The counts in words.
    """

    text: str
    shade: int
    tip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Illustrated:
    """What a page shows of a trained network.

    Args:
        seed: Of the training.
        split: Whose examples they are, in words.
        classes: Names of the classes.
        heat: Per true class its name, cells and count; empty if there are too many classes, or none.
        confusions: The most frequent ones: true class, predicted class, count, share of the true class.
        pictures: Caption and address of each.
        notes: What is left out or cannot be read.
    """

    seed: int
    split: str
    classes: Sequence[str]
    heat: Sequence[tuple[str, Sequence[Cell], int]]
    confusions: Sequence[tuple[str, str, int, float]]
    pictures: Sequence[tuple[str, str]]
    notes: Sequence[str]


def read_illustrated(folder: Folder, seed: int) -> Illustrated | None:
    """Read what is shown of a seed's network; None if there is nothing."""
    own, notes = folder_of(folder, seed), list[str]()
    if not own.has(INDEX):
        return None
    try:
        index = parsed(own, INDEX, _index)
    except RunDirError as error:
        return Illustrated(
            seed=seed, split="unknown", classes=(), heat=(), confusions=(), pictures=(), notes=[str(error)]
        )
    classes, counts = index["classes"], index["confusion"] or []
    return Illustrated(
        seed=seed,
        split=SPLITS.get(index["split"], index["split"]),
        classes=classes,
        heat=heat(classes, counts) if len(classes) <= MOST_CLASSES else (),
        confusions=confusions(classes, counts),
        pictures=list(_pictures(own, index["pictures"], notes)),
        notes=notes,
    )


def heat(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> list[tuple[str, list[Cell], int]]:
    """Return the rows of a heat map, each normalised to its sum: true class, cells, count.

    Example:
        >>> heat(["a", "b"], [[3, 1], [0, 0]])[0][1][1]
        Cell(text='25', shade=12, tip='true a, predicted b: 1 of 4 (25.0 %)')
    """
    rows = []
    for true, row in zip(classes, counts, strict=True):
        total, cells = sum(row), []
        for predicted, count in zip(classes, row, strict=True):
            share = count / total if total else 0.0
            tip = f"true {true}, predicted {predicted}: {count:,} of {total:,} ({100 * share:.1f} %)"
            cells.append(Cell(f"{100 * share:.0f}" if count else "", round(50 * share), tip))  # text stays readable
        rows.append((true, cells, total))
    return rows


def confusions(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> list[tuple[str, str, int, float]]:
    """Return the most frequent confusions: true class, predicted class, count, share of the true class.

    Example:
        >>> confusions(["a", "b"], [[3, 1], [2, 2]])
        [('b', 'a', 2, 0.5), ('a', 'b', 1, 0.25)]
    """
    found = [
        (true, predicted, count, count / sum(row))
        for t, (true, row) in enumerate(zip(classes, counts, strict=True))
        for p, (predicted, count) in enumerate(zip(classes, row, strict=True))
        if t != p and count
    ]
    return sorted(found, key=lambda row: -row[2])[:FREQUENT]


def _pictures(own: Folder, listed: Sequence[Mapping[str, str]], notes: list[str]) -> Iterator[tuple[str, str]]:
    """Yield caption and address of the pictures that fit into a page; notes say what is left out."""
    left, omitted = MOST_BYTES, 0
    for row in listed:
        try:
            data = parsed(own, row["file"], _picture)
        except RunDirError as error:
            notes.append(str(error))
            continue
        if len(data) > left:
            omitted += 1
            continue
        left -= len(data)
        yield row["caption"], f"data:image/png;base64,{base64.b64encode(data).decode()}"
    if omitted:
        notes.append(f"{omitted} of {len(listed)} pictures are left out, as the page would be too large: {own.uri}")


def _picture(data: bytes) -> bytes:
    if not data.startswith(PNG):
        raise ValueError("it is not a PNG file")
    return data


def _index(data: bytes) -> dict[str, Any]:
    """Read the index, with values of the types that a page needs."""
    content = json.loads(data)
    classes = [str(name) for name in content["classes"]]
    counts = content["confusion"] and [[int(count) for count in row] for row in content["confusion"]]
    if counts and {len(counts), *map(len, counts)} != {len(classes)}:
        raise ValueError(f"it has not a count for each pair of {len(classes)} classes")
    pictures = [{key: str(row[key]) for key in ("file", "caption")} for row in content["pictures"]]
    if any("/" in row["file"] for row in pictures):
        raise ValueError("it names a file of another folder")
    return {"split": str(content["split"]), "classes": classes, "confusion": counts, "pictures": pictures}
