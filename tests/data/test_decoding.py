from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.data.decoding import fit_image, native_shape, open_image, read_source

from .making import encoded, image


def decode(data: bytes, channels: int = 3, image_size: int = 8) -> np.ndarray:
    return fit_image(open_image(data, "x.png"), channels=channels, image_size=image_size)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_give_their_exact_pixels(kind: str) -> None:
    picture = image(0)
    assert np.array_equal(decode(encoded(picture, kind)), np.asarray(picture).transpose(2, 0, 1))


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)])
def test_grey_modes_have_one_channel_and_all_others_three(mode: str, channels: int) -> None:
    data = encoded(image(1, mode=mode))
    assert native_shape(open_image(data, "x", load=False)) == (channels, 8, 8)
    for wanted in (1, 3):
        assert decode(data, wanted).shape == (wanted, 8, 8)


def test_cmyk_jpeg_becomes_rgb() -> None:
    assert decode(encoded(image(1, mode="CMYK"), "JPEG")).shape == (3, 8, 8)


def test_transparent_palette_becomes_rgb_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    data = encoded(image(1, mode="P"), transparency=bytes(range(256)))
    assert decode(data).shape == (3, 8, 8)
    assert not recwarn.list


def test_alpha_is_dropped_and_not_blended() -> None:
    picture = Image.new("RGBA", (8, 8), (10, 200, 30, 0))
    assert decode(encoded(picture))[:, 0, 0].tolist() == [10, 200, 30]


def test_grey_repeated_is_what_rgb_sees_of_it() -> None:
    data = encoded(image(2, mode="L"))
    assert np.array_equal(decode(data, 3), np.repeat(decode(data, 1), 3, axis=0))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_a_picture_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image(3, (12, 8)), exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    upright = open_image(data, "x")
    assert np.array_equal(np.asarray(upright), expected)
    assert native_shape(open_image(data, "x", load=False)) == native_shape(upright) == (3, *expected.shape[:2])


def test_a_damaged_exif_block_does_not_damage_the_picture() -> None:
    data = encoded(image(3), "JPEG", exif=b"Exif\x00\x00garbage that is no TIFF header")
    assert native_shape(open_image(data, "x")) == (3, 8, 8)


def test_resizing_takes_the_shorter_side_antialiased_and_crops_the_centre() -> None:
    picture = image(4, (96, 64))
    small = picture.resize((48, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(
        fit_image(picture, channels=3, image_size=32), np.asarray(small).transpose(2, 0, 1)[:, :, 8:40]
    )
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(fit_image(Image.fromarray(stripes), channels=1, image_size=16)[:, :, 2:-2]) < 20


def test_more_than_eight_bits_are_refused_rather_than_clipped() -> None:
    deep = Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16))
    with pytest.raises(DataError, match=r"x.png: image mode 'I;16' has more than 8 bits per channel; convert it"):
        open_image(encoded(deep), "x.png")


def test_what_is_no_image_is_named() -> None:
    with pytest.raises(DataError, match=r"^x.png: not an image that Pillow can read \(5 bytes\)$"):
        open_image(b"hello", "x.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_truncated_image_is_named(kind: str) -> None:
    data = encoded(image(5, (64, 64)), kind)
    with pytest.raises(DataError, match=r"^photo: ") as raised:
        open_image(data[: len(data) // 2], "photo")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.png: cannot be read .No such file"):
        read_source(tmp_path / "gone.png", str(tmp_path / "gone.png"))


def test_arrays_are_images_too() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(fit_image(open_image(pixels, "x"), channels=1, image_size=8)[0], pixels)


def test_of_a_long_strip_only_the_centre_is_resized() -> None:
    strip = Image.new("RGB", (3_000_001, 1))  # at 32 pixels the whole would take 9 GB
    strip.paste((255, 0, 0), (1_500_000, 0, 1_500_001, 1))
    assert fit_image(strip, channels=3, image_size=32)[0].max() > 240
