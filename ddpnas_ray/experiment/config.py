"""Read, override and check a configuration. Each section is defined beside the code that it configures."""

from __future__ import annotations

import ast
import dataclasses
import importlib.resources
import inspect
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from annotated_types import Ge, Lt

from ddpnas_ray.core.errors import ConfigError, did_you_mean
from ddpnas_ray.core.schedule import planned_architecture_epochs
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.registry import find_reader
from ddpnas_ray.execution.base import ExecutionConfig
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.spaces.target import TargetConfig
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.strategies import registry
from ddpnas_ray.strategies.base import Context, Strategy
from ddpnas_ray.strategies.pruning import PruningConfig
from ddpnas_ray.training.config import TrainingConfig

DEFAULT = "the packaged digits quick start"
PLACES = ("data.path", "evaluation.table")  # where data lie, not what they are


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceConfig:
    """Section ``space``: its name, and the keyword arguments of the function that makes it."""

    name: str = "cell"
    """A built-in space, or module:function of your own"""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Section ``evaluation``: where scores come from."""

    kind: Literal["supernet", "table"] = "supernet"
    """supernet: train with shared weights and validate; table: read scores from a benchmark's table"""
    metric: Literal["accuracy"] = "accuracy"
    """What is validated; higher is better, a fraction"""
    budget: Annotated[int, Ge(1)] | None = None
    """Evaluations in all; null: as many as Algorithm 1 needs. pruning: what it leaves verifies the most likely ones"""
    batch: Annotated[int, Ge(1)] | None = None
    """Architectures an epoch of random, evolution, surrogate; null: 1 with a table, else K"""
    table: str | None = None
    """Parquet file with the scores of every architecture; beside a supernet, what its ranks are compared with"""
    score: str | None = None
    """The table's column that is searched by; null: the val column of fewest epochs"""
    final: str | None = None
    """The table's column that the result is judged by; null: the test column of most epochs"""
    training: Literal["mean", "random"] | Annotated[int, Ge(0)] = "mean"
    """mean: of all trainings; random: one of them, drawn for every query; a number: the training of that seed"""
    probe: Annotated[int, Ge(2)] | None = None
    """Beside a supernet: networks scored with its weights after every epoch, for the rank correlation with the table"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """A whole experiment. All sections can change the result; ``execution`` only by the kind of device it chooses."""

    space: SpaceConfig = SpaceConfig()
    data: DataConfig = DataConfig()
    strategy: str | None = None
    """Who proposes architectures: a built-in strategy, or module:function of your own; names the section used. null:
    pruning, or surrogate where scores are a table's"""
    strategies: Mapping[str, Any] = field(default_factory=registry.defaults)
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    target: TargetConfig = TargetConfig()
    execution: ExecutionConfig = ExecutionConfig()
    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    """Keys every random draw: equal seeds give equal results on one kind of device"""

    @property
    def trains(self) -> bool:
        """Whether architectures are trained, rather than their scores read from a table."""
        return self.evaluation.kind == "supernet"

    @property
    def searched_on(self) -> str:
        """The data in a word, as run directories are named."""
        return self.data.name if self.trains else "table"

    @property
    def unit(self) -> str:
        """The name of one evaluation: training makes it an architecture-epoch."""
        return "architecture-epochs" if self.trains else "evaluations"

    @property
    def pruning(self) -> PruningConfig:
        """Section ``pruning``, which every strategy with rounds reads."""
        section: PruningConfig = self.strategies["pruning"]
        return section


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the values of a configuration come from, for errors.

    Args:
        file: The file, or what stands for it.
        overrides: What ``--set`` changed after that, in order.
    """

    file: str
    overrides: tuple[str, ...] = ()

    def of(self, *keys: str) -> str:
        """The last ``--set`` of one of these dotted keys, of a section around it or of a key in it; else the file.

        Example:
            >>> Origin("a.yaml", ("training={lr: 2}", "seed=1")).of("training.lr")
            '--set training={lr: 2}'
        """
        for override in reversed(self.overrides):
            changed = override.partition("=")[0].strip() + "."
            if any(changed.startswith(f"{key}.") or f"{key}.".startswith(changed) for key in keys):
                return f"--set {override}"
        return self.file


def load(path: str | None, overrides: Sequence[str] = ()) -> SearchConfig:
    """Read a YAML file and apply ``section.key=value`` overrides.

    Another ``space.name`` leaves the file's options of its own space behind, and its target.

    Args:
        path: The file, local or a URI, or the name of one that comes with the package; None is the digits quick start.
        overrides: Values are YAML: ``pruning.gamma=0.8``, ``data.path=null``.

    Raises:
        ConfigError: The file cannot be read, or a key or value is not allowed.
        RunDirError: The URI's scheme is unknown or its credentials are missing.
    """
    source = path or DEFAULT
    values = parse(read_text(path), source)
    named: dict[str, Any] = {"space": {}}
    for override in overrides:
        if override.startswith("space.name="):
            set_key(named, override)
    space = values.get("space")
    if named["space"] and isinstance(space, dict) and space.get("name", "cell") != named["space"]["name"]:
        del values["space"]
        values.pop("target", None)
    for override in overrides:
        set_key(values, override)
    return check(values, source, overrides)


def source_name(path: str | None, overrides: Sequence[str]) -> str:
    """What a configuration is called, with what ``--set`` changed of what can change a result."""
    name = Path(path).name if path else DEFAULT.removeprefix("the packaged ")
    changed = [text for text in overrides if not text.strip().startswith(("execution.", *PLACES))]
    return f"{name} with {', '.join(changed)}" if changed else name


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
        values = yaml.load(text, _Loader)
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


def set_key(values: dict[str, Any], override: str) -> None:
    """Apply one ``section.key=value``, in place."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip().rpartition(".")[2]:
        raise ConfigError(f"--set {override}: section.key=value is needed, such as --set pruning.gamma=0.8")
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--set {override}: {text!r} is not a YAML value") from error
    put(values, key.strip(), value, f"--set {override}")


def put(values: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set one dotted key, in place; what the value may be is for ``check`` to say."""
    *sections, last = key.split(".")
    for section in sections:
        below = values.get(section)
        if below is None:  # absent, or an empty section
            below = values[section] = {}
        if not isinstance(below, dict):
            raise ConfigError(f"{source}: {section} is a value, not a section")
        values = below
    if key == "strategy":
        _leave_own_strategy(values, str(value))
    values[last] = value


def _leave_own_strategy(values: dict[str, Any], new: str) -> None:
    """Drop the section of a strategy of one's own when another strategy takes its place."""
    section = registry.section_name(str(values.get("strategy")))
    known = {*_hints(SearchConfig), *registry.sections()}
    if section not in known and section != registry.section_name(new):
        values.pop(section, None)


def check(values: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> SearchConfig:
    """Nested dictionaries -> a checked configuration with every default filled in.

    Args:
        values: With the overrides applied.
        source: Where the other values come from, for errors.
        overrides: An error of a key that one of them set names it instead.

    Raises:
        ConfigError: A key or value is not allowed.
    """
    values = dict(values)
    origin = Origin(source, tuple(overrides))
    space = values.pop("space", None)
    fields = {key: hint for key, hint in _hints(SearchConfig).items() if key not in ("space", "strategies")}
    strategies = _strategy_sections(values.get("strategy"), fields, origin)
    built = _values({**fields, **strategies}, values, origin, "")
    sections = {name: built.pop(name, None) or _build(cls, {}, origin, f"{name}.") for name, cls in strategies.items()}
    space = _check_space({} if space is None else space, origin)
    config = SearchConfig(**built, space=space, strategies=sections)
    evaluation = config.evaluation
    if not config.trains and evaluation.table is None:
        raise ConfigError(
            f"{origin.of('evaluation.kind', 'evaluation.table')}: evaluation.table is missing: the Parquet file that "
            "evaluation.kind=table reads"
        )
    if evaluation.probe is not None and (evaluation.table is None or not config.trains):
        where = origin.of("evaluation.probe", "evaluation.table", "evaluation.kind")
        raise ConfigError(
            f"{where}: evaluation.probe is {evaluation.probe}: it compares a supernet with a table; set "
            "evaluation.kind=supernet and evaluation.table, or leave it out"
        )
    find_reader(config.data.name, f"{origin.of('data.name')}: data.name")
    if config.strategy is None:
        config = dataclasses.replace(config, strategy="pruning" if config.trains else "surrogate")
    if config.training.merge == "sequential" and config.execution.backend != "local":
        raise ConfigError(
            f"{origin.of('training.merge', 'execution.backend')}: training.merge=sequential needs "
            "execution.backend=local: each architecture waits for the one before"
        )
    if config.execution.elastic and config.execution.gpus_per_worker is None:
        raise ConfigError(
            f"{origin.of('execution.elastic', 'execution.gpus_per_worker')}: execution.elastic=true needs "
            "execution.gpus_per_worker (0, or GPUs of one worker): there may be no GPU node yet to tell it by"
        )
    return config


def to_dict(config: SearchConfig) -> dict[str, Any]:
    """The resolved configuration as plain dictionaries, as ``config.yaml`` holds it."""
    values: dict[str, Any] = {}
    for key, value in dataclasses.asdict(dataclasses.replace(config, space=SpaceConfig())).items():
        values |= value if key == "strategies" else {key: value}
    values["space"] = {"name": config.space.name, **config.space.options}
    return typing.cast(dict[str, Any], _plain(values))


def dump(config: SearchConfig) -> str:
    """The resolved configuration as YAML."""
    return to_yaml(to_dict(config))


def to_yaml(values: Mapping[str, Any]) -> str:
    """Nested dictionaries as YAML that ``parse`` reads back as the same values."""
    return str(yaml.dump(_plain(values), Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=120))


def differing_keys(old: SearchConfig, new: SearchConfig) -> list[str]:
    """Dotted keys whose values differ between two configurations."""
    a, b = dict(_flat(to_dict(old))), dict(_flat(to_dict(new)))
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def fixed_keys(old: SearchConfig, new: SearchConfig) -> list[str]:
    """The differing keys that a resume refuses: all but where the data lie and where the work is done.

    Another kind of device is told and recorded instead (``execution.mixed_devices``): machines come and go.
    """
    return [key for key in differing_keys(old, new) if not key.startswith("execution.") and key not in PLACES]


def make_strategy(config: SearchConfig, space: SearchSpace) -> Strategy:
    """The strategy that a configuration names, with its section and its budget.

    Raises:
        ConfigError: The budget is smaller than what pruning needs.
    """
    pruning, evaluation = config.pruning, config.evaluation
    needed = planned_architecture_epochs(space, pruning.keep_per_group, pruning.epochs_per_round)
    context = Context(
        space=space,
        evaluations=needed if evaluation.budget is None else evaluation.budget,
        batch=evaluation.batch or (space.shape[1] if config.trains else 1),
        lr=config.training.lr,
        epochs_per_round=pruning.epochs_per_round,
        keep_per_group=pruning.keep_per_group,
    )
    return registry.create(config.strategy or "pruning", config.strategies, context)


def describe(strategy: str | None = None) -> Iterator[tuple[str, str, str]]:
    """Every key with its default and meaning, for ``--keys``.

    Args:
        strategy: Whose section is listed beside those of the built-in strategies.
    """
    for section in dataclasses.fields(SearchConfig):
        if section.name == "space":
            yield "space.name", "cell", "a built-in space, or module:function of your own; its options follow as keys"
        elif section.name == "strategies":
            for name, cls in registry.sections(strategy).items():
                yield from _describe_section(name, cls)
        elif dataclasses.is_dataclass(section.default):
            yield from _describe_section(section.name, type(section.default))
        elif section.name == "strategy":
            names = ", ".join(registry.STRATEGIES.names())
            yield "strategy", "null", f"{_field_docs(SearchConfig)['strategy']}. Built in: {names}"
        else:
            yield section.name, _show(section.default), _field_docs(SearchConfig).get(section.name, "")


def _describe_section(name: str, cls: Any) -> Iterator[tuple[str, str, str]]:
    docs = _field_docs(cls)
    for key in dataclasses.fields(cls):
        default = "(needed)" if key.default is dataclasses.MISSING else _show(key.default)
        yield f"{name}.{key.name}", default, docs.get(key.name, "")


def _strategy_sections(name: Any, fields: Mapping[str, Any], origin: Origin) -> dict[str, type]:
    """The dataclass of every strategy's section."""
    key = f"{origin.of('strategy')}: strategy"
    if not isinstance(name, str | None):
        raise ConfigError(f"{key}: a name is needed, got {name!r}")
    found = registry.sections(name, key)
    if taken := sorted(found.keys() & fields.keys()):
        raise ConfigError(f"{key}: {name!r}: section {taken[0]} has another meaning; rename the module")
    return found


def _check_space(values: Any, origin: Origin) -> SpaceConfig:
    if not isinstance(values, dict):
        raise ConfigError(f"{origin.of('space')}: space: a section such as {{name: cell}} is needed, got {values!r}")
    options = dict(values)
    name = options.pop("name", "cell")
    if not isinstance(name, str):
        raise ConfigError(f"{origin.of('space.name')}: space.name: a name is needed, got {name!r}")
    try:
        make = find_space(name)
    except ConfigError as error:
        raise ConfigError(f"{origin.of('space.name')}: {error}") from error
    parameters = inspect.signature(make).parameters
    hints = typing.get_type_hints(make, include_extras=True)
    for key in options:
        if key not in parameters:
            hint = did_you_mean(key, parameters)
            raise ConfigError(f"{origin.of(f'space.{key}')}: space.{key} is not an option of space {name!r}{hint}")
    resolved = {}
    for key, parameter in parameters.items():
        if key not in options and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"{origin.of('space.name')}: space.{key} is missing; space {name!r} needs it")
        value = options.get(key, parameter.default)
        resolved[key] = _validate(hints.get(key, Any), value, origin, f"space.{key}")
    return SpaceConfig(name=name, options=resolved)


def _build(cls: Any, values: Any, origin: Origin, prefix: str) -> Any:
    """A section from its dictionary; unknown keys first, since a typo is the likeliest mistake."""
    if not isinstance(values, dict):
        section = prefix.rstrip(".")
        raise ConfigError(f"{origin.of(section)}: {section}: a section with keys is needed, got {values!r}")
    built = _values(_hints(cls), values, origin, prefix)
    for key in dataclasses.fields(cls):
        if key.name not in built and key.default is key.default_factory is dataclasses.MISSING:
            where = origin.of(f"{prefix}{key.name}")
            raise ConfigError(f"{where}: {prefix}{key.name} is missing; section {prefix.rstrip('.')} needs it")
    return cls(**built)


def _hints(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {key.name: hints[key.name] for key in dataclasses.fields(cls)}


def _values(hints: Mapping[str, Any], values: Mapping[str, Any], origin: Origin, prefix: str) -> dict[str, Any]:
    for key in values:
        if key not in hints:
            hint = did_you_mean(str(key), hints, prefix)
            raise ConfigError(f"{origin.of(f'{prefix}{key}')}: {prefix}{key} is not a key{hint}")
    built = {}
    for key, value in values.items():
        if dataclasses.is_dataclass(hints[key]):
            built[key] = _build(hints[key], {} if value is None else value, origin, f"{prefix}{key}.")
        else:
            built[key] = _validate(hints[key], value, origin, f"{prefix}{key}")
    return built


def _validate(hint: Any, value: Any, origin: Origin, key: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False)).validate_python(_tuples(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{origin.of(key)}: {key} is {value!r}; {_lower_first(first['msg'])}") from None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _show(value: Any) -> str:
    return "null" if value is None else str(value)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _field_docs(cls: type) -> dict[str, str]:
    """The string literal under each field of a dataclass."""
    body = ast.parse(inspect.getsource(cls)).body[0]
    docs: dict[str, str] = {}
    assert isinstance(body, ast.ClassDef)
    for before, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(after, ast.Expr):
            docs[before.target.id] = " ".join(str(ast.literal_eval(after.value)).split())
    return docs


class _Loader(yaml.SafeLoader):
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
    """Writes what ``_Loader`` reads back as the same value."""


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
        list("-+0123456789."),
    )
