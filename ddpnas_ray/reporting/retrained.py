"""Retrainings in a few lines of text, and as rows of a run's page."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ddpnas_ray.console.progress import duration
from ddpnas_ray.reporting.retrained_files import RetrainedFiles
from ddpnas_ray.retraining.prepare import RETRAINED
from ddpnas_ray.spaces.target import target_text


def retrained_summary(result: Mapping[str, Any], out: str) -> str:
    """Summarise ``result.json`` of a retraining: every score with its split."""
    lines = [
        f"network {result['label']} ({target_text(result['target'])}): "
        + ", ".join(f"{value:,} {name}" for name, value in result["costs"].items() if name in ("params", "macs")),
        *(f"  {key}: {json.dumps(value)}" for key, value in result["genotype"].items()),
        *map(score_text, result["scores"]),
        *([] if not result["test_note"] else [f"no test score: {result['test_note']}"]),
        f"{result['epochs']} epochs on {result['train_examples']:,} examples ({examples_text(result)}), "
        f"{duration(result['seconds'])} on {' and '.join(map(str, result['workers']))} worker(s)",
        *(f"device {kind}" for kind in result["devices"]),
        f"fingerprint {result['fingerprint']}",
        f"retrained network {out}",
    ]
    return "\n".join(lines)


def retrained_list(retrainings: Sequence[RetrainedFiles]) -> list[str]:
    """List the retrainings of a run, one per line, with their scores or the epochs so far; empty without any."""
    lines = []
    for files in retrainings:
        costs = files.network["costs"]
        size = ", ".join(f"{costs[name]:,} {name}" for name in ("params", "macs") if name in costs)
        state = f"not finished, {files.saved_text}" if files.result is None else _finished_text(files.result)
        lines.append(f"  {files.label} ({size}): {state}")
    return ["retrained networks", *lines] if lines else []


def retrained_rows(retrainings: Sequence[RetrainedFiles], *, links: bool) -> list[dict[str, Any]]:
    """Return one row per retraining of a run, as text.

    Args:
        retrainings: Finished or not.
        links: Whether to link to their own pages, relative to the run directory.
    """
    rows = []
    for files in retrainings:
        costs, result = files.network["costs"], files.result
        scores = {} if result is None else {score["split"]: value_text(score) for score in result["scores"]}
        expectation, searched = files.network["search"].get("expectation"), files.search_score
        page = f"{RETRAINED}/{quote(files.folder.path.rpartition('/')[2])}/report.html"
        rows.append(
            {
                "label": files.label,
                "params": f"{costs['params']:,}" if "params" in costs else "-",
                "macs": f"{costs['macs']:,}" if "macs" in costs else "-",
                "expectation": "-" if expectation is None else f"{expectation:.4f}",
                "search": "-" if searched is None else f"{searched['value']:.4f} ({searched['split']})",
                "val": scores.get("val", "-"),
                "test": scores.get("test", "-"),
                "seeds": str(len(files.saved)),
                "epochs": str(files.epochs) if result is not None else f"{sum(files.saved.values())} so far",
                "notes": [] if result is not None else [f"not finished: {files.saved_text}"],
                "page": page if links and files.folder.has("report.html") else "",
            }
        )
    return rows


def value_text(score: Mapping[str, Any]) -> str:
    """Format a score with its standard deviation, if known."""
    return f"{score['value']:.4f}" + ("" if score["std"] is None else f" \u00b1 {score['std']:.4f}")


def _finished_text(result: Mapping[str, Any]) -> str:
    """Describe scores and epochs of a finished retraining."""
    scores = ", ".join(score_text({**score, "by_task": {}}) for score in result["scores"]) or "no score"
    return f"{scores}, {result['epochs']} epochs"


def score_text(score: Mapping[str, Any]) -> str:
    """Describe one score, such as ``test accuracy 0.9777 (trained from scratch, 1 seed)``."""
    spread = "" if score["std"] is None else f" +- {score['std']:.4f}"
    seeds = f"{score['seeds']} seed{'s' if score['seeds'] > 1 else ''}"
    text = f"{score['split']} {score['metric']} {score['value']:.4f}{spread} ({score['weights']}, {seeds})"
    if len(by_task := score.get("by_task", {})) > 1:
        parts = [f"{name} {value:.4f}".replace(" ", "\u00a0") for name, value in by_task.items()]
        text += "\n" + textwrap.indent(_wrapped(", ".join(parts)), "  ")
    return text.replace("\u00a0", " ")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def examples_text(result: Mapping[str, Any]) -> str:
    """Describe the training examples."""
    return "training split only" if result["train_on"] == "train" else "training and validation split"
