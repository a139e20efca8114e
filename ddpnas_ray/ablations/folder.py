"""The directory of an ablation: it appears whole, keeps every finished search, and goes on after a kill.

``config.yaml``, ``ablation.json`` (what, arguments, environment, summary), ``trials.jsonl`` (a line a finished search,
as they finish), ``trials.parquet``, ``table.md``, ``plot.png``, ``plot.svg``. ``ablation.json`` says ``finished`` last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpnas_ray.ablations.outcomes import Outcome
from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.experiment.config import SearchConfig, check, dump, fixed_keys, set_key, to_dict
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.runs.directory import parsed
from ddpnas_ray.runs.environment import environment
from ddpnas_ray.runs.files import json_file
from ddpnas_ray.storage.folder import Folder

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Report:
    """What an ablation found.

    Args:
        summary: Rows for machines.
        table: For people: Markdown.
        trials: ``trials.parquet``.
        figures: ``plot.png`` and ``plot.svg``.
    """

    summary: list[dict[str, Any]]
    table: str
    trials: bytes
    figures: Mapping[str, bytes]


@dataclass(frozen=True)
class Saved:
    """An ablation that was started.

    Args:
        folder: Its directory.
        config: What is varied.
        content: ``ablation.json``.
        outcomes: The searches that finished.
    """

    folder: Folder
    config: SearchConfig
    content: dict[str, Any]
    outcomes: tuple[Outcome, ...]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return bool(self.content["finished"])


def content(
    what: str, config: SearchConfig, arguments: Mapping[str, Any], digest: str, summary: Sequence[Any] | None
) -> dict[str, Any]:
    """``ablation.json``; without a summary it is not finished."""
    return {
        "schema_version": SCHEMA_VERSION,
        "what": what,
        "arguments": dict(arguments),
        "environment": environment(config.seed, digest),
        "finished": summary is not None,
        "summary": summary,
    }


def first_files(
    what: str, config: SearchConfig, arguments: Mapping[str, Any], digest: str, report: Report | None = None
) -> dict[str, bytes]:
    """What a directory appears with; with a report that is all it will ever have."""
    facts = content(what, config, arguments, digest, report.summary if report else None)
    files = {"config.yaml": dump(config).encode()}
    return (report_files(report) if report else {}) | files | {"ablation.json": json_file(facts)}


def report_files(report: Report) -> dict[str, bytes]:
    """The results, for machines and for people."""
    return {"trials.parquet": report.trials, "table.md": report.table.encode(), **report.figures}


def finish(folder: Folder, facts: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Write the results; ``ablation.json`` comes last."""
    for name, data in report_files(report).items():
        folder.write(name, data)
    done = {**facts, "finished": True, "summary": report.summary}
    folder.write("ablation.json", json_file(done))
    return done


def restore(out: str, what: str, overrides: Sequence[str]) -> Saved:
    """An ablation to go on with.

    Args:
        out: Its directory.
        what: The sub-command that is going on.
        overrides: Where the data lie and how the work is executed; nothing else may change.

    Raises:
        RunDirError: It is none, or of another sub-command, or a file is damaged.
        ConfigError: An override is no key=value.
    """
    folder = Folder.open(out)
    if not folder.has("ablation.json"):
        raise RunDirError(f"{out}: is no ablation (no ablation.json there); give what ablate wrote with --out")
    facts = parsed(folder, "ablation.json", _facts)
    if facts["what"] != what:
        raise RunDirError(f"{out}: is an ablation {facts['what']!r}; go on with: ablate {facts['what']} --resume")
    saved = parsed(folder, "config.yaml", lambda data: check(parse(data.decode(), out), out))
    config = overridden(saved, overrides, out, "ablation")
    lines = folder.read("trials.jsonl").splitlines() if folder.has("trials.jsonl") else []
    outcomes = [Outcome.from_line(line) for line in lines]
    return Saved(folder, config, facts, tuple(outcome for outcome in outcomes if outcome is not None))


def overridden(saved: SearchConfig, overrides: Sequence[str], out: str, what: str) -> SearchConfig:
    """A configuration to go on with.

    Args:
        saved: The one it was started with.
        overrides: Where the data lie and how the work is executed.
        out: Where it is from.
        what: What goes on.

    Raises:
        RunDirError: An override could change a result.
        ConfigError: An override is no key=value.
    """
    values = to_dict(saved)
    for override in overrides:
        set_key(values, override)
    config = check(values, out, overrides)
    if changed := fixed_keys(saved, config):
        raise RunDirError(
            f"{out}: the {what} was started with other values of {', '.join(changed)}; only execution.*, data.path "
            "and evaluation.table may change on --resume"
        )
    return config


def refuse_other_data(saved: Saved, digest: str) -> None:
    """Raise where the data or the table are not those that the ablation was started with.

    Raises:
        RunDirError: They are others.
    """
    if (before := saved.content["environment"]["data_digest"]) != digest:
        raise RunDirError(
            f"{saved.folder.uri}: the data are not those that the ablation was started with (SHA-256 {digest[:12]}, "
            f"then {before[:12]}); point data.path or evaluation.table at the same ones, or start anew elsewhere"
        )


def keep(folder: Folder, outcome: Outcome) -> None:
    """Add a finished search."""
    folder.append("trials.jsonl", outcome.line())


def mend(saved: Saved) -> None:
    """Drop what a kill cut short, so that the next line starts on its own."""
    if saved.folder.has("trials.jsonl"):
        saved.folder.write("trials.jsonl", b"".join(outcome.line() + b"\n" for outcome in saved.outcomes))


def _facts(data: bytes) -> dict[str, Any]:
    facts = json.loads(data)
    if not isinstance(facts, dict) or facts.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"it is not of schema version {SCHEMA_VERSION}")
    facts["what"], facts["arguments"], facts["finished"], facts["environment"]["data_digest"]  # KeyError: damaged
    return dict(facts)
