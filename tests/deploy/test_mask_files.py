"""Masks that predictions are compared with: ids of training, palettes, colours, and what does not count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.deploy.mask_files import MaskQuestions, size_of
from tests.deploy.mask_making import PALETTE, interface, picture


def questions(folder: Path, mask: Image.Image, **changes: Any) -> MaskQuestions:
    """An image of 2x3 pixels and its mask."""
    for name, image in (("images", picture(0, (3, 2))), ("masks", mask)):
        (folder / name).mkdir()
        image.save(folder / name / "a.png")
    return interface(**changes).questions([str(folder / "images")], masks=str(folder / "masks"))


def grey(rows: list[list[int]]) -> Image.Image:
    return Image.fromarray(np.array(rows, np.uint8))


def test_ids_of_training_become_class_numbers(tmp_path: Path) -> None:
    asked = questions(tmp_path, grey([[7, 8, 11], [0, 7, 7]]), ids=[7, 8, 11], void_ids=[0])
    assert asked.mask(0, (2, 3)).tolist() == [[0, 1, 2], [-1, 0, 0]]


def test_every_other_id_may_not_count(tmp_path: Path) -> None:
    asked = questions(tmp_path, grey([[7, 8, 11], [0, 255, 99]]), ids=[7, 8, 11], void_ids=None)
    assert asked.mask(0, (2, 3)).tolist() == [[0, 1, 2], [-1, -1, -1]]


def test_palette_indices_are_ids(tmp_path: Path) -> None:
    mask = grey([[0, 1, 2], [255, 0, 0]])
    mask.putpalette([7 * i % 256 for i in range(768)])
    assert questions(tmp_path, mask).mask(0, (2, 3)).tolist() == [[0, 1, 2], [-1, 0, 0]]


def test_colours_are_those_of_the_classes(tmp_path: Path) -> None:
    classes = np.array([[2, 1, 0], [0, 0, 1]])
    mask = Image.fromarray(np.array(PALETTE, np.uint8)[classes])
    assert questions(tmp_path, mask).mask(0, (2, 3)).tolist() == classes.tolist()


def test_ids_that_are_unknown_are_one_line(tmp_path: Path) -> None:
    asked = questions(tmp_path, grey([[0, 1, 2], [255, 9, 8]]), void_ids=[])
    with pytest.raises(DataError, match=r"a\.png: id 8 is not of a class of the model \(0, 1, 2\), and not one"):
        asked.mask(0, (2, 3))


def test_sizes_are_those_of_upright_images(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0, (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert size_of(str(tmp_path / "turned.jpg")) == (40, 20)
    with pytest.raises(DataError, match="cannot be read"):
        size_of(str(tmp_path / "no.jpg"))
