"""What a task shows of a trained network, as files: in the last checkpoint, and in ``seed-<n>/illustrations``.

``illustrations.json`` names the pictures with their captions, and has the confusion matrix with its classes' names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ddpnas_ray.runs.files import json_file
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.base import Illustrations

INDEX = "illustrations.json"


def folder_of(folder: Folder, seed: int) -> Folder:
    """Return the folder of a seed's illustrations, which exists if its task has any."""
    return folder / f"seed-{seed}" / "illustrations"


def illustration_files(shown: Illustrations, history: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Return the files; the index last, as it names the others.

    Args:
        shown: The illustrations.
        history: Rows of the training's epochs; the last tells which split is shown.
    """
    names = [f"picture-{number}.png" for number in range(1, len(shown.pictures) + 1)]
    index = {
        "split": "val" if history[-1]["test"] is None else "test",
        "pictures": [{"file": name, "caption": caption} for name, caption in zip(names, shown.pictures, strict=True)],
        "confusion": shown.confusion,
        "classes": list(shown.classes),
    }
    return dict(zip(names, shown.pictures.values(), strict=True)) | {INDEX: json_file(index)}


def parse_illustrations(files: Mapping[str, bytes]) -> Illustrations | None:
    """Read the files of ``illustration_files``, among others; None if there are none.

    Raises:
        ValueError, KeyError: A file is missing or damaged.
    """
    if INDEX not in files:
        return None
    index = json.loads(files[INDEX])
    pictures = {row["caption"]: files[row["file"]] for row in index["pictures"]}
    return Illustrations(pictures, index["confusion"], index["classes"])


def write_illustrations(
    folder: Folder, seed: int, shown: Illustrations | None, history: Sequence[Mapping[str, Any]]
) -> None:
    """Write a seed's illustrations, if there are any.

    Raises:
        RunDirError: They cannot be written.
    """
    if shown is None:
        return
    own = folder_of(folder, seed)
    own.make()
    for name, data in illustration_files(shown, history).items():
        own.write(name, data)
