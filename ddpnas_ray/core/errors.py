"""Errors that a user can act on. Each says where, what was given, what is allowed, and the way out.

All of them take one string, so they survive pickling on their way out of a worker.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DdpnasError(Exception):
    """Root of the package's own errors; the commands print its text on one line."""

    exit_code = 1


class BadInput(DdpnasError):
    """What the user gave cannot be used; nothing was started. Exit code 2."""

    exit_code = 2


class ConfigError(BadInput):
    """A configuration key or value."""


class DataError(BadInput):
    """A data set: absent, unreadable, or not what the configuration says."""


class RunDirError(BadInput):
    """A run directory: exists already, locked, damaged, or of another configuration."""


class ResourceError(BadInput):
    """The machine or cluster lacks what was asked for."""


class DeviceError(ResourceError):
    """A GPU that cannot be used, or no longer by the process that raises this."""


class GenotypeError(BadInput):
    """An architecture description that does not fit the space."""


class BudgetError(BadInput):
    """A budget that is not understood, or that no architecture meets."""


class TooLargeError(ResourceError):
    """An exact method would need more than it may take."""


class DivergedError(DdpnasError):
    """Every architecture of an epoch ended with a non-finite loss."""


class WorkerLostError(DdpnasError):
    """Workers kept dying, or none came back before the deadline."""


class DriverGoneError(DdpnasError):
    """The driver actor of a search is not in its cluster."""


def did_you_mean(name: str, allowed: Iterable[str], prefix: str = "") -> str:
    """``"; did you mean X?"`` where something similar is allowed, else the list of what is.

    Args:
        name: What was given.
        allowed: What is allowed.
        prefix: Put before what is allowed, such as a section's name.

    Example:
        >>> did_you_mean("gama", ["gamma", "lr"])
        '; did you mean gamma?'
    """
    options = sorted(allowed)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {prefix}{close[0]}?"
    return f"; allowed: {', '.join(prefix + option for option in options)}"
