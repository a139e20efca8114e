"""Read a finished search for generation, and write the generated networks. Axes: E edges, K candidates."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpnas_ray.core.errors import ConfigError, TooLargeError, did_you_mean
from ddpnas_ray.core.generation.budgets import Budget, budget_text, is_time, quantity
from ddpnas_ray.core.generation.problem import Problem, evaluate
from ddpnas_ray.core.generation.solve import Solution, most_likely, nearest, solve
from ddpnas_ray.core.space import CostFunction, IntArray
from ddpnas_ray.experiment.changes import fixed_keys, places
from ddpnas_ray.experiment.config import SearchConfig, check, make_strategy, set_key, to_dict
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.runs.directory import existing_run, parsed, read_config, read_result, refuse_other_data
from ddpnas_ray.runs.files import SCHEMA_VERSION, json_file, read_costs, read_space
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.target import Head, Target, size_of
from ddpnas_ray.storage.folder import Folder

if TYPE_CHECKING:
    from ddpnas_ray.experiment.experiment import Experiment

HEAD_KEYS = {"head": "name", "head_width": "width", "output_stride": "output_stride"}  # of --target, and of ``Head``
WORDS = {
    "stem": ("cifar", "imagenet"),
    "head": ("aspp", "decoder", "lraspp"),
    "output_stride": ("8", "16", "32"),
}  # values that --target takes


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, as needed by generation.

    Args:
        folder: The run directory.
        config: Its configuration.
        spec: Its space.
        target: The deploy network whose costs are counted.
        problem: theta, the choosable operations and the costs.
        fingerprint: Fingerprint of the search.
    """

    folder: Folder
    config: SearchConfig
    spec: SpaceSpec
    target: Target
    problem: Problem
    fingerprint: str

    @classmethod
    def load(cls, out: str, *, target: str | Target | None = None, include_pruned: bool = False) -> FinishedRun:
        """Read a run directory without importing torch or ray.

        Args:
            out: The run directory.
            target: Another deploy network, or changes to the run's, ``key=value,...``.
            include_pruned: Whether pruned operations may be chosen.

        Raises:
            RunDirError: The run has not finished, or a file is damaged.
            ConfigError: A key or value of ``target`` is wrong.
        """
        folder = existing_run(out)
        result = read_result(folder)
        text = read_config(folder)
        config = check(parse(text, f"{out}/config.yaml"), f"{out}/config.yaml")
        spec = find_space(config.space.name)(**config.space.options)
        space = parsed(folder, "space.json", read_space)
        theta_EK, live_EK, own_target = parsed(folder, "result.json", _decision)
        if isinstance(target, str):
            target = _other_target(own_target, target, head=spec.target.head)
        network = own_target if target is None else target
        counted = parsed(folder, "space.json", read_costs)
        known = {} if target else counted
        costs = {name: cost(network) for name, cost in spec.costs.items() if name not in known}
        choosable_EK = space.generable_EK & (space.exists_EK if include_pruned else live_EK)
        problem = Problem(space, theta_EK, choosable_EK, {**known, **costs})
        return cls(folder, config, spec, network, problem, str(result["fingerprint"]))

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.folder.uri.rstrip("/").rpartition("/")[2]

    @property
    def data_digest(self) -> str:
        """SHA-256 of the run's data."""
        return parsed(self.folder, "environment.json", lambda data: str(json.loads(data)["data_digest"]))

    def experiment(self, overrides: Sequence[str] = ()) -> Experiment:
        """Prepare the run's experiment with its data, for scoring with inherited weights.

        Args:
            overrides: ``data.path=...``, other ``places`` and ``execution.*``, for a run from another machine.

        Raises:
            ConfigError: Another key is overridden, or the search shared no weights.
            RunDirError: The data differ from those of the run.
            DataError: The data cannot be found.
        """
        from ddpnas_ray.experiment.experiment import Experiment

        if self.config.shares_nothing:
            raise ConfigError(
                f"{self.folder.uri}: the search shared no weights (training.merge=none), so there are none to inherit; "
                "train its candidates with generate --finals"
            )
        values = to_dict(self.config)
        for override in overrides:
            set_key(values, override)
        config = check(values, self.folder.uri, overrides)
        if changed := fixed_keys(self.config, config):
            raise ConfigError(
                f"--set: {', '.join(changed)}: the run has finished; only {', '.join(places(config))} and execution.* "
                "may change"
            )
        experiment = Experiment.prepare(config)
        refuse_other_data(self.folder, experiment.digest)
        return experiment

    @property
    def has_theta(self) -> bool:
        """Whether its strategy learns a distribution over operations."""
        return make_strategy(self.config, self.problem.space).by_rounds

    def refuse_without_theta(self) -> None:
        """Refuse runs without an E[alpha] to maximise.

        Raises:
            ConfigError: The strategy has no distribution over operations.
        """
        if not self.has_theta:
            raise ConfigError(
                f"{self.folder.uri}: strategy {self.config.strategy} has no theta, so there is no E[alpha] to "
                "maximise; its result is in result.json. Search with strategy=pruning to generate"
            )

    def with_cost(self, name: str, cost: CostFunction) -> FinishedRun:
        """Return a copy with one more cost."""
        costs = {**self.problem.costs, name: cost}
        return dataclasses.replace(self, problem=dataclasses.replace(self.problem, costs=costs))

    def text_of(self, budget: Budget) -> str:
        """Format a budget, as in the name of its folder."""
        return budget_text(budget, self.problem.costs)

    def unbounded(self) -> tuple[IntArray, dict[str, int]]:
        """Return the best architecture without a budget, and its costs."""
        alpha_E = most_likely(self.problem.space, self.problem.theta_EK, self.problem.choosable_EK)
        return alpha_E, evaluate(self.problem, [int(k) for k in alpha_E])[1]


@dataclass(frozen=True)
class Generated:
    """The networks of one budget.

    Args:
        budget: The budget.
        solutions: The k best, best first; empty if the budget is infeasible.
        scores: Validation scores with inherited weights, if verified.
        measured_ns: Median end-to-end latencies, if measured.
        chosen: Index of the chosen solution.
        flags: Notes about it.
    """

    budget: Budget
    solutions: tuple[Solution, ...]
    scores: tuple[float, ...] = ()
    measured_ns: tuple[int, ...] = ()
    chosen: int = 0
    flags: tuple[str, ...] = field(default=())

    @property
    def best(self) -> Solution:
        """The chosen solution."""
        return self.solutions[self.chosen]

    def choose(self, scores: Sequence[float], measured_ns: Sequence[int]) -> Generated:
        """Choose the best-scoring solution whose measured latency is within budget, and flag those above it.

        Args:
            scores: One per solution, or none.
            measured_ns: One per solution, or none.
        """
        limit = next((b.upper for name, b in self.budget.items() if is_time(name)), None)
        order = sorted(range(len(self.solutions)), key=lambda i: -scores[i] if scores else 0.0)  # ties by E[alpha]
        flags: list[str] = []
        if measured_ns and limit is not None:
            within = [i for i in order if measured_ns[i] <= limit]
            if len(within) < len(order):
                flags.append(f"{len(order) - len(within)} of {len(order)} networks measured above the latency budget")
            if not within:
                flags.append("including this one: it is within its budget by the table only")
            order = within or order
        return dataclasses.replace(
            self, scores=tuple(scores), measured_ns=tuple(measured_ns), chosen=order[0], flags=tuple(flags)
        )


def _other_target(target: Target, text: str, *, head: bool) -> Target:
    """Apply changes such as ``image_size=1024x2048,classes=19,head=aspp`` to a target.

    Args:
        target: The target.
        text: The changes.
        head: Whether its space has networks with a head.

    Raises:
        ConfigError: The target has no such key, or the value is invalid.
    """
    known = {key: value for key, value in dataclasses.asdict(target).items() if value is not None and key != "head"}
    of_head = HEAD_KEYS if head else {}
    changes: dict[str, Any] = {}
    for item in text.split(","):
        key, _, value = item.strip().partition("=")
        if key not in known and key not in of_head:
            hint = did_you_mean(key, [*known, *of_head])
            raise ConfigError(f"--target {text}: {key!r} is not a key of this target{hint}")
        if (allowed := WORDS.get(key)) is not None:
            if value not in allowed:
                raise ConfigError(f"--target {text}: {key} is {value!r}; use {' or '.join(allowed)}")
            changes[key] = int(value) if value.isdecimal() else value
        elif key == "image_size":
            try:
                changes[key] = size_of(value)
            except ValueError as error:
                raise ConfigError(f"--target {text}: image_size: {error}") from None
        elif not value.isdecimal() or not 1 <= int(value) <= 10**6:
            raise ConfigError(f"--target {text}: {key} is {value!r}; it must be an integer of at least 1")
        else:
            changes[key] = int(value)
    heads = {HEAD_KEYS[key]: changes.pop(key) for key in HEAD_KEYS if key in changes}
    if heads:
        changes["head"] = dataclasses.replace(target.head or Head(name="aspp", width=64, output_stride=16), **heads)
    return dataclasses.replace(target, **changes)


def infeasible_text(run: FinishedRun, budget: Budget) -> str:
    """Explain why no network meets a budget, and what would, with pruned operations too: one line."""
    problem, space = run.problem, run.problem.space
    everything = dataclasses.replace(problem, choosable_EK=space.generable_EK & space.exists_EK)
    pruned_help = not np.array_equal(everything.choosable_EK, problem.choosable_EK)
    try:
        why = _why(run, problem, budget)
        if pruned_help and (best := solve(everything, budget)):
            costs = ", ".join(f"{name} {quantity(name, best[0].costs[name])}" for name in budget)
            why += f"; with --include-pruned it is feasible: {costs}, E[alpha] {best[0].expectation:.4f}"
        elif pruned_help:
            pruned_help, then = False, _why(run, everything, budget)
            why += "; --include-pruned does not help" + (f": {then}" if then != why else "")
    except TooLargeError:
        why = "the nearest feasible values take too long to find"
    more = ", add --include-pruned, or search again with a larger pruning.keep_per_group" if pruned_help else ""
    return (
        f"no architecture of space {space.name!r} meets {run.text_of(budget)} (target {run.target}); {why}; "
        f"change --budget{more}"
    )


def _why(run: FinishedRun, problem: Problem, budget: Budget) -> str:
    """Name the bounds that are infeasible alone, and the nearest feasible values."""
    together = nearest(problem, budget)
    if len(budget) == 1:
        return f"nearest feasible: {_nearest_text(together)}"
    alone = {name: bound for name, bound in budget.items() if not solve(problem, {name: bound})}
    blame = "each bound is feasible alone, but not together"
    if alone:
        text = run.text_of(alone)
        blame = f"{'each of ' if ',' in text else ''}{text} is infeasible even alone"
    if any(value is not None for values in together.values() for value in values):
        return f"{blame}; nearest feasible with the other bounds held: {_nearest_text(together)}"
    if not alone:
        return f"{blame}, and changing one bound is not enough"
    own = {name: nearest(problem, {name: bound})[name] for name, bound in alone.items()}
    return f"{blame}; nearest feasible, each on its own: {_nearest_text(own)}"


def _nearest_text(values: Mapping[str, tuple[int | None, int | None]]) -> str:
    texts = {name: [quantity(name, value) for value in pair if value is not None] for name, pair in values.items()}
    return ", ".join(f"{name} {' or '.join(feasible) or 'none'}" for name, feasible in texts.items())


def write(run: FinishedRun, networks: Sequence[Generated], figures: Mapping[str, bytes]) -> None:
    """Write ``generated/<budget>/genotype.json`` for each network, ``generated/table.csv``, and figures."""
    folder = run.folder / "generated"
    for network in networks:
        if network.solutions:
            own = folder / run.text_of(network.budget)
            own.make()
            own.write("genotype.json", json_file(genotype_json(run, network)))
    folder.make()
    folder.write("table.csv", _csv(run, networks))
    for name, data in figures.items():
        folder.write(name, data)


def genotype_json(run: FinishedRun, network: Generated) -> dict[str, Any]:
    """Return the content of ``genotype.json``: the networks of one budget."""
    return {
        "schema_version": SCHEMA_VERSION,
        "budget": run.text_of(network.budget),
        "space": run.problem.space.name,
        "target": dataclasses.asdict(run.target),
        **_candidate(run, network, network.chosen),
        "flags": list(network.flags),
        "candidates": [_candidate(run, network, i) for i in range(len(network.solutions))],
        "search_fingerprint": run.fingerprint,
    }


def _candidate(run: FinishedRun, network: Generated, i: int) -> dict[str, Any]:
    solution = network.solutions[i]
    candidate: dict[str, Any] = {
        "genotype": run.spec.decode(np.array(solution.alpha_E)),
        "alpha": list(solution.alpha_E),
        "expectation": solution.expectation,
        "costs": solution.costs,
        "certificate": dataclasses.asdict(solution.certificate),
        "rank": i + 1,
    }
    if network.scores:
        trained = run.config.trains
        weights = "inherited from the supernet" if trained else "none: read from the table"
        candidate["score"] = {"value": network.scores[i], "split": "val", "weights": weights}
    if network.measured_ns:
        candidate["measured_latency_ns"] = network.measured_ns[i]
    return candidate


def _rows(run: FinishedRun, networks: Sequence[Generated]) -> list[dict[str, str | int | float]]:
    """Return one row per budget, for ``table.csv``."""
    table = []
    for network in networks:
        row: dict[str, str | int | float] = {"budget": run.text_of(network.budget)}
        if not network.solutions:
            table.append(row | {"note": "infeasible"})
            continue
        best = network.best
        row |= {"E[alpha]": best.expectation, **best.costs, "method": best.certificate.method}
        if network.scores:
            row["val score"] = network.scores[network.chosen]
        if network.measured_ns:
            row["measured ns"] = network.measured_ns[network.chosen]
        table.append(row | {"note": "; ".join(network.flags)})
    return table


def _csv(run: FinishedRun, networks: Sequence[Generated]) -> bytes:
    table = _rows(run, networks)
    names = list(dict.fromkeys(name for row in table for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().encode()


def _decision(result_json: bytes) -> tuple[Any, Any, Target]:
    """Read theta, live and the target of ``result.json``."""
    result = json.loads(result_json)
    theta_EK, live_EK = np.array(result["theta"], dtype=np.float64), np.array(result["live"], dtype=bool)
    if theta_EK.ndim != 2 or theta_EK.shape != live_EK.shape:
        raise ValueError("theta and live have different shapes")
    return theta_EK, live_EK, Target(**result["target"])
