"""Find, read and write configuration files: YAML 1.2 numbers, and no duplicate keys."""

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
    """Return the packaged configurations by name; in a source checkout they are next to the package."""
    package = Path(str(importlib.resources.files("ddpnas_ray")))
    folders = (package / "configs", package.parent / "configs")
    files = next((sorted(folder.glob("*.yaml")) for folder in folders if folder.is_dir()), [])
    return {file.stem: file for file in (package / "digits.yaml", *files)}


def read_text(path: str | None) -> str:
    """Read a configuration: a file, else a packaged one; None is the digits quick start."""
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
            f"{path}: cannot be read: {error.strerror or error}; --config takes a YAML file, or the name of a packaged "
            f"one: {', '.join(packaged())}"
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{path}: cannot be read: {reason}; --config takes a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text; --config takes a YAML file") from error


def parse(text: str, source: str) -> dict[str, Any]:
    """Parse YAML into nested dictionaries."""
    try:
        values = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an invalid date, such as 2024-13-45
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}:" if where else ""
        raise ConfigError(f"{source}:{line} is not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{source}: expected sections such as 'training: {{lr: 0.025}}', got a {type(values).__name__}"
        )
    return values


def yaml_value(text: str, source: str) -> Any:
    """Parse one YAML value, such as that of ``--set``."""
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: {text!r} is not a YAML value") from error


def to_yaml(values: Mapping[str, Any]) -> str:
    """Write nested dictionaries as YAML that ``parse`` reads back unchanged."""
    return str(yaml.dump(plain(values), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120))


def plain(value: Any) -> Any:
    """Turn nested mappings and tuples into the dictionaries and lists that YAML has."""
    if isinstance(value, Mapping):
        return {key: plain(v) for key, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (tuple, list)) else value


class Loader(yaml.SafeLoader):
    """Loader with YAML 1.2 numbers (``3e-4`` is a float) that refuses duplicate keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """See PyYAML's ``SafeConstructor``; refuses a key that is there twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", node.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Dumper whose output ``Loader`` reads back unchanged."""


for _side in (Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
        list("-+0123456789."),
    )
