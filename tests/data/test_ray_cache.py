"""Decoding for the cache by Ray tasks."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.data import ray_cache
from ddpnas_ray.data.cache import intact
from ddpnas_ray.data.cached import OPENED, CachedImages
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.images import load_data
from ddpnas_ray.data.paths import Paths

from .making import encoded, image, same, write_folder, write_parquet

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

COUNTS = {"cat": 30, "dog": 30}


def test_tasks_decode_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ddpnas_ray.data.cache.CHUNK_BYTES", 8 * 3 * 24 * 24)
    monkeypatch.chdir(tmp_path)
    write_folder(Path("photos"), COUNTS, size=(50, 30), suffix=".jpg")
    write_parquet(Path("a.parquet"), [0, 1] * 10)
    for name, path in (("folder", "photos"), ("parquet", "a.parquet")):
        ours = DataConfig(name=name, path=path, image_size=24, cache="cache")  # relative: workers have another folder
        caplog.clear()
        with caplog.at_level(logging.INFO):
            data = load_data(ours, seed=0)
        assert [record.getMessage().endswith("once, by Ray tasks") for record in caplog.records][:1] == [True]
        assert same(data, load_data(replace(ours, cache=None), seed=0))


def test_damaged_images_are_refused_as_without_a_cache(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", COUNTS, size=(50, 30), suffix=".jpg")
    for name in ("cat/003", "dog/020", "dog/021"):
        (tmp_path / "photos" / f"{name}.jpg").write_bytes(b"?")
    ours = DataConfig(name="folder", path=str(tmp_path / "photos"), image_size=24, cache=str(tmp_path / "cache"))
    errors = []
    for cache in (ours.cache, None):
        with pytest.raises(DataError) as raised:
            load_data(replace(ours, cache=cache), seed=0)
        errors.append(str(raised.value))
    assert errors[0] == errors[1]


def die_of_two(number: int) -> int:
    if number == 2:
        os._exit(1)
    return number * 10


def test_a_chunk_whose_process_keeps_dying_is_told_and_the_others_are_there() -> None:
    arguments = [lambda number=number: (number,) for number in range(5)]
    found = dict(ray_cache.decoded(die_of_two, arguments, [b"1"]))
    assert found == {0: 0, 1: 10, 2: None, 3: 30, 4: 40}


def fail(number: int) -> int:
    raise ValueError(f"a mistake in chunk {number}")


def test_a_mistake_in_the_code_is_not_taken_for_a_lost_process() -> None:
    with pytest.raises(ValueError, match="a mistake in chunk 0"):
        list(ray_cache.decoded(fail, [lambda: (0,)], [b"1"]))


def test_what_tasks_cannot_decode_is_decoded_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(decode: Any, arguments: Any, sources: Any) -> Any:
        return ((i, None) for i in reversed(range(len(arguments))))

    monkeypatch.setattr(ray_cache, "decoded", lost)
    monkeypatch.setattr("ddpnas_ray.data.cache.CHUNK_BYTES", 2 * 3 * 24 * 24)
    write_folder(tmp_path / "photos", {"cat": 5, "dog": 5}, size=(50, 30))
    ours = DataConfig(name="folder", path=str(tmp_path / "photos"), image_size=24, cache=str(tmp_path / "cache"))
    assert same(load_data(ours, seed=0), load_data(replace(ours, cache=None), seed=0))


def test_all_nodes_are_asked_for_the_files(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("1.png", "2.png")]
    for path in paths:
        assert not ray_cache._exist(paths)
        Path(path).write_bytes(encoded(image(0)))
    assert ray_cache._exist(paths)
    assert ray_cache._everywhere(Paths.of(paths))


def test_only_drivers_use_tasks() -> None:
    import ray

    assert ray_cache.usable()
    assert not ray.get(ray.remote(ray_cache.usable).remote())


class Reader:
    """A worker, which gets its images with every call."""

    def read(self, images: CachedImages) -> tuple[int, bytes, int]:
        pixels_NCHW = images.gather(np.arange(len(images)))
        return os.getpid(), pixels_NCHW.tobytes(), len(OPENED)


def test_workers_of_a_node_without_the_cache_decode_it_there(tmp_path: Path) -> None:
    import ray

    write_folder(tmp_path / "photos", COUNTS, size=(300, 200), suffix=".jpg")
    ours = DataConfig(name="folder", path=str(tmp_path / "photos"), image_size=24, cache=str(tmp_path / "cache"))
    images = load_data(ours, seed=0).train.images
    assert isinstance(images, CachedImages)
    expected = images.gather(np.arange(len(images))).tobytes()
    shutil.rmtree(tmp_path / "cache")
    workers = [ray.remote(Reader).options(num_cpus=1).remote() for _ in range(3)]
    reference = ray.put(images)
    found = ray.get([worker.read.remote(reference) for worker in workers * 2])
    assert len({pid for pid, _, _ in found}) == 3
    assert {pixels for _, pixels, _ in found} == {expected}
    assert {opened for _, _, opened in found} == {1}
    assert intact(images.entry.records()).sum() == len(images), "validation images were not asked for"

    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "photos")
    late = ray.remote(Reader).options(num_cpus=1).remote()
    with pytest.raises(ray.exceptions.RayTaskError, match=r"lacks images on .*photos: no such folder; set data.path"):
        ray.get(late.read.remote(reference))
    assert ray.get(workers[0].read.remote(reference))[1] == expected, "it has the files open"
