"""Assemble a retraining from a run, an architecture and a configuration; without torch, but for warm starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ddpnas_ray.core.errors import ConfigError, RunDirError, did_you_mean
from ddpnas_ray.experiment.config import PLACES, SearchConfig, check, differing_keys, load, overridden, set_key, to_dict
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.retraining.choice import Chosen, of_file, of_known, of_search
from ddpnas_ray.retraining.files import read_trained
from ddpnas_ray.retraining.retraining import Retraining, Teacher, check_fits, prepare_task
from ddpnas_ray.runs.directory import parsed, read_config, refuse_other_data
from ddpnas_ray.runs.files import read_weights
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.spaces.inherit import inherited
from ddpnas_ray.spaces.known import known_network
from ddpnas_ray.spaces.target import Target
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.base import Task

FREE = ("execution.", "retraining.workers", "retraining.min_workers", "retraining.max_failures", *PLACES)
RETRAINED = "retrained"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asks for.

    Args:
        run: Run directory of a finished search; None: no search.
        config: Configuration, or its file; None: the run's.
        overrides: ``section.key=value``.
        budget: Of the run's network.
        genotype: File with another architecture.
        network: Name of a known network.
        chosen: Another architecture of the run's space.
    """

    run: str | None = None
    config: str | SearchConfig | None = None
    overrides: Sequence[str] = ()
    budget: str | None = None
    genotype: str | None = None
    network: str | None = None
    chosen: Chosen | None = None


def make(wish: Wish, saved: Folder | None = None) -> Retraining:
    """Load data and architecture.

    Args:
        wish: What to retrain.
        saved: Folder to resume: its configuration replaces the run's, and may only differ in where things run.

    Raises:
        BadInput: Something does not fit.
    """
    run = None if wish.run is None else FinishedRun.load(wish.run)
    config = _config(wish, run, saved)
    searched, task = prepare_task(config)
    if run is not None and _same_data(config, run.config):
        refuse_other_data(run.folder, searched.digest)
    if saved is not None:
        refuse_other_data(saved, searched.digest)
    chosen = Chosen.read(saved) if saved is not None else choose(wish, run, config, task)
    check_fits(chosen, task)
    retraining = Retraining(config, chosen, task, searched.digest, teacher=_teacher(config, run))
    if config.retraining.init == "scratch":
        return retraining
    if run is None or not run.config.trains:
        raise ConfigError(
            "retraining.init=inherited needs the run of a search that trained a supernet; set it to scratch"
        )
    tensors = parsed(run.folder, "weights.safetensors", read_weights)
    spec = chosen.spec
    values, share = inherited(spec, spec.encode(dict(chosen.genotype)), chosen.target, searched.inputs, tensors)
    return dataclasses.replace(retraining, inherited=values, inherited_share=share)


def choose(wish: Wish, run: FinishedRun | None, config: SearchConfig, task: Task | None = None) -> Chosen:
    """Choose the architecture, with the configuration's target.

    Args:
        wish: Names it.
        run: The search, if any.
        config: Gives space and target.
        task: Gives image size and classes; None: only the label is needed.
    """
    if wish.network is not None:
        known = known_network(wish.network)
        return of_known(known, lambda spec: _target(config, task, spec))
    space = {"name": config.space.name, **config.space.options}
    if wish.genotype is not None:
        return of_file(
            wish.genotype, space, _target(config, task, find_space(config.space.name)(**config.space.options))
        )
    if run is None:
        raise ConfigError("what to retrain is missing: give RUN, --genotype FILE or --network NAME")
    target = _target(config, task, run.spec) if task is not None else run.target
    if wish.chosen is not None:
        if target == run.target:  # then its own target stays
            return wish.chosen
        return wish.chosen.retargeted(target)
    if target != run.target:
        changed = {k: v for k, v in dataclasses.asdict(target).items() if v != getattr(run.target, k)}
        run = FinishedRun.load(run.folder.uri, target=",".join(f"{key}={value}" for key, value in changed.items()))
    return of_search(run, wish.budget)


def label_of(wish: Wish) -> str:
    """Return the label of the architecture, without reading data."""
    run = None if wish.run is None else FinishedRun.load(wish.run)
    return choose(wish, run, _config(wish, run, None)).label


def retrained_folders(run: Folder) -> list[Folder]:
    """Return the folders of a run's finished retrainings."""
    below = run / RETRAINED
    return [below / name for name in below.names() if (below / name).has("result.json")]


def _config(wish: Wish, run: FinishedRun | None, saved: Folder | None) -> SearchConfig:
    if saved is not None:
        old = check(parse(read_config(saved), saved.uri), f"{saved.uri}/config.yaml")
        values = to_dict(old)
        for override in wish.overrides:
            set_key(values, override)
        new = check(values, saved.uri, wish.overrides) if wish.config is None else _given(wish)
        if changed := [key for key in differing_keys(old, new) if not key.startswith(FREE)]:
            raise RunDirError(
                f"{saved.uri}: its checkpoints are of another recipe: {', '.join(changed)} differ; omit them, or "
                "start a new retraining with another --out"
            )
        return new
    if wish.config is not None or run is None:
        config = _given(wish)
        own = wish.genotype or wish.network
        if (
            run is not None
            and not own
            and (config.space.name, config.space.options)
            != (
                run.config.space.name,
                run.config.space.options,
            )
        ):
            config = dataclasses.replace(config, space=run.config.space)
        return config
    values = to_dict(run.config)
    for override in wish.overrides:
        set_key(values, override)
    return check(values, run.folder.uri, wish.overrides)


def _given(wish: Wish) -> SearchConfig:
    """Return the configuration that was given, with the overrides."""
    if isinstance(wish.config, SearchConfig):
        return overridden(to_dict(wish.config), "config", wish.overrides)
    return load(wish.config, wish.overrides)


def _target(config: SearchConfig, task: Task | None, spec: object) -> Target:
    from ddpnas_ray.experiment.experiment import TABLE_INPUTS

    inputs = TABLE_INPUTS if task is None else task.inputs
    return Target.resolve(config.target, inputs, spec.target)  # type: ignore[attr-defined]


def _same_data(config: SearchConfig, other: SearchConfig) -> bool:
    """Return whether two configurations mean the same split of the same data."""
    return not [
        key for key in differing_keys(config, other) if key.startswith(("data.", "task.", "seed")) and key not in PLACES
    ]


def _teacher(config: SearchConfig, run: FinishedRun | None) -> Teacher | None:
    """Find the teacher: a function, or a retrained network of the run.

    Raises:
        ConfigError: There is none of that name.
    """
    name = config.retraining.teacher
    if name is None:
        return None
    if ":" in name:
        teacher = Teacher(function=name)
        teacher.module()
        return teacher
    read = [] if run is None else [read_trained(folder) for folder in retrained_folders(run.folder)]
    found = {chosen.label: Teacher(chosen, tensors) for chosen, tensors, _ in read}
    if name == "largest" and found:
        size: Callable[[str], int] = lambda label: found[label].chosen.costs["params"]  # type: ignore[union-attr]  # noqa: E731
        return found[max(found, key=size)]
    if name not in found:
        hint = did_you_mean(name, found) if found else "; the run has no retrained network yet"
        raise ConfigError(f"retraining.teacher is {name}: no retrained network of the run has this label{hint}")
    return found[name]
