"""``data.cache`` between processes: who decodes, who waits, what a pickle holds, and other machines."""

from __future__ import annotations

import pickle
import shutil
import signal
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import DataError
from ddpnas_ray.data.cache import RECORD, Entry
from ddpnas_ray.data.cached import MOST_OPENED, OPENED
from ddpnas_ray.data.images import load_data

from .caching import COUNTS, as_another_process, config, decoded, digest, entries, process, without
from .making import encoded, image, same, write_folder


def test_a_killed_build_goes_on_from_where_it_was(tmp_path: Path, said: Any) -> None:
    write_folder(tmp_path / "photos", {"cat": 30, "dog": 30}, size=(900, 700), suffix=".jpg")
    ours = config(tmp_path, image_size=224)  # 7 chunks a split
    killed = process(replace(ours, train_limit=50), "from ddpnas_ray.data import cache; cache.CHUNK_BYTES = 2**19")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = list((tmp_path / "cache").glob("*/records"))
        done = int((np.fromfile(found[0], dtype=RECORD)["seal"] > 0).sum()) if found else 0
        if done >= 6:
            break
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, "it must not have finished"
    assert same(load_data(ours, seed=0), load_data(without(ours), seed=0))
    assert 0 < decoded(said()) <= 60 - 6


def test_of_two_builders_one_decodes_and_the_other_waits(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", {"cat": 20, "dog": 20}, size=(600, 500), suffix=".jpg")
    ours = config(tmp_path, image_size=64)
    both = [process(ours) for _ in range(2)]
    answers = [one.communicate(timeout=120) for one in both]
    assert [one.returncode for one in both] == [0, 0], answers
    assert {out.strip() for out, _ in answers} == {digest(load_data(without(ours), seed=0).train.images)}
    assert sum(decoded(err) for _, err in answers) == 40, answers


def test_a_pickle_holds_the_path_and_metadata_only(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    images = load_data(config(tmp_path), seed=0).train.images
    images.gather([0])
    buffers: list[pickle.PickleBuffer] = []
    small = pickle.dumps(images, protocol=5, buffer_callback=buffers.append)
    assert len(small) < 1500
    assert b".png" not in small
    assert sum(buffer.raw().nbytes for buffer in buffers) <= 8 * len(images)
    assert np.array_equal(pickle.loads(small, buffers=buffers).gather([2, 0]), images.gather([2, 0]))


def test_a_process_opens_the_files_once_however_often_it_unpickles_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    stored = pickle.dumps(load_data(config(tmp_path), seed=0).train.images)
    expected = pickle.loads(stored).gather([2, 0])
    monkeypatch.setattr(zlib, "crc32", lambda data: pytest.fail("compared twice"))
    monkeypatch.setattr(Entry, "records", lambda self: pytest.fail("opened twice"))
    assert np.array_equal(pickle.loads(stored).gather([2, 0]), expected)


def test_a_process_keeps_the_files_of_a_few_data_sets_open(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    for size in range(2, 12):
        ours = config(tmp_path, image_size=size, crop=0)
        data, plain = load_data(ours, seed=0), load_data(without(ours), seed=0)
        assert same(data, plain)
        assert len(OPENED) <= MOST_OPENED


def test_a_machine_without_the_files_decodes_them_once_for_all_its_processes(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", {"cat": 20, "dog": 20}, size=(600, 500), suffix=".jpg")
    images = load_data(config(tmp_path), seed=0).train.images
    expected = digest(images)
    shutil.rmtree(tmp_path / "cache")  # as on another node
    both = [process(images) for _ in range(2)]
    answers = [one.communicate(timeout=120) for one in both]
    assert [out.strip() for out, _ in answers] == [expected, expected], answers
    assert sum(decoded(err) for _, err in answers) == 20, answers


def test_a_machine_with_other_images_or_none_is_refused_in_one_line(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    images = load_data(config(tmp_path), seed=0).train.images
    shutil.rmtree(tmp_path / "cache")
    for path in (tmp_path / "photos").rglob("*.png"):
        path.write_bytes(encoded(image(99)))
    as_another_process()
    with pytest.raises(DataError, match=r"decoded differ from those that the run started with; give all machines"):
        pickle.loads(pickle.dumps(images)).gather([0])
    (tmp_path / "photos" / "cat" / "000.png").unlink()
    with pytest.raises(DataError, match=r"lacks images on .*: the files here, or the version of Pillow, are not those"):
        pickle.loads(pickle.dumps(images)).gather([0])
    shutil.rmtree(tmp_path / "photos")
    with pytest.raises(DataError, match=r"lacks images on .*photos: no such folder; set data.path"):
        pickle.loads(pickle.dumps(images)).gather([0])


def test_relative_paths_are_those_of_the_process_that_opened_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "photos", COUNTS)
    monkeypatch.chdir(tmp_path)
    images = load_data(config(tmp_path, path="photos", cache="cache"), seed=0).train.images
    expected = images.gather([1, 0])
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.chdir("/")
    as_another_process()
    assert np.array_equal(pickle.loads(pickle.dumps(images)).gather([1, 0]), expected)
    assert entries(tmp_path)
