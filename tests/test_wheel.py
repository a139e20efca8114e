"""The wheel contains all data files of the package, and an installed package finds them."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_the_configurations_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {p for p in (ROOT / "ddpnas_ray").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    configs = {f"ddpnas_ray/configs/{path.name}" for path in (ROOT / "configs").iterdir()}
    assert found == {path.relative_to(ROOT).as_posix() for path in package} | configs
    for name in (
        "py.typed",
        "digits.yaml",
        "configs/cifar10_cell.yaml",
        "networks/darts_v2.json",
        "reporting/templates/style.css",
    ):
        assert f"ddpnas_ray/{name}" in found


def test_an_installed_package_finds_configurations_by_name(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = """
import ddpnas_ray.experiment.config as c
from ddpnas_ray.experiment.yaml_text import packaged
assert c.__file__.startswith("site/") or "/site/" in c.__file__, c.__file__
print(c.load("cifar10_cell").data.name, c.load(None).data.name, *packaged())
"""
    words = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    names = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    assert (done.stdout.split(), done.stderr) == (["cifar10", "digits", "digits", *names], "")
