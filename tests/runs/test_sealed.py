"""Sealed checkpoints of any content; those of a search are tested in test_checkpoint.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ddpnas_ray.runs.sealed import newest_epoch, restore_sealed, write_sealed
from ddpnas_ray.storage.folder import Folder


def parse(files: Mapping[str, bytes]) -> bytes:
    if files["a"] == b"bad":
        raise ValueError("not mine")
    return files["a"]


def test_the_latest_valid_one_is_restored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder.open(str(tmp_path / "checkpoints"))
    assert restore_sealed(folder, parse, "it") is None and newest_epoch(folder) == 0
    for epoch in range(1, 6):
        write_sealed(folder, epoch, {"a": f"{epoch}".encode(), "b": b""})
    assert folder.names() == ["ckpt-3", "ckpt-4", "ckpt-5"]
    assert restore_sealed(folder, parse, "it") == b"5"
    (tmp_path / "checkpoints" / "ckpt-5" / "b").write_bytes(b"edited")
    (tmp_path / "checkpoints" / "ckpt-4" / "DONE").unlink()
    assert restore_sealed(folder, parse, "it") == b"3"
    assert (
        "b does not match its SHA-256 in DONE" in caplog.text and "ckpt-4 is damaged (it is incomplete)" in caplog.text
    )
    write_sealed(folder, 4, {"a": b"again"})
    assert folder.names() == ["ckpt-3", "ckpt-4"], "later ones were damaged"


def test_what_cannot_be_parsed_is_damaged_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Folder.open(str(tmp_path / "checkpoints"))
    write_sealed(folder, 1, {"a": b"bad"})
    assert restore_sealed(folder, parse, "the thing") is None
    assert "the thing starts over" in caplog.text
