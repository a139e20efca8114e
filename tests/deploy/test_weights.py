"""Metadata of safetensors files are read without torch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddpnas_ray.core.errors import ModelError
from ddpnas_ray.deploy.weights import NAME, read_metadata, write_weights


def test_metadata_and_weights_arrive(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    write_weights(tmp_path, {"a.b": torch.arange(6.0).reshape(2, 3).T}, {"classes": '["é"]'})
    assert read_metadata(tmp_path / NAME) == {"format": "pt", "classes": '["é"]'}
    assert torch.equal(load_file(tmp_path / NAME)["a.b"], torch.arange(6.0).reshape(2, 3).T)


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    files = set()
    for _ in range(5):
        write_weights(tmp_path, {"a": torch.ones(3)}, {key: key for key in "abcdefgh"})
        files.add((tmp_path / NAME).read_bytes())
    assert len(files) == 1


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 100, b"\x04\0\0\0\0\0\0\0null", None])
def test_other_files_are_one_line(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot be read|not a safetensors file") as error:
        read_metadata(tmp_path / NAME)
    assert "\n" not in str(error.value)
