"""Read the files of a finished run for reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.core.ledger import LedgerRow, ledger
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import Evaluation, RoundRecord
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.reporting.retrained_files import RetrainedFiles, read_retrainings
from ddpnas_ray.runs.directory import existing_run, parsed, read_result
from ddpnas_ray.runs.files import read_evaluations, read_history, read_space
from ddpnas_ray.runs.log import read_log
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tabular.probe import Rows, read_probe

RESULT_KEYS = ("space", "seed", "strategy", "genotype", "alpha", "expectation", "target", "costs", "scores", "seconds")


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Content of a finished run.

    Args:
        uri: Run directory, as the user typed it.
        config_uri: Path or URI of ``config.yaml``.
        config_text: Its text.
        config: Its content as dictionaries, with keys unchecked.
        result: ``result.json``.
        space: The search space.
        history: Its rounds.
        evaluations: Its evaluations.
        ledger: One row per round and edge.
        environment: ``environment.json``; empty if missing.
        log: The events of ``log.jsonl``.
        probe: Rows of ``probe.parquet``.
        generated: The ``genotype.json`` of every budget.
        retrained: Its retrainings, finished or not.
        notes: Warnings of the search, and files that cannot be read.
    """

    uri: str
    config_uri: str
    config_text: str
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    space: SearchSpace
    history: tuple[RoundRecord, ...]
    evaluations: tuple[Evaluation, ...]
    ledger: Sequence[LedgerRow]
    environment: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    probe: Rows
    generated: Sequence[Mapping[str, Any]]
    retrained: Sequence[RetrainedFiles]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Space, data, strategy and seed."""
        table = setting(self.config, "evaluation.kind") == "table"
        data = "a table" if table else setting(self.config, "data.name") or "its data"
        return f"{self.result['space']} on {data}: {self.result['strategy']}, seed {self.result['seed']}"


def setting(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key of a configuration; None if absent."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def keep_per_group(config: Mapping[str, Any]) -> int:
    """Return ``pruning.keep_per_group`` of a configuration, 1 if absent."""
    value = setting(config, "pruning.keep_per_group")
    return value if isinstance(value, int) else 1


def searched(run: str) -> tuple[Folder, dict[str, Any], SearchSpace]:
    """Read folder, configuration and space of a run; needs neither the space's code nor known keys."""
    folder = existing_run(run)
    config = parsed(folder, "config.yaml", lambda data: parse(data.decode(), f"{run}/config.yaml"))
    return folder, config, parsed(folder, "space.json", read_space)


def read_run(folder: Folder, config: Mapping[str, Any], space: SearchSpace) -> RunFiles:
    """Read everything the page shows. Optional files may be missing; those that cannot be read are noted.

    Args:
        folder: The run directory.
        config: Its configuration as dictionaries.
        space: Its space.

    Raises:
        RunDirError: It has not finished, or a required file is missing or damaged.
    """
    result = read_result(folder)
    if missing := [key for key in RESULT_KEYS if key not in result]:
        raise RunDirError(f"{folder.uri}: result.json has no {missing[0]!r}; run the search again with this version")
    retrained, errors = read_retrainings(folder)
    found = [*result.get("warnings", ()), *errors]

    def optional(name: str, parse: Any, otherwise: Any) -> Any:
        try:
            return parsed(folder, name, parse) if folder.has(name) else otherwise
        except RunDirError as error:
            found.append(str(error).partition(f"{folder.uri}: ")[2])
            return otherwise

    history, evaluations = read_records(folder, space)
    generated = [name for name in (folder / "generated").names() if (folder / "generated" / name).has("genotype.json")]
    return RunFiles(
        uri=folder.uri,
        config_uri=(folder / "config.yaml").uri,
        config_text=parsed(folder, "config.yaml", bytes.decode),
        config=config,
        result=result,
        space=space,
        history=history,
        evaluations=evaluations,
        ledger=ledger(history, evaluations, space, keep_per_group(config)),
        environment=optional("environment.json", json.loads, {}),
        log=optional("log.jsonl", read_log, []),
        probe=optional("probe.parquet", read_probe, []),
        generated=[
            network
            for name in generated
            if (network := optional(f"generated/{name}/genotype.json", _genotype, None)) is not None
        ],
        retrained=retrained,
        notes=tuple(found),
    )


def read_records(folder: Folder, space: SearchSpace) -> tuple[tuple[RoundRecord, ...], tuple[Evaluation, ...]]:
    """Read the rounds and the evaluations of a run.

    Raises:
        RunDirError: One of the two files is missing or damaged.
    """
    history = parsed(folder, "theta.parquet", lambda data: read_history(data, space))
    return history, parsed(folder, "evaluations.parquet", lambda data: _evaluations(data, space))


def _evaluations(data: bytes, space: SearchSpace) -> tuple[Evaluation, ...]:
    rows = read_evaluations(data)
    if not rows or any(len(row.alpha_E) != len(space.edges) for row in rows):
        raise ValueError("it has no rows, or rows of another space than space.json")
    return rows


def _genotype(data: bytes) -> dict[str, Any]:
    content = json.loads(data)
    keys = ("budget", "target", "genotype", "expectation", "costs", "certificate")
    return content | {key: content[key] for key in keys}
