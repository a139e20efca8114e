"""Choose the architecture to retrain: of a finished search, of a file, or a known one; without torch and ray."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ddpnas_ray.core.errors import BudgetError, GenotypeError
from ddpnas_ray.core.generation.budgets import Budget, parse_budgets
from ddpnas_ray.core.generation.problem import evaluate
from ddpnas_ray.core.generation.solve import Solution, largest_costs, solve
from ddpnas_ray.experiment.finished import FinishedRun, infeasible_text
from ddpnas_ray.runs.directory import parsed, read_result
from ddpnas_ray.runs.files import SCHEMA_VERSION
from ddpnas_ray.spaces.base import SpaceSpec, find_space
from ddpnas_ray.spaces.known import KnownNetwork
from ddpnas_ray.spaces.target import Target
from ddpnas_ray.storage.folder import Folder

RESULT = "result"  # label of a search's own result


@dataclass(frozen=True)
class Chosen:
    """An architecture to retrain, and where it comes from.

    Args:
        label: Its name, and that of its folder.
        space: ``space.name`` and the options of the space, as in a configuration.
        genotype: The architecture, plain JSON.
        target: The deploy network.
        costs: Exact costs of the deploy network.
        search: Facts of the search that found it; empty if none did.
    """

    label: str
    space: Mapping[str, Any]
    genotype: Mapping[str, Any]
    target: Target
    costs: Mapping[str, int]
    search: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> SpaceSpec:
        """Its space."""
        options = {key: value for key, value in self.space.items() if key != "name"}
        return find_space(self.space["name"])(**options)

    def retargeted(self, target: Target) -> Chosen:
        """Return it as another deploy network, with that one's costs."""
        return choose(self.label, self.space, self.genotype, target, self.search)

    def json(self) -> dict[str, Any]:
        """Return the content of ``network.json``."""
        return {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def read(cls, folder: Folder) -> Chosen:
        """Read ``network.json``.

        Raises:
            RunDirError: It is missing or damaged.
        """

        return parsed(folder, "network.json", lambda data: cls.of_json(json.loads(data)))

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Chosen:
        """Return what ``json`` wrote.

        Raises:
            KeyError, TypeError: It did not.
        """
        values = {field.name: content[field.name] for field in dataclasses.fields(cls)}
        return cls(**{**values, "target": Target(**values["target"])})


def choose(
    label: str, space: Mapping[str, Any], genotype: Mapping[str, Any], target: Target, search: Mapping[str, Any]
) -> Chosen:
    """Check a genotype against its space and count its costs.

    Raises:
        GenotypeError: It does not fit.
    """
    chosen = Chosen(label, space, genotype, target, {}, search)
    spec = chosen.spec
    alpha_E = spec.encode(dict(genotype))
    costs = {name: int(cost(target)(alpha_E)) for name, cost in spec.costs.items()}
    return dataclasses.replace(chosen, genotype=spec.decode(alpha_E), costs=costs)


def of_search(run: FinishedRun, budget: str | None = None) -> Chosen:
    """Choose the result of a search, or its best network within a budget.

    Raises:
        BudgetError: The budget cannot be parsed, names several, or nothing meets it; or the search had other budgets.
        ConfigError: A budget of a search without theta and without budgets.
    """
    if budget is None:
        result = read_result(run.folder)
        search = {**_facts(run), "expectation": result["expectation"]}
        return choose(RESULT, _space(run), result["genotype"], run.target, search)
    if rows := read_result(run.folder).get("budgets"):
        return _of_budgets(run, budget, rows)
    run.refuse_without_theta()
    (_, unbounded), budgets = run.unbounded(), []
    budgets = parse_budgets(budget, unbounded)
    if len(budgets) != 1:
        raise BudgetError(f"--budget {budget}: one network is retrained at a time; give one budget, such as macs=400M")
    return of_solution(run, budgets[0], solve(run.problem, budgets[0])[:1])[0]


def _of_budgets(run: FinishedRun, budget: str, rows: Sequence[Mapping[str, Any]]) -> Chosen:
    """Choose the network that a search within budgets found for one of them."""
    texts = [run.text_of(asked) for asked in parse_budgets(budget, largest_costs(run.problem))]
    for row in rows:
        if [row["budget"]] == texts:
            search = {**_facts(run), "score": row["score"], "budget": row["budget"]}
            return choose(row["budget"], _space(run), row["genotype"], run.target, search)
    raise BudgetError(
        f"--budget {budget}: {run.folder.uri} was searched within other budgets: "
        f"{', '.join(row['budget'] for row in rows)}; give one of them"
    )


def of_solution(run: FinishedRun, budget: Budget, solutions: Sequence[Solution]) -> list[Chosen]:
    """Choose the solutions of a budget, best first; the label of the best is the budget, others end in their rank.

    Raises:
        BudgetError: There is none: nothing meets the budget.
    """
    if not solutions:
        raise BudgetError(infeasible_text(run, budget))
    facts, text, found = _facts(run), run.text_of(budget), []
    for rank, solution in enumerate(solutions, start=1):
        search = {**facts, "expectation": solution.expectation, "budget": text}
        genotype = run.spec.decode(np.array(solution.alpha_E))
        found.append(choose(text if rank == 1 else f"{text}-{rank}", _space(run), genotype, run.target, search))
    return found


def of_alphas(
    run: FinishedRun, budget: Budget, alphas: Sequence[Sequence[int]], scores: Sequence[float | None]
) -> list[Chosen]:
    """Choose architectures of a search as finalists, best first.

    Args:
        run: The search.
        budget: Bounds that they meet.
        alphas: The architectures.
        scores: Their scores in the search, if they were scored.
    """
    facts, found = _facts(run), []
    prefix = f"{run.text_of(budget)}-" if budget else ""
    for number, (alpha, score) in enumerate(zip(alphas, scores, strict=True), start=1):
        search: dict[str, Any] = {**facts}
        if run.has_theta:
            search["expectation"] = evaluate(run.problem, alpha)[0]
        if score is not None:
            search["score"] = {"split": "val", "value": score}
        genotype = run.spec.decode(np.array(alpha))
        found.append(choose(f"{prefix}final-{number}", _space(run), genotype, run.target, search))
    return found


def of_file(path: str, space: Mapping[str, Any], target: Target) -> Chosen:
    """Choose the architecture of a JSON file: a genotype, or the ``genotype.json`` that `generate` writes.

    Its label is the file's own, as that of the winner of finals, or the file's name.

    Raises:
        GenotypeError: The file cannot be read, or is not of the space.
    """
    try:
        content = json.loads(Path(path).expanduser().read_bytes())
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GenotypeError(f"{path}: {reason}; give a JSON file with the genotype of an architecture") from error
    if not isinstance(content, dict):
        raise GenotypeError(f"{path}: not a genotype: expected a JSON object")
    genotype, label = content.get("genotype", content), content.get("label")
    if not isinstance(label, str) or "/" in label or label in ("", ".", ".."):  # it names a folder
        label = _label(Path(path))
    try:
        return choose(label, space, genotype, target, {})
    except GenotypeError as error:
        raise GenotypeError(
            f"{path}: {error}; the space is {space['name']}, set another with --set space.name"
        ) from error


def of_known(known: KnownNetwork, target: Callable[[SpaceSpec], Target]) -> Chosen:
    """Choose a known network; ``target`` resolves its deploy network from its space."""
    space = {"name": known.space, **known.options}
    spec = find_space(known.space)(**known.options)
    return choose(known.name, space, known.genotype, target(spec), {})


def _facts(run: FinishedRun) -> dict[str, Any]:
    """Return what is recorded of the search that found a network."""
    result = read_result(run.folder)
    return {
        "run": run.name,
        "fingerprint": run.fingerprint,
        "strategy": result["strategy"],
        "seed": result["seed"],
        "architecture_epochs": result["architecture_epochs"],
        "seconds": result["seconds"],
        "data": run.config.searched_on,
    }


def _space(run: FinishedRun) -> dict[str, Any]:
    return {"name": run.config.space.name, **run.config.space.options}


def _label(path: Path) -> str:
    """Name a file's architecture: its stem, or its folder's name for a ``genotype.json``."""
    return path.absolute().parent.name if path.stem == "genotype" else path.stem
