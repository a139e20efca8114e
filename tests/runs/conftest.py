"""Fixtures of several files."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import fs

from ddpnas_ray.storage.folder import Folder


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    """A folder as on an object store: not local, and without file locks."""
    folder = Folder(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "run", "store://bucket/run")
    folder.make()
    return folder
