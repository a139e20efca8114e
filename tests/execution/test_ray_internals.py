"""Private API of Ray: one file of the package uses it, and each use is listed here."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pytest

from tests.conftest import ROOT

# By file: the names that must exist. No other file imports private API of Ray.
PRIVATE = {
    "ddpnas_ray/execution/ray_internals.py": {
        "ray._private.state": ("state.get_draining_nodes", "state.available_resources_per_node")
    },
    "benchmarks/draining.py": {
        "ray._private.worker": ("global_worker",),
        "ray._raylet": ("InnerGcsClient.drain_node",),
        "ray.core.generated.autoscaler_pb2": ("DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION",),
    },
    "tests/clusters/autoscaled.py": {
        "ray.autoscaler._private.fake_multi_node.node_provider": ("FAKE_HEAD_NODE_ID", "FakeMultiNodeProvider")
    },
    "tests/clusters/test_machines.py": {"ray.autoscaler._private.util": ("prepare_config", "validate_config")},
    "tests/clusters/test_aws.py": {
        "ray.autoscaler._private.aws.config": ("time.sleep",),
        "ray.autoscaler._private.commands": ("_bootstrap_config",),
        "ray.autoscaler._private.aws.node_provider": ("AWSNodeProvider",),
    },
}
NAMES = [(file, module, name) for file, uses in PRIVATE.items() for module, names in uses.items() for name in names]


@pytest.mark.parametrize(("file", "module", "name"), NAMES, ids=[f"{module}.{name}" for _, module, name in NAMES])
def test_this_ray_has_what_is_used_of_its_internals(file: str, module: str, name: str) -> None:
    if "aws" in module:
        pytest.importorskip("boto3", reason="boto3 is not installed; pip install -e '.[dev]' has it")
    try:
        reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        pytest.fail(f"Ray no longer has {module}.{name}, which {file} uses ({error})")


def private(file: Path) -> Iterator[str]:
    """Private modules of Ray that a file imports or names."""
    text = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)) if re.search(r"\b(import|from) ray\b", text) else ():
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            found = [ast.unparse(node)]
        else:
            continue
        for name in found:
            if name.startswith("ray.") and any(part.startswith("_") for part in name.split(".")):
                yield name


def test_internals_of_ray_are_used_where_they_are_named_alone() -> None:
    files = [file for folder in ("ddpnas_ray", "tests", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
    users = {str(file.relative_to(ROOT)) for file in files if any(private(file))}
    assert len(files) > 300
    assert users == set(PRIVATE)
