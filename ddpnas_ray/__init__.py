"""DDPNAS on Ray: search once with shared weights, generate the best network for every budget.

The Python API (``docs/python-api.ipynb``)::

    import ddpnas_ray as nas

    run = nas.search("cifar10_cell", overrides={"data.path": "cifar10"})
    run.generate("macs=300M").retrain()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpnas_ray.api import Network, Run, TrainedRun, known_network, known_networks, load, search

__version__ = "0.1.0"
__all__ = ["Network", "Run", "TrainedRun", "known_network", "known_networks", "load", "search"]


def __getattr__(name: str) -> Any:
    """Load the Python API when it is first used: importing the package is fast, and imports neither torch nor ray."""
    if name == "search":
        # Python binds this name to the command's module whenever that is imported, by `from ddpnas_ray.search import
        # main` too. So it always means the module, and the module is callable: it is the function as well.
        return importlib.import_module("ddpnas_ray.search")
    if name in __all__:
        return getattr(importlib.import_module("ddpnas_ray.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
