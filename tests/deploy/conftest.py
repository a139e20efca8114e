"""One model folder for all tests that read one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ddpnas_ray.deploy.folder import write_model
from ddpnas_ray.deploy.trained import TrainedNetwork
from tests.deploy.making import noise, tiny


@pytest.fixture(scope="session")
def network() -> TrainedNetwork:
    """A tiny network, traced once."""
    return tiny()


@pytest.fixture(scope="session")
def written(network: TrainedNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its model folder with the forms that need no optional package; not to be changed."""
    path = tmp_path_factory.mktemp("deploy") / "new" / "model"
    done = write_model(network, path, images_NCHW=noise(network), forms=["torch", "pt2"])
    assert [(row.form, row.largest_difference, row.labels_agree) for row in done.rows] == [
        ("torch", 0.0, 5),
        ("pt2", 0.0, 5),
    ]
    assert (done.folder, list(done.seconds), done.notes) == (path, ["torch", "pt2"], ())
    return path


@pytest.fixture
def model(written: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be changed."""
    return Path(shutil.copytree(written, tmp_path / "model"))
