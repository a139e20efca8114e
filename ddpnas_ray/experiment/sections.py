"""Build configuration sections: dictionaries to frozen dataclasses, with every key and value checked."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ddpnas_ray.core.errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True)
class Origin:
    """Source of the values of a configuration, for errors.

    Args:
        file: The file, or a name for it.
        overrides: ``--set`` overrides, in order.
    """

    file: str
    overrides: tuple[str, ...] = ()

    def of(self, *keys: str) -> str:
        """Return the last ``--set`` of one of these dotted keys, of an enclosing section or a key below; else the file.

        Example:
            >>> Origin("a.yaml", ("training={lr: 2}", "seed=1")).of("training.lr")
            '--set training={lr: 2}'
        """
        for override in reversed(self.overrides):
            changed = override.partition("=")[0].strip() + "."
            if any(changed.startswith(f"{key}.") or f"{key}.".startswith(changed) for key in keys):
                return f"--set {override}"
        return self.file


def build_section(cls: Any, values: Any, origin: Origin, prefix: str) -> Any:
    """Build a section from its dictionary; checks unknown keys first, as typos are the most common mistake."""
    if not isinstance(values, dict):
        section = prefix.rstrip(".")
        raise ConfigError(f"{origin.of(section)}: {section}: expected a section with keys, got {values!r}")
    built = checked_values(hints_of(cls), values, origin, prefix)
    for key in dataclasses.fields(cls):
        if key.name not in built and key.default is key.default_factory is dataclasses.MISSING:
            where = origin.of(f"{prefix}{key.name}")
            raise ConfigError(f"{where}: {prefix}{key.name} is missing; section {prefix.rstrip('.')} needs it")
    return cls(**built)


def hints_of(cls: Any) -> dict[str, Any]:
    """Return the type of each key of a section, with the range that it carries."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {key.name: hints[key.name] for key in dataclasses.fields(cls)}


def checked_values(hints: Mapping[str, Any], values: Mapping[str, Any], origin: Origin, prefix: str) -> dict[str, Any]:
    """Check keys and values against their types; sections among them are built.

    Raises:
        ConfigError: A key is unknown, or a value is of another type or out of range.
    """
    for key in values:
        if key not in hints:
            hint = did_you_mean(str(key), hints, prefix)
            raise ConfigError(f"{origin.of(f'{prefix}{key}')}: {prefix}{key} is not a key{hint}")
    built = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]):
            built[key] = build_section(hints[key], {} if value is None else value, origin, f"{prefix}{key}.")
        else:
            built[key] = validated(hints[key], value, origin, f"{prefix}{key}")
    return built


def validated(hint: Any, value: Any, origin: Origin, key: str) -> Any:
    """Return a value of the right type and range; lists become tuples, and integers floats where the type says so.

    Raises:
        ConfigError: It is not; infinity and NaN never are.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False)).validate_python(_tuples(value), strict=True)
    except ValidationError as error:
        errors = error.errors()
        of_lists = [e for e in errors if isinstance(value, list) and str(*e["loc"][:1]).startswith("tuple")]
        first = (of_lists or errors)[0]  # of a number or a list, what is wrong with the list
        why = "too few items" if first["type"] == "missing" else _lower_first(first["msg"])
        raise ConfigError(f"{origin.of(key)}: {key} is {value!r}; {why}") from None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def field_docs(cls: type) -> dict[str, str]:
    """Return the string literal below each field of a dataclass."""
    body = ast.parse(inspect.getsource(cls)).body[0]
    docs: dict[str, str] = {}
    assert isinstance(body, ast.ClassDef)
    for before, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(after, ast.Expr):
            docs[before.target.id] = " ".join(str(ast.literal_eval(after.value)).split())
    return docs
