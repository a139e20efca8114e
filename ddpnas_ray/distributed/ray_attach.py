"""Access to the driver actor of a running search or retraining from another process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray

from ddpnas_ray.console.ray_connect import NAMESPACE, connected
from ddpnas_ray.core.errors import DriverGoneError


@dataclass(frozen=True)
class Attached:
    """A search or retraining in the connected cluster, seen through its driver actor."""

    driver: Any

    def status(self, timeout_s: float = 2.0) -> dict[str, Any] | None:
        """Return the driver's progress; None while it does not respond (it is starting or restarting)."""
        try:
            status: dict[str, Any] = ray.get(self.driver.status.remote(), timeout=timeout_s)
        except ray.exceptions.RayTaskError:  # it responded: a bug
            raise
        except (ray.exceptions.RayError, ConnectionError):
            return None
        return status

    @contextmanager
    def ended(self) -> Iterator[None]:
        """End the driver, and with it its workers, at the end of the block, also on Ctrl-C."""
        try:
            yield
        finally:
            with suppress(ray.exceptions.RayError, ValueError):  # it is gone already
                ray.kill(self.driver)


@contextmanager
def attached(address: str, name: str) -> Iterator[Attached]:
    """Connect to the cluster of a search or retraining for the duration of the block.

    Args:
        address: ``auto``, ``host:port`` or ``ray://host:port``, where something listens.
        name: Name of the driver actor.

    Raises:
        ResourceError: The cluster cannot be reached from here, or refuses the connection.
        DriverGoneError: The cluster is reachable, but the driver is not there.
    """
    with connected(address):
        try:
            driver = ray.get_actor(name, namespace=NAMESPACE)
        except (ValueError, ray.exceptions.RayError):  # the latter: the cluster has just shut down, with the search
            raise DriverGoneError(f"{address} has no driver {name}") from None
        yield Attached(driver)
