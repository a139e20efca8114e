"""Drain a node as on a provider's notice, for which Ray has no public API: it gets no new work and soon disappears."""

from __future__ import annotations

import time

from ray._private.worker import global_worker
from ray.core.generated.autoscaler_pb2 import DrainNodeReason


def drain_node(node: str, *, left_s: float = 60.0) -> None:
    """Notify the connected cluster that a node will disappear in the given number of seconds."""
    reason, deadline_ms = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, int(1000 * (time.time() + left_s))
    accepted, why = global_worker.gcs_client.drain_node(node, reason, "notice", deadline_ms)
    assert accepted, why
