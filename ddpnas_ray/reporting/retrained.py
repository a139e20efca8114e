"""Summary of a finished retraining in a few lines of text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ddpnas_ray.console.progress import duration
from ddpnas_ray.spaces.target import target_text


def retrained_summary(result: Mapping[str, Any], out: str) -> str:
    """Summarise ``result.json`` of a retraining: every score with its split."""
    lines = [
        f"network {result['label']} ({target_text(result['target'])}): "
        + ", ".join(f"{value:,} {name}" for name, value in result["costs"].items() if name in ("params", "macs")),
        *(f"  {key}: {json.dumps(value)}" for key, value in result["genotype"].items()),
        *map(score_text, result["scores"]),
        *([] if not result["test_note"] else [f"no test score: {result['test_note']}"]),
        f"{result['epochs']} epochs on {result['train_examples']:,} images ({examples_text(result)}), "
        f"{duration(result['seconds'])} on {' and '.join(map(str, result['workers']))} worker(s)",
        *(f"device {kind}" for kind in result["devices"]),
        f"fingerprint {result['fingerprint']}",
        f"retrained network {out}",
    ]
    return "\n".join(lines)


def score_text(score: Mapping[str, Any]) -> str:
    """Describe one score, such as ``test accuracy 0.9777 (trained from scratch, 1 seed)``."""
    spread = "" if score["std"] is None else f" +- {score['std']:.4f}"
    seeds = f"{score['seeds']} seed{'s' if score['seeds'] > 1 else ''}"
    return f"{score['split']} {score['metric']} {score['value']:.4f}{spread} ({score['weights']}, {seeds})"


def examples_text(result: Mapping[str, Any]) -> str:
    """Describe the training examples."""
    return "the search's training images" if result["train_on"] == "train" else "training and validation images"
