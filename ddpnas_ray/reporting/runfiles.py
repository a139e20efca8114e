"""The files of a finished run, read for reports, whichever version of this package wrote them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.core.ledger import LedgerRow, ledger
from ddpnas_ray.core.space import SearchSpace
from ddpnas_ray.core.state import Evaluation, RoundRecord
from ddpnas_ray.runs.directory import parsed, read_result
from ddpnas_ray.runs.files import read_evaluations, read_history, read_ledger
from ddpnas_ray.runs.log import read_log
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.storage.parquet import read_parquet

RESULT_KEYS = ("space", "seed", "genotype", "alpha", "expectation", "target", "costs", "scores", "seconds")


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """A finished run, read.

    Args:
        uri: Where it lies, as the user typed it.
        config_uri: Where ``config.yaml`` lies.
        config_text: What it says.
        config: The same as dictionaries; of whatever version of this package.
        result: ``result.json``.
        space: What was searched.
        history: Its rounds.
        evaluations: Its records.
        ledger: A row a round and edge.
        ledger_of: Where that is from.
        environment: ``environment.json``; empty where there is none.
        log: The events of ``log.jsonl``.
        tau_by_epoch: Kendall's tau of the probe.
        probe: Rows of ``probe.parquet``.
        generated: The ``genotype.json`` of every budget.
        notes: Warnings of the search, and what could not be read.
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
    ledger_of: str
    environment: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    tau_by_epoch: Mapping[int, float]
    probe: Sequence[Mapping[str, Any]]
    generated: Sequence[Mapping[str, Any]]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Space, data, strategy and seed."""
        strategy = self.result.get("strategy") or "pruning"
        return f"{self.result['space']} on {self.data}: {strategy}, seed {self.result['seed']}"

    @property
    def data(self) -> str:
        """What was searched on, in a word."""
        kind = self.setting("evaluation.kind")
        return "a table" if kind == "table" else str(self.setting("data.name") or "its data")

    def setting(self, key: str) -> Any:
        """A dotted key of the configuration; None where it is absent."""
        return _setting(self.config, key)


def keep_per_group(config: Mapping[str, Any]) -> int:
    """Operations of each group that stay."""
    value = _setting(config, "pruning.keep_per_group")
    return value if isinstance(value, int) else 1


def read_run(
    folder: Folder,
    config: Mapping[str, Any],
    space: SearchSpace,
    tau_by_epoch: Mapping[int, float],
    notes: Sequence[str],
) -> RunFiles:
    """Read everything the page shows. Files that older versions did not write may be missing.

    Args:
        folder: The run directory.
        config: Its configuration as dictionaries.
        space: Its space, with a gate that works.
        tau_by_epoch: Kendall's tau of its probe.
        notes: What is known not to be right already.

    Raises:
        RunDirError: It has not finished, or a file that a page needs is missing or damaged.
    """
    result = read_result(folder)
    if missing := [key for key in RESULT_KEYS if key not in result]:
        raise RunDirError(f"{folder.uri}: result.json has no {missing[0]!r}; run the search again with this version")
    found = [*result.get("warnings", ()), *notes]

    def optional(name: str, parse: Any, otherwise: Any) -> Any:
        try:
            return parsed(folder, name, parse) if folder.has(name) else otherwise
        except RunDirError as error:
            found.append(str(error).partition(f"{folder.uri}: ")[2])
            return otherwise

    history, evaluations = read_records(folder, space)
    run = RunFiles(
        uri=folder.uri,
        config_uri=(folder / "config.yaml").uri,
        config_text=parsed(folder, "config.yaml", bytes.decode),
        config=config,
        result=result,
        space=space,
        history=history,
        evaluations=evaluations,
        ledger=(),
        ledger_of="ledger.parquet",
        environment=optional("environment.json", json.loads, {}),
        log=optional("log.jsonl", read_log, []),
        tau_by_epoch=tau_by_epoch,
        probe=optional("probe.parquet", lambda data: read_parquet(data).to_pylist(), []),
        generated=_generated(folder, optional),
        notes=(),
    )
    rows = optional("ledger.parquet", read_ledger, None)
    if rows is None or len(rows) != len(history) * len(space.edges):
        rows = ledger(history, evaluations, space, keep_per_group(config))
        run = replace(run, ledger_of="computed for this page, since the run has no ledger.parquet of all its rounds")
    return replace(run, ledger=rows, notes=tuple(found))


def read_records(folder: Folder, space: SearchSpace) -> tuple[tuple[RoundRecord, ...], tuple[Evaluation, ...]]:
    """The rounds of a run, and its evaluations.

    Raises:
        RunDirError: One of the two files is missing or damaged.
    """
    history = parsed(folder, "theta.parquet", lambda data: read_history(data, space))
    return history, parsed(folder, "evaluations.parquet", lambda data: _evaluations(data, space))


def _setting(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _evaluations(data: bytes, space: SearchSpace) -> tuple[Evaluation, ...]:
    rows = read_evaluations(data)
    if not rows or any(len(row.alpha_E) != len(space.edges) for row in rows):
        raise ValueError("it has no rows, or they are of another space than space.json")
    return rows


def _generated(folder: Folder, optional: Any) -> list[dict[str, Any]]:
    own = folder / "generated"
    names = [name for name in own.names() if (own / name).has("genotype.json")]
    found = [optional(f"generated/{name}/genotype.json", _genotype, None) for name in names]
    return [network for network in found if network is not None]


def _genotype(data: bytes) -> dict[str, Any]:
    content = json.loads(data)
    keys = ("budget", "target", "genotype", "expectation", "costs", "certificate")
    return content | {key: content[key] for key in keys}
