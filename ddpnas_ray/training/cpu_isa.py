"""``training.cpu_isa``: one instruction set for all CPU libraries, so that different CPU models agree.

The libraries, NumPy included, read the variables when they load, so a command re-executes itself with them.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from ddpnas_ray.core.errors import ResourceError
from ddpnas_ray.training.device import ONEDNN_LEVELS, cpu_model, cpuinfo, numpy_simd


def level_variables(level: str | None) -> dict[str, str]:
    """Return the environment variables that make PyTorch's libraries and NumPy use one instruction set.

    MKL's mode COMPATIBLE gives equal results on CPUs of every vendor; its other modes are for Intel only.

    Args:
        level: ``training.cpu_isa``.
    """
    if level is None:
        return {}
    choices = sorted(numpy_simd("found") + numpy_simd("not found"))
    above = [name for name in choices if level == "sse41" or name.startswith(("X86_V4", "AVX512"))]
    return {
        "ONEDNN_MAX_CPU_ISA": level.upper(),
        "ATEN_CPU_CAPABILITY": "default" if level == "sse41" else level,
        "MKL_CBWR": "COMPATIBLE",
        "NPY_DISABLE_CPU_FEATURES": " ".join(above),
    }


def require_level(level: str | None) -> None:
    """Raise unless this process runs at ``training.cpu_isa``.

    Raises:
        ResourceError: The CPU lacks it, or the variables were not set when Python started.
    """
    if level is None:
        return
    wanted, info = level_variables(level), cpuinfo()
    if ONEDNN_LEVELS[level] not in info.get("flags", "").split():
        raise ResourceError(
            f"training.cpu_isa is {level}, which this CPU ({cpu_model(info)}) lacks; set it to null, "
            "or search on another machine"
        )
    if not wanted.items() <= os.environ.items():
        variables = shlex.join(f"{name}={value}" for name, value in wanted.items())
        raise ResourceError(
            f"training.cpu_isa is {level}, but this process started without it; start Python or Ray with these "
            f"variables: {variables}"
        )


def use_level(level: str | None) -> None:
    """Re-execute this command at ``training.cpu_isa`` if needed: NumPy has already chosen its instruction set.

    Raises:
        ResourceError: The CPU lacks it, or this process was not started by a command.
    """
    variables, main = level_variables(level), sys.modules["__main__"].__spec__
    command = (main is not None and main.name.startswith("ddpnas_ray.")) or Path(sys.argv[0]).name == "ddpnas"
    if command and "torch" not in sys.modules and not variables.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | variables)
    require_level(level)
