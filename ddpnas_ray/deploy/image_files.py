"""Find and read image files that are to be predicted.

Axes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.data.batches import Float32Array
from ddpnas_ray.data.decoding import open_image, read_source
from ddpnas_ray.data.folder import SUFFIXES, image_files
from ddpnas_ray.data.pixels import in_chunks
from ddpnas_ray.deploy.questions import Arrays, Outputs, Unreadable

if TYPE_CHECKING:
    from PIL.Image import Image

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


@dataclass(frozen=True)
class ImageQuestions:
    """Image files to classify; see ``Questions``.

    Args:
        images: The files.
        outputs: Their classes.
        prepare: Image -> input of the network.
        expected: Their classes, where they are known.
    """

    images: Sequence[ImageFile]
    outputs: Outputs
    prepare: Callable[[Image], Float32Array]
    expected: Sequence[str] | None = None
    unread: Sequence[Unreadable] = ()
    key: str = "path"
    one: str = "image"

    def __len__(self) -> int:
        return len(self.images)

    def name(self, number: int) -> str:
        """See ``Questions``: its path."""
        return self.images[number].path

    def fields(self, number: int) -> dict[str, str]:
        """See ``Questions``: its path."""
        return {self.key: self.images[number].path}

    def read(self, start: int, stop: int) -> tuple[Arrays | None, dict[int, Unreadable]]:
        """See ``Questions``; on a few threads."""
        read = read_images(self.prepare, [image.path for image in self.images[start:stop]])
        bad = {start + i: image for i, image in enumerate(read) if isinstance(image, Unreadable)}
        good = [image_CHW for image_CHW in read if not isinstance(image_CHW, Unreadable)]
        return (np.stack(good),) if good else None, bad


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


def expected_labels(images: Sequence[ImageFile], classes: Sequence[str]) -> list[str]:
    """Return the class of each file: that which one of its folders is named as.

    Raises:
        DataError: A file lies in no such folder, or in those of several classes.
    """
    known: set[str] = set(classes)
    expected: list[str] = []
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
        expected.append(names[0])
    return expected


def read_images(prepare: Callable[[Image], Float32Array], paths: Sequence[str]) -> list[Float32Array | Unreadable]:
    """Read and prepare image files, on a few threads."""

    def one(path: str) -> Float32Array | Unreadable:
        try:
            return prepare(open_image(read_source(path, path), path))
        except DataError as error:
            return Unreadable(path, str(error))
        except (OSError, ValueError) as error:  # Pillow cannot convert or resize it
            return Unreadable(path, f"{path}: cannot be converted ({' '.join(str(error).split())})")

    def work(start: int, stop: int) -> list[Float32Array | Unreadable]:
        return [one(path) for path in paths[start:stop]]

    return [image for part in in_chunks(work, len(paths), chunk=CHUNK) for image in part]


def _parents(path: str) -> tuple[str, ...]:
    """Return the names of the folders above a file as far as they are given, at least one."""
    return Path(path).parts[:-1] or (Path(path).absolute().parent.name,)
