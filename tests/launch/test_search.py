"""What command and Python API share: run directories of new and resumed searches, and the connection to Ray."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from ddpnas_ray.console.progress import Display
from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.experiment.config import SearchConfig, load
from ddpnas_ray.launch.search import NO_RUN, folder_of, resumed_config, search, title_of
from tests.commands import contents
from tests.conftest import TINY

LOCAL = load(None, [*TINY, "execution.backend=local"])


def quiet(config: SearchConfig) -> Display:
    return Display(title_of(config), io.StringIO(), live=False)


def test_a_new_run_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder_of(LOCAL, None) == "runs/cell-digits-s0"
    Path("runs/cell-digits-s0").mkdir(parents=True)
    assert folder_of(LOCAL, None) == "runs/cell-digits-s0-2"
    assert folder_of(LOCAL, "own") == "own"
    Path("runs/cell-digits-s0/file").touch()
    with pytest.raises(RunDirError, match="exists and is not empty"):
        folder_of(LOCAL, "runs/cell-digits-s0")


def test_a_search_on_ray_needs_a_folder() -> None:
    assert folder_of(LOCAL, NO_RUN) == NO_RUN
    with pytest.raises(RunDirError, match="a search on Ray needs a run directory"):
        folder_of(load(None), NO_RUN)


def test_a_search_that_keeps_nothing_returns_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = search(LOCAL, NO_RUN, quiet(LOCAL))
    assert result is not None and len(result["fingerprint"]) == 64
    assert contents(tmp_path) == {}


def test_a_run_resumes_with_its_own_configuration_and_what_may_change(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    assert search(LOCAL, out, quiet(LOCAL), until_s=0.0) is None, "stopped after an epoch"
    folder, same = resumed_config(out, None, [])
    assert same == LOCAL
    _, other = resumed_config(out, None, ["execution.workers=3", "retraining.epochs=2"])
    assert (other.execution.workers, other.retraining.epochs) == (3, 2)
    for given, overrides in ((None, ["seed=1"]), (load(None, ["seed=1"]), [])):
        with pytest.raises(RunDirError, match=r"was started with other values of .*seed"):
            resumed_config(out, given, overrides)
    result = search(other, out, quiet(other), resumed=folder)
    assert result is not None
    before = contents(tmp_path)
    assert search(other, out, quiet(other), resumed=folder) == result, "which is only read"
    assert contents(tmp_path) == before
