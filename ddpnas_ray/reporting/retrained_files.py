"""Read the folder of a retraining for reports and `attach`: finished, running or stopped."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from safetensors.numpy import load as load_tensors

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.retraining.files import checkpoints, fingerprint
from ddpnas_ray.retraining.prepare import RETRAINED
from ddpnas_ray.retraining.progress import RetrainingProgress
from ddpnas_ray.runs.directory import parsed, read_result
from ddpnas_ray.runs.fingerprint import Recomputed
from ddpnas_ray.runs.lock import lock_holder
from ddpnas_ray.runs.log import read_log
from ddpnas_ray.runs.sealed import newest_epoch
from ddpnas_ray.storage.folder import Folder

Row = Mapping[str, Any]
NETWORK_KEYS = ("label", "space", "genotype", "target", "costs", "search")
RESULT_KEYS = ("scores", "test_note", "trainings", "seed", "epochs", "train_on", "train_examples", "data", "seconds")


@dataclass(frozen=True, kw_only=True)
class RetrainedFiles:
    """Content of a retraining's folder.

    Args:
        folder: The folder.
        config_text: Text of ``config.yaml``.
        config: Its content as dictionaries, with keys unchecked.
        network: ``network.json``.
        result: ``result.json``; None: not finished.
        environment: ``environment.json``; empty if missing.
        log: The events of ``log.jsonl``.
        saved: Epochs in the newest checkpoint of each seed.
        histories: Finished epochs of each seed, in order.
        search_score: Score of the network in its search, with ``value`` and ``split``; None if unknown.
        notes: Files that cannot be read.
    """

    folder: Folder
    config_text: str
    config: Mapping[str, Any]
    network: Row
    result: Row | None
    environment: Row
    log: Sequence[Row]
    saved: Mapping[int, int]
    histories: Mapping[int, Sequence[Row]]
    search_score: Row | None
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        """Label of the network."""
        return str(self.network["label"])

    @property
    def epochs(self) -> int:
        """Epochs of the recipe, per seed."""
        return int(self.config["retraining"]["epochs"])

    @property
    def saved_text(self) -> str:
        """How many epochs are saved."""
        done, seeds = sum(self.saved.values()), len(self.saved)
        each = f" ({seeds} seeds of {self.epochs})" if seeds > 1 else ""
        return f"{done} of {seeds * self.epochs} epochs{each} are saved" if done else "no epoch is saved"


def is_retraining(folder: Folder) -> bool:
    """Return whether a run directory is that of a retraining."""
    return folder.has("network.json")


def retrainings_of(run: Folder) -> list[Folder]:
    """Return the folders of a run's retrainings, finished or not."""
    below = run / RETRAINED
    return [below / name for name in below.names() if (below / name).has("config.yaml") and is_retraining(below / name)]


def read_retrainings(run: Folder) -> tuple[list[RetrainedFiles], list[str]]:
    """Read the retrainings of a run, finished or not, and return the errors of those that cannot be read."""
    found, errors = [], []
    for folder in retrainings_of(run):
        try:
            found.append(read_retraining(folder))
        except RunDirError as error:
            errors.append(str(error))
    return found, errors


def resume_command(folder: Folder) -> str:
    """Return the command line that resumes a retraining, with the run that it is below, if any."""
    run = _run_of(folder)
    words = ([] if run is None else [run.uri]) + ["--out", folder.uri, "--resume"]
    return shlex.join(["python", "-m", "ddpnas_ray.retrain", *words])


def read_retraining(folder: Folder) -> RetrainedFiles:
    """Read a retraining, finished or not. Optional files may be missing; those that cannot be read are noted.

    Raises:
        RunDirError: A required file is missing or damaged.
    """
    text = parsed(folder, "config.yaml", bytes.decode)
    config = parsed(folder, "config.yaml", lambda data: _config(data, f"{folder.uri}/config.yaml"))
    network = parsed(folder, "network.json", _network)
    notes: list[str] = []

    def optional(where: Folder, name: str, read: Any, otherwise: Any) -> Any:
        try:
            return parsed(where, name, read) if where.has(name) else otherwise
        except RunDirError as error:
            notes.append(str(error))
            return otherwise

    log = optional(folder, "log.jsonl", read_log, [])
    saved = {seed: newest_epoch(checkpoints(folder, seed)) for seed in _seeds(config)}
    histories = {}
    for seed, epoch in saved.items():
        sealed = checkpoints(folder, seed) / f"ckpt-{epoch}"
        logged = {row["epoch"]: row for row in log if row["event"] == "epoch" and row.get("seed") == seed}
        kept = optional(sealed, "history.json", lambda data: json.loads(data)["history"], [])
        rows = logged | {row["epoch"]: row for row in kept}
        histories[seed] = [rows[number] for number in sorted(rows)]
    return RetrainedFiles(
        folder=folder,
        config_text=text,
        config=config,
        network=network,
        result=parsed(folder, "result.json", _result) if folder.has("result.json") else None,
        environment=optional(folder, "environment.json", json.loads, {}),
        log=log,
        saved=saved,
        histories=histories,
        search_score=_search_score(_run_of(folder), network),
        notes=tuple(notes),
    )


def read_finished(folder: Folder) -> RetrainedFiles:
    """Read a finished retraining.

    Raises:
        RunDirError: It has not finished, or a required file is missing or damaged.
    """
    files = read_retraining(folder)
    if files.result is None:
        attach = shlex.join(["python", "-m", "ddpnas_ray.attach", folder.uri])
        running = lock_holder(folder) is not None
        then = f"it is running, follow it with: {attach}" if running else f"resume with: {resume_command(folder)}"
        raise RunDirError(f"{folder.uri}: the training has not finished: {files.saved_text}; {then}")
    return files


def verify_weights(files: RetrainedFiles) -> dict[int, Recomputed]:
    """Recompute the fingerprint of each seed's weights.

    Raises:
        RunDirError: A file is missing or unreadable.
    """
    assert files.result is not None
    recorded = {int(row["seed"]): str(row["fingerprint"]) for row in files.result["trainings"]}
    return {
        seed: Recomputed(value, fingerprint(parsed(files.folder / f"seed-{seed}", "weights.safetensors", load_tensors)))
        for seed, value in recorded.items()
    }


def logged_snapshot(files: RetrainedFiles, log: Sequence[Row]) -> dict[str, Any] | None:
    """Return the progress that a log tells, as ``RetrainingProgress.snapshot`` has it; None before the first epoch."""
    rows = [row for row in log if row["event"] == "epoch"]
    if not rows:
        return None
    last, seeds = rows[-1], list(files.saved)
    history = {row["epoch"]: row for row in rows if row["seed"] == last["seed"] and row["epoch"] <= last["epoch"]}
    progress = RetrainingProgress(files.label, seeds, files.epochs)
    progress.workers = last["workers"]
    progress.begin(last["seed"], tuple(history.values()))
    now = progress.snapshot()
    epochs_done = seeds.index(last["seed"]) * files.epochs + last["epoch"]
    each_s = sum(row["train_s"] + row["score_s"] for row in history.values()) / len(history)
    left_s = each_s * (len(seeds) * files.epochs - epochs_done)
    since = next((row["time"] for row in reversed(log) if row["event"] == "start"), last["time"])
    return now | {"done": epochs_done, "seconds": last["time"] - since, "seconds_left": left_s}


def _run_of(folder: Folder) -> Folder | None:
    """Return the run directory that a retraining's folder is below; None if it is elsewhere."""
    above, _, between = folder.path.rpartition("/")[0].rpartition("/")
    if between != RETRAINED:
        return None
    uri, question, query = folder.uri.partition("?") if "://" in folder.uri else (folder.uri, "", "")
    shown = uri.rstrip("/").rpartition(f"/{RETRAINED}/")[0] or above
    run = Folder(folder.filesystem, above, shown + question + query)
    return run if run.has("result.json") and run.has("theta.parquet") else None


def _search_score(run: Folder | None, network: Row) -> Row | None:
    """Return the score that the network had in its search, with inherited weights or from the table."""
    if run is None or not network["search"]:
        return None
    label = network["label"]
    try:
        result = read_result(run)
        if result["fingerprint"] != network["search"].get("fingerprint"):
            return None
        if result["genotype"] == network["genotype"]:
            rows = result.get("score_sheet", ())
            # "the answer" is of older versions
            found = [row for row in rows if row["what"].startswith(("result architecture", "the answer"))]
            return found[0] if found and found[0]["value"] is not None else None
        if (run / "generated" / label).has("genotype.json"):
            score: Row | None = parsed(run / "generated" / label, "genotype.json", json.loads).get("score")
            return score
    except RunDirError:
        return None
    return None


def _seeds(config: Row) -> list[int]:
    return [config["seed"] + i for i in range(config["retraining"]["seeds"])]


def _config(data: bytes, source: str) -> dict[str, Any]:
    config = parse(data.decode(), source)
    for key in ("epochs", "seeds"):
        if not isinstance(config["retraining"][key], int):
            raise ValueError(f"retraining.{key} is not a number")
    return config | {"seed": int(config["seed"])}


def _network(data: bytes) -> dict[str, Any]:
    content = json.loads(data)
    return content | {key: content[key] for key in NETWORK_KEYS}


def _result(data: bytes) -> dict[str, Any]:
    content = json.loads(data)
    if not isinstance(content, dict):
        raise ValueError("it is not the result of a retraining")
    return content | {key: content[key] for key in RESULT_KEYS}
