"""Find a space, strategy, data set or ablation by name: a file of its folder, or your own ``module:function``.

There is no registration, and listing imports nothing: a built-in is a module of the kind's package whose source defines
the kind's function.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ddpnas_ray.core.errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True)
class Place:
    """Marks an option of a space or task as the location of something, not its content.

    ``model: Annotated[str | None, Place()] = None`` may have moved when a run is resumed. The content must be part of
    the task's digest, so that other content is refused, or be read before the first epoch alone.
    """


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of plug-in.

    Args:
        kind: Its name in messages.
        package: Package of the built-ins.
        function: The function that each of them defines.
        returns: What that function returns, for messages.
        file: The module that defines it, where a built-in is a folder.
    """

    kind: str
    package: str
    function: str
    returns: str
    file: str = ""

    def names(self) -> tuple[str, ...]:
        """Return the names of the built-ins, sorted."""
        return _names(self.package, tuple(importlib.import_module(self.package).__path__), self.function, self.file)

    def find(self, name: str, key: str) -> Callable[..., Any]:
        """Return the function of a built-in, or your own ``module:function``.

        Args:
            name: Name of a built-in, or ``module:function``.
            key: Where the name was given, for messages.

        Raises:
            ConfigError: The name cannot be imported.
        """
        if ":" not in name and name not in self.names():
            hint = did_you_mean(name, self.names())
            raise ConfigError(f"{key}: {name!r} is not a built-in {self.kind} or module:function{hint}")
        built_in = ".".join(filter(None, (self.package, name, self.file)))
        module, _, function = (name if ":" in name else f"{built_in}:{self.function}").partition(":")
        try:
            found = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise ConfigError(f"{key}: {name!r} cannot be imported: {error}; is its folder on PYTHONPATH?") from error
        if not callable(found):
            raise ConfigError(
                f"{key}: {name!r} is a {type(found).__name__}; a function that returns {self.returns} is needed"
            )
        return found  # type: ignore[no-any-return]


@lru_cache
def _names(package: str, path: tuple[str, ...], function: str, file: str) -> tuple[str, ...]:
    defines = re.compile(rf"^def {function}\(", re.MULTILINE)
    modules = [module.name for module in pkgutil.iter_modules(path) if module.ispkg or not file]
    return tuple(
        sorted(name for name in modules if defines.search(_source(".".join(filter(None, (package, name, file))))))
    )


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).read_text(encoding="utf-8") if spec is not None and spec.origin else ""
