"""Find a form (a file format that networks are exported to) by name: a file of ``forms/``, or ``module:function``.

The file defines:

- ``write(network: TrainedNetwork, folder: Path) -> None``, which writes ``FILES``;
- ``load(folder) -> (inputs -> logits)``, on NumPy arrays: images, or token ids, mask and token types. Its source alone
  is what ``verify`` runs where this package cannot be imported, so its imports stand inside it;
- ``metadata(folder) -> {key: JSON text}``: the preprocessing, read from the form's own file;
- ``FILES``, and optionally ``WRITING`` and ``LOADING``: packages beyond the dependencies that are then needed;
- ``USAGE``: lines of Python for the model card that load it from the current folder and end with logits or labels;
- optionally ``NEEDS_SOURCE = True``: only spaces with a ``source`` have this form;
- optionally ``LABELS``: it computes nearly what the network does; this share of the labels must be the network's;
- optionally ``OPTIONAL = True``: where nobody asked for it by name, it is left out if it fails.

Forms of one kind of example alone are in a folder of that name, such as ``forms/texts``.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpnas_ray.core.errors import ConfigError, ResourceError
from ddpnas_ray.core.plugins import Kind
from ddpnas_ray.spaces.base import SpaceSpec

if TYPE_CHECKING:
    from ddpnas_ray.deploy.trained import TrainedNetwork

RETURNS = "nothing and writes a model's files"
FORMS = Kind("form", "ddpnas_ray.deploy.forms", function="write", returns=RETURNS)
OWN_FORMS = {"texts": Kind("form", "ddpnas_ray.deploy.forms.texts", function="write", returns=RETURNS)}
EXTRA = "pip install 'ddpnas-ray[deploy]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A file format of networks.

    Args:
        name: A built-in, or ``module:function``.
        write: Writes its files into a folder.
        load: Folder -> (inputs -> logits), on arrays.
        metadata: Folder -> JSON texts by key.
        files: Names of its files, the principal one first.
        writing: Packages that writing needs beyond the dependencies.
        loading: Packages that loading needs.
        usage: Lines of Python that load it.
        needs_source: Whether only spaces with a ``source`` have it.
        labels: Share of the labels that must be the network's; None: all, and its logits.
        optional: Whether it is left out if it fails and nobody asked for it.
    """

    name: str
    write: Callable[[TrainedNetwork, Path], None]
    load: Callable[[str], Callable[[Any], Any]]
    metadata: Callable[[Path], Mapping[str, str]]
    files: tuple[str, ...]
    writing: tuple[str, ...]
    loading: tuple[str, ...]
    usage: str
    needs_source: bool
    labels: float | None = None
    optional: bool = False

    def missing(self, *, loading_only: bool = False) -> list[str]:
        """Return the packages it needs that are not installed."""
        needed = self.loading if loading_only else dict.fromkeys(self.writing + self.loading)
        return [package for package in needed if importlib.util.find_spec(package) is None]

    def file_bytes(self, folder: Path) -> int:
        """Return the size of its files in a model folder."""
        return sum((folder / name).stat().st_size for name in self.files if (folder / name).is_file())

    def require(self, *, loading_only: bool = False, hint: str = "") -> None:
        """Check that its packages are installed.

        Raises:
            ResourceError: One is not.
        """
        if missing := self.missing(loading_only=loading_only):
            raise ResourceError(f"form {self.name} needs {' and '.join(missing)}: {EXTRA}{hint}")


def find_form(name: str, key: str = "form") -> Form:
    """Find a form.

    Args:
        name: A built-in, or ``module:function``.
        key: Where the name was given, for messages.

    Raises:
        ConfigError: The name cannot be imported, or its module lacks ``load``, ``metadata`` or ``FILES``.
    """
    forms = next((forms for forms in OWN_FORMS.values() if name in forms.names()), FORMS)
    write = forms.find(name, key)
    module = sys.modules[write.__module__]
    if lacking := [attribute for attribute in ("load", "metadata", "FILES") if not hasattr(module, attribute)]:
        raise ConfigError(f"{key}: {name!r}: its module does not define {lacking[0]}; see ddpnas_ray.deploy.registry")
    return Form(
        name=name,
        write=write,
        load=module.load,
        metadata=module.metadata,
        files=tuple(module.FILES),
        writing=tuple(getattr(module, "WRITING", ())),
        loading=tuple(getattr(module, "LOADING", ())),
        usage=str(getattr(module, "USAGE", "")).strip("\n"),
        needs_source=bool(getattr(module, "NEEDS_SOURCE", False)),
        labels=getattr(module, "LABELS", None),
        optional=bool(getattr(module, "OPTIONAL", False)),
    )


def form_names(kind: str | None = None) -> tuple[str, ...]:
    """Return the names of the built-in forms that a kind of example has; None: of all kinds."""
    own = [forms for of, forms in OWN_FORMS.items() if kind in (None, of)]
    return tuple(sorted({*FORMS.names(), *(name for forms in own for name in forms.names())}))


def writable(spec: SpaceSpec) -> tuple[list[str], list[str]]:
    """Return the built-in forms that networks of a space can have here, and a note about each that they cannot."""
    forms, notes = [], []
    for name in form_names(spec.target.kind):
        form = find_form(name)
        if form.needs_source and spec.source is None:
            notes.append(f"no form {name}: space {spec.space.name!r} has no source (SpaceSpec.source)")
        elif missing := form.missing():
            notes.append(f"no form {name}: it needs {' and '.join(missing)}: {EXTRA}")
        else:
            forms.append(name)
    return forms, notes


def choose(spec: SpaceSpec, names: Sequence[str]) -> list[Form]:
    """Return the named forms, each once.

    Raises:
        ConfigError: No name is given, one is unknown, or the space has no such form.
        ResourceError: A package is missing.
    """
    forms = [find_form(name) for name in dict.fromkeys(names)]
    if not forms:
        raise ConfigError(f"no form is given; allowed: {', '.join(form_names(spec.target.kind))}")
    for form in forms:
        if form.name in form_names() and form.name not in (known := form_names(spec.target.kind)):
            raise ConfigError(f"form {form.name} is not one of {spec.target.kind}; they have {', '.join(known)}")
        if form.needs_source and spec.source is None:
            raise ConfigError(
                f"form {form.name}: space {spec.space.name!r} has no source (SpaceSpec.source); "
                f"it has the forms {', '.join(writable(spec)[0])}"
            )
        form.require(hint=f", or leave {form.name} out")
    return forms
