"""Images with masks are opened: split by seed, checked, and decoded at the start or at every access."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.tasks.segmentation.pairs import Decoded, Encoded, Joined
from ddpnas_ray.tasks.segmentation.reading import load
from ddpnas_ray.tasks.segmentation.sources import Source
from tests.data.making import image
from tests.tasks.segmentation.making import HEIGHT, WIDTH, ids_of, mask, own, write_pairs


def source(root: Path, **keys: object) -> Source:
    data = DataConfig(name="folder", path=str(root / "images"), **keys)  # type: ignore[arg-type]
    return Source(data=data, masks=str(root / "masks"))


def test_decoded_at_the_start_or_at_every_access_they_are_the_same(tmp_path: Path) -> None:
    write_pairs(tmp_path, ids=(0, 4, 255))
    for size in (None, (7, 9)):
        decoded, encoded = (load(source(tmp_path), 0, size, decoded_limit_bytes=limit) for limit in (2**30, 0))
        assert isinstance(decoded.train.pairs, Decoded) and isinstance(encoded.train.pairs, Encoded)
        assert decoded.digest == encoded.digest
        rows = np.array([2, 0])
        for one, other in ((decoded.train, encoded.train), (decoded.val, encoded.val)):
            joined = Joined(one.pairs, other.pairs)
            expected = one.pairs.gather(rows)
            for found in (
                other.pairs.gather(rows),
                joined.gather(rows + 4),
                other.pairs.picked(rows).gather(rows[::2] * 0),
            ):
                assert found[0].shape[1:] == expected[0].shape[1:]
            for found in (other.pairs.gather(rows), joined.gather(rows + len(one))):
                np.testing.assert_array_equal(found[0], expected[0])
                np.testing.assert_array_equal(found[1], expected[1])
            np.testing.assert_array_equal(one.counts_NC, other.counts_NC)
            np.testing.assert_array_equal(
                other.pairs.picked(rows).gather(np.array([1]))[1], one.pairs.gather(rows[1:])[1]
            )


def test_pixels_and_labels_are_those_of_the_files(tmp_path: Path) -> None:
    write_pairs(tmp_path, ids=(2, 4, 255))
    data = load(source(tmp_path), 0, None)
    assert data.labelling.ids == (2, 4) and data.size == (HEIGHT, WIDTH)
    every = {image(i, (WIDTH, HEIGHT)).tobytes(): ids_of(i, (2, 4, 255)) for i in range(8)}
    seen = 0
    for split in (data.train, data.val):
        pixels, labels = split.pairs.gather(np.arange(len(split)))
        for one, found, counts_C in zip(pixels, labels, split.counts_NC, strict=True):
            ids = every.pop(one.transpose(1, 2, 0).tobytes())
            np.testing.assert_array_equal(found, np.select([ids == 2, ids == 4], [0, 1], 255))
            assert counts_C.tolist() == [(ids == 2).sum(), (ids == 4).sum()]
            seen += 1
    assert seen == 8 and not every, "every image once"


def test_the_split_and_limits_are_keyed_by_the_seed(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    first, same, other = (load(source(tmp_path), seed, None) for seed in (0, 0, 1))
    assert first.digest == same.digest != other.digest
    quarter = load(source(tmp_path, val_fraction=0.25), 0, None)
    assert (len(quarter.train), len(quarter.val)) == (6, 2)
    few = load(source(tmp_path, train_limit=3, val_limit=1), 0, None)
    assert (len(few.train), len(few.val)) == (3, 1)
    kept = {one.tobytes() for one in first.train.pairs.gather(np.arange(4))[0]}
    assert {one.tobytes() for one in few.train.pairs.gather(np.arange(3))[0]} < kept
    with pytest.raises(DataError, match=r"data.val_fraction=0.99 of 8 image.s. leaves none to train on"):
        load(source(tmp_path, val_fraction=0.99), 0, None)


def test_the_digest_is_of_content_and_not_of_places(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_pairs(tmp_path / name)
    found = [load(source(tmp_path / name), 0, None).digest for name in ("a", "b")]
    assert found[0] == found[1] != load(source(tmp_path / "a"), 0, (6, 8)).digest
    file = tmp_path / "c" / "masks" / "0" / "00.png"
    mask(ids_of(77)).save(file)
    assert load(source(tmp_path / "c"), 0, None).digest != found[0]
    assert own(tmp_path / "a", classes=("x", "y", "z")).digest != found[0]


def test_ids_of_masks_that_are_not_drawn_are_classes_too(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    mask(np.full((HEIGHT, WIDTH), 9)).save(tmp_path / "masks" / "1" / "07.png")
    task = own(tmp_path, data={"train_limit": 2, "val_limit": 1})
    assert task.classes == ("class-0", "class-1", "class-2", "class-9")


def test_a_palette_gives_the_colours_and_its_indices_are_the_ids(tmp_path: Path) -> None:
    write_pairs(tmp_path, mode="P", ids=(0, 1, 5))
    task = own(tmp_path)
    assert task.classes == ("class-0", "class-1", "class-5")
    assert task.data.palette == ((0, 7, 14), (21, 28, 35), (105, 112, 119))


def test_images_of_several_sizes_need_one(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    for kind, one in (("images", image(1, (32, 20))), ("masks", mask(ids_of(1, size=(20, 32))))):
        one.save(tmp_path / kind / "0" / "00.png")
    with pytest.raises(
        DataError, match=r"several sizes: 16x12 \(7 images\), 32x20 \(1 images\); set task.size=\[12, 16\]"
    ):
        own(tmp_path)
    assert own(tmp_path, size=(6, 8)).inputs.shape == (3, 6, 8)


def broken(root: Path, what: str) -> None:
    photo, labels = root / "images" / "0" / "00.png", root / "masks" / "0" / "00.png"
    if what == "size":
        mask(ids_of(0, size=(6, 16))).save(labels)
    elif what == "id":
        mask(ids_of(0, (0, 1, 9))).save(labels)
    elif what == "colours":
        Image.open(labels).convert("RGB").save(labels)
    elif what == "mask":
        labels.write_bytes(labels.read_bytes()[:50])
    elif what == "image":
        photo.write_bytes(photo.read_bytes()[:50])
    else:
        photo.write_bytes(b"no image")


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("size", r"masks/0/00.png: a mask of 16x6 pixels, but its image \S+images/0/00.png has 16x12; make them equal"),
        (
            "id",
            r"masks/0/00.png: id 9 \(\d+ pixels\) is not a class; classes are 0 to 2, 255 is void: correct the mask",
        ),
        ("colours", r"masks/0/00.png: a mask of mode RGB has colours, not ids; save it as a grey PNG whose values"),
        ("mask", r"masks/0/00.png: damaged mask"),
        ("image", r"images/0/00.png: damaged image"),
        ("not", r"images/0/00.png: not an image that Pillow can read"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path: Path, what: str, says: str) -> None:
    write_pairs(tmp_path)
    broken(tmp_path, what)
    with pytest.raises(DataError, match=says) as error:
        own(tmp_path, classes=("a", "b", "c"))
    assert "\n" not in str(error.value) and "problems" not in str(error.value)


def test_bad_files_are_named_when_they_are_read_later(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    data = load(source(tmp_path), 0, None, decoded_limit_bytes=0)
    for i in range(8):
        mask(ids_of(0, (0, 1, 9))).save(tmp_path / "masks" / f"{i % 2}" / f"{i:02}.png")
    with pytest.raises(DataError, match=r"masks/\d/\d\d.png: id 9"):
        data.train.pairs.gather(np.array([0]))


def test_an_unknown_id_of_a_validation_mask_is_named(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    val = write_pairs(tmp_path, 2, prefix="val_", ids=(0, 1, 2, 7))
    with pytest.raises(DataError, match=r"2 problems: \(1\) \S+val_masks/0/00.png: id 7 .* classes are 0 to 2"):
        own(tmp_path, data={"val_path": val["path"]}, val_masks=val["masks"])


def test_one_class_is_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path, ids=(0, 255))
    with pytest.raises(
        DataError, match=r"only one class \(class-0\); .* at least 2 \(id 255 is void: task.void=-1 makes"
    ):
        own(tmp_path)
    assert own(tmp_path, void=-1).classes == ("class-0", "class-255")
    with pytest.raises(DataError, match=r"only one class"):
        own(tmp_path, classes=("a", "b"))
    write_pairs(tmp_path, ids=(255,))
    with pytest.raises(DataError, match=r"the training masks have no class"):
        own(tmp_path)


def test_black_and_white_masks_have_two_classes(tmp_path: Path) -> None:
    write_pairs(tmp_path, mode="1", ids=(0, 1))
    assert own(tmp_path).classes == ("class-0", "class-1")


def test_masks_of_sixteen_bits_have_large_ids(tmp_path: Path) -> None:
    write_pairs(tmp_path, mode="I;16", ids=(0, 300, 65535))
    assert own(tmp_path, void=65535).classes == ("class-0", "class-300")
