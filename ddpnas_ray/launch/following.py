"""Show a search or retraining that runs on Ray to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpnas_ray.console.progress import Display
from ddpnas_ray.runs.lock import Lock

if TYPE_CHECKING:
    from ddpnas_ray.distributed.ray_attach import Running


def followed(running: Running, lock: Lock, display: Display) -> Any:
    """Show what runs to its end, while ``attach`` can find it; return its result.

    Its driver ends before the caller releases the lock, since the connection may outlive it.

    Args:
        running: What runs in the connected cluster.
        lock: The lock on its folder; takes the driver's address.
        display: Shows progress.

    Raises:
        DdpnasError: What ended it; finished epochs are saved.
    """
    from ddpnas_ray.console import ray_connect

    with running.ended():
        lock.add(driver=running.name, address=ray_connect.gcs_address(), auth=ray_connect.auth_mode())
        with display:
            while not running.wait(timeout_s=0.25):
                if (now := running.status()) is not None:
                    display.show(now)
        return running.outcome()
