"""Files of a retraining's folder, by default ``RUN/retrained/<label>``.

``network.json`` (the architecture, the run and the teacher), ``config.yaml``, ``environment.json``, ``log.jsonl``,
``result.json`` (scores), and for each seed ``seed-<n>/checkpoints``, ``seed-<n>/weights.safetensors`` and, if its task
shows anything, ``seed-<n>/illustrations``.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.experiment.config import SearchConfig, check, dump
from ddpnas_ray.experiment.yaml_text import parse
from ddpnas_ray.retraining.choice import Chosen
from ddpnas_ray.retraining.illustrations import illustration_files, parse_illustrations
from ddpnas_ray.retraining.retraining import Retraining
from ddpnas_ray.runs.directory import parsed, read_config
from ddpnas_ray.runs.environment import environment
from ddpnas_ray.runs.files import SCHEMA_VERSION, json_file
from ddpnas_ray.runs.sealed import restore_sealed, write_sealed
from ddpnas_ray.storage.folder import Folder
from ddpnas_ray.tasks.base import Illustrations

Tensors = Mapping[str, npt.NDArray[Any]]
History = tuple[Mapping[str, Any], ...]
SPLITS = {"val": "validation", "test": "test"}


def first_files(retraining: Retraining) -> dict[str, bytes]:
    """Return the initial files; ``config.yaml`` last, as it makes the folder a run."""
    config = retraining.config
    return {
        "network.json": json_file({**retraining.chosen.json(), **origin(retraining)}),
        "environment.json": json_file(environment(config.seed, retraining.digest)),
        "config.yaml": dump(config).encode(),
    }


def origin(retraining: Retraining) -> dict[str, Any]:
    """Return what ``network.json`` records beside the architecture, for a resume."""
    teacher = retraining.teacher
    return {"run": dict(retraining.run), "teacher": None if teacher is None else teacher.json()}


def read_origin(folder: Folder) -> dict[str, Any]:
    """Read what ``network.json`` records beside the architecture; empty if an older version wrote it.

    Raises:
        RunDirError: It is missing or damaged.
    """
    content = parsed(folder, "network.json", json.loads)
    return {"run": content.get("run", {}), "teacher": content.get("teacher")}


def saved_config(folder: Folder) -> SearchConfig:
    """Read ``config.yaml``.

    Raises:
        RunDirError: It is missing or damaged.
        ConfigError: A key or value is not allowed.
    """
    return check(parse(read_config(folder), folder.uri), f"{folder.uri}/config.yaml")


def checkpoints(folder: Folder, seed: int) -> Folder:
    """Return the folder of a seed's checkpoints."""
    return folder / f"seed-{seed}" / "checkpoints"


def save_checkpoint(
    folder: Folder,
    seed: int,
    epoch: int,
    tensors: Tensors,
    history: History,
    shown: Illustrations | None = None,
) -> None:
    """Write a sealed checkpoint.

    Raises:
        RunDirError: It cannot be written; older ones are intact.
    """
    files = {
        "history.json": json_file({"epoch": epoch, "history": list(history)}),
        "arrays.safetensors": tensors_file(tensors),
        **({} if shown is None else illustration_files(shown, history)),
    }
    write_sealed(checkpoints(folder, seed), epoch, files)


def restore_checkpoint(
    folder: Folder, seed: int
) -> tuple[int, dict[str, npt.NDArray[Any]], History, Illustrations | None] | None:
    """Return epochs, tensors, history and illustrations of the latest valid checkpoint; None if there is none."""

    def parse_files(
        files: Mapping[str, bytes],
    ) -> tuple[int, dict[str, npt.NDArray[Any]], History, Illustrations | None]:
        content, tensors = json.loads(files["history.json"]), dict(load_tensors(files["arrays.safetensors"]))
        return int(content["epoch"]), tensors, tuple(content["history"]), parse_illustrations(files)

    return restore_sealed(checkpoints(folder, seed), parse_files, "the training")


def tensors_file(tensors: Tensors) -> bytes:
    """Return tensors as safetensors."""
    # not ascontiguousarray, which gives scalars an axis
    return bytes(save_tensors({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}))


def fingerprint(tensors: Tensors) -> str:
    """Return the SHA-256 over names and values of tensors, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        digest.update(f"{name} {array.dtype.name} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def result_content(retraining: Retraining, trainings: Sequence[Mapping[str, Any]], note: str) -> dict[str, Any]:
    """Return the content of ``result.json``.

    Args:
        retraining: What was trained.
        trainings: Per seed: seed, fingerprint of the weights, history.
        note: Why there is no test score; empty if there is one.
    """
    config, chosen = retraining.config, retraining.chosen
    recipe = config.retraining
    metric, weights = retraining.task.metric.name, "trained from scratch"
    if recipe.init != "scratch":
        weights = f"{recipe.init} ({retraining.inherited_share:.0%} of the parameters), then trained"
    scores = []
    for split in SPLITS:
        values = [row["history"][-1][split] for row in trainings]
        if None not in values:
            scores.append(
                {
                    "split": split,
                    "metric": metric,
                    "value": statistics.mean(values),
                    "std": statistics.stdev(values) if len(values) > 1 else None,
                    "seeds": len(values),
                    "weights": weights,
                    **_by_task([row["history"][-1].get(f"{split}_by_task") for row in trainings]),
                }
            )
    every = [row for training in trainings for row in training["history"]]
    best = _best_training(trainings)
    return {
        "schema_version": SCHEMA_VERSION,
        "label": chosen.label,
        "space": dict(chosen.space),
        "genotype": dict(chosen.genotype),
        "target": chosen.json()["target"],
        "costs": dict(chosen.costs),
        "search": dict(chosen.search),
        "data": config.searched_on,
        "train_on": recipe.train_on,
        "train_examples": retraining.task.train_examples,
        "epochs": recipe.epochs,
        "teacher": origin(retraining)["teacher"],
        "scores": scores,
        "test_note": note,
        "seed": best["seed"],
        "trainings": [
            {"seed": row["seed"], "fingerprint": row["fingerprint"], **_last(row["history"])} for row in trainings
        ],
        "seconds": round(sum(row["train_s"] + row["score_s"] for row in every), 3),
        "workers": sorted({row["workers"] for row in every}),
        "devices": sorted({row["device"] for row in every}),
        "fingerprint": best["fingerprint"],
    }


def _by_task(rows: Sequence[Mapping[str, float] | None]) -> dict[str, Any]:
    """Return the mean score of each task over the seeds that have it; nothing for a task that is not several."""
    known = [row for row in rows if row]
    if not known:
        return {}
    names = dict.fromkeys(name for row in known for name in row)
    return {"by_task": {name: statistics.mean(row[name] for row in known if name in row) for name in names}}


def _best_training(trainings: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the training to export: of the best validation score, else of the first seed; never chosen by test."""
    return max(trainings, key=lambda row: _last(row["history"])["val"] or 0.0)


def _last(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: history[-1][key] for key in ("loss", "val", "test")}


def read_retrained(folder: Folder) -> dict[str, Any]:
    """Read ``result.json`` of a finished retraining.

    Raises:
        RunDirError: It has not finished, or is damaged.
    """
    if not folder.has("result.json"):
        raise RunDirError(
            f"{folder.uri}: the retraining has not finished; repeat its command with --resume, or start one with "
            "python -m ddpnas_ray.retrain RUN"
        )
    result: dict[str, Any] = parsed(folder, "result.json", json.loads)
    if "trainings" not in result:
        raise RunDirError(f"{folder.uri}: result.json is not that of a retraining")
    return result


def read_trained(folder: Folder) -> tuple[Chosen, dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Read a finished retraining: the architecture, the state dict of its network, and ``result.json``.

    Raises:
        RunDirError: It has not finished, or is damaged.
    """
    result, chosen = read_retrained(folder), Chosen.read(folder)
    tensors = parsed(folder / f"seed-{result['seed']}", "weights.safetensors", load_tensors)
    if fingerprint(tensors) != result["fingerprint"]:
        raise RunDirError(
            f"{folder.uri}: seed-{result['seed']}/weights.safetensors is not what the training wrote; delete "
            "result.json and repeat the retrain command with --resume, which writes both from the last checkpoint"
        )
    return chosen, dict(tensors), result
