"""All uses of Ray's private API; ``tests/execution/test_ray_internals.py`` lists each of them."""

from __future__ import annotations

from collections.abc import Container, Mapping

from ray import PlacementGroupID
from ray._private.state import state
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
from ray.util.placement_group import PlacementGroup


def draining_nodes() -> Container[str]:
    """Ids of the nodes that are being drained."""
    return state.get_draining_nodes()


def free_by_node() -> Mapping[str, Mapping[str, float]]:
    """Unreserved resources by id of living node; slightly stale."""
    return state.available_resources_per_node()


def orphaned_groups(job: str) -> list[PlacementGroup]:
    """Placement groups of a job, by its id, whose creator was an actor that is dead: Ray keeps them until the job
    ends."""
    tables = map(PlacementGroupTableData.FromString, state._connect_and_get_accessor().get_placement_group_table())
    return [
        PlacementGroup(PlacementGroupID(table.placement_group_id))
        for table in tables
        if table.creator_job_id.hex() == job
        and table.creator_actor_dead
        and not table.is_detached
        and table.state != PlacementGroupTableData.REMOVED
    ]
