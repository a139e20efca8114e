"""A finished run in a few lines of text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ddpnas_ray.reporting.progress import duration


def summary(result: Mapping[str, Any], out: str) -> str:
    """Genotype, costs and scores of ``result.json``, each number with its split or target."""
    target, scores = result["target"], result["scores"]
    lines = [f"  {key}: {json.dumps(value)}" for key, value in result["genotype"].items()]
    costs = ", ".join(f"{value:,} {name}" for name, value in result["costs"].items())
    named = (
        f"{target['cells']} cells, {target['channels']} channels, {target['image_size']} px, "
        f"{target['classes']} classes, {target['stem']} stem"
    )
    return "\n".join(
        [
            f"genotype (E[alpha] {result['expectation']:.4f})",
            *lines,
            f"costs of the target network ({named}): {costs}",
            f"scores of {scores['of']}, {scores['split']} split: best {scores['best']:.4f}, "
            f"mean of the last epoch {scores['last_epoch_mean']:.4f}",
            f"{result['architecture_epochs']} architecture-epochs in {result['rounds']} rounds, "
            f"{duration(result['seconds'])}, {result['workers']} worker(s), seed {result['seed']}",
            f"fingerprint {result['fingerprint']}",
            f"run directory {out}",
        ]
    )
