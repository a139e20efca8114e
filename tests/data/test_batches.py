from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpnas_ray.data.batches import Draws, augment_batch, epoch_draws, epoch_order, erase, normalise, training_batch
from ddpnas_ray.data.images import Augment, DecodedImages

seeds = st.integers(0, 2**32 - 1)
augments = st.builds(Augment, crop=st.integers(0, 3), flip=st.booleans(), cutout=st.integers(0, 5))


def random_pixels(seed: int, n: int = 6, channels: int = 3, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, channels, side, side), dtype=np.uint8)


def draws_of(
    *, shift: tuple[int, int] = (0, 0), flip: bool = False, hole: tuple[int, int] = (0, 0), n: int = 6
) -> Draws:
    return Draws(shift_N2=np.tile(shift, (n, 1)), flip_N=np.full(n, flip), hole_N2=np.tile(hole, (n, 1)))


@given(n=st.integers(0, 200), batch_size=st.integers(1, 64), seed=seeds, epoch=st.integers(0, 100))
def test_an_epoch_sees_each_image_at_most_once_in_full_batches(n: int, batch_size: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, batch_size, seed, epoch)
    seen = np.concatenate(order) if order else np.empty(0, dtype=np.int64)
    assert len(np.unique(seen)) == len(seen)
    if n >= batch_size:
        assert {len(batch) for batch in order} == {batch_size}
        assert n - len(seen) < batch_size
    else:
        assert sorted(seen.tolist()) == list(range(n))


@given(seed=seeds, epoch=st.integers(0, 1000))
def test_order_and_draws_depend_on_seed_and_epoch_alone(seed: int, epoch: int) -> None:
    augment = Augment(crop=4, flip=True, cutout=8)
    first, again = epoch_draws(50, augment, 32, seed, epoch), epoch_draws(50, augment, 32, seed, epoch)
    assert np.array_equal(first.shift_N2, again.shift_N2)
    assert np.array_equal(first.flip_N, again.flip_N)
    assert np.array_equal(first.hole_N2, again.hole_N2)
    other = epoch_draws(50, augment, 32, seed, epoch + 1)
    assert not np.array_equal(first.shift_N2, other.shift_N2)
    assert np.array_equal(epoch_order(50, 50, seed, epoch)[0], epoch_order(50, 50, seed, epoch)[0])
    assert not np.array_equal(epoch_order(50, 50, seed, epoch)[0], epoch_order(50, 50, seed, epoch + 1)[0])
    assert not np.array_equal(epoch_order(50, 50, seed, epoch)[0], epoch_order(50, 50, seed + 1, epoch)[0])


def test_switching_one_augmentation_leaves_the_draws_of_the_others_alone() -> None:
    every, crop_only = (epoch_draws(20, augment, 8, 0, 3) for augment in (Augment(crop=2, flip=True), Augment(crop=2)))
    assert np.array_equal(every.shift_N2, crop_only.shift_N2)
    assert every.flip_N.any()
    assert not crop_only.flip_N.any()


def test_draws_cover_their_range_evenly() -> None:
    draws = epoch_draws(20_000, Augment(crop=2, flip=True, cutout=1), 8, 0, 0)
    assert np.unique(draws.shift_N2).tolist() == [-2, -1, 0, 1, 2]
    assert np.unique(draws.hole_N2).tolist() == list(range(8))
    assert 0.48 < draws.flip_N.mean() < 0.52


@given(seed=seeds, augment=augments, channels=st.sampled_from([1, 3]))
def test_augmentation_keeps_shape_and_type_and_leaves_its_input_alone(
    seed: int, augment: Augment, channels: int
) -> None:
    pixels = random_pixels(seed, channels=channels)
    before = pixels.copy()
    out = augment_batch(pixels, np.arange(6), epoch_draws(6, augment, 8, seed, 0), augment)
    assert out.shape == pixels.shape
    assert out.dtype == np.uint8
    assert np.array_equal(pixels, before)


@given(seed=seeds)
def test_shifting_by_zero_changes_nothing(seed: int) -> None:
    pixels = random_pixels(seed)
    assert np.array_equal(augment_batch(pixels, np.arange(6), draws_of(), Augment(crop=3)), pixels)


@given(seed=seeds)
def test_flipping_twice_changes_nothing(seed: int) -> None:
    pixels, flip = random_pixels(seed), Augment(flip=True)
    once = augment_batch(pixels, np.arange(6), draws_of(flip=True), flip)
    assert np.array_equal(once, pixels[..., ::-1])
    assert np.array_equal(augment_batch(once, np.arange(6), draws_of(flip=True), flip), pixels)


@given(seed=seeds, down=st.integers(-3, 3), right=st.integers(-3, 3))
def test_a_shift_moves_the_window_and_uncovers_black(seed: int, down: int, right: int) -> None:
    pixels = random_pixels(seed)
    shifted = augment_batch(pixels, np.arange(6), draws_of(shift=(down, right)), Augment(crop=3))
    expected = np.pad(pixels, ((0, 0), (0, 0), (3, 3), (3, 3)))[:, :, 3 + down : 11 + down, 3 + right : 11 + right]
    assert np.array_equal(shifted, expected)


@given(seed=seeds, augment=augments)
def test_an_image_looks_the_same_in_whatever_batch_it_comes(seed: int, augment: Augment) -> None:
    images, draws = DecodedImages(random_pixels(seed, n=20)), epoch_draws(20, augment, 8, seed, 1)
    whole = training_batch(images, np.arange(20), draws, augment, mean=(0.5,) * 3, std=(0.5,) * 3)
    some = np.array([17, 3, 3, 9])
    assert np.array_equal(training_batch(images, some, draws, augment, mean=(0.5,) * 3, std=(0.5,) * 3), whole[some])
    assert whole.flags.c_contiguous
    assert whole.dtype == np.float32


@given(seed=seeds, mean=st.floats(0, 1), std=st.floats(0.01, 1))
def test_normalise_matches_its_formula_in_float64(seed: int, mean: float, std: float) -> None:
    pixels = random_pixels(seed)
    means, stds = (mean, 0.5, 0.0), (std, 0.5, 1.0)
    expected = (pixels / 255 - np.reshape(means, (3, 1, 1))) / np.reshape(stds, (3, 1, 1))
    assert np.abs(normalise(pixels, means, stds) - expected).max() < 1e-6 / std


def test_default_normalisation_maps_to_plus_and_minus_one() -> None:
    ends = np.array([0, 255], dtype=np.uint8).reshape(1, 1, 1, 2)
    assert normalise(ends, (0.5,), (0.5,)).ravel().tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(
    ("hole", "side", "rows", "columns"),
    [
        ((4, 4), 4, (2, 6), (2, 6)),
        ((4, 5), 3, (3, 6), (4, 7)),
        ((0, 7), 4, (0, 2), (5, 8)),
        ((0, 0), 1, (0, 1), (0, 1)),
    ],
)
def test_cutout_zeroes_a_square_clipped_at_the_border(
    hole: tuple[int, int], side: int, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    batch = np.ones((6, 3, 8, 8), dtype=np.float32)
    erase(batch, np.arange(6), draws_of(hole=hole), Augment(cutout=side))
    expected = np.ones((8, 8))
    expected[slice(*rows), slice(*columns)] = 0
    assert (batch == expected).all()


def test_no_cutout_leaves_the_batch_alone() -> None:
    batch = np.ones((6, 3, 8, 8), dtype=np.float32)
    erase(batch, np.arange(6), draws_of(), Augment())
    assert (batch == 1).all()
