"""Ids of masks: which files have them, and what they mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.tasks.segmentation.masks import (
    UNKNOWN,
    VOID,
    Labelling,
    own_classes,
    pixels_of,
    read_ids,
    resized,
)
from tests.data.making import encoded
from tests.tasks.segmentation.making import ids_of, mask

OWN = Labelling(("road", "car"), (0, 3), 255)


@pytest.mark.parametrize(
    ("mode", "ids"), [("L", (0, 7, 255)), ("P", (0, 7, 255)), ("1", (0, 1)), ("I;16", (0, 9, 999))]
)
def test_ids_are_read_from_every_kind_of_file_that_has_them(mode: str, ids: tuple[int, ...]) -> None:
    expected = ids_of(1, ids)
    found, picture = read_ids(encoded(mask(expected, mode)), "a.png")
    np.testing.assert_array_equal(found, expected)
    assert picture.mode == mode
    assert pixels_of(found) == {i: int((expected == i).sum()) for i in ids}


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (
            encoded(mask(ids_of(0)).convert("RGB")),
            "a.png: a mask of mode RGB has colours, not ids; save it as a grey PNG",
        ),
        (encoded(mask(ids_of(0)).convert("LA")), "a.png: a mask of mode LA has colours"),
        (encoded(mask(ids_of(0)), "JPEG"), "a.png: a JPEG file changes ids; save masks without loss"),
        (b"nothing", r"a.png: not an image that Pillow can read \(7 bytes\)"),
        (encoded(mask(ids_of(0)))[:60], "a.png: damaged mask"),
    ],
)
def test_other_files_are_refused_in_one_line(stored: bytes, says: str) -> None:
    with pytest.raises(DataError, match=rf"^{says}") as error:
        read_ids(stored, "a.png")
    assert "\n" not in str(error.value)


@given(st.lists(st.sampled_from([0, 3, 255, 4, 17]), min_size=1))
def test_labels_are_numbers_of_classes_void_or_unknown(ids: list[int]) -> None:
    meaning = {0: 0, 3: 1, 255: VOID}
    assert OWN.table[ids].tolist() == [meaning.get(i, UNKNOWN) for i in ids]
    lenient = Labelling(OWN.classes, OWN.ids, None, lenient=True)
    assert lenient.table[ids].tolist() == [meaning.get(i, VOID) for i in ids]
    pixels = pixels_of(np.array(ids, dtype=np.uint8))
    assert OWN.counts(pixels).tolist() == [ids.count(0), ids.count(3)]
    assert bool(OWN.unknown(pixels, "a.png")) == bool({4, 17} & set(ids))
    assert lenient.unknown(pixels, "a.png") == []


def test_an_unknown_id_is_named_with_what_is_allowed_and_the_way_out() -> None:
    assert OWN.unknown({0: 5, 4: 1200, 17: 1}, "masks/a.png") == [
        "masks/a.png: id 4 (1,200 pixels) is not a class, nor is 1 other id; classes are 0, 3, 255 is void: "
        "correct the mask, name every class in task.classes, or set task.void"
    ]


def test_every_id_but_void_is_a_class_of_its_own() -> None:
    found = own_classes([7, 0, 7, 255], 255, "here")
    assert (found.classes, found.ids) == (("class-0", "class-7"), (0, 7))
    assert own_classes([0, 255], None, "here").ids == (0, 255)
    with pytest.raises(DataError, match=r"here: masks have 300 ids, more than the 250 classes allowed"):
        own_classes(range(300), None, "here")


@given(seed=st.integers(0, 99), height=st.integers(1, 40), width=st.integers(1, 40))
def test_resizing_makes_no_new_ids(seed: int, height: int, width: int) -> None:
    ids = ids_of(seed, (0, 5, 200)).astype(np.uint8)
    found = resized(ids, (height, width))
    assert found.shape == (height, width) and set(np.unique(found)) <= {0, 5, 200}
    twice = resized(ids, (2 * ids.shape[0], 2 * ids.shape[1]))
    np.testing.assert_array_equal(twice, ids.repeat(2, axis=0).repeat(2, axis=1))


def test_an_image_in_memory_is_a_mask_too() -> None:
    pixels = np.asarray(Image.fromarray(ids_of(0).astype(np.uint8)))
    np.testing.assert_array_equal(read_ids(pixels, "row 0")[0], ids_of(0))
