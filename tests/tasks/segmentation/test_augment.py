"""An image and its labels are changed together: labels painted into the image stay on the labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.tasks.segmentation.augment import Changes, changes_of
from ddpnas_ray.tasks.segmentation.masks import VOID

MEAN = (0.2, 0.4, 0.6)
FILL = [51, 102, 153]
NONE = Changes(crop=None, scale=(1.0, 1.0), flip=False, color=0.0)


def painted(count: int = 4, size: tuple[int, int] = (24, 32)) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Labels 0 to 4 in blocks of 8x8, and images whose pixels are 50 times the label."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 5, (count, size[0] // 8, size[1] // 8))
    labels = np.kron(blocks, np.ones((8, 8), dtype=np.int64)).astype(np.uint8)
    return (50 * labels)[:, None].repeat(3, axis=1), labels


def changed(changes: Changes, seed: int = 0, epoch: int = 0) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    pixels, labels = painted()
    return changes_of(changes, (24, 32), MEAN, 4, seed, epoch)(pixels, labels, np.arange(4))


def test_without_changes_they_are_as_they_were() -> None:
    for one, other in zip(changed(NONE), painted(), strict=True):
        np.testing.assert_array_equal(one, other)


@given(
    seed=st.integers(0, 2**20),
    crop=st.sampled_from([None, (16, 16), (9, 31), (40, 48)]),
    flip=st.booleans(),
)
def test_labels_painted_into_the_image_stay_on_the_labels(seed: int, crop: tuple[int, int] | None, flip: bool) -> None:
    """Without a scale to the pixel; what is outside of the image has the colour of the mean and is void."""
    pixels, labels = changed(Changes(crop=crop, scale=(1.0, 1.0), flip=flip, color=0.0), seed)
    assert pixels.shape == (4, 3, *(crop or (24, 32))) and labels.shape == (4, *(crop or (24, 32)))
    outside = labels == VOID
    np.testing.assert_array_equal(pixels[:, 0][~outside], 50 * labels[~outside])
    assert (pixels.transpose(0, 2, 3, 1)[outside] == FILL).all()
    assert outside.any() == (crop == (40, 48)) or crop == (9, 31)
    if crop == (40, 48):
        assert (~outside).sum(axis=(1, 2)).tolist() == [24 * 32] * 4, "the whole image is there"


@given(seed=st.integers(0, 2**20), factor=st.sampled_from([0.5, 0.75, 1.5, 2.0]), flip=st.booleans())
def test_with_a_scale_they_part_at_edges_only(seed: int, factor: float, flip: bool) -> None:
    pixels, labels = changed(Changes(crop=(24, 24), scale=(factor, factor), flip=flip, color=0.0), seed)
    inside = labels != VOID
    off = np.abs(pixels[:, 0].astype(int) - 50 * labels.astype(int)) > 25
    assert off[inside].mean() < 0.2 / factor, "edges; 0.8 if they were not moved together"
    shares = inside.mean(axis=(1, 2))
    if factor < 1:
        assert (shares < 1).all() and shares == pytest.approx(
            min(1, factor * 24 / 24) * min(1, factor * 32 / 24), abs=0.1
        )
    else:
        assert (shares == 1).all()


def test_images_grow_by_the_factor() -> None:
    """Blocks of 8 pixels are 16 at a factor of 2."""
    _, labels = changed(Changes(crop=(24, 32), scale=(2.0, 2.0), flip=False, color=0.0))
    runs = [len(run) for row in labels[:, 12] for run in np.split(row, np.flatnonzero(np.diff(row)) + 1)[1:-1]]
    assert runs and all(run % 16 == 0 for run in runs)


def test_colours_change_images_and_not_labels() -> None:
    pixels, labels = changed(Changes(crop=None, scale=(1.0, 1.0), flip=False, color=0.5))
    np.testing.assert_array_equal(labels, painted()[1])
    assert not np.array_equal(pixels, painted()[0])


def test_draws_are_keyed_by_seed_epoch_and_image() -> None:
    every = Changes(crop=(16, 16), scale=(0.5, 2.0), flip=True, color=0.3)
    first = changed(every)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    for one, other in zip(first, changed(every), strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not np.array_equal(changed(every, seed=1)[1], first[1])
    assert not np.array_equal(changed(every, epoch=1)[1], first[1])
    pixels, labels = painted()
    rows = np.array([3, 1])
    alone = changes_of(every, (24, 32), MEAN, 4, 0, 0)(pixels[rows], labels[rows], rows)
    np.testing.assert_array_equal(alone[0], first[0][rows])
    np.testing.assert_array_equal(alone[1], first[1][rows])
