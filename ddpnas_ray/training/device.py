"""Kinds of device: results are bit-equal on one kind only, so every evaluation records its own.

A kind is the CPU model and the instruction sets that PyTorch's libraries use, or the GPU model with CUDA and cuDNN;
both with the PyTorch build. torch is imported inside functions only.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ddpnas_ray.core.errors import ConfigError, DeviceError

# oneDNN's levels on x86, lowest first, with the CPU flag that each needs; it does not order other instruction sets.
ONEDNN_LEVELS = {
    "sse41": "sse4_1",
    "avx": "avx",
    "avx2": "avx2",
    "avx2_vnni": "avx_vnni",
    "avx512_core": "avx512bw",
    "avx512_core_vnni": "avx512_vnni",
    "avx512_core_bf16": "avx512_bf16",
    "avx512_core_fp16": "avx512_fp16",
    "avx512_core_amx": "amx_tile",
}


@dataclass(frozen=True, slots=True)
class Device:
    """Training device of one process.

    Args:
        kind: One line; equal for devices that should give bit-equal results: ``cpu amd-25-1-1 avx2 torch-2.14.1``.
        details: The parts of ``kind``, plain values.
    """

    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)


@cache
def find_device(where: str) -> Device:
    """Find the device that this process trains on; imports torch.

    Args:
        where: ``cpu`` or ``cuda``.
    """
    return _gpu() if where.startswith("cuda") else _cpu(cpuinfo())


def try_device(where: str) -> None:
    """Use the GPU once, so that a driver too old for this PyTorch, or a GPU without kernels, fails before a search.

    Args:
        where: ``cpu`` (not checked) or ``cuda``.

    Raises:
        DeviceError: A convolution or a matrix product fails on it.
    """
    if where == "cpu":
        return
    import torch

    found = "the GPU"
    try:
        capability = "{}.{}".format(*torch.cuda.get_device_capability(where))
        found = f"{torch.cuda.get_device_name(where)} (compute capability {capability})"
        images = torch.ones(1, 4, 8, 8, device=where)
        features = torch.nn.functional.conv2d(images, torch.ones(4, 4, 3, 3, device=where), padding=1)
        float((features.flatten(1) @ features.flatten(1).T).sum())
    except (RuntimeError, AssertionError) as error:  # the latter from a CPU-only PyTorch
        archs = " ".join(torch.cuda.get_arch_list())
        built = f"CUDA {torch.version.cuda} and {archs}" if torch.version.cuda else "CPUs"
        raise DeviceError(
            f"{found} cannot be used by PyTorch {torch.__version__}, built for {built}: {first_line(error)}; "
            "update the driver, install a PyTorch built for driver and GPU, or set execution.gpus_per_worker=0"
        ) from error


def try_compile(where: str) -> None:
    """Compile a function, so that a missing compiler is found before a training.

    Args:
        where: ``cpu`` or ``cuda``.

    Raises:
        ConfigError: It cannot be compiled; names ``retraining.compile``.
    """
    import torch

    try:
        torch.compile(lambda x: 2.0 * x.relu() + 1.0)(torch.ones(8, device=where))
    except Exception as error:  # compilers fail in many ways, and this function cannot be at fault
        raise ConfigError(
            f"retraining.compile is true, but torch.compile fails here ({first_line(error)}); install a C++ compiler "
            "(on a GPU also Triton), or set it to false"
        ) from error


def set_precision(precision: str, where: str) -> None:
    """Set how convolutions and matrix products use float32 on a GPU; PyTorch defaults to TF32 for convolutions only.

    Args:
        precision: ``training.precision``; under bf16, operations left in float32 use PyTorch's default.
        where: ``cpu`` (unchanged) or ``cuda``.
    """
    if where == "cpu":
        return
    import torch

    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"


def first_line(error: Exception) -> str:
    """First line of an error's text, without the full stop; the error's type if it has no text."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def _gpu() -> Device:
    import torch

    name = torch.cuda.get_device_name()
    major, minor = torch.cuda.get_device_capability()
    details = {
        "gpu": name,
        "capability": f"{major}.{minor}",
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),
        "torch": torch.__version__,
    }
    libraries = f"cuda-{details['cuda']} cudnn-{details['cudnn']} torch-{torch.__version__}"
    return Device(f"gpu {_slug(name)} {libraries}", details)


def _cpu(info: Mapping[str, str]) -> Device:
    import torch

    model = cpu_model(info)
    onednn = onednn_level(set(info.get("flags", "").split()), os.environ)
    details = {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "model": model,
        "aten": torch.backends.cpu.get_cpu_capability().lower(),
        "onednn": onednn,
        "mkl": os.environ.get("MKL_CBWR", "").lower(),
        "numpy": numpy_simd(),
        "torch": torch.__version__,
    }
    isa = details["aten"] if onednn in ("", details["aten"]) else f"aten-{details['aten']} onednn-{onednn}"
    mkl = f" mkl-{details['mkl']}" if details["mkl"] else ""
    return Device(f"cpu {model} {isa}{mkl} torch-{torch.__version__}", details)


def cpuinfo() -> dict[str, str]:
    """Fields of the first processor in ``/proc/cpuinfo``; empty on systems without it."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    pairs = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_model(info: Mapping[str, str]) -> str:
    """Vendor, family, model and stepping in one word, from the pairs of ``/proc/cpuinfo``.

    Example:
        >>> cpu_model({"vendor_id": "AuthenticAMD", "cpu family": "25", "model": "1", "stepping": "1"})
        'amd-25-1-1'
        >>> cpu_model({"CPU implementer": "0x41", "CPU part": "0xd0c", "CPU variant": "0x3", "CPU revision": "1"})
        'arm-0x41-0xd0c-0x3-1'
    """
    if "vendor_id" in info:
        vendor = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}.get(info["vendor_id"], _slug(info["vendor_id"]))
        return "-".join([vendor, *(info.get(key, "unknown") for key in ("cpu family", "model", "stepping"))])
    if "CPU implementer" in info:
        keys = ("CPU implementer", "CPU part", "CPU variant", "CPU revision")
        return "-".join(["arm", *(info.get(key, "unknown") for key in keys)])
    return _slug(platform.processor() or platform.machine() or "unknown")


def onednn_level(flags: set[str], variables: Mapping[str, str]) -> str:
    """Return the highest level that oneDNN uses: the CPU's, or a lower limit set by ``ONEDNN_MAX_CPU_ISA``.

    Args:
        flags: The CPU's flags, as in ``/proc/cpuinfo``.
        variables: The environment.

    Returns:
        A key of ``ONEDNN_LEVELS``; empty if the CPU has none of them.

    Example:
        >>> onednn_level({"sse4_1", "avx", "avx2"}, {"ONEDNN_MAX_CPU_ISA": "AVX"})
        'avx'
    """
    names = list(ONEDNN_LEVELS)
    most = (variables.get("ONEDNN_MAX_CPU_ISA") or variables.get("DNNL_MAX_CPU_ISA") or "").lower()
    allowed = names[: names.index(most) + 1] if most in names else names
    return next((name for name in reversed(allowed) if ONEDNN_LEVELS[name] in flags), "")


def numpy_simd(which: str = "found") -> list[str]:
    """Instruction sets beyond NumPy's baseline that it uses (``found``), or does not (``not found``)."""
    config: Any = np.show_config(mode="dicts")
    return list(config.get("SIMD Extensions", {}).get(which, []))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
