"""A provider's notice, which Ray has no public call for: nothing new goes to a node, and soon it will be gone."""

from __future__ import annotations

import time

from ray._private.worker import global_worker
from ray.core.generated.autoscaler_pb2 import DrainNodeReason


def drain_node(node: str, *, left_s: float = 60.0) -> None:
    """Tell the connected cluster that a node will be gone in so many seconds."""
    reason, deadline_ms = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION, int(1000 * (time.time() + left_s))
    accepted, why = global_worker.gcs_client.drain_node(node, reason, "notice", deadline_ms)
    assert accepted, why
