"""Configuration files as text: where they are found, and YAML with its numbers and without repeated keys."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ddpnas_ray.core.errors import ConfigError
from ddpnas_ray.storage.folder import Folder


def packaged() -> dict[str, Path]:
    """The configurations that come with the package, by name; those of a source checkout lie beside the package."""
    package = Path(str(importlib.resources.files("ddpnas_ray")))
    folders = (package / "configs", package.parent / "configs")
    files = next((sorted(folder.glob("*.yaml")) for folder in folders if folder.is_dir()), [])
    return {file.stem: file for file in (package / "digits.yaml", *files)}


def read_text(path: str | None) -> str:
    """The text of a configuration: a file, else one that comes with the package; None is the digits quick start."""
    file = Path("digits" if path is None else path)
    if path is None or not file.is_file():
        file = packaged().get(str(file).removesuffix(".yaml"), file)
    try:
        if path is None or "://" not in path:
            return file.read_text(encoding="utf-8")
        remote = Folder.open(path)
        with remote.filesystem.open_input_stream(remote.path) as stream:
            return bytes(stream.read()).decode()
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror or error}; --config takes a YAML file, or the name of one that "
            f"comes with the package: {', '.join(packaged())}"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path}: cannot be read: {reason}; --config takes a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8 text; --config takes a YAML file") from error


def parse(text: str, source: str) -> dict[str, Any]:
    """YAML text -> nested dictionaries."""
    try:
        values = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2024-13-45, which looks like a date
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}:" if where else ""
        raise ConfigError(f"{source}:{line} is not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{source}: sections such as 'training: {{lr: 0.025}}' are needed, got a {type(values).__name__}"
        )
    return values


def yaml_value(text: str, source: str) -> Any:
    """One YAML value, such as that of ``--set``."""
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: {text!r} is not a YAML value") from error


def to_yaml(values: Mapping[str, Any]) -> str:
    """Nested dictionaries as YAML that ``parse`` reads back as the same values."""
    return str(yaml.dump(plain(values), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120))


def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: plain(v) for key, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value


class Loader(yaml.SafeLoader):
    """YAML 1.2 numbers (``3e-4`` is a float), and no key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes what ``Loader`` reads back as the same value."""


for _side in (Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
        list("-+0123456789."),
    )
