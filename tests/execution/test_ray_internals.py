"""Private API of Ray: one file of the package uses it, and each use is listed here."""

from __future__ import annotations

import ast
import importlib
import re
import time
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import pytest
import ray
from ray import PlacementGroupID
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from ddpnas_ray.execution.ray_internals import orphaned_groups
from tests.conftest import ROOT

# By file: the names that must exist. No other file imports private API of Ray.
PRIVATE = {
    "ddpnas_ray/execution/ray_internals.py": {
        "ray._private.state": (
            "state.get_draining_nodes",
            "state.available_resources_per_node",
            "state._connect_and_get_accessor",
        ),
        "ray.core.generated.gcs_pb2": ("PlacementGroupTableData.FromString", "PlacementGroupTableData.REMOVED"),
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


@ray.remote(num_cpus=0)
class Reserves:
    """An actor that reserves a CPU."""

    def reserve(self, lifetime: str | None = None) -> str:
        group = placement_group([{"CPU": 1}], lifetime=lifetime)
        group.wait(30)
        return group.id.hex()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_groups_outlive_the_actor_that_made_them_and_are_found() -> None:
    job = ray.get_runtime_context().get_job_id()
    living, dead = Reserves.remote(), Reserves.remote()
    kept = [ray.get(living.reserve.remote()), ray.get(dead.reserve.remote("detached"))]
    lost = ray.get(dead.reserve.remote())
    assert orphaned_groups(job) == []
    ray.kill(dead)
    until = time.monotonic() + 30
    while not (found := orphaned_groups(job)) and time.monotonic() < until:
        time.sleep(0.1)
    assert [group.id.hex() for group in found] == [lost]
    assert placement_group_table()[lost]["state"] == "CREATED", "Ray has released it itself: this repair can go"
    assert orphaned_groups("ff" * 4) == [], "those of other jobs are theirs"
    for group in found:
        remove_placement_group(group)
    while orphaned_groups(job) and time.monotonic() < until:
        time.sleep(0.1)
    assert orphaned_groups(job) == []
    for group in kept:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
