"""Assemble a retraining from a run, an architecture and a configuration; only warm starts and teachers need torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpnas_ray.core.errors import ConfigError, RunDirError
from ddpnas_ray.experiment.changes import changed_keys
from ddpnas_ray.experiment.config import SearchConfig, load, overridden, to_dict
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.retraining.choice import Chosen, of_file, of_known, of_search
from ddpnas_ray.retraining.files import read_origin, saved_config
from ddpnas_ray.retraining.retraining import Retraining, Teacher, check_fits, prepare_task
from ddpnas_ray.retraining.teacher import find_teacher, of_run, recorded_teacher, tried
from ddpnas_ray.runs.directory import parsed, refuse_other_data
from ddpnas_ray.runs.files import read_weights
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.inherit import inherited
from ddpnas_ray.spaces.known import known_network
from ddpnas_ray.spaces.target import Inputs, Target
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.base import Task

# may change on a resume: where a network is trained, not how
FREE = (
    "execution.",
    "retraining.workers",
    "retraining.min_workers",
    "retraining.max_failures",
    "retraining.budgets",
)
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
        chosen: An architecture: of the run, or any other with its own space.
    """

    run: str | None = None
    config: str | SearchConfig | None = None
    overrides: Sequence[str] = ()
    budget: str | None = None
    genotype: str | None = None
    network: str | None = None
    chosen: Chosen | None = None


def config_of(wish: Wish, saved: Folder | None = None) -> SearchConfig:
    """Return the configuration of a retraining, without data and torch.

    Args:
        wish: What to retrain.
        saved: Folder to resume.

    Raises:
        BadInput: A key or value is not allowed, or may not change on a resume.
    """
    return _config(wish, None if saved is not None else _given_run(wish), saved)


def refuse_changed(wish: Wish, saved: Folder) -> None:
    """Refuse another configuration, run or network than those that a folder was started with.

    Args:
        wish: What to retrain; an architecture that it does not name is that of the folder.
        saved: Folder of a retraining, finished or not.

    Raises:
        RunDirError: The wish is for another training.
        BadInput: What it names does not exist.
    """
    config, run, chosen = config_of(wish, saved), _given_run(wish), Chosen.read(saved)
    if run is not None:
        _refuse_other_run(run, saved)
    if wish.budget or wish.genotype or wish.network or wish.chosen:
        asked = choose(wish, run, config, chosen.target.inputs)
        if asked.genotype != chosen.genotype:
            raise RunDirError(
                f"{saved.uri}: is the training of another network, {chosen.label}, than {asked.label}; name that one "
                "or none, or start a new training with another --out"
            )


def make(wish: Wish, saved: Folder | None = None) -> Retraining:
    """Load data and architecture.

    Args:
        wish: What to retrain.
        saved: Folder to resume: its configuration replaces the run's, and may only differ in where things run.

    Raises:
        BadInput: Something does not fit.
    """
    if saved is None:
        run = _given_run(wish)
        config = _config(wish, run, None)
    else:
        refuse_changed(wish, saved)
        config = config_of(wish, saved)
        run = _run_to_resume(wish, config, saved)
    searched, task = prepare_task(config)
    if run is not None and _same_data(config, run.config):
        refuse_other_data(run.folder, searched.digest, task_only=True)
    if saved is not None:
        refuse_other_data(saved, searched.digest)
    chosen = Chosen.read(saved) if saved is not None else choose(wish, run, config, task.inputs)
    check_fits(chosen, task)
    source = {} if run is None else _source(run)
    teacher = _teacher(config, run, chosen, searched.digest, saved)
    retraining = Retraining(config, chosen, task, searched.digest, teacher=teacher, run=source)
    return _initialised([retraining], run, searched)[0]


def make_all(run: FinishedRun, config: SearchConfig, networks: Sequence[Chosen]) -> list[Retraining]:
    """Load the data, and return a retraining per network of a search, with one task and one teacher.

    Args:
        run: The search.
        config: Differs from the run's in recipe and places only.
        networks: Of its space and target.

    Raises:
        BadInput: Something does not fit, or the data are not those of the search.
    """
    searched, task = prepare_task(config)
    refuse_other_data(run.folder, searched.digest, task_only=True)
    for chosen in networks:
        check_fits(chosen, task)
    teacher, source = _teacher(config, run, networks[0], searched.digest, None), _source(run)
    retrainings = [Retraining(config, c, task, searched.digest, teacher=teacher, run=source) for c in networks]
    return _initialised(retrainings, run, searched)


def _initialised(retrainings: Sequence[Retraining], run: FinishedRun | None, searched: Task) -> list[Retraining]:
    """Return retrainings of one recipe, whose networks start from a supernet's weights if it says so.

    Args:
        retrainings: The retrainings.
        run: The search with the supernet.
        searched: Its task.

    Raises:
        ConfigError: There is no supernet, or no pretrained model.
    """
    config = retrainings[0].config
    if config.retraining.init == "scratch":
        return list(retrainings)
    if config.retraining.init == "pretrained":
        tensors = _pretrained(config, searched)
    elif run is None or not run.config.trains or run.config.shares_nothing:
        raise ConfigError(
            "retraining.init=inherited needs the run of a search that trained shared weights; give RUN, or set it "
            "to scratch"
        )
    else:
        tensors = parsed(run.folder, "weights.safetensors", read_weights)
    found = []
    for retraining in retrainings:
        chosen, spec = retraining.chosen, retraining.chosen.spec
        values, share = inherited(spec, spec.encode(dict(chosen.genotype)), chosen.target, searched.inputs, tensors)
        found.append(dataclasses.replace(retraining, inherited=values, inherited_share=share))
    return found


def _pretrained(config: SearchConfig, searched: Task) -> Mapping[str, Any]:
    """Return the weights that a search of this configuration begins with."""
    from ddpnas_ray.training.trainer import Trainer

    spec = find_space(config.space.name)(**config.space.options)
    if spec.initialise is None:
        raise ConfigError(
            f"retraining.init=pretrained: space {config.space.name} has no pretrained model (bert: space.model); set "
            "it to scratch or inherited"
        )
    tensors, _ = Trainer(spec=spec, task=searched, config=config.training, seed=config.seed).supernet()
    return tensors


def choose(wish: Wish, run: FinishedRun | None, config: SearchConfig, inputs: Inputs | None = None) -> Chosen:
    """Choose the architecture, with the configuration's target.

    Args:
        wish: Names it.
        run: The search, if any.
        config: Gives space and target.
        inputs: Gives image size and classes; None: only the label is needed.
    """
    if wish.network is not None:
        known = known_network(wish.network)
        return of_known(known, lambda spec: _target(config, inputs, spec))
    space = {"name": config.space.name, **config.space.options}
    if wish.genotype is not None:
        return of_file(
            wish.genotype, space, _target(config, inputs, find_space(config.space.name)(**config.space.options))
        )
    if wish.chosen is not None and not _is_of(wish.chosen, run):
        return wish.chosen.retargeted(_target(config, inputs, wish.chosen.spec))
    if run is None:
        raise ConfigError("what to retrain is missing: give RUN, --genotype FILE or --network NAME")
    target = _target(config, inputs, run.spec) if inputs is not None else run.target
    if wish.chosen is not None:
        if target == run.target:  # then its own target stays
            return wish.chosen
        return wish.chosen.retargeted(target)
    if target != run.target:
        run = FinishedRun.load(run.folder.uri, target=target)
    return of_search(run, wish.budget)


def label_of(wish: Wish) -> str:
    """Return the label of the architecture, without reading data."""
    run = _given_run(wish)
    return choose(wish, run, _config(wish, run, None)).label


def retrained_folders(run: Folder) -> list[Folder]:
    """Return the folders of a run's finished retrainings."""
    below = run / RETRAINED
    return [below / name for name in below.names() if (below / name).has("result.json")]


def _config(wish: Wish, run: FinishedRun | None, saved: Folder | None) -> SearchConfig:
    """Return the given configuration, with the space of the folder or run unless the network is another; or theirs."""
    if saved is not None:
        old, where = saved_config(saved), saved.uri
    elif run is not None:
        old, where = run.config, run.folder.uri
    else:
        return _given(wish)
    own = wish.genotype or wish.network or (run is not None and wish.chosen and not _is_of(wish.chosen, run))
    if wish.config is None:
        config = overridden(to_dict(old), where, wish.overrides)
    else:
        config = _given(wish) if own else dataclasses.replace(_given(wish), space=old.space)
    if saved is None:
        if config.space.name != old.space.name and not own:
            raise ConfigError(
                f"space.name is {config.space.name}: the network of the run is of space {old.space.name}; give "
                "another with --genotype FILE, or omit space.name"
            )
        return config
    if changed := changed_keys(old, config, FREE):
        raise RunDirError(
            f"{saved.uri}: its checkpoints are of another recipe: {', '.join(changed)} differ; omit them, or "
            "start a new retraining with another --out"
        )
    return config


def _given(wish: Wish) -> SearchConfig:
    """Return the configuration that was given, with the overrides."""
    if isinstance(wish.config, SearchConfig):
        return overridden(to_dict(wish.config), "config", wish.overrides)
    return load(wish.config, wish.overrides)


def _target(config: SearchConfig, inputs: Inputs | None, spec: SpaceSpec) -> Target:
    from ddpnas_ray.experiment.experiment import TABLE_INPUTS

    return Target.resolve(config.target, inputs or TABLE_INPUTS, spec.target)


def _same_data(config: SearchConfig, other: SearchConfig) -> bool:
    """Return whether two configurations mean the same split of the same data, which may have moved."""
    if (config.data.val_path is None) != (other.data.val_path is None):
        return False
    return not [key for key in changed_keys(config, other) if key.startswith(("data.", "task.", "seed"))]


def _is_of(chosen: Chosen, run: FinishedRun | None) -> bool:
    """Return whether a run's search found an architecture."""
    return run is not None and chosen.search.get("fingerprint") == run.fingerprint


def _given_run(wish: Wish) -> FinishedRun | None:
    return None if wish.run is None else FinishedRun.load(wish.run)


def _run_to_resume(wish: Wish, config: SearchConfig, saved: Folder) -> FinishedRun | None:
    """Load the given run, or the recorded one if the training needs it.

    Raises:
        RunDirError: It is not there, or another search.
    """
    where = read_origin(saved)["run"].get("folder")
    if wish.run is not None or where is None or (config.retraining.init == "scratch" and not of_run(config)):
        return _given_run(wish)
    if not Folder.open(where).has("config.yaml"):
        raise RunDirError(f"{saved.uri}: needs its run {where}, which is not there; give RUN, where it is now")
    run = FinishedRun.load(where)
    _refuse_other_run(run, saved)
    return run


def _refuse_other_run(run: FinishedRun, saved: Folder) -> None:
    before = read_origin(saved)["run"].get("fingerprint", run.fingerprint)
    if before != run.fingerprint:
        raise RunDirError(
            f"{saved.uri}: was started from another search than {run.folder.uri} (fingerprint {before[:12]}, now "
            f"{run.fingerprint[:12]}); give its RUN, or start a new training with another --out"
        )


def _source(run: FinishedRun) -> dict[str, str]:
    """Return which search it is, and where, for a process in another working directory."""
    folder = run.folder
    return {"folder": folder.path if folder.is_local else folder.uri, "fingerprint": run.fingerprint}


def _teacher(
    config: SearchConfig, run: FinishedRun | None, chosen: Chosen, digest: str, saved: Folder | None
) -> Teacher | None:
    """Find the teacher, that of the folder to resume if there is one, and try it.

    Raises:
        ConfigError: There is none of that name, or it does not fit.
        RunDirError: It is not the one that the training started with.
    """
    recipe = config.retraining
    if recipe.teacher is None:
        if recipe.teacher_hidden:
            raise ConfigError(
                f"retraining.teacher_hidden is {recipe.teacher_hidden:g}, but there is no retraining.teacher; give one"
            )
        return None
    hidden = recipe.teacher_hidden > 0
    if saved is None:
        retrained = [] if run is None else retrained_folders(run.folder)
        return tried(find_teacher(config, retrained, digest), chosen, hidden=hidden)
    record = read_origin(saved)["teacher"]
    recorded = recorded_teacher(saved, record, None if run is None else run.folder / RETRAINED)
    teacher = tried(recorded, chosen, hidden=hidden)
    if teacher.fingerprint != record["fingerprint"]:
        raise RunDirError(
            f"{saved.uri}: its teacher {teacher.name} has other weights than when the training started; restore "
            "them, or start a new training with another --out"
        )
    return teacher
