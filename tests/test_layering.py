"""Imports point down one list, never up; the algorithm needs neither torch nor ray, and configuring neither."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ddpnas_ray"
COMMANDS = {"cli", "search", "attach", "generate", "retrain", "sweep", "latency", "table", "check", "report", "ablate"}
LAYERS: list[
    set[str]
] = [  # from the top; a module imports from its own layer and from those below (STYLE.md, section 1)
    {"testing"},
    COMMANDS,
    {"distributed"},
    {"ablations"},
    {"reporting"},
    {"console"},
    {"experiment"},
    {"tabular", "devices"},
    {"execution"},
    {"training"},
    {"strategies"},
    {"tasks"},
    {"metrics"},
    {"data"},
    {"spaces"},
    {"nn"},
    {"costs"},
    {"runs"},
    {"storage"},
    {"core"},
    {""},  # ddpnas_ray/__init__.py
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))
# Neither torch nor ray comes along with these, but for their networks and timing.
HEAVY = ("network.py", "timing.py", "ray_connect.py")
LIGHT = (
    "core",
    "console",
    "experiment",
    "tabular",
    "devices",
    "reporting",
    "runs",
    "storage",
    "search",
    "attach",
    "latency",
    "table",
    "ablate",
    "sweep",
    "costs",
    "data",
    "tasks",
    "metrics",
    "spaces",
)


def module_of(path: Path) -> str:
    """Dotted name below the package: ``core.space``; ``core`` of ``core/__init__.py``; ``""`` of the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> str:
    return module.partition(".")[0]


def imports(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything imported: at the top, in functions, and for type checkers alike."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ["ddpnas_ray", *filter(None, module.split("."))]
                above = here[: len(here) - node.level + is_package]
                base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def imported_layers(path: Path) -> Iterator[tuple[int, str]]:
    """Line and layer of every import from the package itself."""
    for line, name in imports(path.read_text(encoding="utf-8"), module_of(path), path.name == "__init__.py"):
        root, _, rest = name.partition(".")
        if root == "ddpnas_ray":
            layer = layer_of(rest)
            yield line, layer if (PACKAGE / layer).is_dir() or (PACKAGE / f"{layer}.py").is_file() else ""


def outside(path: Path) -> set[str]:
    """Top-level names of what is imported from elsewhere."""
    found = imports(path.read_text(encoding="utf-8"), module_of(path), path.name == "__init__.py")
    return {name.partition(".")[0] for _, name in found} - {"ddpnas_ray"}


def test_every_form_of_import_is_seen() -> None:
    source = """
import ddpnas_ray.core.space, numpy as np
from ddpnas_ray import __version__, runs
from ..storage import Folder
from . import trainer
def f():
    if TYPE_CHECKING:
        from ddpnas_ray.nn.weights import Piece
"""
    assert [name for _, name in imports(source, "execution.local", is_package=False)] == [
        "ddpnas_ray.core.space",
        "numpy",
        "ddpnas_ray.__version__",
        "ddpnas_ray.runs",
        "ddpnas_ray.storage.Folder",
        "ddpnas_ray.execution.trainer",
        "ddpnas_ray.nn.weights.Piece",
    ]
    assert [name for _, name in imports("from .b import c", "a", is_package=True)] == ["ddpnas_ray.a.b.c"]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path: Path) -> None:
    module = module_of(path)
    assert layer_of(module) in LEVEL, f"{module} has no place in LAYERS"
    for line, layer in imported_layers(path):
        assert LEVEL[layer] >= LEVEL[layer_of(module)], (
            f"{path.name}:{line}: {module} imports {layer}, which is above it"
        )


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_files_named_ray_import_ray(path: Path) -> None:
    assert "ray" not in outside(path) or path.name.startswith("ray_")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_only_testing_imports_pytest(path: Path) -> None:
    assert not {"pytest", "hypothesis", "_pytest"} & outside(path) or layer_of(module_of(path)) == "testing"


@pytest.mark.parametrize("path", [path for path in FILES if layer_of(module_of(path)) == "core"], ids=module_of)
def test_the_algorithm_needs_numpy_and_scipy_only(path: Path) -> None:
    assert outside(path) - set(sys.stdlib_module_names) <= {"numpy", "scipy"}


@pytest.fixture(scope="module")
def came_along() -> dict[str, list[str]]:
    """For each light module, which of torch and ray its import brought into a fresh interpreter.

    One interpreter imports them one after the other and forgets the package in between, so that each is loaded anew.
    """
    modules = [
        f"ddpnas_ray.{module_of(path)}".rstrip(".")
        for path in FILES
        if layer_of(module_of(path)) in LIGHT and path.name not in HEAVY
    ]
    script = """
import importlib, json, sys
found = {}
for module in json.loads(sys.argv[1]):
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ddpnas_ray", "torch", "ray")]:
        del sys.modules[name]
    importlib.import_module(module)
    found[module] = [name for name in ("torch", "ray") if name in sys.modules]
    if found[module]:
        break  # torch cannot be imported a second time
print(json.dumps(found))
"""
    run = subprocess.run(
        [sys.executable, "-c", script, json.dumps(modules)],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    return json.loads(run.stdout)  # type: ignore[no-any-return]


def test_core_data_spaces_and_configuration_load_without_torch_and_ray(came_along: dict[str, list[str]]) -> None:
    assert {module: names for module, names in came_along.items() if names} == {}
    for module in (
        "core.space",
        "experiment.config",
        "runs.files",
        "storage.folder",
        "search",
        "data.images",
        "spaces.cell.space",
    ):
        assert f"ddpnas_ray.{module}" in came_along
