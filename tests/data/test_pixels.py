from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.data.images import DecodedImages, EncodedImages
from ddpnas_ray.data.pixels import Picked, in_chunks

from .making import encoded, image


def both(n: int = 12) -> tuple[EncodedImages, DecodedImages]:
    pictures = [image(i) for i in range(n)]
    pixels = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])
    return EncodedImages([encoded(picture) for picture in pictures], 3, 8), DecodedImages(pixels)


def test_encoded_and_decoded_images_gather_the_same_pixels_in_order() -> None:
    encoded_images, decoded_images = both()
    for indices in ([3], [7, 0, 0, 11], np.arange(12)[::-1], []):
        pixels = encoded_images.gather(indices)
        assert np.array_equal(pixels, decoded_images.gather(indices))
        assert pixels.dtype == np.uint8
        assert pixels.shape == (len(indices), 3, 8, 8)
        assert pixels.flags.c_contiguous


@pytest.mark.parametrize("images", both(), ids=["encoded", "decoded"])
def test_what_was_gathered_may_be_written_to(images: EncodedImages | DecodedImages) -> None:
    before = images.gather([0])
    images.gather([0])[:] = 7
    assert np.array_equal(images.gather([0]), before)


def test_decoded_images_take_a_read_only_view_and_stay_read_only_through_a_pickle() -> None:
    shared = np.frombuffer(bytes(range(192)) * 2, dtype=np.uint8).reshape(2, 3, 8, 8)
    images = DecodedImages(shared)
    assert np.shares_memory(images.pixels_NCHW, shared)
    back = pickle.loads(pickle.dumps(images))
    assert np.array_equal(back.gather([1, 0]), shared[[1, 0]])
    with pytest.raises(ValueError, match="read-only"):
        back.pixels_NCHW[0] = 0


def test_decoded_images_leave_the_callers_array_writable() -> None:
    pixels = np.zeros((2, 1, 8, 8), dtype=np.uint8)
    DecodedImages(pixels)
    pixels[0] = 1
    assert pixels[0].all()


def test_decoded_images_pickle_without_a_copy_where_the_protocol_allows() -> None:
    images = both()[1]
    buffers: list[pickle.PickleBuffer] = []
    small = pickle.dumps(images, protocol=5, buffer_callback=buffers.append)
    assert len(small) < 1000
    assert np.array_equal(pickle.loads(small, buffers=buffers).gather([5]), images.gather([5]))


def test_encoded_images_survive_a_pickle() -> None:
    images = both()[0]
    assert np.array_equal(pickle.loads(pickle.dumps(images)).gather([5, 1]), images.gather([5, 1]))


@pytest.mark.parametrize("pixels", [np.zeros((2, 8, 8), np.uint8), np.zeros((2, 1, 8, 8), np.float32)])
def test_decoded_images_refuse_other_arrays(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        DecodedImages(pixels)


def test_a_damaged_image_is_named_when_it_is_gathered(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(encoded(image(0)))
    bad.write_bytes(encoded(image(0, (64, 64)))[:200])
    with pytest.raises(DataError, match=r"bad.png: damaged image"):
        EncodedImages([good, bad], 3, 8).gather([0, 1])
    with pytest.raises(DataError, match=r"^image 1: not an image"):
        EncodedImages([good.read_bytes(), b"?"], 3, 8).gather([0, 1])
    with pytest.raises(DataError, match=r"^row 17: not an image"):
        EncodedImages([b"?"], 3, 8, names=["row 17"]).gather([0])


def test_images_can_be_gathered_from_several_threads_at_once() -> None:
    encoded_images, decoded_images = both()
    with ThreadPoolExecutor(4) as pool:
        for pixels in pool.map(lambda i: encoded_images.gather(np.roll(np.arange(12), i)), range(12)):
            assert sorted(pixels.sum(axis=(1, 2, 3))) == sorted(decoded_images.pixels_NCHW.sum(axis=(1, 2, 3)))


def test_chunks_come_in_order_and_an_error_comes_through() -> None:
    assert [*in_chunks(range, 10, chunk=3)] == [range(3), range(3, 6), range(6, 9), range(9, 10)]
    assert [*in_chunks(range, 0, chunk=3)] == []

    def fail(start: int, stop: int) -> None:
        if start:
            raise DataError(f"at {start} in {threading.current_thread().name}")

    with pytest.raises(DataError, match="at 3"):
        list(in_chunks(fail, 10, chunk=3))


def test_picked_shares_its_base_and_can_be_sliced() -> None:
    picked = Picked("abcdef", np.array([5, 0, 3]))
    assert list(picked) == ["f", "a", "d"]
    assert list(picked[1:]) == ["a", "d"]
