"""Stages after a search (``search --then finals,retrain,export``), in order; each one goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from ddpnas_ray.console.progress import Display
from ddpnas_ray.core.errors import BudgetError, ConfigError, RunDirError, did_you_mean
from ddpnas_ray.core.generation.budgets import parse_budgets
from ddpnas_ray.experiment.config import SearchConfig, make_strategy
from ddpnas_ray.experiment.finished import FinishedRun
from ddpnas_ray.finals.table import columns
from ddpnas_ray.launch.exporting import check_deploys, export, is_exported, model_folder_of
from ddpnas_ray.launch.finals import budgets_of, finals, planned, winner_of
from ddpnas_ray.launch.retraining import retrain
from ddpnas_ray.reporting.exported import written_json, written_text
from ddpnas_ray.reporting.finals import finals_summary
from ddpnas_ray.reporting.retrained import retrained_summary
from ddpnas_ray.retraining.prepare import RETRAINED, Wish, label_of, retrained_folders
from ddpnas_ray.retraining.retraining import prepare_task
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tabular.benchmark import Benchmark
from ddpnas_ray.tasks.base import TASKS


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a stage starts from.

    Args:
        run: Run directory of a finished search.
        config: Its configuration; ``execution.*`` and ``retraining.*`` may differ from the saved one.
        lines: Stream of the plain lines of progress.
        address: Ray cluster.
        finals: Whether the winners of finals are retrained.
    """

    run: str
    config: SearchConfig
    lines: TextIO
    address: str | None = None
    finals: bool = False

    def trainings(self) -> Iterator[tuple[Wish, Folder]]:
        """List the networks to retrain, of ``retraining.budgets`` or else the result, each with its folder."""
        if self.finals:
            run = FinishedRun.load(self.run)
            chosen = [winner_of(run, budget) for budget in budgets_of(run, self.config.retraining.budgets)]
            wishes = [Wish(run=self.run, config=self.config, chosen=winner) for winner in chosen]
        else:
            budgets = self.config.retraining.budgets or (None,)
            wishes = [Wish(run=self.run, config=self.config, budget=budget) for budget in budgets]
        for wish in wishes:
            yield wish, Folder.open(self.run) / RETRAINED / label_of(wish)


@dataclass(frozen=True)
class Done:
    """What a stage has finished: its result as plain JSON, and as text."""

    result: dict[str, Any]
    text: str


def _finals(searched: Searched) -> Iterator[Done]:
    run = FinishedRun.load(searched.run)
    budgets = budgets_of(run, searched.config.retraining.budgets)
    for plan in planned(run, budgets, searched.config, searched.lines):
        result = finals(run, plan, searched.lines, address=searched.address)
        yield Done(result, finals_summary(result, plan.folder.uri))


def _retrain(searched: Searched) -> Iterator[Done]:
    for wish, folder in searched.trainings():
        display = Display(f"ddpnas retrain: {folder.uri}", searched.lines)
        resume = folder.has("config.yaml")
        result = retrain(wish, folder.uri, display, resume=resume, address=searched.address)
        yield Done(result, retrained_summary(result, folder.uri))


def _export(searched: Searched) -> Iterator[Done]:
    for _, folder in searched.trainings():
        out = model_folder_of(folder)
        if is_exported(folder, out):
            yield Done({"folder": out}, f"model {out} (written before)")
            continue
        print(f"{folder.uri}: writing {out}; a fresh process compares each form ...", file=searched.lines, flush=True)
        places = {key: getattr(searched.config.data, key) for key in ("path", "val_path", "test_path")}
        overrides = [f"data.{key}={json.dumps(place, ensure_ascii=False)}" for key, place in places.items()]
        written = export(folder, out, overrides=overrides)
        yield Done(written_json(written), written_text(written))


STAGES: dict[str, Callable[[Searched], Iterator[Done]]] = {  # in the order in which they run
    "finals": _finals,
    "retrain": _retrain,
    "export": _export,
}


def parse_stages(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of stages.

    Raises:
        ConfigError: A stage is unknown, or they are not in order.

    Example:
        >>> parse_stages("retrain,export")
        ('retrain', 'export')
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in STAGES:
            raise ConfigError(f"--then {text}: {name!r} is not a stage{did_you_mean(name, STAGES)}")
    in_order = tuple(name for name in STAGES if name in names)
    if names != in_order:
        raise ConfigError(f"--then {text}: stages run once each and in this order; give --then {','.join(in_order)}")
    return names


def check_stages(stages: Sequence[str], config: SearchConfig, out: str) -> None:
    """Refuse before a search what its stages could not use.

    Args:
        stages: Their names.
        config: Configuration of the search.
        out: Its run directory.

    Raises:
        RunDirError: There is nothing to export, or it is not on a local disk.
        ModelError: The model folder cannot be replaced.
        BudgetError: A budget of ``retraining.budgets`` cannot be parsed, or is several.
        ConfigError: The strategy has no theta to generate networks within budgets, or the task has no export, or finals
            have no candidates, or are exported without being retrained.
        DataError: The table has nothing for finals.
    """
    if "finals" in stages:
        _check_finals(stages, config)
    if "export" in stages:
        _check_export(stages, config, Folder.open(out))
    if not stages or not config.retraining.budgets:
        return
    spec = find_space(config.space.name)(**config.space.options)
    if config.target.budgets:
        if unknown := [text for text in config.retraining.budgets if text not in config.target.budgets]:
            raise BudgetError(
                f"retraining.budgets: {unknown[0]} is none of target.budgets, within which networks are searched; give "
                f"{', '.join(config.target.budgets)}"
            )
    elif "finals" not in stages and not make_strategy(config, spec.space).by_rounds:
        raise ConfigError(
            f"retraining.budgets: strategy {config.strategy} has no theta, so only its result can be retrained; set "
            "retraining.budgets to [], give --then finals,..., or search with strategy=pruning"
        )
    for text in config.retraining.budgets:
        if "%" in text:  # percentages need theta
            continue
        if len(parse_budgets(text, dict.fromkeys(spec.costs, 1))) > 1 and "finals" not in stages:
            raise BudgetError(f"retraining.budgets: {text} is a sweep; give each of its budgets")


def _check_finals(stages: Sequence[str], config: SearchConfig) -> None:
    if "export" in stages and "retrain" not in stages:
        raise ConfigError(
            f"--then {','.join(stages)}: a winner of finals is exported once it is retrained; give "
            "--then finals,retrain,export"
        )
    spec = find_space(config.space.name)(**config.space.options)
    if config.evaluation.table is not None and not config.trains:
        score, final = config.evaluation.score, config.evaluation.final
        columns(Benchmark.read(config.evaluation.table, spec.space, spec.encode, score, final))


def _check_export(stages: Sequence[str], config: SearchConfig, run: Folder) -> None:
    from ddpnas_ray.deploy.folder import check_replaceable

    if not run.is_local:
        raise RunDirError(f"{run.uri}: --then export writes to local disks; give a local --out, or leave out export")
    if config.task.name not in TASKS.names():  # the built-in ones can
        check_deploys(prepare_task(config)[0], f"--then export: task {config.task.name}", "leave out export")
    trained = retrained_folders(run)
    if "retrain" not in stages and not trained:
        raise RunDirError("--then export: no network was retrained yet; give --then retrain,export")
    if not trained and len(config.retraining.budgets) < 2:
        check_replaceable(Path(run.path) / "model")


def run_stages(stages: Sequence[str], searched: Searched) -> Iterator[Done]:
    """Run stages one after the other; what has finished before is not repeated.

    Raises:
        DdpnasError: Bad input, or what ended a stage; what is saved is resumed by the next call.
    """
    for stage in stages:
        yield from STAGES[stage](replace(searched, finals="finals" in stages))
