"""Kinds of device are distinguished and named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
import torch

from ddpnas_ray.core.errors import DeviceError
from ddpnas_ray.training.device import ONEDNN_LEVELS, cpu_model, find_device, onednn_level, set_precision, try_device

AMD = {"vendor_id": "AuthenticAMD", "cpu family": "23", "model": "1", "stepping": "2"}


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
    """A GPU for which this PyTorch has no kernels: its name is known, but nothing runs on it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: (5, 2))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: "Quadro M4000")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    monkeypatch.setattr(torch.version, "cuda", "13.0")

    def ones(*_: object, device: str) -> None:
        raise NO_KERNELS

    monkeypatch.setattr(torch, "ones", ones)


def test_a_gpu_without_kernels_is_reported_in_one_line_with_the_fix(fake_gpu: None) -> None:
    with pytest.raises(DeviceError) as error:
        try_device("cuda")
    assert str(error.value) == (
        f"Quadro M4000 (compute capability 5.2) cannot be used by PyTorch {torch.__version__}, built for CUDA 13.0 and "
        "sm_75 sm_90: CUDA error: no kernel image is available for execution on the device; update the driver, "
        "install a PyTorch built for driver and GPU, or set execution.gpus_per_worker=0"
    )


@pytest.mark.parametrize("failure", [OLD_DRIVER, AssertionError("Torch not compiled with CUDA enabled")])
def test_an_old_driver_or_a_cpu_only_pytorch_is_reported_in_one_line(
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
    """TF32 flags of convolutions and matrix products, restored afterwards."""
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
