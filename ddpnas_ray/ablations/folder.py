"""Directory of an ablation: created atomically, saves each search as it finishes, and can be resumed after a kill.

``config.yaml``, ``ablation.json`` (what, arguments, environment, summary), ``trials.jsonl`` (one line per finished
search), ``trials.parquet``, ``table.md``, ``plot.png``, ``plot.svg``. ``finished`` in ``ablation.json`` is set last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpnas_ray.ablations.outcomes import Outcome
from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.experiment.changes import fixed_keys, places
from ddpnas_ray.experiment.config import SearchConfig, check, dump, set_key, to_dict
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.runs.directory import parsed
from ddpnas_ray.runs.environment import environment
from ddpnas_ray.runs.files import json_file
from ddpnas_ray.storage.folder import Folder

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Report:
    """Results of an ablation.

    Args:
        summary: Rows of ``ablation.json``.
        table: Markdown.
        trials: ``trials.parquet``.
        figures: ``plot.png`` and ``plot.svg``.
    """

    summary: list[dict[str, Any]]
    table: str
    trials: bytes
    figures: Mapping[str, bytes]


@dataclass(frozen=True)
class Saved:
    """An ablation read from its directory.

    Args:
        folder: Its directory.
        config: Base configuration.
        content: ``ablation.json``.
        outcomes: The finished searches.
    """

    folder: Folder
    config: SearchConfig
    content: dict[str, Any]
    outcomes: tuple[Outcome, ...]

    @property
    def finished(self) -> bool:
        """Whether all searches have finished."""
        return bool(self.content["finished"])


def content(
    what: str, config: SearchConfig, arguments: Mapping[str, Any], digest: str, summary: Sequence[Any] | None
) -> dict[str, Any]:
    """Return the content of ``ablation.json``; without a summary it is not finished."""
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
    """Return the initial files of a directory; with a report, all files."""
    ablation = content(what, config, arguments, digest, report.summary if report else None)
    files = {"config.yaml": dump(config).encode()}
    return (_report_files(report) if report else {}) | files | {"ablation.json": json_file(ablation)}


def _report_files(report: Report) -> dict[str, bytes]:
    """Return the files of the results."""
    return {"trials.parquet": report.trials, "table.md": report.table.encode(), **report.figures}


def finish(folder: Folder, started: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Write the results, ``ablation.json`` last; returns its content."""
    for name, data in _report_files(report).items():
        folder.write(name, data)
    done = {**started, "finished": True, "summary": report.summary}
    folder.write("ablation.json", json_file(done))
    return done


def restore(out: str, what: str, overrides: Sequence[str]) -> Saved:
    """Read an ablation to resume.

    Args:
        out: Its directory.
        what: The resuming sub-command.
        overrides: Locations of data (``places``) and ``execution.*``; nothing else may change.

    Raises:
        RunDirError: It is not an ablation, or of another sub-command, or a file is damaged.
        ConfigError: An override is not key=value.
    """
    folder = Folder.open(out)
    if not folder.has("ablation.json"):
        raise RunDirError(f"{out}: is not an ablation (no ablation.json in it); give the --out of an ablation")
    saved_content = parsed(folder, "ablation.json", _content)
    if (own := saved_content["what"]) != what:
        raise RunDirError(f"{out}: is an ablation {own!r}; resume with: ablate {own} --resume")
    saved = parsed(folder, "config.yaml", lambda data: check(parse(data.decode(), out), out))
    config = overridden(saved, overrides, out, "ablation")
    lines = folder.read("trials.jsonl").splitlines() if folder.has("trials.jsonl") else []
    outcomes = [Outcome.from_line(line) for line in lines]
    return Saved(folder, config, saved_content, tuple(outcome for outcome in outcomes if outcome is not None))


def overridden(saved: SearchConfig, overrides: Sequence[str], out: str, what: str) -> SearchConfig:
    """Apply overrides to the configuration of a resume.

    Args:
        saved: The saved configuration.
        overrides: Locations of data (``places``) and ``execution.*``.
        out: Its directory, for errors.
        what: Kind of the directory, for errors.

    Raises:
        RunDirError: An override could change a result.
        ConfigError: An override is not key=value.
    """
    values = to_dict(saved)
    for override in overrides:
        set_key(values, override)
    config = check(values, out, overrides)
    if changed := fixed_keys(saved, config):
        raise RunDirError(
            f"{out}: the {what} was started with other values of {', '.join(changed)}; only "
            f"{', '.join(('execution.*', *places(config)))} may change on --resume"
        )
    return config


def refuse_other_data(saved: Saved, digest: str) -> None:
    """Refuse data or a table other than the ablation's.

    Raises:
        RunDirError: The data differ.
    """
    if (before := saved.content["environment"]["data_digest"]) != digest:
        raise RunDirError(
            f"{saved.folder.uri}: the data differ from those of the ablation (SHA-256 {digest[:12]}, then "
            f"{before[:12]}); point data.path, evaluation.table or a path of the task to the original data, or start a "
            "new ablation with another --out"
        )


def keep(folder: Folder, outcome: Outcome) -> None:
    """Save a finished search."""
    folder.append("trials.jsonl", outcome.line())


def mend(saved: Saved) -> None:
    """Drop a line truncated by a kill."""
    if saved.folder.has("trials.jsonl"):
        saved.folder.write("trials.jsonl", b"".join(outcome.line() + b"\n" for outcome in saved.outcomes))


def _content(data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict) or found.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"not of schema version {SCHEMA_VERSION}")
    found["what"], found["arguments"], found["finished"], found["environment"]["data_digest"]  # KeyError: damaged
    return dict(found)
