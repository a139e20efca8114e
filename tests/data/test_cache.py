"""Files of a cache; how they are used is in ``test_cached.py``."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpnas_ray.core.errors import ResourceError
from ddpnas_ray.data import cache
from ddpnas_ray.data.cache import (
    RECORD,
    Entry,
    bytes_text,
    decode_chunk,
    decoder,
    fill,
    intact,
    lacking,
    refuse_full_disk,
)
from ddpnas_ray.data.problems import Problems
from ddpnas_ray.data.raw import RawSplit
from ddpnas_ray.data.scan import Shape

from .making import encoded, image

SHAPE = Shape(channels=3, image_size=8, convert_channels=True, resize=True)


def stored(n: int, first: int = 0) -> RawSplit:
    sources = [encoded(image(first + i)) for i in range(n)]
    return RawSplit(sources=sources, labels=np.zeros(n, np.int64), classes=("a",), origin="here")


def entry_of(folder: Path, raw: RawSplit, place: str = "here") -> Entry:
    return Entry.of(str(folder), "my:reader", raw, place, SHAPE)


@pytest.mark.parametrize("work", ["one chunk", "chunks"])
def test_a_hole_costs_no_space_and_rows_are_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    if work == "chunks":
        monkeypatch.setattr(cache, "CHUNK_BYTES", 200)
    raw = stored(50)
    entry, rows = entry_of(tmp_path, raw), np.array([3, 7, 8, 40])
    problems = Problems()
    fill(entry, raw, rows, "training", problems)
    assert len(problems) == 0
    assert np.flatnonzero(intact(entry.records())).tolist() == rows.tolist()
    for row in range(50):
        expected = np.asarray(image(row)).transpose(2, 0, 1) if row in rows else 0
        assert (entry.pixels()[row] == expected).all()
    assert lacking(entry, raw, np.arange(38, 42)).tolist() == [38, 39, 41]
    with pytest.raises(ValueError, match="read-only"):
        entry.pixels()[0] = 1


def test_a_damaged_image_has_no_record_and_the_first_problems_come_first(tmp_path: Path) -> None:
    raw = stored(6)
    sources = list(raw.sources)
    sources[1] = sources[4] = b"?"
    raw = RawSplit(sources=sources, labels=raw.labels, classes=raw.classes, origin="here")
    pixels_NCHW, records, bad = decode_chunk(sources, list("abcdef"), 3, 8, decoder())
    assert intact(records).tolist() == [True, False, True, True, False, True]
    assert [text[0] for text in bad] == ["b", "e"]
    assert not pixels_NCHW[[1, 4]].any()


def test_another_decoder_decodes_nothing() -> None:
    pixels_NCHW, records, bad = decode_chunk([encoded(image(0))], ["x"], 3, 8, "decoding 1, pil 1.0")
    assert bad == [f"{decoder()} instead of decoding 1, pil 1.0"]
    assert not pixels_NCHW.any() and not intact(records).any()


def test_seals_hold_for_their_own_record_only() -> None:
    _, records, _ = decode_chunk([encoded(image(i)) for i in range(20)], ["x"] * 20, 3, 8, decoder())
    assert intact(records).all()
    assert not intact(np.zeros(3, dtype=RECORD)).any(), "holes"
    for name in RECORD.names or ():
        other = records.copy()
        other[name] = np.roll(other[name], 1, axis=0)
        if name not in ("bytes", "native", "mtime_ns"):  # which may be equal
            assert not intact(other).any(), name


def test_entries_differ_by_place_list_and_shape() -> None:
    raw = stored(3)
    files = [RawSplit(sources=[f"x/{n}", "x/b"], labels=raw.labels[:2], classes=None, origin="x") for n in "ac"]
    found = [
        Entry.of("c", "my:reader", raw, "here", SHAPE),
        Entry.of("c", "my:reader", raw, "there", SHAPE),
        Entry.of("c", "my:reader", raw, "here", Shape(channels=1, image_size=8, convert_channels=True, resize=True)),
        Entry.of("c", "my:reader", raw, "here", Shape(channels=3, image_size=9, convert_channels=True, resize=True)),
        *(Entry.of("c", "folder", split, "here", SHAPE) for split in files),
    ]
    assert len({entry.folder for entry in found}) == len(found)
    assert re.fullmatch(r"c/my\.reader-3x8x8-[0-9a-f]{24}", found[0].folder)


def test_the_decoder_is_part_of_the_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = entry_of(tmp_path, stored(2))
    monkeypatch.setattr(cache, "DECODING", 2)
    assert entry_of(tmp_path, stored(2)).folder != before.folder


def test_progress_is_told_while_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache, "PROGRESS_S", 0.0)
    monkeypatch.setattr(cache, "CHUNK_BYTES", 192 * 4)
    monkeypatch.setattr(cache.ray_cache, "usable", lambda: False)  # other tests of this process may have connected
    raw = stored(8)
    with caplog.at_level(logging.INFO):
        fill(entry_of(tmp_path, raw), raw, np.arange(8), "training", Problems())
    lines = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"decoding 8 training images into .* \(1\.54 kB\), once, by \d+ threads", lines[0])
    assert re.fullmatch(r"4 of 8 images, \d+ a second, 0 minutes left", lines[1])
    assert re.fullmatch(r"decoded 8 images in 0 s", lines[-1])


def test_nothing_is_told_to_who_did_not_ask_for_logs() -> None:
    assert cache.logger.level == logging.INFO
    assert not cache.logger.handlers


def test_room_is_needed_for_pixels_and_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 10 * (192 + RECORD.itemsize)
    monkeypatch.setattr(cache, "free_bytes", lambda folder: needed)
    refuse_full_disk(str(tmp_path), 10, 192)
    monkeypatch.setattr(cache, "free_bytes", lambda folder: needed - 1)
    with pytest.raises(ResourceError, match=r"10 images of 192 bytes need 2\.6 kB, the disk has 2.6 kB free"):
        refuse_full_disk(str(tmp_path), 10, 192)


def test_the_free_space_of_a_folder_that_does_not_exist_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    here, there = cache.free_bytes(str(tmp_path)), cache.free_bytes(str(tmp_path / "a" / "b"))
    assert abs(here - there) < 2**30


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_999, "1 MB"), (2_345_678, "2.35 MB"), (5.4e12, "5400 GB")],
)
def test_bytes_as_text(count: float, text: str) -> None:
    assert bytes_text(count) == text


def test_a_part_that_was_not_written_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    whole = os.pwrite

    def a_part(descriptor: int, data: Any, offset: int) -> int:
        return whole(descriptor, data[:3], offset)

    monkeypatch.setattr(os, "pwrite", a_part)
    with path.open("r+b") as file:
        cache._write_at(file.fileno(), b"abcdefgh", 1)
    assert path.read_bytes() == b"\0abcdefgh\0"
