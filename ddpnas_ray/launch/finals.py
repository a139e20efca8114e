"""Start or continue the finals of a search, in this process or on Ray, and show their progress."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from ddpnas_ray.console.cluster import checked_address, cluster
from ddpnas_ray.console.command import redirected
from ddpnas_ray.console.progress import counting
from ddpnas_ray.core.errors import ConfigError, RunDirError
from ddpnas_ray.core.generation.budgets import Budget, parse_budgets
from ddpnas_ray.core.generation.solve import largest_costs
from ddpnas_ray.core.halving import planned_epochs
from ddpnas_ray.experiment.changes import changed_keys, fixed_keys, places
from ddpnas_ray.experiment.config import SearchConfig, check, dump, set_key, to_dict
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.finals.candidates import candidates, search_scores
from ddpnas_ray.finals.files import FINALS, genotype_file, read_finals, read_networks, read_teacher
from ddpnas_ray.finals.finals import Advance, Finals, OnRung, advance_here, first_files, run_finals
from ddpnas_ray.reporting.finals import curves
from ddpnas_ray.retraining.choice import Chosen, of_alphas
from ddpnas_ray.retraining.files import checkpoints, origin, saved_config
from ddpnas_ray.retraining.prepare import make_all
from ddpnas_ray.retraining.run import check_here
from ddpnas_ray.runs.directory import refuse_other_data
from ddpnas_ray.runs.files import json_file
from ddpnas_ray.runs.lock import locked
from ddpnas_ray.runs.log import failure_logged
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.training.cpu_isa import use_level

# may change when finals go on: where networks are trained, not how; and what follows from finals.epochs, or is not read
FREE = ("execution.", *(f"retraining.{key}" for key in ("epochs", "max_failures", "budgets")))
FIXED = {"epochs", "train_on", "seeds", "workers", "min_workers"}  # of section retraining, see `_of_training`


def finals_config(run: FinishedRun, overrides: Sequence[str] = ()) -> SearchConfig:
    """Return the configuration of a run's finals.

    Args:
        run: The search.
        overrides: Of ``finals.*``, ``retraining.*``, ``execution.*`` and where data are.

    Raises:
        ConfigError: A key or value is not allowed, or has no effect on finals.
        RunDirError: Another key is overridden.
    """
    values, given = to_dict(run.config), dict[str, Any]()
    for override in overrides:
        set_key(values, override)
        set_key(given, override)
    config = check(values, run.folder.uri, overrides)
    if ignored := sorted(FIXED & (given.get("retraining") or {}).keys()):
        raise ConfigError(
            f"--set: {', '.join(f'retraining.{key}' for key in ignored)}: finals train each network once, in one "
            "process, on the search's training images, for finals.epochs: set that, and omit these"
        )
    if changed := fixed_keys(run.config, config):
        raise RunDirError(
            f"--set: {', '.join(changed)}: the run has finished; only finals.*, retraining.*, execution.* and "
            f"{', '.join(places(config))} may change"
        )
    return config


def _of_training(config: SearchConfig) -> SearchConfig:
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


@dataclass(frozen=True)
class Planned:
    """The finals within one budget, before data are read.

    Args:
        folder: Their folder.
        config: Their configuration; section ``retraining`` is the training of each network.
        networks: The networks, best first.
    """

    folder: Folder
    config: SearchConfig
    networks: tuple[Chosen, ...]

    @property
    def started(self) -> bool:
        """Whether their folder has anything that would be lost: a finished epoch, or the result."""
        folder = self.folder
        return folder.has("result.json") or (folder.has("networks.json") and _epochs_saved(self.config, folder) > 0)


def planned(run: FinishedRun, budgets: Sequence[Budget], config: SearchConfig, lines: TextIO) -> list[Planned]:
    """Choose the networks of all budgets, and refuse what cannot be trained, or not go on, before any is.

    Args:
        run: A finished search.
        budgets: For each, bounds that all networks meet.
        config: From ``finals_config``.
        lines: Stream of the plain lines of progress.

    Raises:
        BudgetError: Nothing meets a budget.
        ConfigError: There are fewer than two networks.
        RunDirError: Finals were started with other settings.
    """
    found = []
    for budget in budgets:
        with redirected(1, to=2):  # HiGHS may print
            alphas = candidates(run, budget, config.finals)
        networks = of_alphas(run, budget, alphas, search_scores(run, alphas))
        plan = Planned(folder_of(run, budget), _of_training(config), tuple(networks))
        _refuse_other(plan)
        found.append(plan)
    for plan in found:
        if (count := len(plan.networks)) < config.finals.networks:
            print(
                f"{plan.folder.uri}: only {count} of {config.finals.networks} networks were found with "
                f"finals.distance={config.finals.distance}",
                file=lines,
                flush=True,
            )
    return found


def finals(
    run: FinishedRun, plan: Planned, lines: TextIO, *, address: str | None = None, live: bool | None = None
) -> dict[str, Any]:
    """Run finals to their result, or go on where they stopped, or read the result of finished ones.

    Args:
        run: The search.
        plan: From ``planned``.
        lines: Stream of the plain lines of progress.
        address: Ray cluster.
        live: See ``counting``.

    Returns:
        The content of ``result.json``.

    Raises:
        DdpnasError: Bad input, or what ended them; finished epochs are saved.
    """
    config = plan.config
    if plan.folder.has("result.json"):
        return read_finals(plan.folder)
    if not config.trains:
        return _by_table(run, plan, lines)
    use_level(config.training.cpu_isa)
    finals = _prepared(run, plan)
    if config.execution.backend == "local":
        from ddpnas_ray.execution.local import local_device

        device = local_device(config.execution)
        check_here(finals.trainings[0], device)
        return _train(finals, plan, lines, live, lambda: advance_here(finals, device))
    with cluster(
        checked_address(address, client=False), "train the finals", lines, workers=config.execution.workers
    ) as dashboard:
        from ddpnas_ray.distributed.ray_finals import advance_on_ray, task_size

        size = task_size(finals)
        print(f"{plan.folder.uri}: {size}, {dashboard}", file=lines, flush=True)
        return _train(finals, plan, lines, live, lambda: advance_on_ray(finals, size))


def _prepared(run: FinishedRun, plan: Planned) -> Finals:
    """Load the data, and check that every network can be trained, and by the same teacher as before."""
    from ddpnas_ray.training.fit import refuse_small_shares

    config = plan.config
    trainings = make_all(run, config, plan.networks)
    refuse_small_shares(trainings[0].task, config.retraining, 1)
    trainings[0].network(config.seed)  # so that a recipe that does not fit fails before anything is written
    if plan.started:
        before, now = read_teacher(plan.folder), origin(trainings[0])["teacher"]
        if now is not None and now["fingerprint"] != (before or {}).get("fingerprint"):
            raise RunDirError(
                f"{plan.folder.uri}: its teacher {now['name']} has other weights than when the finals were started; "
                "restore them, or move that folder away"
            )
    return Finals(config.finals, plan.networks, tuple(trainings))


def _train(
    finals: Finals, plan: Planned, lines: TextIO, live: bool | None, start: Callable[[], Advance]
) -> dict[str, Any]:
    folder, total = plan.folder, planned_epochs(finals.steps)
    teacher, say = origin(finals.trainings[0])["teacher"], _said(finals.networks, lines)
    with _begun(plan, teacher), failure_logged(folder):
        done = _epochs_saved(plan.config, folder)
        with counting("epochs", total, lines, done=done, live=live) as advance:
            result = run_finals(finals, folder, start(), on_epoch=lambda: advance(1), on_rung=say)
        return _written(folder, result)


def _by_table(run: FinishedRun, plan: Planned, lines: TextIO) -> dict[str, Any]:
    from ddpnas_ray.experiment.experiment import Experiment
    from ddpnas_ray.finals.table import table_finals

    experiment = Experiment.prepare(plan.config)
    assert experiment.benchmark is not None  # a tabular search has one
    refuse_other_data(run.folder, experiment.digest)
    networks = plan.networks
    result = table_finals(experiment.benchmark, plan.config.finals, networks, _said(networks, lines))
    with _begun(plan, None):
        return _written(plan.folder, result)


@contextmanager
def _begun(plan: Planned, teacher: Mapping[str, str | None] | None) -> Iterator[None]:
    """Lock the folder, with the first files in it; those of finals that have not finished an epoch are replaced."""
    plan.folder.make()
    with locked(plan.folder):
        _refuse_other(plan)  # what another process has started since
        if not plan.started:
            for name, data in first_files(plan.networks, dump(plan.config), teacher).items():
                plan.folder.write(name, data)
        yield


def _written(folder: Folder, result: dict[str, Any]) -> dict[str, Any]:
    """Write the figure, the winner and, last, the result."""
    for name, data in curves(result).items():
        folder.write(name, data)
    folder.write("genotype.json", genotype_file(result))
    folder.write("result.json", json_file(result))
    return result


def _refuse_other(plan: Planned) -> None:
    """Refuse to go on with other settings or networks.

    Raises:
        RunDirError: They differ.
    """
    if not plan.started:
        return
    folder = plan.folder
    changed = changed_keys(saved_config(folder), plan.config, FREE)
    if not changed and [n.genotype for n in read_networks(folder)] != [n.genotype for n in plan.networks]:
        changed = ["the networks"]
    if changed:
        raise RunDirError(
            f"{folder.uri}: finals were started with other values of {', '.join(changed)}; repeat them as they were, "
            "or move that folder away"
        )


def _epochs_saved(config: SearchConfig, folder: Folder) -> int:
    """Count the epochs of the networks with which finals were started."""
    labels = [chosen.label for chosen in read_networks(folder)]
    return sum(newest_epoch(checkpoints(folder / label, config.seed)) for label in labels)


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
