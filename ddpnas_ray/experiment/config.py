"""Read, override and check a configuration. Each section is defined next to the code it configures."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt

from ddpnas_ray.core.errors import ConfigError, did_you_mean
from ddpnas_ray.core.generation.limits import Limits
from ddpnas_ray.core.schedule import planned_architecture_epochs
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.registry import find_reader
from ddpnas_ray.execution.base import ExecutionConfig
from ddpnas_ray.experiment.groups import refuse_group
from ddpnas_ray.experiment.sections import Origin, build_section, checked_values, field_docs, hints_of, validated
from ddpnas_ray.experiment.yaml_text import parse, plain, read_text, to_yaml, yaml_value
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.spaces.target import TargetConfig
from ddpnas_ray.strategies import registry
from ddpnas_ray.strategies.base import Context, Strategy
from ddpnas_ray.strategies.pruning import PruningConfig
from ddpnas_ray.tasks.base import find_task, own_data_sets
from ddpnas_ray.tasks.recipe import FinalsConfig, RetrainingConfig
from ddpnas_ray.training.config import TrainingConfig

DEFAULT = "the packaged digits quick start"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceConfig:
    """Section ``space``: its name, and the options of its ``make``."""

    name: str = "cell"
    """Built-in space, or your own module:function"""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig:
    """Section ``task``: its name, and the options of its ``make``."""

    name: str = "classification"
    """Built-in task, or your own module:function"""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Section ``evaluation``: the source of scores."""

    kind: Literal["supernet", "table"] = "supernet"
    """supernet: train with shared weights and validate; table: read scores from a benchmark table"""
    budget: Annotated[int, Ge(1)] | None = None
    """Total evaluations; null: as many as Algorithm 1 needs. pruning: the rest verifies the most probable networks"""
    batch: Annotated[int, Ge(1)] | None = None
    """Architectures per epoch of random, evolution, surrogate; null: 1 with a table, else K"""
    table: str | None = None
    """Parquet file with the scores of every architecture; with a supernet: the reference for its ranking"""
    score: str | None = None
    """Table column read during the search; null: the val column of fewest epochs"""
    final: str | None = None
    """Table column of the final score; null: the test column of most epochs"""
    training: Literal["mean", "random"] | Annotated[int, Ge(0)] = "mean"
    """mean: over all trainings; random: one of them, drawn for each query; a number: the training with that seed"""
    probe: Annotated[int, Ge(2)] | None = None
    """With a supernet: networks scored with its weights after each epoch, for the rank correlation with the table"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchConfig:
    """Configuration of an experiment. Any section can change the result of a search, but ``finals``, ``retraining``,
    and ``execution`` only by its kind of device."""

    space: SpaceConfig = SpaceConfig()
    task: TaskConfig = TaskConfig()
    data: DataConfig = DataConfig()
    strategy: str | None = None
    """Built-in strategy, or your own module:function; names the section used. null: pruning, or surrogate for tabular
    searches"""
    strategies: Mapping[str, Any] = field(default_factory=registry.defaults)
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    target: TargetConfig = TargetConfig()
    finals: FinalsConfig = FinalsConfig()
    retraining: RetrainingConfig = RetrainingConfig()
    execution: ExecutionConfig = ExecutionConfig()
    seed: Annotated[int, Ge(0), Lt(2**32)] = 0
    """Seed of every random draw: equal seeds give equal results on one kind of device"""

    @property
    def trains(self) -> bool:
        """Whether architectures are trained, rather than their scores read from a table."""
        return self.evaluation.kind == "supernet"

    @property
    def shares_nothing(self) -> bool:
        """Whether architectures are trained, each from the initial weights."""
        return self.trains and self.training.merge == "none"

    @property
    def searched_on(self) -> str:
        """Short name of the data, as used in run directory names."""
        if not self.trains:
            return "table"
        if self.task.name == TaskConfig().name or self.data.name in own_data_sets(self.task.name):
            return self.data.name
        return registry.section_name(self.task.name)

    @property
    def unit(self) -> str:
        """Unit of evaluations: ``architecture-epochs`` if they train, else ``evaluations``."""
        return "architecture-epochs" if self.trains else "evaluations"

    @property
    def pruning(self) -> PruningConfig:
        """Section ``pruning``, read by every strategy with rounds."""
        section: PruningConfig = self.strategies["pruning"]
        return section


@dataclass(frozen=True, slots=True)
class Made:
    """A section with a name and the options of the named function.

    Args:
        config: Dataclass of the section.
        find: Maps a name to its function.
        given: Number of positional arguments of the function, which are not options.
    """

    config: type[SpaceConfig | TaskConfig]
    find: Callable[[str], Callable[..., Any]]
    given: int = 0

    @property
    def name(self) -> str:
        """Default name."""
        return self.config().name


MADE = {"space": Made(SpaceConfig, find_space), "task": Made(TaskConfig, find_task, given=2)}


def load(path: str | None, overrides: Sequence[str] = ()) -> SearchConfig:
    """Read a YAML file and apply ``section.key=value`` overrides.

    Overriding ``space.name`` drops the file's options of its own space, and its target; overriding ``task.name`` drops
    the task's options.

    Args:
        path: File, local or a URI, or the name of a packaged configuration; None is the digits quick start.
        overrides: Values are YAML: ``pruning.gamma=0.8``, ``data.path=null``.

    Raises:
        ConfigError: The file cannot be read, or a key or value is not allowed.
        RunDirError: The URI's scheme is unknown or its credentials are missing.
    """
    source = path or DEFAULT
    return overridden(parse(read_text(path), source), source, overrides)


def overridden(values: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> SearchConfig:
    """Apply overrides to nested dictionaries, as ``load`` does to those of a file, and check the result.

    Args:
        values: Nested plain dictionaries; unchanged.
        source: Their source, for errors.
        overrides: As of ``load``.

    Raises:
        ConfigError: A key or value is not allowed.
    """
    values = typing.cast(dict[str, Any], plain(values))
    named: dict[str, Any] = {}
    for override in overrides:
        if override.startswith(("space.name=", "task.name=")):
            set_key(named, override)
    for section, new in named.items():
        old, default = values.get(section), MADE[section].name
        if isinstance(old, dict) and old.get("name", default) != new["name"]:
            del values[section]
            if section == "space":
                values.pop("target", None)
    for override in overrides:
        set_key(values, override)
    return check(values, source, overrides)


def set_key(values: dict[str, Any], override: str) -> None:
    """Apply one ``section.key=value`` override, in place."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip().rpartition(".")[2]:
        raise ConfigError(f"--set {override}: give section.key=value, such as --set pruning.gamma=0.8")
    put(values, key.strip(), yaml_value(text, f"--set {override}"), f"--set {override}")


def put(values: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set one dotted key, in place; ``check`` validates the value."""
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
    """Drop the section of a user-defined strategy when another strategy replaces it."""
    section = registry.section_name(str(values.get("strategy")))
    known = {*hints_of(SearchConfig), *registry.sections()}
    if section not in known and section != registry.section_name(new):
        values.pop(section, None)


def check(values: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> SearchConfig:
    """Build a checked configuration from nested dictionaries, with every default filled in.

    Args:
        values: Values with the overrides applied.
        source: Source of the other values, for errors.
        overrides: Applied overrides; errors of the keys they set name them instead.

    Raises:
        ConfigError: A key or value is not allowed.
    """
    values = dict(values)
    origin = Origin(source, tuple(overrides))
    made = {section: _check_made(section, values.pop(section, None), origin) for section in MADE}
    fields = {key: hint for key, hint in hints_of(SearchConfig).items() if key not in (*MADE, "strategies")}
    strategies = _strategy_sections(values.get("strategy"), fields, origin)
    built = checked_values({**fields, **strategies}, values, origin, "")
    sections = {
        name: built.pop(name, None) or build_section(cls, {}, origin, f"{name}.") for name, cls in strategies.items()
    }
    config = SearchConfig(**built, **made, strategies=sections)
    evaluation = config.evaluation
    if not config.trains and evaluation.table is None:
        raise ConfigError(
            f"{origin.of('evaluation.kind', 'evaluation.table')}: evaluation.table is missing; evaluation.kind=table "
            "needs a Parquet file of scores"
        )
    if evaluation.probe is not None and config.shares_nothing:
        raise ConfigError(
            f"{origin.of('evaluation.probe', 'training.merge')}: evaluation.probe is {evaluation.probe}; it scores "
            "networks with shared weights, and training.merge=none shares none: remove one of them"
        )
    if evaluation.probe is not None and (evaluation.table is None or not config.trains):
        where = origin.of("evaluation.probe", "evaluation.table", "evaluation.kind")
        raise ConfigError(
            f"{where}: evaluation.probe is {evaluation.probe}; it compares a supernet with a table: set "
            "evaluation.kind=supernet and evaluation.table, or remove it"
        )
    if config.data.name not in own_data_sets(config.task.name):
        find_reader(config.data.name, f"{origin.of('data.name')}: data.name")
    if config.strategy is None:
        config = dataclasses.replace(config, strategy="pruning" if config.trains else "surrogate")
    predicts = config.strategy == "pruning" and config.pruning.result == "predicted"
    if predicts and config.trains and not config.shares_nothing:
        raise ConfigError(
            f"{origin.of('pruning.result', 'training.merge')}: pruning.result=predicted compares scores of all epochs, "
            f"and a supernet's rise while it trains (training.merge={config.training.merge}); set training.merge=none, "
            "or leave pruning.result at probable"
        )
    if config.training.merge == "sequential" and config.execution.backend != "local":
        raise ConfigError(
            f"{origin.of('training.merge', 'execution.backend')}: training.merge=sequential needs "
            "execution.backend=local, as each architecture inherits the previous one's weights"
        )
    refuse_group(config.training, config.execution, origin)
    if config.execution.elastic and config.execution.gpus_per_worker is None:
        raise ConfigError(
            f"{origin.of('execution.elastic', 'execution.gpus_per_worker')}: execution.elastic=true needs "
            "execution.gpus_per_worker (0, or GPUs per worker), as there may be no GPU node yet to detect it from"
        )
    return config


def to_dict(config: SearchConfig) -> dict[str, Any]:
    """Return the resolved configuration as plain dictionaries, as in ``config.yaml``."""
    values: dict[str, Any] = {}
    for key, value in dataclasses.asdict(config).items():
        if key in MADE:
            value = {"name": value["name"], **value["options"]}
        values |= value if key == "strategies" else {key: value}
    return typing.cast(dict[str, Any], plain(values))


def dump(config: SearchConfig) -> str:
    """Return the resolved configuration as YAML."""
    return to_yaml(to_dict(config))


def make_strategy(config: SearchConfig, space: SearchSpace, limits: Limits | None = None) -> Strategy:
    """Create a configuration's strategy.

    Args:
        config: The configuration.
        space: Its space.
        limits: Its ``target.budgets``; not needed to plan epochs.

    Raises:
        ConfigError: ``evaluation.budget`` is smaller than pruning needs, or the strategy cannot keep to budgets.
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
        limits=limits,
    )
    strategy = registry.create(config.strategy or "pruning", config.strategies, context)
    if limits is not None and getattr(strategy, "limits", None) is None:
        raise ConfigError(
            f"target.budgets: strategy {config.strategy} proposes networks of any cost; set strategy to surrogate, "
            "evolution or random, or search without target.budgets and then generate within budgets"
        )
    if config.shares_nothing and config.strategy == "pruning" and pruning.prune and context.evaluations > needed:
        raise ConfigError(
            f"evaluation.budget is {evaluation.budget}: what exceeds the {needed} evaluations of Algorithm 1 is scored "
            "with inherited weights, and training.merge=none shares none; set it to null, or raise "
            "pruning.epochs_per_round"
        )
    return strategy


def describe(strategy: str | None = None) -> Iterator[tuple[str, str, str]]:
    """List every key with its default and meaning, for ``--keys``.

    Args:
        strategy: User-defined strategy whose section is listed too.
    """
    for section in dataclasses.fields(SearchConfig):
        if section.name in MADE:
            made = MADE[section.name]
            meaning = f"Built-in {section.name}, or your own module:function; its options are further keys"
            yield f"{section.name}.name", made.name, meaning
        elif section.name == "strategies":
            for name, cls in registry.sections(strategy).items():
                yield from _describe_section(name, cls)
        elif dataclasses.is_dataclass(section.default):
            yield from _describe_section(section.name, type(section.default))
        elif section.name == "strategy":
            names = ", ".join(registry.STRATEGIES.names())
            yield "strategy", "null", f"{field_docs(SearchConfig)['strategy']}. Built in: {names}"
        else:
            yield section.name, _show(section.default), field_docs(SearchConfig).get(section.name, "")


def _describe_section(name: str, cls: Any) -> Iterator[tuple[str, str, str]]:
    docs = field_docs(cls)
    for key in dataclasses.fields(cls):
        default = "(required)" if key.default is dataclasses.MISSING else _show(key.default)
        yield f"{name}.{key.name}", default, docs.get(key.name, "")


def _strategy_sections(name: Any, fields: Mapping[str, Any], origin: Origin) -> dict[str, type]:
    """Return the dataclass of each strategy's section."""
    key = f"{origin.of('strategy')}: strategy"
    if not isinstance(name, str | None):
        raise ConfigError(f"{key}: expected a name, got {name!r}")
    found = registry.sections(name, key)
    if taken := sorted(found.keys() & fields.keys()):
        raise ConfigError(f"{key}: {name!r}: section name {taken[0]} is already in use; rename the module")
    return found


def _check_made(section: str, values: Any, origin: Origin) -> Any:
    """Check section ``space`` or ``task``: a name, and the options of the named function."""
    made = MADE[section]
    values = {"name": values} if isinstance(values, str) else {} if values is None else values
    if not isinstance(values, dict):
        where = origin.of(section)
        raise ConfigError(f"{where}: {section}: expected a section such as {{name: {made.name}}}, got {values!r}")
    options = dict(values)
    name = options.pop("name", made.name)
    if not isinstance(name, str):
        raise ConfigError(f"{origin.of(f'{section}.name')}: {section}.name: expected a name, got {name!r}")
    try:
        make = made.find(name)
    except ConfigError as error:
        raise ConfigError(f"{origin.of(f'{section}.name')}: {error}") from error
    parameters = dict(list(inspect.signature(make).parameters.items())[made.given :])
    hints = typing.get_type_hints(make, include_extras=True)
    for key in options:
        if key not in parameters:
            where, hint = origin.of(f"{section}.{key}"), did_you_mean(key, parameters)
            raise ConfigError(f"{where}: {section}.{key} is not an option of {section} {name!r}{hint}")
    resolved = {}
    for key, parameter in parameters.items():
        if key not in options and parameter.default is inspect.Parameter.empty:
            where = origin.of(f"{section}.name")
            raise ConfigError(f"{where}: {section}.{key} is missing; {section} {name!r} needs it")
        value = options.get(key, parameter.default)
        resolved[key] = validated(hints.get(key, Any), value, origin, f"{section}.{key}")
    return made.config(name=name, options=resolved)


def _show(value: Any) -> str:
    return "null" if value is None else str(value)
