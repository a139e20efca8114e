"""All uses of Ray's private API; ``tests/execution/test_ray_internals.py`` lists each of them."""

from __future__ import annotations

from collections.abc import Container, Mapping

from ray._private.state import state


def draining_nodes() -> Container[str]:
    """Ids of the nodes that are being drained."""
    return state.get_draining_nodes()


def free_by_node() -> Mapping[str, Mapping[str, float]]:
    """Unreserved resources by id of living node; slightly stale."""
    return state.available_resources_per_node()
