"""The driver actor of a search, as others see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from ddpnas_ray.console.ray_connect import connected
from ddpnas_ray.core.errors import DriverGoneError


@dataclass(frozen=True)
class Attached:
    """A search that runs in the connected cluster, seen through its driver actor."""

    driver: Any

    def status(self, timeout_s: float = 2.0) -> dict[str, Any] | None:
        """The driver's progress; None while it does not answer (it is starting, or being restarted)."""
        try:
            status: dict[str, Any] = ray.get(self.driver.status.remote(), timeout=timeout_s)
        except ray.exceptions.RayTaskError:  # it did answer, and that is a bug
            raise
        except (ray.exceptions.RayError, ConnectionError):
            return None
        return status


@contextmanager
def attached(address: str, name: str) -> Iterator[Attached]:
    """Connect to the cluster of a search for as long as the block lasts.

    Args:
        address: ``auto``, ``host:port`` or ``ray://host:port``; something listens there.
        name: The driver actor's.

    Raises:
        ResourceError: The cluster cannot be reached from here, or refuses us.
        DriverGoneError: It can be reached, and the driver is not there.
    """
    with connected(address):
        try:
            driver = ray.get_actor(name)
        except (ValueError, ray.exceptions.RayError):  # the latter: its cluster has just gone, with the search
            raise DriverGoneError(f"{address} has no driver {name}") from None
        yield Attached(driver)
