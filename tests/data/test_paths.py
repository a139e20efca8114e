from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from ddpnas_ray.data.paths import Paths
from ddpnas_ray.data.raw import RawSplit

ODD = os.fsdecode(b"a\xff b.png")  # not UTF-8, as file names may be


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["a.png"],
        ["/data/a/1.png"],
        ["x/a/1.png", "x/a/2.png"],
        ["x/a/1.png", "x/b/2.png", "x/b/2.png"],
        ["ab/1", "ac/1"],
        ["/a", "b", f"c/{ODD}", "é/ü.png"],
    ],
)
def test_packed_paths_are_the_paths(given: list[str]) -> None:
    paths = Paths.of(given)
    assert list(paths) == given
    assert [paths[i - len(given)] for i in range(len(given))] == given
    assert list(paths[1:]) == given[1:]
    with pytest.raises(IndexError):
        paths[len(given)]


def test_the_common_folder_is_kept_once() -> None:
    here, there = Paths.of(["/here/cat/1.png", "/here/dog/2.png"]), Paths.of(["/there/cat/1.png", "/there/dog/2.png"])
    assert (here.root, there.root) == ("/here/", "/there/")
    assert np.array_equal(here.names, there.names)


def test_they_pickle_without_a_copy_of_the_names() -> None:
    given = [f"/data/{i:06}.png" for i in range(5000)]
    buffers: list[pickle.PickleBuffer] = []
    small = pickle.dumps(Paths.of(given), protocol=5, buffer_callback=buffers.append)
    assert len(small) < 1000
    assert list(pickle.loads(small, buffers=buffers)) == given


def test_a_list_of_paths_of_any_reader_is_packed() -> None:
    def sources(given: list) -> object:
        return RawSplit(sources=given, labels=np.zeros(len(given), np.int64), classes=None, origin="here").sources

    packed = sources([Path("a/1.png"), "a/2.png"])
    assert isinstance(packed, Paths)
    assert list(packed) == ["a/1.png", "a/2.png"]
    assert sources([b"1", "a/2.png"]) == [b"1", "a/2.png"]
