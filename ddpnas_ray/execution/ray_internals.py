"""Everything that has no public API in Ray; ``tests/execution/test_ray_internals.py`` names each part of it."""

from __future__ import annotations

from collections.abc import Container, Mapping

from ray._private.state import state


def draining_nodes() -> Container[str]:
    """Ids of the nodes that have been told to go."""
    return state.get_draining_nodes()


def free_by_node() -> Mapping[str, Mapping[str, float]]:
    """Resources that nobody has reserved, by id of living node; a moment old."""
    return state.available_resources_per_node()
