"""One model folder for all tests that read one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ddpnas_ray.deploy.trained import TrainedNetwork
from tests.deploy import making


@pytest.fixture(scope="session")
def network() -> TrainedNetwork:
    """A tiny network, traced once."""
    return making.one()


@pytest.fixture(scope="session")
def written() -> Path:
    """Its model folder with the forms that need no optional package; not to be changed."""
    return making.written()


@pytest.fixture
def model(written: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be changed."""
    return Path(shutil.copytree(written, tmp_path / "model"))
