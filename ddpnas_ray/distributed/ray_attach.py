"""The driver actor of a search, seen by those who look at it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any

import ray

from ddpnas_ray.core.errors import DriverGoneError, ResourceError

CONNECTION: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "ddpnas"}


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
    """Connect to the cluster of a search that somebody runs, for as long as the block lasts.

    Args:
        address: ``auto``, ``host:port`` or ``ray://host:port``; something answers there.
        name: The driver actor's.

    Raises:
        ResourceError: The cluster cannot be reached from here.
        DriverGoneError: It can, and the driver is not there.
    """
    with TemporaryFile() as said:
        try:
            with _stderr_into(said.fileno()):
                ray.init(address=address, **CONNECTION)
        except Exception as error:  # Ray raises many kinds: no node of the cluster here, another version, no token
            said.seek(0)
            if b"InvalidAuthToken" in said.read():
                why = "it refuses the token given here; set RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH as there"
            else:
                why = f"{reason(error)}; on a machine that is no node of the cluster try --address ray://HOST:10001"
            raise ResourceError(f"Ray: {address}: {why}") from error
    try:
        try:
            driver = ray.get_actor(name)
        except (ValueError, ray.exceptions.RayError):  # the latter: its cluster has just gone, with the search
            raise DriverGoneError(f"{address} has no driver {name}") from None
        yield Attached(driver)
    finally:
        ray.shutdown()


@contextmanager
def _stderr_into(descriptor: int) -> Iterator[None]:
    """Catch what Ray's C++ part says past ``sys.stderr``: why a cluster refuses is found there alone."""
    before = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def reason(error: Exception) -> str:
    """The first line of an error of Ray's."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
