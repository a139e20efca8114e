"""Stages after a search (``search --then retrain,export``), in order; each one goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from ddpnas_ray.console.progress import Display
from ddpnas_ray.core.errors import BudgetError, ConfigError, did_you_mean
from ddpnas_ray.core.generation.budgets import parse_budgets
from ddpnas_ray.experiment.config import SearchConfig, make_strategy
from ddpnas_ray.launch.exporting import export, is_exported, model_folder_of
from ddpnas_ray.launch.retraining import retrain
from ddpnas_ray.reporting.exported import written_json, written_text
from ddpnas_ray.reporting.retrained import retrained_summary
from ddpnas_ray.retraining.prepare import RETRAINED, Wish, label_of
from ddpnas_ray.spaces.base import find_space
from ddpnas_ray.storage.folder import Folder


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a stage starts from.

    Args:
        run: Run directory of a finished search.
        config: Its configuration; ``execution.*`` and ``retraining.*`` may differ from the saved one.
        lines: Stream of the plain lines of progress.
        address: Ray cluster.
    """

    run: str
    config: SearchConfig
    lines: TextIO
    address: str | None = None

    def trainings(self) -> Iterator[tuple[Wish, Folder]]:
        """List the networks to retrain, of ``retraining.budgets`` or else the result, each with its folder."""
        for budget in self.config.retraining.budgets or (None,):
            wish = Wish(run=self.run, config=self.config, budget=budget)
            yield wish, Folder.open(self.run) / RETRAINED / label_of(wish)


@dataclass(frozen=True)
class Done:
    """What a stage has finished: its result as plain JSON, and as text."""

    result: dict[str, Any]
    text: str


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
        written = export(folder, out)
        yield Done(written_json(written), written_text(written))


STAGES: dict[str, Callable[[Searched], Iterator[Done]]] = {  # in the order in which they run
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


def check_stages(stages: Sequence[str], config: SearchConfig) -> None:
    """Refuse before a search what its stages could not use.

    Raises:
        BudgetError: A budget of ``retraining.budgets`` cannot be parsed, or is several.
        ConfigError: The strategy has no theta to generate networks within budgets.
    """
    if not stages or not config.retraining.budgets:
        return
    spec = find_space(config.space.name)(**config.space.options)
    if not make_strategy(config, spec.space).by_rounds:
        raise ConfigError(
            f"retraining.budgets: strategy {config.strategy} has no theta, so only its result can be retrained; set "
            "retraining.budgets to [], or search with strategy=pruning"
        )
    for text in config.retraining.budgets:
        if "%" not in text and len(parse_budgets(text, dict.fromkeys(spec.costs, 1))) > 1:  # percentages need theta
            raise BudgetError(f"retraining.budgets: {text} is a sweep; give each of its budgets")


def run_stages(stages: Sequence[str], searched: Searched) -> Iterator[Done]:
    """Run stages one after the other; what has finished before is not repeated.

    Raises:
        DdpnasError: Bad input, or what ended a stage; what is saved is resumed by the next call.
    """
    for stage in stages:
        yield from STAGES[stage](searched)
