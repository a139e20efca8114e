"""Start or continue the finals of a search, in this process or on Ray, and show their progress."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from ddpnas_ray.console.cluster import checked_address, cluster
from ddpnas_ray.console.progress import counting
from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.core.generation.budgets import Budget, parse_budgets
from ddpnas_ray.core.generation.solve import largest_costs
from ddpnas_ray.core.halving import planned_epochs
from ddpnas_ray.experiment.config import PLACES, SearchConfig, check, differing_keys, dump, fixed_keys, set_key, to_dict
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.finals.candidates import candidates, search_scores
from ddpnas_ray.finals.files import FINALS, genotype_file, read_finals, read_networks
from ddpnas_ray.finals.finals import Advance, Finals, OnRung, advance_here, first_files, run_finals
from ddpnas_ray.reporting.finals import curves
from ddpnas_ray.retraining.choice import Chosen, of_alphas
from ddpnas_ray.retraining.files import saved_config
from ddpnas_ray.retraining.prepare import Wish, make, warm_started
from ddpnas_ray.retraining.run import check_here
from ddpnas_ray.runs.directory import create_run
from ddpnas_ray.runs.files import json_file
from ddpnas_ray.runs.lock import locked
from ddpnas_ray.runs.log import failure_logged
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.training.cpu_isa import use_level

# may change when finals go on: where networks are trained, not how; and what other commands read
FREE = ("execution.", *PLACES, *(f"retraining.{key}" for key in ("workers", "min_workers", "max_failures", "budgets")))


def finals_config(run: FinishedRun, overrides: Sequence[str] = ()) -> SearchConfig:
    """Return the configuration of a run's finals.

    Args:
        run: The search.
        overrides: Of ``finals.*``, ``retraining.*``, ``execution.*`` and where data are.

    Raises:
        ConfigError: A key or value is not allowed.
        RunDirError: Another key is overridden.
    """
    values = to_dict(run.config)
    for override in overrides:
        set_key(values, override)
    config = check(values, run.folder.uri, overrides)
    if changed := fixed_keys(run.config, config):
        raise RunDirError(
            f"--set: {', '.join(changed)}: the run has finished; only finals.*, retraining.*, execution.* and "
            f"{', '.join(PLACES)} may change"
        )
    return config


def of_training(config: SearchConfig) -> SearchConfig:
    """Return a configuration whose section ``retraining`` is the training of finals: on the search's training images,
    once, in one process."""
    recipe = dataclasses.replace(
        config.retraining, epochs=config.finals.epochs, train_on="train", seeds=1, workers=1, min_workers=None
    )
    return dataclasses.replace(config, retraining=recipe)


def budgets_of(run: FinishedRun, texts: Sequence[str]) -> list[Budget]:
    """Parse budgets and sweeps; without any, one without bounds.

    Raises:
        BudgetError: One cannot be parsed.
    """
    if not texts:
        return [{}]
    costs = run.unbounded()[1] if run.has_theta else largest_costs(run.problem)  # what percentages refer to
    return [budget for text in texts for budget in parse_budgets(text, costs)]


def folder_of(run: FinishedRun, budget: Budget) -> Folder:
    """Return the folder of the finals within a budget, or without one."""
    return run.folder / FINALS / run.text_of(budget)


def finals(
    run: FinishedRun, budget: Budget, config: SearchConfig, lines: TextIO, *, address: str | None = None
) -> dict[str, Any]:
    """Run the finals to their result, or go on where they stopped, or read the result of finished ones.

    Args:
        run: A finished search.
        budget: Bounds that all networks meet.
        config: From ``finals_config``.
        lines: Stream of the plain lines of progress.
        address: Ray cluster.

    Returns:
        The content of ``result.json``.

    Raises:
        DdpnasError: Bad input, or what ended them; finished epochs are saved.
    """
    alphas = candidates(run, budget, config.finals)
    networks = of_alphas(run, budget, alphas, search_scores(run, alphas))
    folder, config = folder_of(run, budget), of_training(config)
    if folder.has("config.yaml"):
        _refuse_other(folder, config, networks)
        if folder.has("result.json"):
            return read_finals(folder)
    files = first_files(networks, dump(config))
    if not run.config.trains:
        return _by_table(run, config, networks, folder, files, lines)
    use_level(config.training.cpu_isa)
    finals = _prepared(run, config, networks)
    if config.execution.backend == "local":
        from ddpnas_ray.execution.local import local_device

        device = local_device(config.execution)
        check_here(finals.trainings[0], device)
        return _train(finals, folder, files, lines, lambda: advance_here(finals, device))
    with cluster(
        checked_address(address, client=False), "train the finals", lines, workers=config.execution.workers
    ) as dashboard:
        from ddpnas_ray.distributed.ray_finals import advance_on_ray, task_size

        size = task_size(finals)
        print(f"{folder.uri}: {size}, {dashboard}", file=lines, flush=True)
        return _train(finals, folder, files, lines, lambda: advance_on_ray(finals, size))


def _prepared(run: FinishedRun, config: SearchConfig, networks: Sequence[Chosen]) -> Finals:
    """Load the data, and check that every network can be trained."""
    first = make(Wish(run=run.folder.uri, config=config, chosen=networks[0]))
    trainings = [first]
    for chosen in networks[1:]:
        training = dataclasses.replace(first, chosen=chosen)
        if config.retraining.init == "inherited":
            training = warm_started(training, run, first.task.inputs)
        trainings.append(training)
    first.network(config.seed)  # so that a recipe that does not fit fails before anything is written
    return Finals(config.finals, tuple(networks), tuple(trainings))


def _train(
    finals: Finals, folder: Folder, files: Mapping[str, bytes], lines: TextIO, start: Callable[[], Advance]
) -> dict[str, Any]:
    total, done = planned_epochs(finals.steps), _epochs_saved(finals, folder)
    folder = folder if folder.has("config.yaml") else create_run(folder.uri, files)
    with locked(folder), failure_logged(folder), counting("epochs", total, lines, done=done) as advance:
        result = run_finals(finals, folder, start(), on_epoch=lambda: advance(1), on_rung=_said(finals.networks, lines))
        return _written(folder, result)


def _by_table(
    run: FinishedRun,
    config: SearchConfig,
    networks: Sequence[Chosen],
    folder: Folder,
    files: Mapping[str, bytes],
    lines: TextIO,
) -> dict[str, Any]:
    from ddpnas_ray.experiment.experiment import Experiment
    from ddpnas_ray.finals.table import table_finals
    from ddpnas_ray.runs.directory import refuse_other_data

    experiment = Experiment.prepare(config)
    assert experiment.benchmark is not None  # a tabular search has one
    refuse_other_data(run.folder, experiment.digest)
    result = table_finals(experiment.benchmark, config.finals, networks, _said(networks, lines))
    folder = folder if folder.has("config.yaml") else create_run(folder.uri, files)
    with locked(folder):
        return _written(folder, result)


def _written(folder: Folder, result: dict[str, Any]) -> dict[str, Any]:
    """Write the figure, the winner and, last, the result."""
    for name, data in curves(result).items():
        folder.write(name, data)
    folder.write("genotype.json", genotype_file(result))
    folder.write("result.json", json_file(result))
    return result


def _refuse_other(folder: Folder, config: SearchConfig, networks: Sequence[Chosen]) -> None:
    """Refuse to go on with other settings or networks.

    Raises:
        RunDirError: They differ.
    """
    changed = [key for key in differing_keys(saved_config(folder), config) if not key.startswith(FREE)]
    if not changed and [n.genotype for n in read_networks(folder)] != [n.genotype for n in networks]:
        changed = ["the networks"]
    if changed:
        raise RunDirError(
            f"{folder.uri}: finals were started with other values of {', '.join(changed)}; repeat them as they were, "
            "or move that folder away"
        )


def _epochs_saved(finals: Finals, folder: Folder) -> int:
    from ddpnas_ray.retraining.files import restore_checkpoint

    found = [restore_checkpoint(folder / chosen.label, finals.seed) for chosen in finals.networks]
    return sum(checkpoint[0] for checkpoint in found if checkpoint is not None)


def _said(networks: Sequence[Chosen], lines: TextIO) -> OnRung:
    """Return what prints a line after each rung."""

    def say(epochs: int, scores: dict[int, float | None], left: Sequence[int]) -> None:
        best = max(scores, key=lambda i: -1.0 if scores[i] is None else scores[i])  # type: ignore[arg-type, return-value]
        goes_on = f"{len(left)} go on" if len(left) > 1 else f"{networks[left[0]].label} wins"
        print(
            f"after {epochs} epochs: {len(scores)} networks, best {networks[best].label} with val {scores[best]:.4f}; "
            f"{goes_on}",
            file=lines,
            flush=True,
        )

    return say


def winner_of(run: FinishedRun, budget: Budget) -> Chosen:
    """Return the winner of finished finals.

    Raises:
        RunDirError: They have not finished.
    """
    folder = folder_of(run, budget)
    label = read_finals(folder)["winner"]
    return next(chosen for chosen in read_networks(folder) if chosen.label == label)
