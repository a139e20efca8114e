"""Errors that a user can act on. Each says where, what was given and what is allowed, with a hint.

All take one string, so they survive pickling between processes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DdpnasError(Exception):
    """Base class of the package's errors; commands print the text on one line."""

    exit_code = 1


class BadInput(DdpnasError):
    """Unusable input; nothing was started. Exit code 2."""

    exit_code = 2


class ConfigError(BadInput):
    """Invalid configuration key or value."""


class DataError(BadInput):
    """Data set that is missing, unreadable, or does not match the configuration."""


class RunDirError(BadInput):
    """Run directory that already exists, is locked or damaged, or belongs to another configuration."""


class ResourceError(BadInput):
    """Requested resource that the machine or cluster lacks."""


class DeviceError(ResourceError):
    """GPU that is unusable, or no longer usable by the raising process."""


class ModelError(BadInput):
    """Model folder or file that is missing, damaged, edited, or not one of ours."""


class GenotypeError(BadInput):
    """Architecture description that does not fit the space."""


class BudgetError(BadInput):
    """Budget that cannot be parsed, or that no architecture meets."""


class TooLargeError(ResourceError):
    """Problem beyond the limits of an exact method."""


class ExportError(DdpnasError):
    """Exported file that cannot be written, or that does not compute what the network does."""


class DivergedError(DdpnasError):
    """Every architecture of an epoch ended with a non-finite loss."""


class WorkerLostError(DdpnasError):
    """Workers kept dying, or none recovered before the deadline."""


class DriverGoneError(DdpnasError):
    """The cluster has no driver actor of the search."""


def did_you_mean(name: str, allowed: Iterable[str], prefix: str = "") -> str:
    """Return ``"; did you mean X?"`` for a similar allowed name, else the list of allowed names.

    Args:
        name: The given name.
        allowed: Allowed names.
        prefix: Put before allowed names, such as a section's name.

    Example:
        >>> did_you_mean("gama", ["gamma", "lr"])
        '; did you mean gamma?'
    """
    options = sorted(allowed)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {prefix}{close[0]}?"
    return f"; allowed: {', '.join(prefix + option for option in options)}"
