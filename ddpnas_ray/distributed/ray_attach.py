"""The driver actor of a search or retraining, seen from the command that starts it and from other processes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ddpnas_ray.console.ray_connect import NAMESPACE, connected
from ddpnas_ray.core.errors import DriverGoneError
from ddpnas_ray.execution.ray_errors import fetched
from ddpnas_ray.storage.folder import Folder


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


@dataclass(frozen=True)
class Running(Attached):
    """A search or retraining that this process started.

    Args:
        what: ``search`` or ``retraining``, for messages.
        name: Name of its driver.
        result: Pending result of the driver's ``run``.
        given: Reference to the argument of ``run``; held here, so that a restarted driver can read it again.
    """

    what: str
    name: str
    result: Any
    given: Any

    def wait(self, timeout_s: float) -> bool:
        """Wait at most ``timeout_s``; return whether it has ended."""
        return bool(ray.wait([self.result], timeout=timeout_s)[0])

    def outcome(self) -> Any:
        """Return the result of the driver's ``run``.

        Raises:
            DdpnasError: The error that ended it or its driver.
        """
        gone = f"the {self.what}'s driver is gone; every finished epoch is saved: continue with --resume"
        return fetched(self.result, gone)


def start_driver(what: str, driver_class: type, folder: Folder, given: Any, *more: Any, **options: Any) -> Running:
    """Start a driver actor in the connected cluster.

    With a local folder, the driver is pinned to this node, where the folder is; with a URI it may move.

    Args:
        what: ``search`` or ``retraining``.
        driver_class: Constructed with the folder's address, its own name, and ``more``.
        folder: Its folder, locked by the caller.
        given: Argument of its ``run``.
        more: Further arguments of its constructor.
        options: Of the actor.
    """
    if folder.is_local:
        here = ray.get_runtime_context().get_node_id()
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=False)
    name = f"ddpnas-{what}-{secrets.token_hex(4)}"  # unique: the driver of a stopped one may still be shutting down
    actor_class: Any = ray.remote(driver_class).options(
        name=name, namespace=NAMESPACE, num_cpus=0, max_task_retries=-1, **options
    )
    reference = ray.put(given)
    driver = actor_class.remote(folder.path if folder.is_local else folder.uri, name, *more)
    return Running(driver, what, name, driver.run.remote(reference), reference)


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
