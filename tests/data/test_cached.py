"""``data.cache``: bit-equal to decoding, whatever happens to its files, its disk and its processes."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ddpnas_ray.core.errors import BadInput, ConfigError, DataError, ResourceError
from ddpnas_ray.data.cache import RECORD
from ddpnas_ray.data.cached import CachedImages
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import forecast, load_data

from .caching import COUNTS, as_another_process, config, decoded, digest, entries, process, without
from .making import encoded, image, same, write_folder, write_parquet


def write_every_kind(root: Path) -> None:
    """Images of all modes, sizes and orientations that are not refused, in two classes."""
    pictures: list[tuple[str, Image.Image, dict[str, Any]]] = []
    for n, mode in enumerate(("RGB", "L", "CMYK")):
        pictures += [(f"{mode}-{size[0]}.jpg", image(n, size, mode), {}) for size in ((33, 47), (16, 16), (500, 375))]
    for n, mode in enumerate(("RGB", "L", "1", "P", "LA", "RGBA")):
        pictures += [(f"{mode}.png", image(n, (41, 29), mode), {})]
    pictures += [(f"{mode}.tif", image(5, (40, 30), mode), {}) for mode in ("CMYK", "L")]
    pictures += [
        ("palette.gif", image(6, (21, 30), "P"), {}),
        ("clear.png", image(8, (20, 30), "P"), {"transparency": 3}),
    ]
    pictures += [("strip.png", image(7, (700, 3)), {}), ("web.webp", image(9, (31, 64)), {})]
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        pictures.append((f"turn{turn}.jpg", image(20 + turn, (48, 31)), {"exif": exif}))
    for number, (name, picture, options) in enumerate(pictures):
        folder = root / ("even", "odd")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / name, **options)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 17, 64])
def test_every_kind_of_image_is_bit_equal_to_decoding(tmp_path: Path, channels: int, size: int) -> None:
    write_every_kind(tmp_path / "photos")
    ours = config(tmp_path, channels=channels, image_size=size)
    cold, warm = load_data(ours, seed=0), load_data(ours, seed=0)
    for limit in (0, 2**30):  # decoded at every access, and at the start
        plain = load_data(without(ours), seed=0, decoded_limit_bytes=limit)
        assert same(cold, plain)
        assert same(warm, plain)
    assert isinstance(warm.train.images, CachedImages)
    assert warm.train.images.gather([3, 0, 3]).flags.c_contiguous
    assert warm.train.images.gather([]).shape == (0, channels, size, size)


def of_bytes(tmp_path: Path) -> DataConfig:
    path = write_parquet(tmp_path / "a.parquet", [0, 1] * 8, names=["cat", "dog"])
    return config(tmp_path, name="parquet", path=str(path))


def of_paths(tmp_path: Path) -> DataConfig:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [f"photos/{name}/{i:03}.png" for name, n in COUNTS.items() for i in range(n)]
    write_folder(tmp_path / "photos", COUNTS, size=(20, 30))
    stored: list[bytes | None] = [None] * len(names)
    structs = pa.StructArray.from_arrays([pa.array(stored, pa.binary()), pa.array(names)], ["bytes", "path"])
    pq.write_table(
        pa.table({"image": structs, "label": [name.split("/")[1] for name in names]}), tmp_path / "a.parquet"
    )
    return config(tmp_path, name="parquet", path=str(tmp_path / "a.parquet"))


def of_arrays(tmp_path: Path) -> DataConfig:
    return DataConfig(name="digits", cache=str(tmp_path / "cache"))


def of_split_folders(tmp_path: Path) -> DataConfig:
    write_folder(tmp_path / "photos" / "train", COUNTS, suffix=".jpg", size=(40, 30))
    write_folder(tmp_path / "photos" / "val", COUNTS, suffix=".jpg", size=(30, 40), seed=1)
    return config(tmp_path)


def of_native_size(tmp_path: Path) -> DataConfig:
    write_folder(tmp_path / "photos", COUNTS)
    return config(tmp_path, image_size=None, channels=None)


@pytest.mark.parametrize("make", [of_bytes, of_paths, of_arrays, of_split_folders, of_native_size])
def test_every_source_is_bit_equal_to_decoding_and_decoded_once(tmp_path: Path, said: Any, make: Any) -> None:
    ours = make(tmp_path)
    plain = load_data(without(ours), seed=0)
    assert same(load_data(ours, seed=0), plain)
    assert decoded(said()) == len(plain.train) + len(plain.val)
    assert same(load_data(ours, seed=0), plain)
    assert same(load_data(ours, seed=1), load_data(without(ours), seed=1)), "another seed needs the same images"
    assert decoded(said()) == 0


def test_only_what_a_search_needs_is_decoded_and_later_the_rest(tmp_path: Path, said: Any) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    few = config(tmp_path, train_limit=4, val_limit=2)
    load_data(few, seed=0)
    assert decoded(said()) == 6
    assert same(load_data(config(tmp_path), seed=0), load_data(without(config(tmp_path)), seed=0))
    assert decoded(said()) == 10
    (entry,) = entries(tmp_path)
    assert {path.name for path in entry.iterdir()} == {"pixels", "records", "lock", "about.json"}


def test_other_sizes_and_other_lists_have_entries_of_their_own(tmp_path: Path, said: Any) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    for keys in ({"image_size": 16}, {"image_size": 12}, {"channels": 1}):
        ours = config(tmp_path, **keys)
        assert same(load_data(ours, seed=0), load_data(without(ours), seed=0))
    image(99).save(tmp_path / "photos" / "cat" / "new.png")
    assert same(load_data(config(tmp_path), seed=0), load_data(without(config(tmp_path)), seed=0))
    assert decoded(said()) == 3 * 16 + 17
    assert len(entries(tmp_path)) == 4


def test_files_of_the_same_names_elsewhere_have_an_entry_of_their_own(tmp_path: Path, said: Any) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    write_folder(tmp_path / "other", COUNTS, seed=1)
    for _ in range(2):
        for name in ("photos", "other"):
            ours = config(tmp_path, path=str(tmp_path / name))
            assert same(load_data(ours, seed=0), load_data(without(ours), seed=0))
    assert decoded(said()) == 2 * 16


def test_a_changed_file_is_decoded_again_and_changes_the_digest(tmp_path: Path, said: Any) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    before = load_data(config(tmp_path), seed=0)
    said()
    (tmp_path / "photos" / "cat" / "000.png").write_bytes(encoded(image(99)))
    after = load_data(config(tmp_path), seed=0)
    assert decoded(said()) == 1
    assert after.digest != before.digest
    assert same(after, load_data(without(config(tmp_path)), seed=0))


def test_a_changed_row_of_a_table_is_decoded_again(tmp_path: Path, said: Any) -> None:
    ours = of_bytes(tmp_path)
    load_data(ours, seed=0)
    said()
    stored = [encoded(image(i)) for i in range(15)] + [encoded(image(99))]
    write_parquet(tmp_path / "a.parquet", [0, 1] * 8, names=["cat", "dog"], images=stored)
    assert same(load_data(ours, seed=0), load_data(without(ours), seed=0))
    assert decoded(said()) == 1


# --- bad images ---


def test_damaged_images_are_refused_as_without_a_cache_and_the_others_kept(tmp_path: Path, said: Any) -> None:
    write_folder(tmp_path / "photos", COUNTS, size=(40, 30))
    good = {}
    for name, content in {"cat/001.png": b"?", "dog/003.png": None, "dog/004.png": b""}.items():
        path = tmp_path / "photos" / name
        good[path] = path.read_bytes()
        path.write_bytes(good[path][:200] if content is None else content)
    errors = []
    for ours in (config(tmp_path), without(config(tmp_path))):
        with pytest.raises(DataError) as raised:
            load_data(ours, seed=0)
        errors.append(str(raised.value))
    assert errors[0] == errors[1]
    assert errors[0].startswith("3 problems: (1) ")
    for path, content in good.items():
        path.write_bytes(content)
    said()
    assert same(load_data(config(tmp_path), seed=0), load_data(without(config(tmp_path)), seed=0))
    assert decoded(said()) == 3


@pytest.mark.parametrize("keys", [{"image_size": None}, {"channels": None}, {"image_size": None, "channels": None}])
def test_images_of_several_shapes_are_refused_before_anything_is_decoded(
    tmp_path: Path, said: Any, keys: dict[str, None]
) -> None:
    write_folder(tmp_path / "photos", {"cat": 4}, size=(20, 20))
    write_folder(tmp_path / "photos", {"dog": 4}, size=(24, 20), mode="L")
    errors = []
    for ours in (config(tmp_path, **keys), without(config(tmp_path, **keys))):
        with pytest.raises(DataError) as raised:
            load_data(ours, seed=0)
        errors.append(str(raised.value))
    assert errors[0] == errors[1]
    assert decoded(said()) == 0


# --- damage ---


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


@pytest.mark.parametrize("file", ["pixels", "records"])
@pytest.mark.parametrize("how", ["one bit", "cut", "longer", "removed", "zeros"])
def test_damaged_files_are_noticed_and_decoded_again(tmp_path: Path, said: Any, file: str, how: str) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    plain = load_data(without(config(tmp_path)), seed=0)
    load_data(config(tmp_path), seed=0)
    said()
    as_another_process()
    path = entries(tmp_path)[0] / file
    size = path.stat().st_size
    if how == "one bit":
        flip(path, size // 2)
    elif how == "removed":
        path.unlink()
    elif how == "zeros":
        path.write_bytes(bytes(size))
    else:
        os.truncate(path, size - 1 if how == "cut" else size + 1)
    data = load_data(config(tmp_path), seed=0)
    assert same(data, plain)
    lines = said()
    assert decoded(lines) == (1 if how == "one bit" else 16)
    if how not in ("one bit", "zeros"):
        assert "files of the wrong size; all its images are decoded again" in lines
    elif file == "pixels":
        assert "damaged images: " in lines
    assert same(load_data(config(tmp_path), seed=0), plain)
    assert decoded(said()) == 0


def test_any_flipped_bit_of_a_record_is_noticed(tmp_path: Path, said: Any) -> None:
    write_folder(tmp_path / "photos", {"cat": 2, "dog": 2})
    plain = load_data(without(config(tmp_path)), seed=0)
    load_data(config(tmp_path), seed=0)
    records = entries(tmp_path)[0] / "records"
    for offset in range(RECORD.itemsize):
        said()
        flip(records, RECORD.itemsize + offset)
        assert load_data(config(tmp_path), seed=0).digest == plain.digest
        assert decoded(said()) == 1, offset


# --- disks ---


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 5000))
    with pytest.raises(
        ResourceError,
        match=r"^data.cache=.*cache: 16 images of 768 bytes need 13.4 kB, the disk has 5 kB free; choose a folder on a "
        r"larger disk, a smaller data.image_size or a data.train_limit, or set data.cache=null",
    ):
        load_data(config(tmp_path), seed=0)
    assert not (tmp_path / "cache").exists()
    load_data(config(tmp_path, train_limit=2, val_limit=2), seed=0)


def test_a_disk_that_fills_up_ends_in_one_line_and_the_rest_is_kept(tmp_path: Path, said: Any) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))"  # the pixels are 12,288 bytes
    stopped = process(config(tmp_path), limit)
    _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 1
    last = err.strip().splitlines()[-1]
    assert re.fullmatch(r"DataError: data.cache: .* lacks images and cannot be written \(File too large\); .*", last)
    assert same(load_data(config(tmp_path), seed=0), load_data(without(config(tmp_path)), seed=0))


NOBODY = """
import os, tempfile
from dataclasses import replace
with tempfile.TemporaryDirectory() as other:  # imports what another user may not read
    load_data(replace(given, cache=other), 0).train.images.gather([0])
print("now", file=sys.stderr)
os.setuid(65534) if os.getuid() == 0 else None
"""


def test_a_read_only_cache_is_read_and_refused_if_it_lacks_images() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # unlike tmp_path open to other users
        root = Path(folder)
        root.chmod(0o755)
        write_folder(root / "photos", COUNTS)
        ours = config(root)
        expected = digest(load_data(ours, seed=0).train.images)
        for path in [root / "cache", *(root / "cache").rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        reader = process(ours, NOBODY)
        out, err = reader.communicate(timeout=60)
        assert (out.strip(), err.partition("now\n")[2]) == (expected, ""), err
        refused = process(replace(ours, image_size=12), NOBODY)
        out, err = refused.communicate(timeout=60)
        assert (refused.returncode, out) == (1, "")
        last = err.partition("now\n")[2]
        assert re.fullmatch(r"DataError: .* lacks images and cannot be written \(Permission denied\); .*\n", last)
        (root / "cache").chmod(0o755)


@pytest.mark.parametrize("cache", ["photos/cache", "photos"])
def test_a_cache_among_the_classes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"^data.cache={cache} is inside data.path, whose folders are classes; set"):
        load_data(config(tmp_path, cache=cache), seed=0)


def test_a_bucket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data.cache=s3://b/c: its files are mapped into memory; set a folder of"):
        load_data(config(tmp_path, cache="s3://b/c"), seed=0)


def test_a_file_in_the_place_of_the_cache_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    (tmp_path / "cache").write_text("hello")
    with pytest.raises(BadInput, match=r"cache.*Not a directory.*set it to null to decode images at every access"):
        load_data(config(tmp_path), seed=0)


# --- forecast ---


def test_a_forecast_counts_what_is_missing_and_writes_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    told = forecast(config(tmp_path), seed=0)
    assert (told.images, told.missing, told.image_bytes) == (16, 16, 768)
    assert told.images_per_s and told.seconds == 16 / told.images_per_s
    assert told.free_bytes and told.free_bytes > 10**6
    assert not (tmp_path / "cache").exists()
    load_data(config(tmp_path, train_limit=4, val_limit=4), seed=0)
    assert forecast(config(tmp_path), seed=0).missing == 8
    load_data(config(tmp_path), seed=0)
    told = forecast(config(tmp_path), seed=0)
    assert (told.missing, told.images_per_s, told.seconds) == (0, None, 0.0)
    assert forecast(without(config(tmp_path)), seed=0).missing == 16
