"""One instruction set for all CPU libraries: refused if not in effect, equal results if it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpnas_ray import search
from ddpnas_ray.core.errors import ResourceError
from ddpnas_ray.runs.files import read_evaluations
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.training.cpu_isa import level_variables, require_level, use_level
from ddpnas_ray.training.device import find_device
from tests.commands import LOCAL, options, run
from tests.conftest import ROOT

# Variables that emulate an older CPU; PyTorch's libraries read them when they load.
OLD_CPU = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
LEVELS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_CBWR", "NPY_DISABLE_CPU_FEATURES")
AMD = {"vendor_id": "AuthenticAMD", "cpu family": "23", "model": "1", "stepping": "2"}
has_a_level_below = pytest.mark.skipif(
    find_device("cpu").details["aten"] == "default",
    reason="needs a CPU with AVX2: there is no level below this one",
)


def searched(out: Path, levels: dict[str, str], *keys: str) -> dict[str, Any]:
    """``result.json`` of a tiny search in a process with these levels."""
    environment = {name: value for name, value in os.environ.items() if name not in LEVELS}
    subprocess.run(
        [sys.executable, "-m", "ddpnas_ray.search", *LOCAL, *options(*keys), "--out", str(out)],
        env=environment | {"PYTHONPATH": str(ROOT)} | levels,
        check=True,
        capture_output=True,
    )
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


@pytest.mark.slow
@has_a_level_below
def test_an_emulated_older_cpu_gives_another_result_and_is_recorded_as_another_device(tmp_path: Path) -> None:
    here, old = searched(tmp_path / "here", {}), searched(tmp_path / "old", OLD_CPU)
    assert here["fingerprint"] != old["fingerprint"]
    assert here["devices"].keys().isdisjoint(old["devices"])
    for name, result in (("here", here), ("old", old)):
        kind, count = next(iter(result["devices"].items()))
        assert count == result["architecture_epochs"]
        rows = read_evaluations(Folder.open(str(tmp_path / name)).read("evaluations.parquet"))
        assert {row.device for row in rows} == {kind}
        environment = json.loads((tmp_path / name / "environment.json").read_text())
        assert environment["devices"][kind]["torch"] == torch.__version__
    assert "aten-default onednn-sse41" in next(iter(old["devices"]))


@pytest.mark.parametrize("level", ["sse41", "avx2"])
def test_a_level_is_refused_in_a_process_that_was_started_without_it(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpnas_ray.training.cpu_isa.cpuinfo", lambda: {"flags": "sse4_1 avx2"})
    for name, value in level_variables(level).items():
        monkeypatch.delenv(name, raising=False)
        with pytest.raises(ResourceError, match=f"training.cpu_isa is {level}.*{name}="):
            require_level(level)
        monkeypatch.setenv(name, value)
    require_level(level)
    use_level(level)
    with pytest.raises(ResourceError):
        require_level({"sse41": "avx2", "avx2": "sse41"}[level])
    require_level(None)


def test_a_level_that_the_cpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddpnas_ray.training.cpu_isa.cpuinfo", lambda: AMD | {"flags": "sse4_1 avx"})
    with pytest.raises(ResourceError, match=r"avx2, which this CPU \(amd-23-1-2\) lacks"):
        use_level("avx2")


def test_a_command_in_a_process_with_torch_refuses_a_level_in_one_line(tmp_path: Path) -> None:
    said = run(search.main, *LOCAL, "--out", tmp_path / "run", "--set", "training.cpu_isa=sse41")
    assert said.code == 2
    assert said.err.startswith("ResourceError: training.cpu_isa is sse41, but this process started without it")
    assert len(said.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@has_a_level_below
def test_at_a_level_hosts_that_choose_otherwise_give_one_result_in_process_and_on_ray(tmp_path: Path) -> None:
    here = searched(tmp_path / "here", {}, "training.cpu_isa=sse41")
    old = searched(tmp_path / "old", OLD_CPU | {"MKL_CBWR": "AVX2"}, "training.cpu_isa=sse41")
    workers = searched(tmp_path / "ray", {}, "training.cpu_isa=sse41", "execution.backend=ray", "execution.workers=2")
    assert here["fingerprint"] == old["fingerprint"] == workers["fingerprint"]
    assert here["devices"].keys() == old["devices"].keys() == workers["devices"].keys()
    assert "aten-default onednn-sse41 mkl-compatible" in next(iter(here["devices"]))
