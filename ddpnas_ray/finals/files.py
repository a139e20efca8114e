"""Files of finals, by default ``RUN/finals/<budget>``; ``unbounded`` without one.

``networks.json`` (and the teacher) and ``config.yaml`` (what was started), ``log.jsonl``,
``<network>/seed-<n>/checkpoints``, and at the end ``curves.png``, ``curves.svg``, ``genotype.json`` (the winner) and
``result.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ddpnas_ray.core.errors import RunDirError
from ddpnas_ray.retraining.choice import Chosen
from ddpnas_ray.runs.directory import parsed
from ddpnas_ray.runs.files import SCHEMA_VERSION, json_file
from ddpnas_ray.storage.folder import Folder

FINALS = "finals"


def read_networks(folder: Folder) -> list[Chosen]:
    """Read ``networks.json``.

    Raises:
        RunDirError: It is missing or damaged.
    """
    return parsed(folder, "networks.json", lambda data: [Chosen.of_json(row) for row in json.loads(data)["networks"]])


def read_teacher(folder: Folder) -> dict[str, Any] | None:
    """Read which teacher the networks were started with, from ``networks.json``.

    Raises:
        RunDirError: It is missing or damaged.
    """
    teacher: dict[str, Any] | None = parsed(folder, "networks.json", json.loads).get("teacher")
    return teacher


def read_finals(folder: Folder) -> dict[str, Any]:
    """Read ``result.json`` of finished finals.

    Raises:
        RunDirError: They have not finished, or the file is damaged.
    """
    if not folder.has("result.json"):
        raise RunDirError(f"{folder.uri}: the finals have not finished; repeat `generate --finals` to go on")

    def parse(data: bytes) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(data)
        return content | {"winner": content["winner"], "networks": list(content["networks"])}

    return parsed(folder, "result.json", parse)


def genotype_file(result: Mapping[str, Any]) -> bytes:
    """Return ``genotype.json``: the winner, for `retrain --genotype`."""
    winner = result["networks"][0]
    facts = {key: winner[key] for key in ("label", "genotype", "alpha", "costs", "expectation")}
    return json_file({"schema_version": SCHEMA_VERSION, **facts, "val": winner["val"][-1]})
