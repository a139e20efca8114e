"""Kinds of device are told apart, and named in a word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ddpnas_ray import search
from ddpnas_ray.core.errors import DeviceError, ResourceError
from ddpnas_ray.runs.files import read_evaluations
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.training.cpu_isa import level_variables, require_level, use_level
from ddpnas_ray.training.device import ONEDNN_LEVELS, cpu_model, find_device, onednn_level, set_precision, try_device
from tests.commands import LOCAL, options, run
from tests.conftest import ROOT

# What an emulation of an older CPU sets, seen by PyTorch's libraries when they load.
OLD_CPU = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"}
LEVELS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_CBWR", "NPY_DISABLE_CPU_FEATURES")
AMD = {"vendor_id": "AuthenticAMD", "cpu family": "23", "model": "1", "stepping": "2"}


def searched(out: Path, levels: dict[str, str], *keys: str) -> dict[str, Any]:
    """``result.json`` of a tiny search in a process that sees these levels."""
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
@pytest.mark.skipif(find_device("cpu").details["aten"] == "default", reason="this CPU has no level below it to emulate")
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


def test_this_device_names_its_model_instruction_set_and_torch() -> None:
    here = find_device("cpu")
    assert here.kind.startswith("cpu ")
    assert here.details["model"] in here.kind
    assert here.details["aten"] in here.kind
    assert here.kind.endswith(f"torch-{torch.__version__}")
    assert json.loads(json.dumps(here.details)) == here.details


@pytest.mark.parametrize("key", ["cpu family", "model", "stepping"])
def test_cpus_that_differ_in_one_number_have_different_names(key: str) -> None:
    assert cpu_model(AMD) == "amd-23-1-2"
    assert cpu_model(AMD | {key: "25"}) != cpu_model(AMD)


def test_a_system_without_cpuinfo_still_has_a_name() -> None:
    assert cpu_model({})
    assert cpu_model({"CPU implementer": "0x41", "CPU part": "0xd0c"}) == "arm-0x41-0xd0c-unknown-unknown"


@pytest.mark.parametrize("most", ONEDNN_LEVELS)
def test_onednn_uses_the_level_that_is_allowed_and_there(most: str) -> None:
    everything = set(ONEDNN_LEVELS.values())
    assert onednn_level(everything, {"ONEDNN_MAX_CPU_ISA": most.upper()}) == most
    assert onednn_level({"sse4_1"}, {"ONEDNN_MAX_CPU_ISA": most.upper()}) == "sse41"
    assert onednn_level(everything, {"ONEDNN_MAX_CPU_ISA": "ALL"}) == list(ONEDNN_LEVELS)[-1]


def test_a_gpu_is_named_with_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92400)
    find_device.cache_clear()
    try:
        gpu = find_device("cuda")
    finally:
        find_device.cache_clear()
    assert gpu.kind == f"gpu nvidia-h100-80gb-hbm3 cuda-13.0 cudnn-92400 torch-{torch.__version__}"
    assert gpu.details["capability"] == "9.0"


OLD_DRIVER = RuntimeError("The NVIDIA driver on your system is too old (found version 12020). Please update it.\nMore")
NO_KERNELS = RuntimeError("CUDA error: no kernel image is available for execution on the device\nMore ...")


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of an architecture that this PyTorch has no kernels for: one knows its name, and nothing runs on it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: (5, 2))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: "Quadro M4000")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    def ones(*_: object, device: str) -> None:
        raise NO_KERNELS

    monkeypatch.setattr(torch, "ones", ones)


def test_a_gpu_without_kernels_is_told_in_one_line_with_what_is_needed(fake_gpu: None) -> None:
    with pytest.raises(DeviceError) as error:
        try_device("cuda")
    assert str(error.value) == (
        f"Quadro M4000 (compute capability 5.2) cannot be used by PyTorch {torch.__version__}, built for CUDA 13.0 and "
        "sm_75 sm_90: CUDA error: no kernel image is available for execution on the device; update the GPU's driver, "
        "install the PyTorch built for driver and GPU, or set execution.gpus_per_worker=0"
    )


@pytest.mark.parametrize("failure", [OLD_DRIVER, AssertionError("Torch not compiled with CUDA enabled")])
def test_a_driver_that_is_too_old_or_a_pytorch_for_cpus_is_told_in_one_line(
    failure: Exception, fake_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def capability(where: str) -> None:
        raise failure

    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    if isinstance(failure, AssertionError):
        monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceError, match=r"^the GPU cannot be used by PyTorch .*: (The NVIDIA driver|Torch not)") as e:
        try_device("cuda")
    assert "\n" not in str(e.value)
    assert ("built for CPUs" in str(e.value)) is isinstance(failure, AssertionError)


def test_nothing_is_asked_of_a_cpu(fake_gpu: None) -> None:
    try_device("cpu")


@pytest.mark.gpu
def test_a_gpu_that_works_passes() -> None:
    try_device("cuda")


@pytest.fixture
def tf32() -> Iterator[Callable[[], tuple[bool, bool]]]:
    """Whether convolutions and matrix products use TF32; put back afterwards."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    yield lambda: (convolutions.allow_tf32, products.allow_tf32)
    convolutions.allow_tf32, products.allow_tf32 = before


def test_fp32_is_float32_throughout_and_tf32_is_tf32_throughout(tf32: Callable[[], tuple[bool, bool]]) -> None:
    default = tf32()
    set_precision("tf32", "cpu")
    assert tf32() == default, "a CPU has nothing to set"
    found = {}
    for precision in ("tf32", "fp32", "bf16"):
        set_precision(precision, "cuda")
        found[precision] = tf32()
    assert found == {"tf32": (True, True), "fp32": (False, False), "bf16": default}


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
    assert said.err.startswith("ResourceError: training.cpu_isa is sse41, and this process was started without it")
    assert len(said.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(find_device("cpu").details["aten"] == "default", reason="this CPU has no level below it to emulate")
def test_at_a_level_hosts_that_choose_otherwise_give_one_result_in_process_and_on_ray(tmp_path: Path) -> None:
    here = searched(tmp_path / "here", {}, "training.cpu_isa=sse41")
    old = searched(tmp_path / "old", OLD_CPU | {"MKL_CBWR": "AVX2"}, "training.cpu_isa=sse41")
    workers = searched(tmp_path / "ray", {}, "training.cpu_isa=sse41", "execution.backend=ray", "execution.workers=2")
    assert here["fingerprint"] == old["fingerprint"] == workers["fingerprint"]
    assert here["devices"].keys() == old["devices"].keys() == workers["devices"].keys()
    assert "aten-default onednn-sse41 mkl-compatible" in next(iter(here["devices"]))
